"""The README's command, in a clone and with a home folder of its own."""

import sys
from pathlib import Path

import pytest

from tests.pipeline.clones import Clone, clone

pytestmark = pytest.mark.slow

MAKE_RUN = ("make", "-o", ".venv/installed", "run")
"""`make run` where everything is installed: the environment of these tests, linked into the clone."""


def test_make_run_writes_nothing_outside_the_project_and_the_second_one_runs_nothing(
    origin: Path, tmp_path: Path
) -> None:
    made = clone(origin, tmp_path / "limbeck")
    (made / ".venv").symlink_to(sys.prefix)
    home = tmp_path / "home"
    home.mkdir()
    first = made.run(*MAKE_RUN, HOME=str(home))
    assert "15 ran, 0 reused, 0 failed" in first.stdout
    assert "Installing" not in first.stdout
    assert list(home.iterdir()) == []
    again = made.run(*MAKE_RUN, HOME=str(home))
    assert "0 ran, 15 reused, 0 failed" in again.stdout
    assert list(home.iterdir()) == []
    assert_only_results_are_to_commit(made)


def assert_only_results_are_to_commit(made: Clone) -> None:
    changed = {line[3:].split("/")[0] for line in made.git("status", "--porcelain").splitlines()} - {".venv"}
    assert changed == {"dvc.lock", "metrics"}
