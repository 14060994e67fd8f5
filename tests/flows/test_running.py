import threading
import time
from pathlib import Path

import psutil
import pytest

from flows import environment
from flows.graph import Stage
from flows.machine import Stopped
from flows.running import Runner, StageCrashed, StageFailed
from tests.flows.conftest import Project

LONG_S = 30.0


def runner(folder: Path) -> Runner:
    return Runner(folder, environment.for_stages(group="test", mark={}, uri="sqlite:///none.db"))


def test_a_stage_runs_then_is_reused_and_its_lines_arrive(project: Project) -> None:
    folder = project({"a": {}})
    lines: list[str] = []
    assert runner(folder).run(Stage("a"), lines.append).how == "ran"
    assert "a speaks" in lines
    assert "a speaks" in (folder / ".limbeck/logs/a.log").read_text()
    assert runner(folder).run(Stage("a"), lines.append).how == "reused"
    assert runner(folder).run(Stage("a"), lines.append, force=True).how == "ran"


def test_a_failed_stage_brings_its_own_message_and_exit_code(project: Project) -> None:
    with pytest.raises(StageFailed, match="a: a broke") as caught:
        runner(project({"a": {"how": "fail3"}})).run(Stage("a"), print)
    assert caught.value.exit_code == 3
    assert not isinstance(caught.value, StageCrashed)


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_a_killed_stage_is_a_crash(project: Project, monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    monkeypatch.setenv("SHELL", shell)
    with pytest.raises(StageCrashed, match="its process died .*a speaks"):
        runner(project({"a": {"how": "die"}})).run(Stage("a"), print)


def test_a_refusal_of_dvc_is_told_in_its_words(project: Project) -> None:
    with pytest.raises(StageFailed, match=r"(?s)failed to reproduce .*a\.txt") as caught:
        runner(project({"a": {}, "b": {"after": ["a"]}})).run(Stage("b"), print)
    assert caught.value.exit_code == 2


def test_a_stage_over_its_time_is_ended_with_its_children(project: Project) -> None:
    folder = project({"a": {"how": "sleep600"}})
    with pytest.raises(StageFailed, match="ran longer than 2 s"):
        runner(folder).run(Stage("a", timeout_s=2), print)
    assert not processes_in(folder)


def test_stopping_ends_what_runs_and_starts_nothing_more(project: Project) -> None:
    folder = project({"a": {"how": "sleep600"}})
    stages = runner(folder)
    threading.Thread(target=lambda: (wait_for(folder / "order.txt"), stages.stop()), daemon=True).start()
    with pytest.raises(Stopped, match="interrupted"):
        stages.run(Stage("a"), print)
    with pytest.raises(Stopped, match="interrupted"):
        stages.run(Stage("a"), print)
    assert not processes_in(folder)


def wait_for(path: Path) -> None:
    limit = time.monotonic() + LONG_S
    while not path.exists() and time.monotonic() < limit:
        time.sleep(0.05)


def processes_in(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(folder):
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found
