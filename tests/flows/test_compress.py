"""The command line, as a user starts it: real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows import guard
from tests.flows.conftest import ROOT, Project
from tests.flows.test_running import processes_in

LONG_S = 60.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flows.compress", *arguments]


def environment_in(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT")}
    return {**kept, "PREFECT_HOME": str(folder / ".prefect"), "DVC_SITE_CACHE_DIR": str(folder / ".dvc/tmp/site")}


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = command("--folder", str(folder), *arguments)
    return subprocess.run(line, cwd=ROOT, env=environment_in(folder), capture_output=True, text=True, timeout=300)


def test_a_dry_run_tells_what_and_why_and_runs_nothing(project: Project) -> None:
    folder = project({"a": {}, "b@phone": {"after": ["a"]}})
    answer = call(folder, "--dry-run")
    assert answer.returncode == 0, answer.stderr
    assert [line.split() for line in answer.stdout.splitlines()[1:]] == [
        ["a", "run", "never", "run"],
        ["b@phone", "run", "never", "run"],
    ]
    assert not (folder / "a.txt").exists()
    assert not (folder / ".prefect").exists(), "a dry run started Prefect"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("--target", "fone"), "no target 'fone'; did you mean 'phone'?"), (("--recipe", "nowhere"), "not both")],
)
def test_a_wrong_word_on_the_command_line_costs_one_line_and_exit_code_2(
    project: Project, arguments: tuple[str, ...], message: str
) -> None:
    answer = call(project({"a": {}, "b@phone": {"after": ["a"]}}), *arguments)
    assert answer.returncode == 2
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.slow
def test_a_run_prints_its_stages_and_ends_with_the_highest_exit_code(project: Project) -> None:
    folder = project(
        {"a": {}, "b@phone": {"how": "fail3", "after": ["a"]}, "b@sensor": {"how": "fail2", "after": ["a"]}}
    )
    answer = call(folder)
    assert answer.returncode == 3, answer.stderr
    assert "a: ran in" in answer.stdout
    assert "b@phone failed: b@phone broke" in answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_flow_leaves_no_process(project: Project, how: signal.Signals) -> None:
    folder = project({"a": {"how": "sleep600"}, "b@phone": {"how": "sleep600"}})
    flow = subprocess.Popen(
        command("--folder", str(folder)), cwd=ROOT, env=environment_in(folder), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    stage = wait_for_stage(folder)
    mark = stage.environ()[guard.MARK]
    assert len(guard.marked(mark)) >= 3, "Prefect's server, dvc and the stage"
    flow.send_signal(how)
    said, _ = flow.communicate(timeout=LONG_S)
    wait_until(lambda: not guard.marked(mark))
    assert not processes_in(folder)
    if how != signal.SIGKILL:
        assert flow.returncode == 130
        assert said.rstrip().endswith("Interrupted; the same command goes on from here.")
        assert "Traceback" not in said


def wait_for_stage(folder: Path) -> psutil.Process:
    wait_until(lambda: (folder / "order.txt").exists())
    return next(found for found in processes_in(folder) if "stage.py" in " ".join(found.cmdline()))


def wait_until(true: object) -> None:
    limit = time.monotonic() + LONG_S
    while not true():  # type: ignore[operator]
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.1)
