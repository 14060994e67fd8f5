"""Whose turn it is, and that nobody's trouble is another's; what a refresh does stands in test_refreshing.py."""

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows import environment, refresh
from flows.refreshing import rounds
from flows.refreshing.rounds import Round, serve, served
from flows.refreshing.standing import NoChampion
from flows.turns import Busy
from limbeck.errors import ContractBroken, DataError, ParamsError
from tests.conftest import ROOT, TINY

ENDS = dict[str, Any]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and beside it two workspaces that take new data and three that do not."""
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr("flows.workspace.ROOT", tmp_path)
    rules = yaml.safe_load((ROOT / "refresh.yaml").read_text())
    rules["windows"]["settle_s"] = 0
    (tmp_path / "refresh.yaml").write_text(yaml.safe_dump(rules))
    for folder in (
        "work/a/drop",
        "work/b/windows",
        "work/idle/data",
        "work/broken/drop",
        "work/refresh/tiny-phone/0001",
    ):
        (tmp_path / folder).mkdir(parents=True)
    for place in ("", "work/a", "work/b", "work/idle"):
        shutil.copy(TINY, tmp_path / place)
        (tmp_path / place / "tiny.yaml").rename(tmp_path / place / "params.yaml")
    return tmp_path


@pytest.fixture
def ends(project: Path, monkeypatch: pytest.MonkeyPatch) -> ENDS:
    """How refreshes end, by workspace or by `WORKSPACE/TARGET`; by itself there is nothing to do."""
    told: ENDS = {}

    class Fake:
        def __init__(self, base: Path, name: str, *_: Any, **__: Any) -> None:
            where = "project" if base == project else base.name
            self.model, self.ends = f"tiny-{name}", told.get(f"{where}/{name}", told.get(where, "nothing to do"))

        @classmethod
        def quiet(cls, *args: Any, **more: Any) -> "Fake":
            return cls(*args, **more)

        def run(self, *_: Any, **__: Any) -> str:
            if isinstance(self.ends, Exception):
                raise self.ends
            return str(self.ends)

        def knows(self, classes: Any) -> bool:
            return True

    monkeypatch.setattr(rounds, "Refresh", Fake)
    return told


def nothing(*_: Any) -> None:
    raise AssertionError("no stage was to run")


def of(say: Callable[[str], None], everywhere: bool = True, **more: Any) -> list[Round]:
    how = {"say": say, "tell": say, "complain": say, **more}
    return refresh._rounds(None, None, None, None, None, False, everywhere, **how)


def test_everywhere_is_the_project_and_whatever_in_work_has_params_and_a_place_for_new_data(project: Path) -> None:
    assert served() == [project, project / "work/a", project / "work/b"]


def test_by_itself_the_project_alone_has_a_turn(project: Path, ends: ENDS) -> None:
    (one,) = of(print, everywhere=False)
    assert (one.base, one.may_lack) == (project, False)


def test_everywhere_each_target_of_each_workspace_has_its_turn_and_lines_name_the_workspace(ends: ENDS) -> None:
    said: list[str] = []
    assert serve(of(said.append)) == []
    assert said == [
        f"{place}tiny-{target}: nothing to do"
        for place in ("", "work/a: ", "work/b: ")
        for target in ("phone", "sensor")
    ]


def test_one_workspaces_trouble_keeps_no_other_from_its_turn(project: Path, ends: ENDS) -> None:
    (project / "work/a/params.yaml").write_text("name: []")
    ends["project/phone"] = DataError("no room on the disk")
    said: list[str] = []
    wrong, params = serve(of(said.append))
    assert (str(wrong), type(params)) == ("no room on the disk", ParamsError)
    assert said[:2] == ["phone: no room on the disk", "tiny-sensor: nothing to do"]
    assert said[2].startswith(f"work/a: {project / 'work' / 'a' / 'params.yaml'}")
    assert said[-1] == "work/b: tiny-sensor: nothing to do"


def test_a_fault_of_ours_in_one_workspace_is_told_with_its_place_and_keeps_no_other_from_its_turn(ends: ENDS) -> None:
    ends["a"] = KeyError("figures")
    said: list[str] = []
    (wrong,) = serve(of(said.append))
    assert "broke down: KeyError('figures')" in str(wrong)
    assert any("Traceback" in line for line in said)
    assert said[-1] == "work/b: tiny-sensor: nothing to do"
    ends["project"] = KeyError("figures")
    with pytest.raises(KeyError):
        serve(of(said.append, everywhere=False))


def test_a_workspace_without_a_champion_is_told_and_the_projects_own_is_a_failure(ends: ENDS) -> None:
    ends["b"] = NoChampion("has no champion yet")
    said: list[str] = []
    assert serve(of(said.append)) == []
    assert said[-2:] == ["work/b: phone: has no champion yet", "work/b: sensor: has no champion yet"]
    ends["project"] = NoChampion("has no champion yet")
    assert [str(each) for each in serve(of(said.append))] == ["has no champion yet"] * 2


@pytest.mark.parametrize("error", [Busy("is being refreshed"), ContractBroken("fails the exam")])
def test_where_the_champion_stays_a_run_has_not_failed(ends: ENDS, error: Exception) -> None:
    ends["project/phone"] = error
    said: list[str] = []
    assert serve(of(said.append, everywhere=False)) == []
    assert said == [f"phone: {error}", "tiny-sensor: nothing to do"]


@pytest.mark.parametrize("narrowed", [{"target": ["phone"]}, {"recipe": "cifar10"}, {"request": Path("r.yaml")}])
def test_everywhere_is_not_narrowed(ends: ENDS, capsys: pytest.CaptureFixture[str], narrowed: dict[str, Any]) -> None:
    with pytest.raises(SystemExit) as ended:
        refresh.main(everywhere=True, dry_run=True, **narrowed)
    assert ended.value.code == 2
    assert "leave out target, recipe, folder and request" in capsys.readouterr().err


@pytest.mark.parametrize("error", [NoChampion("has no champion yet"), Busy("is being refreshed")])
def test_a_dry_run_goes_on_after_a_target_that_it_cannot_tell_of_and_ends_with_that_ones_exit_code(
    ends: ENDS, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    ends["project/phone"] = error
    with pytest.raises(SystemExit) as ended:
        refresh.main(dry_run=True)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("tiny-sensor: nothing to do\n", f"phone: {error}\n")


def test_a_dry_run_of_which_all_can_be_told_ends_well(ends: ENDS, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        refresh.main(everywhere=True, dry_run=True)
    assert ended.value.code == 0
    assert "work/b: tiny-sensor: nothing to do" in capsys.readouterr().out


@pytest.mark.parametrize("dry", [False, True])
def test_requests_in_the_drop_folder_stand_and_one_that_is_none_is_told_and_stops_nothing(
    project: Path, ends: ENDS, monkeypatch: pytest.MonkeyPatch, dry: bool
) -> None:
    drop = project / "drop"
    drop.mkdir()
    (drop / "evening.request.yaml").write_text("new_classes: [truck]")
    (drop / "less.request.yaml").write_text("change_budget: {target: phone, clauses: {max_size_kb: 9}}")
    monkeypatch.setattr(rounds, "fulfil", lambda base, request, *_, **__: f"cut for {request.change_budget.clauses}")
    told, wrong = list[str](), list[str]()
    monkeypatch.setattr(rounds.time, "time", lambda: 4e9)

    def turn() -> None:
        serve(of(print, everywhere=False, tell=told.append, complain=wrong.append, dry=dry))

    (drop / "broken.request.yaml").write_text("new_class: [truck]")
    turn()
    assert told[0] == "cut for {'max_size_kb': 9.0}"
    assert told[-1] == "tiny-sensor: nothing to do"
    assert "broken.request.yaml is no request" in wrong[0]
    left = sorted(path.name for path in drop.iterdir())
    standing = ["broken.request.yaml", "evening.request.yaml"]
    assert left == ([*standing, "less.request.yaml"] if dry else [".taken", *standing])
    (drop / "broken.request.yaml").unlink()
    turn()
    assert ("evening.request.yaml is fulfilled" in told) != dry


def test_every_night_whatever_waits_goes_on_everywhere_and_what_lands_calls_for_its_workspace_alone() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    (found,) = [each for each in deployments if each["name"] == "refresh"]
    (nightly,) = found["schedules"]
    assert (nightly["cron"], nightly["parameters"]) == ("15 4 * * *", {"everywhere": True})
    assert found["parameters"]["everywhere"] is False
    assert {*found["parameters"]} < {*inspect.signature(refresh.refresh.fn).parameters}
    assert [[*each["parameters"]] for each in found["triggers"]] == [["folder"], ["model"]]
