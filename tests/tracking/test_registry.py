import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from limbeck.edge import manifest as manifest_file
from limbeck.errors import TrackingError
from limbeck.tracking import registry, server
from limbeck.tracking.registry import Version
from limbeck.tracking.runs import replay_finished
from limbeck.tracking.server import experiment_of, open_client
from tests.tracking.conftest import (
    EXPERIMENT,
    MODEL,
    aliases,
    begun,
    forget_the_process,
    promote,
    register,
    runs,
    samples,
    write_export,
)


def test_a_registered_version_loads_by_its_alias_and_answers_raw_input(uri: str, workspace: Path) -> None:
    import mlflow

    manifest = write_export(workspace / "export", 0.0)
    version = register(uri, workspace / "export", manifest)
    assert version == Version(MODEL, "1", True)
    assert promote(uri, version, workspace / "export", manifest).why == "the first champion"
    x, y = samples(4, 5)
    mlflow.set_tracking_uri(uri)
    loaded = mlflow.pyfunc.load_model(f"models:/{MODEL}@champion")
    answer = loaded.predict(x)
    logits = answer["logits"] if isinstance(answer, dict) else answer
    assert (np.asarray(logits).argmax(1) == y).all()
    inputs, outputs = loaded.metadata.signature.inputs, loaded.metadata.signature.outputs
    assert (inputs.inputs[0].shape, inputs.inputs[0].type) == ((-1, 1, 4, 1), np.dtype("uint8"))
    assert (outputs.inputs[0].name, outputs.inputs[0].shape) == ("logits", (-1, 4))
    assert loaded.metadata.saved_input_example_info is not None
    onnx.checker.check_model(mlflow.onnx.load_model(f"models:/{MODEL}@champion"))
    number, file = registry.fetch(MODEL, "champion", workspace / "back", uri=uri)
    assert (number, file.read_bytes()) == ("1", (workspace / "export/model.int8.onnx").read_bytes())
    (bundle,) = (workspace / "mlruns").rglob("extra_files")
    assert {path.name for path in bundle.iterdir()} == {
        "golden.npz",
        "manifest.json",
        "model.fp32.onnx",
        "model.int8.onnx",
    }
    assert registry.versions(MODEL, uri=uri) == [f"{MODEL} version 1: champion, candidate"]
    with pytest.raises(TrackingError, match="has no version with the alias 'previous'"):
        registry.fetch(MODEL, "previous", workspace / "back", uri=uri)


def test_the_same_content_makes_one_version_and_the_stage_one_run_each_time(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "export", 0.0)
    identity = manifest_file.identity(workspace / "export")
    assert not registry.is_registered(MODEL, identity, uri=uri)
    assert register(uri, workspace / "export", manifest).is_new
    assert register(uri, workspace / "export", manifest) == Version(MODEL, "1", False)
    assert registry.is_registered(MODEL, identity, uri=uri)
    assert registry.is_registered(MODEL, identity, uri=uri, variant="model.int8")
    assert not registry.is_registered(MODEL, identity, uri=uri, variant="model.fp32")
    assert replay_finished(uri=uri, experiment=EXPERIMENT) == 2
    found = runs(uri, stage="register@phone")
    assert [run.info.status for run in found] == ["FINISHED"] * 2
    assert all(run.data.tags["mlflow.parentRunId"] for run in found)


def test_a_kill_before_the_version_leaves_no_second_one(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "export", 0.0)
    client = open_client(uri)
    client.create_registered_model(MODEL)
    killed = begun("register@phone")
    experiment = experiment_of(client, uri, EXPERIMENT)
    run_id = registry._own_run(client, experiment, killed)
    logged = client.create_logged_model(experiment, "model", source_run_id=run_id)
    registry._log_model(uri, run_id, logged.model_id, workspace / "export", manifest, "model.int8")
    forget_the_process(killed)  # the model is logged, the version is not made
    assert register(uri, workspace / "export", manifest) == Version(MODEL, "1", True)
    assert len(client.search_model_versions(f"name = '{MODEL}'")) == 1


def test_a_kill_between_version_and_alias_is_mended_by_the_same_command(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "export", 0.0)
    register(uri, workspace / "export", manifest)
    open_client(uri).delete_registered_model_alias(MODEL, "candidate")
    register(uri, workspace / "export", manifest)
    assert aliases(uri) == {"candidate": "1"}


def test_an_away_server_refuses_to_register_and_counts_as_having_it(closed_server: str, workspace: Path) -> None:
    manifest = write_export(workspace / "export", 0.0)
    with pytest.raises(TrackingError, match=r"does not answer. What was computed is kept; the same command registers"):
        register(closed_server, workspace / "export", manifest)
    assert registry.is_registered(MODEL, "any", uri=closed_server)


@pytest.mark.slow
def test_a_real_server_keeps_runs_and_versions(workspace: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = [
        "--backend-store-uri",
        f"sqlite:///{workspace}/server.db",
        "--artifacts-destination",
        str(workspace / "kept"),
    ]
    with (workspace / "server.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *places], env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        limit = time.monotonic() + 90
        while not server.probe(uri):
            assert time.monotonic() < limit, (workspace / "server.log").read_text()
            time.sleep(0.5)
        begun().done({"quality": 0.5})
        assert replay_finished(uri=uri, experiment=EXPERIMENT) == 1
        manifest = write_export(workspace / "export", 0.0)
        version = register(uri, workspace / "export", manifest)
        assert promote(uri, version, workspace / "export", manifest).moved
        assert register(uri, workspace / "export", manifest) == Version(MODEL, "1", False)
        number, file = registry.fetch(MODEL, "champion", workspace / "back", uri=uri)
        assert (number, file.read_bytes()) == ("1", (workspace / "export/model.int8.onnx").read_bytes())
        assert len(runs(uri, pipeline="run-1")) == 1
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)
        server.forget(uri)
