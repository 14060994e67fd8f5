"""The deployments of prefect.yaml for real: a server, a work pool, a worker, and a scheduled run that it executes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import guard
from tests.flows.conftest import ROOT, Project
from tests.flows.serving import LONG_S, PREFECT, asked, prefect

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A Prefect server on loopback with a home of its own; the answer is the environment that talks to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    watching = guard.start()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT")},
        **watching.environment,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    with (tmp_path / "server.log").open("w") as log:
        command = [*PREFECT, "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(lambda: asked(environment, "/health"))
            yield environment
        finally:
            started.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                started.wait(15)
            watching.close()
            started.wait()


def test_a_scheduled_deployment_is_really_executed_by_a_worker(
    project: Project, tmp_path: Path, server: dict[str, str]
) -> None:
    folder = project({"a": {}, "b@phone": {"after": ["a"]}})
    prefect(server, "work-pool", "create", "limbeck", "--type", "process")
    prefect(server, "deploy", "--all")
    schedules = {found["name"]: found["schedules"] for found in asked(server, "/deployments/filter", {})}
    assert schedules["compress"] == []
    assert schedules["compress-nightly"][0]["schedule"]["cron"] == "15 2 * * *"

    # The same deployment on the tiny project, every few seconds instead of every night.
    prefect(server, "deploy", "--name", "compress-nightly", "--interval", "15", "--param", f"folder={folder}")
    with (tmp_path / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            [*PREFECT, "worker", "start", "--pool", "limbeck", "--type", "process"],
            cwd=ROOT, env=server, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(lambda: completed(server) or None)
        except AssertionError:
            pytest.fail((tmp_path / "worker.log").read_text()[-4000:])
        finally:
            worker.terminate()
            try:
                worker.wait(60)  # it lets the next scheduled run end, which on a busy machine takes its time
            except subprocess.TimeoutExpired:
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
    run = completed(server)[0]
    assert run["auto_scheduled"]
    assert run["state"]["message"] == "2 ran, 0 reused, 0 failed"
    assert (folder / "b-phone.txt").read_text() == "b@phone"


def test_no_path_of_this_machine_stands_in_the_deployments() -> None:
    declared = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    assert str(ROOT) not in (ROOT / "prefect.yaml").read_text()
    limits = {entry["name"]: entry.get("concurrency_limit") for entry in declared["deployments"]}
    names = ("compress", "compress-nightly", "search", "refresh", "renew", "rollout")
    assert limits == dict.fromkeys(names, 1)


def completed(environment: dict[str, str]) -> list[dict[str, Any]]:
    done = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}, "sort": "START_TIME_ASC"}
    return asked(environment, "/flow_runs/filter", done) or []


def wait_for(answer: Any) -> None:
    limit = time.monotonic() + LONG_S
    while answer() is None:
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.5)
