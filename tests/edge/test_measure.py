import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from limbeck.edge import EdgeError, measure
from tests.conftest import ROOT
from tests.edge.conftest import write_identity, write_onnx

SMALL = {"threads": 1, "batch_size": 2, "warmup_runs": 3, "rounds": 4, "runs_per_round": 5, "bootstrap": 100, "seed": 0}


def test_importing_the_devices_part_imports_none_of_the_rest() -> None:
    code = (
        "import sys, limbeck.edge.cli, limbeck.edge.golden, limbeck.edge.measure\n"
        "heavy = {'torch', 'mlflow', 'prefect', 'dvc', 'pydantic', 'psutil', 'yaml', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_file_is_measured_and_compared(files: dict[str, Path]) -> None:
    found = measure.measure(files, **SMALL)  # type: ignore[arg-type]
    assert set(found["variants"]) == set(files)
    assert set(found["ratios"]) == {"teacher/model.fp32", "teacher/model.int8", "model.int8/model.fp32"}
    for name, row in found["variants"].items():
        assert row["p50_ms"]["value"] <= row["p90_ms"]["value"] <= row["p95_ms"]["value"] <= row["p99_ms"]["value"]
        for key in ("p50_ms", "p95_ms"):
            assert 0 < row[key]["low"] <= row[key]["value"] <= row[key]["high"]
        assert row["bytes"] == files[name].stat().st_size
        assert row["cold_start_ms"] > 0
        assert 0 <= row["peak_memory_mb"] < found["idle_peak_mb"] * 10
    assert found["machine"]["onnxruntime"]
    json.dumps(found, allow_nan=False)


@given(by_round=st.lists(st.lists(st.floats(0.01, 100), min_size=4, max_size=4), min_size=3, max_size=8))
def test_an_interval_holds_its_estimate(by_round: list[list[float]]) -> None:
    for percent in measure.QUANTILES.values():
        found = measure._quantile(np.array(by_round), percent, 100, 0)
        assert found["low"] <= found["value"] <= found["high"]


@given(factor=st.floats(0.1, 10))
def test_a_ratio_of_multiples_is_the_multiple(factor: float) -> None:
    under = np.random.default_rng(0).uniform(1, 2, (6, 5))
    found = measure._ratio(under * factor, under, 100, 0)
    assert found["value"] == pytest.approx(factor)
    assert found["low"] == pytest.approx(found["high"])


def test_predictions_in_a_child_are_the_sessions_own(tmp_path: Path, files: dict[str, Path]) -> None:
    x = np.random.default_rng(1).integers(0, 256, (7, 8, 8, 1), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    found = measure.predict(files["teacher"], tmp_path / "x.npy", threads=1, batch_size=3)
    expected = measure.open_session(files["teacher"], 1).run(None, {"input": x})[0]
    assert np.allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"), [(b"no model", r"broken.onnx cannot be run by onnxruntime here"), (None, "is missing")]
)
def test_a_file_that_cannot_run_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "broken.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EdgeError, match=message):
        measure.measure({"broken": path}, **SMALL)  # type: ignore[arg-type]


MEASURING = (
    "import sys; from pathlib import Path; from limbeck.edge import measure\n"
    "measure.measure({'a': Path(sys.argv[1])}, threads=1, batch_size=1, warmup_runs=1, rounds=10**6,"
    " runs_per_round=int(sys.argv[2]), bootstrap=100, seed=0)"
)
PREDICTING = (
    "import sys; from pathlib import Path; from limbeck.edge import measure\n"
    "measure.predict(Path(sys.argv[1]), Path(sys.argv[2]), threads=1, batch_size=1)"
)


def has_ended(child: psutil.Process) -> bool:
    """Whether a process runs no more; init may take seconds to reap what it left."""
    try:
        return bool(child.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def kill_while_a_child_works(code: str, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
    parent = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, env=env)
    working: list[psutil.Process] = []
    deadline = time.monotonic() + 30
    while not working and time.monotonic() < deadline:
        time.sleep(0.05)
        children = psutil.Process(parent.pid).children()
        working = [child for child in children if child.cpu_times().user > 1]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert working, "no child came to work"
    deadline = time.monotonic() + 5
    while not all(map(has_ended, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    alive = [child for child in children if not has_ended(child)]
    for child in alive:
        child.kill()
    assert not alive


@pytest.mark.parametrize("runs_per_round", [10, 10**8], ids=["between commands", "in the middle of one"])
def test_no_child_outlives_a_killed_parent(files: dict[str, Path], runs_per_round: int) -> None:
    kill_while_a_child_works(MEASURING, files["teacher"], str(runs_per_round))


def test_a_killed_prediction_leaves_neither_process_nor_file(tmp_path: Path, files: dict[str, Path]) -> None:
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.uint8, shape=(3_000_000, 8, 8, 1))
    del x
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    kill_while_a_child_works(
        PREDICTING, files["teacher"], tmp_path / "x.npy", env={**os.environ, "TMPDIR": str(scratch)}
    )
    assert not list(scratch.iterdir())


def test_a_runtime_that_dies_is_a_message(files: dict[str, Path]) -> None:
    def kill_all(done: int, total: int, note: str) -> None:
        for child in psutil.Process().children():
            child.kill()

    with pytest.raises(EdgeError, match=r"teacher.onnx cannot be run .* ended by SIGKILL, perhaps for want of memory"):
        measure.measure({"teacher": files["teacher"]}, **SMALL, progress=kill_all)  # type: ignore[arg-type]


def test_onnxruntime_tells_nobody_which_models_it_opens(tmp_path: Path, files: dict[str, Path]) -> None:
    # its telemetry keeps a session file in the temporary folder as soon as it is on
    env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    code = "import sys; from pathlib import Path; from limbeck.edge import measure; measure.open_session(Path(sys.argv[1]), 1)"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-c", code, files["teacher"]]
    subprocess.run(command, check=True, cwd=ROOT, env={**env, "TMPDIR": str(scratch)})
    assert not list(scratch.iterdir())


@pytest.mark.parametrize(
    ("kind", "shape", "message"),
    [
        (TensorProto.FLOAT, ["batch", "samples"], "only the first size, the batch, may be open"),
        (TensorProto.FLOAT, [4, 3], "takes batches of 4, asked was for 2"),
        (TensorProto.BOOL, ["batch", 3], r"is a tensor\(bool\); known: tensor\(uint8\)"),
    ],
)
def test_an_input_that_cannot_be_made_up_is_described(
    tmp_path: Path, kind: int, shape: list[str | int], message: str
) -> None:
    path = write_identity(tmp_path / "odd.onnx", kind, shape)
    with pytest.raises(EdgeError, match=message):
        measure.measure({"odd": path}, **SMALL)  # type: ignore[arg-type]


def test_token_indices_are_measured_too(tmp_path: Path) -> None:
    path = write_identity(tmp_path / "tokens.onnx", TensorProto.INT64, ["batch", 5])
    assert measure.measure({"tokens": path}, **SMALL)["variants"]["tokens"]["p50_ms"]["value"] > 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((0, 8, 8, 1), np.uint8), "holds no sample"),
        (np.zeros((2, 4), np.uint8), "INVALID_ARGUMENT"),
        (None, "x.npy is missing; expected an array of samples"),
    ],
)
def test_samples_that_do_not_fit_are_named(
    tmp_path: Path, files: dict[str, Path], x: np.ndarray | None, message: str
) -> None:
    if x is not None:
        np.save(tmp_path / "x.npy", x)
    with pytest.raises(EdgeError, match=message):
        measure.predict(files["teacher"], tmp_path / "x.npy", threads=1, batch_size=2)


