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

from limbeck.edge import EdgeError, measure
from tests.conftest import ROOT
from tests.edge.conftest import write_onnx

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


def test_no_child_outlives_a_killed_parent(files: dict[str, Path]) -> None:
    code = (
        "import sys; from pathlib import Path; from limbeck.edge import measure\n"
        "print('go', flush=True)\n"
        "measure.measure({'a': Path(sys.argv[1])}, threads=1, batch_size=1, warmup_runs=1, rounds=10**6,"
        " runs_per_round=10, bootstrap=100, seed=0)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, files["teacher"]], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    parent.stdout.readline()
    children: list[psutil.Process] = []
    deadline = time.monotonic() + 30
    while not children and time.monotonic() < deadline:
        children = psutil.Process(parent.pid).children()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert children
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive


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
