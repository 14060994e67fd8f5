import copy
import json
from pathlib import Path
from typing import Any

import pytest

from limbeck import devices
from limbeck.edge import manifest
from limbeck.errors import DeviceError
from limbeck.params import MeasureParams, Params
from tests.edge.conftest import write_onnx


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {name: write_onnx(tmp_path / f"{name}.onnx") for name in ("teacher", "model.fp32")}


def ask(device: Any, files: dict[str, Path], measure: MeasureParams, **keywords: Any) -> dict[str, Any]:
    answer: dict[str, Any] = device(files, 1, 1, measure, lambda *_: None, **keywords)
    return answer


def test_this_machine_measures_and_its_answer_can_be_brought_from_elsewhere(
    tmp_path: Path, files: dict[str, Path], tiny: Params
) -> None:
    measured = ask(devices.local, files, tiny.measure)
    (tmp_path / "answer.json").write_text(json.dumps(measured))
    arch = measured["machine"]["arch"]
    assert ask(devices.result, files, tiny.measure, file=str(tmp_path / "answer.json"), machine=arch) == measured


def test_a_machine_that_is_not_the_targets_device_is_refused(files: dict[str, Path], tiny: Params) -> None:
    with pytest.raises(DeviceError, match=r"the target's device is 'toaster', this is .* Run `limbeck-edge bench"):
        ask(devices.local, files, tiny.measure, machine="toaster")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 4}, "was measured with 4 threads at batch 1, the target asks for 1 at 1"),
        ({"variants": {}}, "did not measure these files: teacher, model.fp32 differ"),
        ({"machine": {"arch": "arm", "cpu": "other"}}, "the target's device is 'x', this is other"),
    ],
)
def test_an_answer_about_something_else_is_refused(
    tmp_path: Path, files: dict[str, Path], tiny: Params, change: dict[str, Any], message: str
) -> None:
    variants = {name: {"sha256": manifest.sha256(path)} for name, path in files.items()}
    answer = {"machine": {"arch": "x", "cpu": "x"}, "threads": 1, "batch_size": 1, "variants": variants, **change}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    with pytest.raises(DeviceError, match=message):
        ask(devices.result, files, tiny.measure, file=str(tmp_path / "answer.json"), machine="x")


def test_no_answer_or_another_file_says_how_to_get_one(tmp_path: Path, files: dict[str, Path], tiny: Params) -> None:
    with pytest.raises(DeviceError, match=r"is missing. Run `limbeck-edge bench FILES --json` on the device"):
        ask(devices.result, files, tiny.measure, file=str(tmp_path / "absent.json"))
    (tmp_path / "answer.json").write_text("[]")
    with pytest.raises(DeviceError, match="is no answer of `limbeck-edge bench --json`"):
        ask(devices.result, files, tiny.measure, file=str(tmp_path / "answer.json"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, tiny: Params) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("measured")
    same = {name: write_onnx(folder / f"{name}.onnx") for name in ("teacher", "model.fp32")}
    return ask(devices.local, same, tiny.measure)


@pytest.fixture
def answer(measured: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(measured)


def test_other_files_in_an_answer_are_left_out(
    tmp_path: Path, files: dict[str, Path], tiny: Params, answer: dict[str, Any]
) -> None:
    more = {
        **answer,
        "variants": {**answer["variants"], "student": answer["variants"]["teacher"]},
        "ratios": {**answer["ratios"], "teacher/student": answer["ratios"]["teacher/model.fp32"]},
    }
    (tmp_path / "answer.json").write_text(json.dumps(more))
    assert ask(devices.result, files, tiny.measure, file=str(tmp_path / "answer.json")) == answer


@pytest.mark.parametrize(
    ("room", "key", "change"),
    [
        ("teacher", "p95_ms", None),
        ("teacher", "peak_memory_mb", float("nan")),
        ("ratios", "teacher/model.fp32", None),
    ],
)
def test_an_answer_without_what_the_contract_needs_is_refused(
    tmp_path: Path,
    files: dict[str, Path],
    tiny: Params,
    answer: dict[str, Any],
    room: str,
    key: str,
    change: float | None,
) -> None:
    place = answer["ratios"] if room == "ratios" else answer["variants"][room]
    del place[key]
    if change is not None:
        place[key] = change
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    with pytest.raises(DeviceError, match=r"lacks what the contract is held against: .* Run `limbeck-edge bench"):
        ask(devices.result, files, tiny.measure, file=str(tmp_path / "answer.json"))


def test_one_architecture_has_two_names(
    tmp_path: Path, files: dict[str, Path], tiny: Params, answer: dict[str, Any]
) -> None:
    answer["machine"] = {"arch": "arm64", "cpu": "Apple M2"}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    for machine in ("aarch64", "arm64", "apple"):
        assert ask(devices.result, files, tiny.measure, file=str(tmp_path / "answer.json"), machine=machine) == answer
    answer["machine"] = {}
    (tmp_path / "answer.json").write_text(json.dumps(answer))
    with pytest.raises(DeviceError, match="the target's device is 'aarch64'"):
        ask(devices.result, files, tiny.measure, file=str(tmp_path / "answer.json"), machine="aarch64")


def test_a_folder_is_no_answer(tmp_path: Path, files: dict[str, Path], tiny: Params) -> None:
    with pytest.raises(DeviceError, match="is no answer of `limbeck-edge bench --json`"):
        ask(devices.result, files, tiny.measure, file=str(tmp_path))
