"""`make up` for real: what it starts, and what of the work is left when something of it is killed."""

import signal
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import Project
from tests.flows.serving import Up, asked, up

pytestmark = pytest.mark.slow


def order(folder: Path) -> list[str]:
    file = folder / "order.txt"
    return file.read_text().splitlines() if file.exists() else []


def compress(running: Up, folder: Path) -> None:
    running.prefect("deployment", "run", "compress/compress", "--param", f"folder={folder}")


def is_idle(running: Up) -> bool:
    limits = asked(running.environment, "/v2/concurrency_limits/filter", {}) or [{"active_slots": 1}]
    return not running.runs("RUNNING", "PENDING") and not any(limit["active_slots"] for limit in limits)


def test_what_was_killed_in_the_middle_is_finished_and_nothing_is_done_twice(project: Project, tmp_path: Path) -> None:
    folder = project({"a": {}, "b": {"how": "sleep20", "after": ["a"]}})
    with up(folder) as running:
        compress(running, folder)
        running.wait_for(lambda: "begin b" in order(folder))
        stage = running.processes("stage.py")
        for process in running.processes("worker", "start") + running.processes("prefect.engine"):
            process.kill()
        psutil.wait_procs(stage, timeout=10)
        assert order(folder) == ["begin a", "end a", "begin b"]
        assert not any(process.is_running() for process in stage)
        (run,) = running.wait_for(lambda: running.runs("COMPLETED"))
        assert "The worker ended (code -9), again in 5 s" in (folder / "up.log").read_text()
        assert (run["run_count"], run["state"]["message"]) == (2, "1 ran, 1 reused, 0 failed")
        assert order(folder) == ["begin a", "end a", "begin b", "begin b", "end b"]

        # All of it this time, as when the machine loses power; what runs it now was never told.
        project({"a": {}, "b": {"how": "sleep21", "after": ["a"]}})
        compress(running, folder)
        running.wait_for(lambda: order(folder).count("begin b") == 3)
        running.end(signal.SIGKILL)
        limit = psutil.wait_procs([*running.processes("stage.py"), *running.processes("prefect.engine")], timeout=15)
        assert not limit[1]
        running.start()
        running.wait_for(lambda: len(running.runs("COMPLETED")) == 2)
        assert order(folder)[5:] == ["begin b", "begin b", "end b"]
        running.wait_for(lambda: is_idle(running))
    assert not running.processes("prefect.engine")


def test_a_flow_outlives_its_worker_and_a_worker_its_flow(project: Project, tmp_path: Path) -> None:
    folder = project({"a": {"how": "sleep15"}})
    with up(folder) as running:
        compress(running, folder)
        running.wait_for(lambda: "begin a" in order(folder))
        for process in running.processes("worker", "start"):
            process.kill()
        (run,) = running.wait_for(lambda: running.runs("COMPLETED"))
        assert (run["run_count"], order(folder)) == (1, ["begin a", "end a"])

        project({"a": {"how": "sleep16"}})
        compress(running, folder)
        running.wait_for(lambda: order(folder).count("begin a") == 2)
        for process in running.processes("prefect.engine"):
            process.kill()
        running.wait_for(lambda: len(running.runs("COMPLETED")) == 2)
        assert [run["run_count"] for run in running.runs("COMPLETED")] == [1, 2]
        assert order(folder)[2:] == ["begin a", "begin a", "end a"]
        running.wait_for(lambda: is_idle(running))
