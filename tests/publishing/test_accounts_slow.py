"""docs/publishing.md, "Accounts": MLflow's basic auth as the page sets it up, with a publisher and two devices."""

import base64
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY
from tests.pipeline.docs.pages import blocks_of
from tests.publishing.conftest import OTHER
from tests.publishing.servers import (
    ROUTE,
    environment,
    free_port,
    get,
    limbeck,
    mlflow_server,
    running,
    started,
)
from tests.tracking.conftest import MODEL

pytestmark = pytest.mark.slow

(INI,) = [text for kind, _, text in blocks_of("publishing") if kind == "ini"]
FOR_A_PUBLISHER, FOR_A_DEVICE = [text for kind, _, text in blocks_of("publishing") if kind == "python"]
REPORTS_LINE = next(line for line in FOR_A_DEVICE.splitlines(keepends=True) if "limbeck-reports" in line)
DONE_BEFORE = [line for line in FOR_A_DEVICE.splitlines(keepends=True) if "create_user" in line or '": "READ"' in line]
REGISTER = """
import sys
from pathlib import Path
from tests.publishing.conftest import register_version
register_version(sys.argv[1], Path("export"), 0.01, sys.argv[2])
"""


def account(name: str, password: str) -> dict[str, str]:
    return {"MLFLOW_TRACKING_USERNAME": name, "MLFLOW_TRACKING_PASSWORD": password}


ADMIN = account("admin", "a-long-password-of-ours")
PUBLISHER = account("publisher", "a-password-of-theirs")
CAMERA, SENSOR = (account(name, "a-password-of-its-own") for name in ("camera", "sensor"))


@pytest.fixture
def guarded(workspace: Path) -> Iterator[str]:
    """A server set up as the page says, with the publisher's account."""
    (workspace / "accounts.ini").write_text(INI)
    (workspace / "params.yaml").write_text(TINY.read_text())
    port = free_port()
    variables = {
        "MLFLOW_AUTH_CONFIG_PATH": f"{workspace}/accounts.ini",
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN["MLFLOW_TRACKING_PASSWORD"],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "x" * 32,
    }
    command = mlflow_server(port, workspace, "--app-name", "basic-auth")
    with running(command, f"http://127.0.0.1:{port}", workspace / "server.log", **variables) as uri:
        python(uri, FOR_A_PUBLISHER, ADMIN)
        yield uri


def python(uri: str, code: str, who: dict[str, str], *arguments: str) -> None:
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    subprocess.run(command, env=environment(uri, **who), check=True)


def refused(uri: str, path: str, status: int, content: bytes | None = None, **headers: str) -> bool:
    """Whether the server refuses to give a file, or to take one."""
    method = "GET" if content is None else "PUT"
    request = urllib.request.Request(f"{uri}{ROUTE}/{path}", content, headers, method=method)
    try:
        urllib.request.urlopen(request, timeout=30).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == status
    return False


class Device:
    """A home and the account that it asks with."""

    def __init__(self, uri: str, who: dict[str, str], home: str) -> None:
        self.uri, self.who, self.home = uri, who, home

    def run(self, command: str, *arguments: str, code: int = 0) -> str:
        """Output and errors of a command that ends with `code`."""
        done = subprocess.run(
            [sys.executable, "-m", "limbeck.edge.cli", command, *arguments, "--home", self.home],
            env=environment(self.uri, **self.who),
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


def test_each_devices_account_reads_its_model_and_the_metadata_writes_reports_and_nothing_else(
    guarded: str, workspace: Path
) -> None:
    for model in (MODEL, OTHER):
        python(guarded, REGISTER, PUBLISHER, guarded, model)
    limbeck(workspace, guarded, "keys", "init")
    stranger = started(workspace, guarded, "publish", MODEL, "--serial", "1")
    _, errors = stranger.communicate()
    assert stranger.returncode == 2
    assert "Traceback" not in errors
    for model in (MODEL, OTHER):
        limbeck(workspace, guarded, "publish", model, "--serial", "1", **PUBLISHER)
        limbeck(workspace, guarded, "provision", model, "--out", model, "--reports", **PUBLISHER)
        assert "password" not in (workspace / model / "device.json").read_text()
    python(guarded, FOR_A_DEVICE, ADMIN)
    for_the_sensor = FOR_A_DEVICE.replace("camera", "sensor").replace(MODEL, OTHER)
    python(guarded, for_the_sensor.replace(REPORTS_LINE, ""), ADMIN)

    camera, sensor = Device(guarded, CAMERA, "camera"), Device(guarded, SENSOR, "sensor")
    astray = Device(guarded, CAMERA, "astray")
    for device, model in ((camera, MODEL), (sensor, OTHER), (astray, OTHER)):
        device.run("init", model)
    assert f"{MODEL} serial 1 serves" in camera.run("update")
    assert f"{OTHER} serial 1 serves" in sensor.run("update")
    said = astray.run("update", code=2)
    assert "403" in said
    assert "let the device's account read the experiment" in said
    unknown = Device(guarded, account("camera", "not-its-password"), "camera")
    assert "401" in unknown.run("update", code=2)

    np.save("samples.npy", np.full((3, 1, 4, 1), 7, np.uint8))
    for device in (camera, sensor):
        device.run("predict", "samples.npy")
    assert "serial 1 is in use" in camera.run("update")
    said = sensor.run("update")
    assert "403" in said
    assert "let the device's account edit the experiment (reports; nothing is lost" in said.replace(".", "")
    arrived = [json.loads(path.read_text()) for path in (workspace / "kept").rglob("reports/*/*.json")]
    assert {(report["model"], report["samples"]) for report in arrived} == {(MODEL, 3)}
    reports_alone = "".join(line for line in FOR_A_DEVICE.splitlines(keepends=True) if line not in DONE_BEFORE)
    python(guarded, reports_alone.replace("camera", "sensor"), ADMIN)
    sensor.run("update")
    arrived = [json.loads(path.read_text()) for path in (workspace / "kept").rglob("reports/*/*.json")]
    assert {(report["model"], report["samples"]) for report in arrived} == {(MODEL, 3), (OTHER, 3)}, "none was lost"

    told = json.loads((workspace / MODEL / "device.json").read_text())
    basic = "Basic " + base64.b64encode(":".join(CAMERA.values()).encode()).decode()
    metadata = f"{told['metadata']}/timestamp.json"
    newest = json.loads(get(guarded, metadata, Authorization=basic))["signed"]["version"]
    listed = json.loads(get(guarded, f"{told['metadata']}/{newest}.targets.json", Authorization=basic))
    own, other = (listed["signed"]["targets"][f"{m}/champion"]["custom"]["artifacts"] for m in (MODEL, OTHER))
    assert get(guarded, f"{own}/manifest.json", Authorization=basic)
    for path in (f"{other}/manifest.json", f"{other}/model.int8.onnx"):
        assert refused(guarded, path, 403, Authorization=basic)
    for path in (metadata, f"{own}/model.int8.onnx", f"{other}/model.int8.onnx"):
        assert refused(guarded, path, 403, b"{}", Authorization=basic)
    assert refused(guarded, metadata, 401)
