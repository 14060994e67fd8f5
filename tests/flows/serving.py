"""`make up` as a test starts it: servers, worker and listener on free ports, and questions to Prefect's server."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from limbeck.tracking import webhooks
from tests.conftest import ROOT
from tests.publishing.servers import free_port

LONG_S = 400.0
PREFECT = [sys.executable, "-m", "prefect"]
LOST_S = 60.0


class Up:
    """A running `python -m flows.services.servers --worker`; `environment` talks to its servers."""

    def __init__(self, home: Path, **more: str) -> None:
        self.home = home
        self.ports = {name: free_port() for name in ("prefect", "mlflow", "hook")}
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PREFECT", "MLFLOW_T"))},
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.ports['prefect']}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": "false",  # no hour is near enough to disturb a test
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            **more,
        }
        self.mlflow = f"http://127.0.0.1:{self.ports['mlflow']}"
        # a shell's background jobs ignore interrupts, and so would what they start
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = self.start()

    def start(self) -> "subprocess.Popen[bytes]":
        ports = [word for name, port in self.ports.items() for word in (f"--{name}-port", str(port))]
        command = [sys.executable, "-m", "flows.services.servers", "--worker", "--folder", str(self.home), *ports]
        with (self.home / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--lost-s", str(LOST_S), "--quiet-s", "1"],
                cwd=ROOT,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_for(lambda: b"Worker  " in (self.home / "up.log").read_bytes().split(b"Prefect  ")[-1])
        return self.process

    def wait_for(self, answer: Callable[[], Any], long_s: float = LONG_S) -> Any:
        """What it answers, once that is something; with the logs when it never does."""
        limit = time.monotonic() + long_s
        while not (found := answer()):
            logs = [self.home / "up.log", *sorted((self.home / ".limbeck/logs").glob("*.log"))]
            told = "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in logs)
            assert time.monotonic() < limit, f"waited too long\n{told}"
            assert self.process.poll() is None, told
            time.sleep(0.5)
        return found

    def processes(self, *words: str) -> list[psutil.Process]:
        """Processes of this server's with these words on their command line."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                ours = process.environ().get("PREFECT_API_URL") == self.environment["PREFECT_API_URL"]
                if ours and process.pid != os.getpid() and set(words) <= set(process.cmdline()):
                    found.append(process)
        return found

    def announced(self, entry: str) -> bool:
        """Whether the listener told of an entry in the drop folder."""
        file = self.home / ".limbeck/landed.json"
        return file.exists() and entry in json.loads(file.read_text())

    def prefect(self, *arguments: str) -> None:
        prefect(self.environment, *arguments)

    def runs(self, *states: str) -> list[dict[str, Any]]:
        wanted = {"flow_runs": {"state": {"type": {"any_": list(states)}}}, "sort": "START_TIME_ASC"}
        return asked(self.environment, "/flow_runs/filter", wanted) or []

    def end(self, how: int = signal.SIGINT) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)


@contextmanager
def up(home: Path, **more: str) -> Iterator[Up]:
    """A running `make up` with a home of its own: MLflow's database, Prefect's, logs."""
    home.mkdir(parents=True, exist_ok=True)
    running = Up(home, **more)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.end()


SECRETS = {webhooks.SECRET: "0123456789abcdef0123456789abcdef"}


def prefect(environment: dict[str, str], *arguments: str, cwd: Path = ROOT) -> None:
    answer = subprocess.run(
        [*PREFECT, "--no-prompt", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def asked(environment: dict[str, str], path: str, body: dict[str, Any] | None = None) -> Any:
    """What the server's REST interface answers; None while it does not."""
    request = urllib.request.Request(
        environment["PREFECT_API_URL"] + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)
    except OSError:
        return None
