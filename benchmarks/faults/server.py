"""A real MLflow server on loopback, as small as it gets."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.tracking.server import probe

START_S = 300.0


@contextmanager
def mlflow_server(place: Path) -> Iterator[str]:
    """The server's address; its database and artifacts lie in `place`.

    Raises:
        SystemExit: it did not start.

    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri, log = f"http://127.0.0.1:{port}", place / "server.log"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    places = ["--backend-store-uri", f"sqlite:///{place}/server.db", "--artifacts-destination", f"{place}/artifacts"]
    variables = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    variables.pop("MLFLOW_TRACKING_URI", None)
    with log.open("w") as stream:
        process = subprocess.Popen(
            [*command, *places], env=variables, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        limit = time.monotonic() + START_S
        while not probe(uri):
            if time.monotonic() > limit or process.poll() is not None:
                raise SystemExit(f"MLflow's server did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.5)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=START_S)
