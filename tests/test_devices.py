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
