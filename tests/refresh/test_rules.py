from pathlib import Path

import pytest

from examples.day import life
from flows.environment import QUIET_S
from limbeck.errors import ParamsError
from limbeck.refresh.rules import find, load
from tests.conftest import ROOT


def test_the_projects_own_rules_are_complete() -> None:
    assert load(ROOT / "refresh.yaml").ladder.order == ("recalibrate", "norms", "distil", "teacher")


def test_every_value_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    text = (ROOT / "refresh.yaml").read_text()
    changed = tmp_path / "refresh.yaml"
    changed.write_text(
        text.replace("minutes_per_day: 120", "minutes_per_day: -1").replace("approval: none", "approval: no")
    )
    with pytest.raises(ParamsError, match=r"(?s)minutes_per_day: .*greater than 0.*ship.approval: "):
        load(changed)


def test_a_file_that_is_not_there_says_what_to_copy(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="refresh.yaml is missing; copy refresh.yaml of the project"):
        load(tmp_path / "refresh.yaml")


def test_a_workspaces_own_rules_go_before_the_projects_and_named_ones_before_both(tmp_path: Path) -> None:
    workspace, project = tmp_path / "work/day", tmp_path
    workspace.mkdir(parents=True)
    assert find(workspace, project) == project / "refresh.yaml"
    (workspace / "refresh.yaml").touch()
    assert find(workspace, project) == workspace / "refresh.yaml"
    assert find(workspace, project, Path("hasty.yaml")) == project / "hasty.yaml"


def test_what_the_listener_announces_is_whole_for_the_run_that_follows() -> None:
    assert load(ROOT / "refresh.yaml").windows.settle_s < QUIET_S
    day = load(ROOT / "examples/day/refresh.yaml")
    assert day.windows.settle_s < life.QUIET_S
    assert day.drift.cool_down_hours == 0
