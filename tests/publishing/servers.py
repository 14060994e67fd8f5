"""Real MLflow servers on loopback, and what there is to publish."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.tracking import server
from limbeck.tracking.server import open_client
from tests.conftest import ROOT, TINY
from tests.publishing.conftest import OTHER, register_version
from tests.tracking.conftest import MODEL

ROUTE = "/api/2.0/mlflow-artifacts/artifacts"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def running(command: list[str], uri: str, log: Path, **environment: str) -> Iterator[str]:
    variables = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment}
    variables.pop("MLFLOW_TRACKING_URI", None)
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, env=variables, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        limit = time.monotonic() + 300
        while not server.probe(uri):
            assert time.monotonic() < limit, log.read_text()
            time.sleep(0.5)
        server.forget(uri)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)
        server.forget(uri)


def mlflow_server(port: int, workspace: Path, *more: str) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = ["--backend-store-uri", f"sqlite:///{workspace}/server.db", "--artifacts-destination", f"{workspace}/kept"]
    return [*command, *places, *more]


@contextmanager
def serving(workspace: Path) -> Iterator[str]:
    """A server with two versions of MODEL, the second one champion, and one of OTHER."""
    port = free_port()
    with running(mlflow_server(port, workspace), f"http://127.0.0.1:{port}", workspace / "server.log") as uri:
        (workspace / "params.yaml").write_text(TINY.read_text())
        for number in (1, 2):
            register_version(uri, workspace / f"export-{number}", 0.01 * number)
        register_version(uri, workspace / "export-1", 0.01, OTHER)
        open_client(uri).set_registered_model_alias(MODEL, "champion", "2")
        open_client(uri).set_registered_model_alias(OTHER, "champion", "1")
        yield uri


def environment(uri: str, **more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": uri, **more}


def started(workspace: Path, uri: str, *arguments: str, **more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "limbeck.cli", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command,
        cwd=workspace,
        env=environment(uri, **more),
        stdout=pipe,
        stderr=pipe,
        text=True,
        start_new_session=True,
    )


def limbeck(workspace: Path, uri: str, *arguments: str, **more: str) -> str:
    process = started(workspace, uri, *arguments, **more)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return out


def get(uri: str, path: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(f"{uri}{ROUTE}/{path}", headers=headers), timeout=30) as answer:
        return bytes(answer.read())
