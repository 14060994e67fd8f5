"""One MLflow server on loopback whose memory is watched, and who answers in its place while it is away."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks.places import environment
from limbeck.tracking import server as tracking

NUM_WORKERS = 1
"""More have a supervisor that ends those which a busy machine keeps from answering it for five seconds."""
LIMIT_S = 300.0
LOOK_EVERY_S = 0.5


def free_port() -> int:
    """A port of loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Mlflow:
    """`mlflow server` without job runners; begun and ended at will, at the same address."""

    def __init__(self, place: Path, port: int) -> None:
        self.address, self.log = f"http://127.0.0.1:{port}", place / "mlflow.log"
        self._command = [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", str(NUM_WORKERS), "--backend-store-uri", f"sqlite:///{place}/mlflow.db"),
            *("--artifacts-destination", str(place / "artifacts")),
        ]
        self._environment = {**environment(place), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self._process: subprocess.Popen[bytes] | None = None
        self._peak_bytes = 0
        self._watched = threading.Event()

    def __enter__(self) -> "Mlflow":
        self.begin()
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._watched.set()
        self.end()

    def begin(self, *, wait: bool = True) -> None:
        """Start it and, unless told otherwise, wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        limit = time.monotonic() + LIMIT_S
        while wait and not tracking.probe(self.address):
            if time.monotonic() > limit or self._process.poll() is not None:
                self.end()
                raise SystemExit(f"MLflow's server does not answer:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.2)
        tracking.forget(self.address)

    def end(self) -> None:
        """Stop it with all its processes, so that its port is free."""
        if self._process is None or self._process.poll() is not None:
            return
        tree = self._tree()
        os.killpg(self._process.pid, signal.SIGTERM)
        _, left = psutil.wait_procs(tree, timeout=30)
        for each in left:
            each.kill()
        self._process.wait()

    def num_answered(self) -> int:
        """Requests for artifacts in its own log so far."""
        return self.log.read_text(errors="replace").count('"GET /api/2.0/mlflow-artifacts/artifacts/')

    def take_peak_bytes(self) -> int:
        """The most memory since this was asked last: resident, of all its processes together."""
        peak, self._peak_bytes = self._peak_bytes, 0
        return peak

    def _tree(self) -> list[psutil.Process]:
        """The server's processes."""
        assert self._process is not None
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def _watch(self) -> None:
        while not self._watched.wait(LOOK_EVERY_S):
            try:
                total = sum(each.memory_info().rss for each in self._tree())
            except psutil.NoSuchProcess:  # one ended meanwhile
                continue
            self._peak_bytes = max(self._peak_bytes, total)


class Busy:
    """What stands in front of a server that is overloaded: 503 to everybody, with `Retry-After`."""

    def __init__(self, port: int, retry_after_s: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(503)
                self.send_header("Retry-After", str(retry_after_s))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 1024
            daemon_threads = True

        self._server = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def end(self) -> None:
        """Nobody listens any more."""
        self._server.shutdown()
        self._server.server_close()
