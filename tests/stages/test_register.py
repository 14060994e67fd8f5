import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.edge import manifest as manifest_file
from limbeck.tracking.server import open_client
from tests.conftest import ROOT, TINY
from tests.tracking.conftest import write_export

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


MADE_ON = {"machine": {"arch": "x86_64", "onnxruntime": "1.31.1"}, "threads": 1, "batch_size": 1}


def write_metrics(workspace: Path, target: str, *, bytes_: int = 6_000, drop: float = 0.0) -> None:
    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "low": value, "high": value}

    quality = {
        variant: {split: {**estimate(0.9), "drop": estimate(drop)} for split in ("validation", "test")}
        for variant in ("teacher", "model.fp32", "model.int8")
    }
    latency = {
        variant: {"bytes": bytes_, "p50_ms": estimate(0.01), "p95_ms": estimate(0.01), "peak_memory_mb": 1.0}
        for variant in quality
    }
    folder = workspace / "metrics" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "quality.json").write_text(json.dumps({"metric": "accuracy", "test_count": 9, "variants": quality}))
    ratios = {"model.int8/model.fp32": estimate(0.5)}
    (folder / "latency.json").write_text(json.dumps({**MADE_ON, "variants": latency, "ratios": ratios}))


@pytest.fixture
def target() -> str:
    return str(next(iter(yaml.safe_load(TINY.read_text())["targets"])))


@pytest.fixture
def name() -> str:
    return str(yaml.safe_load(TINY.read_text())["name"])


@pytest.fixture
def workspace(tmp_path: Path, data: Path, target: str) -> Path:
    """Everything that stands before `register`: data, an export, figures."""
    for room in ("limbeck", "stages", "custom"):
        (tmp_path / room).symlink_to(ROOT / room)
    shutil.copy(TINY, tmp_path / "params.yaml")
    (tmp_path / "data").symlink_to(data)
    write_export(tmp_path / "export" / target, 0.0, 10, 8, 8)
    write_metrics(tmp_path, target)
    return tmp_path


def run(workspace: Path, target: str, uri: str = "") -> subprocess.CompletedProcess[str]:
    command = f"{sys.executable} -m stages register --target {target} --data data --exported export/{target}"
    command += f" --quality metrics/{target}/quality.json --latency metrics/{target}/latency.json"
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "LIMBECK_GROUP": "run-1", "LIMBECK_REPLAY": ""}
    return subprocess.run(
        [*command.split(), "--out", f"registry/{target}.json"],
        cwd=workspace,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_an_away_server_fails_register_alone_and_the_same_command_registers_later(
    workspace: Path, target: str, name: str
) -> None:
    params = workspace / "params.yaml"
    asked = params.read_text()
    params.write_text(asked.replace("champion_margin: 0.01", "champion_margin: null"))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts and never answers
        away = run(workspace, target, f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert away.returncode == 2
    assert "does not answer. What was computed is kept; the same command registers later" in away.stderr
    assert "Traceback" not in away.stderr
    out = workspace / "registry" / f"{target}.json"
    assert not out.exists()

    done = run(workspace, target)
    assert done.returncode == 0, done.stderr
    decision: dict[str, Any] = json.loads(out.read_text())
    identity = manifest_file.identity(workspace / "export" / target)
    assert (decision["target"], decision["identity"]) == (target, identity)
    assert "champion_margin is null, so version 1 stays a candidate" in done.stdout
    assert not (workspace / "ledger.jsonl").exists()

    params.write_text(asked)
    again = run(workspace, target)
    assert "was registered already" in again.stdout
    assert "champion moved: the first champion" in again.stdout
    assert json.loads(out.read_text()) == decision
    client = open_client(f"sqlite:///{workspace}/mlflow.db")
    (version,) = client.search_model_versions(f"name = '{name}-{target}'")
    assert version.tags["limbeck.identity"] == identity
    assert version.tags["limbeck.lineage"] == "none"
    assert {"limbeck.git", "limbeck.dirty", "limbeck.data", "limbeck.teacher", "limbeck.accuracy"} <= set(version.tags)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment], f"tags.`limbeck.stage` = 'register@{target}'")
    assert sorted(each.info.status for each in runs) == ["FAILED", "FINISHED", "FINISHED"]
    assert not list((workspace / ".limbeck/spool").glob("*.jsonl"))
    assert len((workspace / "ledger.jsonl").read_text().splitlines()) == 1


def test_a_broken_contract_is_exit_code_3_and_registers_nothing(workspace: Path, target: str) -> None:
    write_metrics(workspace, target, drop=0.9)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = run(workspace, target, f"http://127.0.0.1:{port}")  # the contract speaks first, server or no server
    assert done.returncode == 3
    assert "max_drop on validation: allowed" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (workspace / "registry" / f"{target}.json").exists()