def edge(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "limbeck.edge.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_command_prints_a_table_or_json(files: dict[str, Path]) -> None:
    few = ["--rounds", "3", "--runs-per-round", "5", "--warmup-runs", "1"]
    table = edge("bench", files["teacher"], *few)
    assert table.returncode == 0
    assert "p95 ms" in table.stdout
    answer = edge("bench", files["teacher"], files["model.fp32"], "--json", *few)
    assert set(json.loads(answer.stdout)["variants"]) == {"teacher", "model.fp32"}


def test_the_command_says_in_a_line_what_is_wrong(tmp_path: Path) -> None:
    write_onnx(tmp_path / "fine.onnx")
    failed = edge("bench", tmp_path / "absent.onnx")
    assert failed.returncode == 2
    assert "absent.onnx is missing" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.parametrize("flags", [["--rounds", "2"], ["--threads", "-1"], ["--runs-per-round", "0"]])
def test_the_command_refuses_numbers_that_measure_nothing(files: dict[str, Path], flags: list[str]) -> None:
    failed = edge("bench", files["teacher"], *flags)
    assert failed.returncode == 2
    assert f"argument {flags[0]}: expected at least" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_the_commands_help_shows_the_way_back_into_the_pipeline() -> None:
    shown = edge("bench", "--help").stdout
    assert "limbeck-edge bench export/phone/*.onnx --json > phone.json" in shown
    assert "device: {use: result, file: phone.json}" in shown
