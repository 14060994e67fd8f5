"""Publishing to a real MLflow server on loopback, by the commands that a person types."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tuf.ngclient import UpdaterConfig
from tuf.ngclient.urllib3_fetcher import Urllib3Fetcher

from flows.services.servers import mlflow_command
from limbeck import ledger
from limbeck.errors import PublishingError, TrackingError
from limbeck.tracking import delivery
from limbeck.tracking.server import open_client
from tests.conftest import TINY
from tests.publishing.conftest import OTHER, Device, register_version
from tests.publishing.servers import ROUTE, environment, free_port, get, limbeck, running, serving, started
from tests.tracking.conftest import MODEL, aliases

pytestmark = pytest.mark.slow


@pytest.fixture
def served(workspace: Path) -> Iterator[str]:
    with serving(workspace) as uri:
        yield uri


def device(workspace: Path, name: str) -> Device:
    """From what `limbeck provision` wrote."""
    told = json.loads((workspace / "device/device.json").read_text())
    root = (workspace / "device/root.json").read_bytes()
    config = UpdaterConfig()
    return Device(
        workspace / name, root, Urllib3Fetcher(config.app_user_agent), f"{told['server']}{ROUTE}/{told['metadata']}/"
    )


def versions(workspace: Path) -> list[tuple[str, str]]:
    return [(e.model, e.version) for e in ledger.read(workspace / "ledger.jsonl") if e.alias == "served as champion"]


def test_a_version_is_published_rolled_back_renewed_and_loads_without_any_of_it(served: str, workspace: Path) -> None:
    import mlflow
    import onnxruntime

    limbeck(workspace, served, "keys", "init")
    assert f"{MODEL} version 1 is champion at {served}" in limbeck(workspace, served, "publish", MODEL, "--serial", "1")
    limbeck(workspace, served, "publish", MODEL, "--serial", "2")
    limbeck(workspace, served, "provision", MODEL, "--out", "device")
    mine = device(workspace, "mine")
    found = mine.sees()
    assert found["serial"] == 2
    manifest = get(served, f"{found['artifacts']}/manifest.json")
    assert len(manifest) == found["length"]
    model = get(served, f"{found['artifacts']}/model.int8.onnx")
    assert onnxruntime.InferenceSession(model).get_outputs()[0].name == "logits"
    assert get(served, f"{found['artifacts']}/model.int8.onnx", Range="bytes=100-") == model[100:]
    mlflow.set_tracking_uri(served)
    assert mlflow.onnx.load_model(f"models:/{MODEL}@champion").SerializeToString() == model
    assert "version 2 was champion" in limbeck(workspace, served, "publish", MODEL, "--serial", "2")
    assert mine.sees()["serial"] == 2
    limbeck(workspace, served, "rollback", MODEL)
    assert mine.sees()["serial"] == 1
    assert aliases(served)["champion"] == "1"
    limbeck(workspace, served, "renew")
    assert mine.sees()["serial"] == 1
    assert mine.versions == sorted(mine.versions)
    limbeck(workspace, served, "keys", "rotate", "timestamp")
    limbeck(workspace, served, "publish", MODEL, "--alias", "canary", "--serial", "2", "--share", "0.5")
    assert (mine.sees("canary")["serial"], mine.sees()["serial"]) == (2, 1)
    limbeck(workspace, served, "publish", MODEL, "--serial", "2", "--folder", "stick")
    assert (workspace / "stick/artifacts" / found["artifacts"] / "manifest.json").read_bytes() == manifest
    assert versions(workspace) == [(MODEL, version) for version in ("1", "2", "1", "2")]
    names = {each.name for each in open_client(served).search_experiments()}
    assert {MODEL, "limbeck-metadata"} <= names


def test_two_publishers_at_once_on_a_new_server_both_get_through(served: str, workspace: Path) -> None:
    limbeck(workspace, served, "keys", "init")
    several = [started(workspace, served, "publish", model) for model in (MODEL, OTHER, MODEL, OTHER)]
    told = [process.communicate() for process in several]
    assert [process.returncode for process in several] == [0] * 4, told
    limbeck(workspace, served, "provision", MODEL, "--out", "device")
    assert device(workspace, "mine").sees()["serial"] == 2
    assert device(workspace, "mine").sees(model=OTHER)["serial"] == 1
    several = [
        started(workspace, served, *arguments)
        for arguments in (("publish", MODEL, "--serial", "1"), ("renew",), ("renew",))
    ]
    told = [process.communicate() for process in several]
    assert [process.returncode for process in several] == [0] * 3, told
    assert device(workspace, "mine").sees()["serial"] == 1


def test_a_publisher_that_is_killed_at_any_moment_is_finished_by_the_same_command(served: str, workspace: Path) -> None:
    limbeck(workspace, served, "keys", "init")
    limbeck(workspace, served, "publish", MODEL, "--serial", "1")
    limbeck(workspace, served, "provision", MODEL, "--out", "device")
    began = time.monotonic()
    limbeck(workspace, served, "publish", OTHER)
    takes = time.monotonic() - began
    mine = device(workspace, "mine")
    for index in range(8):
        serial = str(2 - index % 2)
        process = started(workspace, served, "publish", MODEL, "--serial", serial)
        time.sleep(takes * (0.55 + 0.45 * index / 8))  # importing MLflow is the first half
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert mine.sees()["serial"] in (1, 2)
        limbeck(workspace, served, "publish", MODEL, "--serial", serial)
        assert mine.sees()["serial"] == int(serial)
        assert aliases(served)["champion"] == serial
        assert versions(workspace)[-1] == (MODEL, serial)
    assert [version for model, version in versions(workspace) if model == MODEL] == ["1", *["2", "1"] * 4]


def test_the_turn_of_a_publisher_that_was_lost_elsewhere_ends_with_its_lease(
    served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = delivery.Server(served)
    with place.turn():
        place.write("one.json", b"1")
    lost = {"host": "elsewhere", "pid": 1, "started": 0, "token": "x"}
    open_client(served).log_param(place._turns, "turn.2", json.dumps(lost))
    monkeypatch.setattr(delivery, "PATIENCE_S", 0.5)
    with pytest.raises(TrackingError, match=r"elsewhere \(process 1\) is still publishing"), place.turn():
        pass
    monkeypatch.setattr(delivery, "LEASE_S", 1.0)
    monkeypatch.setattr(delivery, "PATIENCE_S", 60.0)
    with place.turn():
        place.write("two.json", b"2")
        monkeypatch.setattr(delivery, "WRITE_UNTIL_S", 0.0)
        with pytest.raises(
            PublishingError, match=r"this turn took longer than 0 s, so another publisher may have begun"
        ):
            place.write("three.json", b"3")
    assert place.names() == ["one.json", "two.json"]
    open_client(served).create_experiment(MODEL)
    with pytest.raises(PublishingError, match=r"the experiment 'digits-phone' at .* was not made for delivery"):
        place.keep(MODEL, "0" * 64, Path("export-1"))


FLOW = """
from pathlib import Path
from flows import environment
environment.set_up(quiet_console=True)
from flows.renew import renew
renew(Path("."))
"""


def test_the_server_of_make_ui_serves_devices_and_the_scheduled_flow_renews(
    uri: str, workspace: Path, tmp_path: Path
) -> None:
    (workspace / "params.yaml").write_text(TINY.read_text())
    register_version(uri, workspace / "export", 0.01)
    open_client(uri).set_registered_model_alias(MODEL, "champion", "1")
    port = free_port()
    address, log = f"http://127.0.0.1:{port}", workspace / "server.log"
    with running(mlflow_command(workspace, port), address, log, MLFLOW_BACKEND_STORE_URI=uri):
        limbeck(workspace, address, "keys", "init")
        limbeck(workspace, address, "publish", MODEL)
        limbeck(workspace, address, "provision", MODEL, "--out", "device")
        mine = device(workspace, "mine")
        found = mine.sees()
        assert len(get(address, f"{found['artifacts']}/manifest.json")) == found["length"]
        for role in ("root", "targets"):
            (workspace / f"keys/{role}.pem").unlink()
        variables = environment(
            address,
            PREFECT_HOME=str(tmp_path / "prefect"),
            PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="600",  # others may keep the machine busy
        )
        subprocess.run([sys.executable, "-c", FLOW], cwd=workspace, env=variables, check=True)
        assert mine.sees()["serial"] == 1
        assert mine.versions == [1, 2]


def test_without_a_server_one_is_told_what_to_do(workspace: Path, uri: str) -> None:
    (workspace / "params.yaml").write_text(TINY.read_text())
    register_version(uri, workspace / "export", 0.01)
    open_client(uri).set_registered_model_alias(MODEL, "champion", "1")
    limbeck(workspace, uri, "keys", "init")
    process = started(workspace, uri, "publish", MODEL)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "devices fetch from an MLflow server" in errors
    assert "Start one (`make ui`) and set MLFLOW_TRACKING_URI=http://127.0.0.1:5000" in errors
    assert "Traceback" not in errors
    limbeck(workspace, uri, "publish", MODEL, "--folder", "stick")
    limbeck(workspace, uri, "provision", MODEL, "--out", "device", "--folder", "stick")
    assert json.loads((workspace / "device/device.json").read_text())["server"] is None
