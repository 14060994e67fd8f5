import copy
import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from limbeck import devices
from limbeck.edge import EdgeError, manifest
from limbeck.errors import DeviceError
from limbeck.params import Instructions, MeasureParams, Params, WitnessParams
from tests.edge.conftest import write_onnx

QEMU = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")


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


def witness(program: str, **more: Any) -> WitnessParams:
    keywords = {"use": "emulated", "program": program, "cpu": "Haswell", "num_samples": 5, "min_equal": 1.0}
    return WitnessParams.model_validate(keywords | more)


@pytest.fixture
def samples() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)


@pytest.fixture
def emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A program that takes `-cpu NAME` and runs the rest as it is; with the name `Other` it answers another file."""
    program = tmp_path / "emulator"
    program.write_text(
        '#!/bin/sh\nshift; cpu=$1; shift\nfor last; do :; done\n[ "$cpu" = Other ] && cp "$last.other" "$last"\nexec "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return program.name


def test_a_witness_answers_the_first_samples_file_by_file(
    tmp_path: Path, files: dict[str, Path], samples: NDArray[np.uint8], emulator: str
) -> None:
    found = devices.agreement(witness(emulator), files, samples, 1, tmp_path)
    same = {"equal_predictions": 1.0, "max_difference": 0.0}
    assert found == {
        "use": "emulated", "program": emulator, "cpu": "Haswell", "samples": 5, "variants": dict.fromkeys(files, same)
    }  # fmt: skip


def test_a_file_that_answers_otherwise_there_is_refused(
    tmp_path: Path, files: dict[str, Path], samples: NDArray[np.uint8], emulator: str
) -> None:
    write_onnx(tmp_path / "teacher.onnx.other", scale=-1.0)
    with pytest.raises(DeviceError, match=r"teacher answers otherwise elsewhere: .*% of its predictions on 5 samples"):
        devices.agreement(witness(emulator, cpu="Other"), files, samples, 1, tmp_path)


def test_an_emulator_that_is_not_there_says_where_it_comes_from(
    tmp_path: Path, files: dict[str, Path], samples: NDArray[np.uint8]
) -> None:
    with pytest.raises(
        DeviceError, match=r"qemu-none is not installed. Debian has it in qemu-user .*witness: {use: none}"
    ):
        devices.agreement(witness("qemu-none"), files, samples, 1, tmp_path)


@pytest.mark.slow  # an emulated processor takes seconds to import numpy
@pytest.mark.skipif(not QEMU, reason="qemu-user is not installed")
def test_a_haswell_that_qemu_plays_answers_like_this_machine(
    tmp_path: Path, files: dict[str, Path], samples: NDArray[np.uint8]
) -> None:
    found = devices.agreement(witness(str(QEMU)), files, samples, 1, tmp_path)
    assert {row["equal_predictions"] for row in found["variants"].values()} == {1.0}
    with pytest.raises(EdgeError, match=r"cannot be run by onnxruntime here: .*Pentium9"):
        devices.agreement(witness(str(QEMU), cpu="Pentium9"), files, samples, 1, tmp_path)


@pytest.mark.parametrize(
    ("reported", "instructions", "lacking"),
    [
        (["avx2"], "any", False),
        (["avx2"], "avx2", False),
        (["avx2"], "vnni", True),
        (["avx2", "avx_vnni"], "vnni", False),
        (["asimd", "asimddp"], "dotprod", False),
        (["asimd"], "dotprod", True),
        ([], "vnni", False),
    ],
)
def test_a_device_without_the_targets_instructions_is_refused(
    reported: list[str], instructions: Instructions, lacking: bool
) -> None:
    machine = {"cpu": "a processor", "instructions": reported}
    assert devices.lacks(machine, instructions) == lacking
    with (
        pytest.raises(DeviceError, match=rf"instructions are '{instructions}', its device a processor has")
        if lacking
        else nullcontext()
    ):
        devices.refuse_lacking(machine, instructions)
