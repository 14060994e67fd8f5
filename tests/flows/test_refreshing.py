"""The order of a refresh, with a pipeline that answers at once; the real one is in tests/pipeline/test_refresh_slow.py."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows import environment, refreshing
from flows.refreshing import Busy, Refresh, Waits
from limbeck.errors import ContractBroken, LimbeckError, ParamsError
from limbeck.refresh import rules as rules_file
from limbeck.refresh import story as story_file
from limbeck.refresh.story import Story, Try
from tests.conftest import ROOT, TINY
from tests.refresh.stories import judged, story, tried

RULES = rules_file.load(ROOT / "refresh.yaml")


class Fake(Refresh):
    """Each rung ends as `ends` says, at once."""

    def __init__(self, base: Path, ends: dict[str, str], rules: Any = RULES) -> None:
        self.said: list[str] = []
        super().__init__(base, "phone", rules, run_stages=self.never, approve=lambda _: True, say=self.said.append)
        self.ends, self.ran, self.shipped = ends, [], []
        self.exam: str | None = None

    def never(self, *_: Any) -> None:
        raise AssertionError("no stage is to run")

    def begin(self, told: Any, request: Any, standing: Any = (), *, dry: bool) -> str:
        return "no new window: nothing to do"

    def try_rung(self, told: Story, each: Try) -> None:
        self.check_budget(each)
        self.ran.append(each.rung)
        each.state, each.seconds, each.ended = self.ends[each.rung], 30.0, datetime.now(UTC)
        each.verdict = judged(each.state == "passed")
        told.write(self.folder(told))

    def ship(self, told: Story, rung: Any) -> str:
        self.shipped.append(rung)
        if self.exam:
            self.end(told, "refused", self.exam)
            raise ContractBroken(self.exam)
        return self.end(told, "champion", "better")


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    shutil.copy(TINY, tmp_path / "params.yaml")
    return tmp_path


def opened(refresh: Refresh, *tries: Try) -> Story:
    told = story(*tries)
    told.write(refresh.folder(told))
    return told


WAITING = tuple(tried(rung, "waiting") for rung in ("recalibrate", "norms", "distil"))


def test_the_first_rung_that_passes_ships_and_no_later_one_is_tried(base: Path) -> None:
    one = Fake(base, {"recalibrate": "refused", "norms": "passed"})
    opened(one, *WAITING)
    assert one.run().startswith("champion: better; see work/refresh/tiny-phone/0001/report.html")
    assert (one.ran, one.shipped) == (["recalibrate", "norms"], ["norms"])
    assert (base / "work/refresh/tiny-phone/0001/report.html").is_file()


def test_where_no_rung_passes_the_champion_stays(base: Path) -> None:
    one = Fake(base, dict.fromkeys(("recalibrate", "norms", "distil"), "refused"))
    opened(one, *WAITING)
    assert "no rung passed the gate; the champion stays" in one.run()
    assert one.shipped == []


def test_a_refresh_that_was_cut_off_goes_on_with_the_rung_it_was_in(base: Path) -> None:
    one = Fake(base, {"norms": "passed"})
    opened(one, tried("recalibrate", "refused"), tried("norms", "waiting"))
    one.run()
    assert one.said[0] == "refresh 1 of tiny-phone goes on"
    assert one.ran == ["norms"]


def test_one_that_was_cut_off_after_its_gate_ships_without_running_a_rung_again(base: Path) -> None:
    one = Fake(base, {})
    opened(one, tried("recalibrate", "passed"), tried("norms", "waiting"))
    one.run()
    assert (one.ran, one.shipped) == ([], ["recalibrate"])


def test_what_landed_while_one_was_open_is_looked_at_once_that_has_ended(base: Path) -> None:
    one = Fake(base, {})
    opened(one, tried("recalibrate", "passed"))
    assert one.run().splitlines()[1:] == ["no new window: nothing to do"]
    other = Fake(base, {})
    other.exam = "fails the exam"
    opened(other, tried("recalibrate", "passed"))
    assert other.run().splitlines() == ["fails the exam", "no new window: nothing to do"]


def test_a_model_is_found_in_the_workspace_that_makes_it(base: Path) -> None:
    own = base / "work/fashion/params.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(TINY.read_text().replace("name: tiny", "name: fashion"))
    (base / "work/broken").mkdir()
    (base / "work/broken/params.yaml").write_text("name: []")
    assert refreshing.made_in("tiny-sensor") == (base, "sensor")
    assert refreshing.made_in("fashion-phone") == (own.parent, "phone")
    assert refreshing.made_in("somebody-elses") is None


def test_a_rung_that_would_not_end_within_the_days_budget_waits(base: Path) -> None:
    one = Fake(base, {"recalibrate": "refused"}, RULES.model_copy(update={"minutes_per_day": 1.4}))
    opened(one, *WAITING)
    with pytest.raises(
        Waits, match=r"norms would take about 60 s, and 30 of today's 84 s \(minutes_per_day\) are spent"
    ):
        one.run()
    assert story_file.read(one.place / "0001").outcome is None, "it goes on when it is run again"


def test_two_refreshes_of_one_model_never_overlap(base: Path) -> None:
    with Fake(base, {}).turn(), pytest.raises(Busy, match="tiny-phone is being refreshed already"):
        Fake(base, {}).run()


def test_a_dry_run_of_one_that_is_open_says_what_is_left_and_what_it_will_cost(base: Path) -> None:
    one = Fake(base, {})
    opened(one, tried("recalibrate", "refused"), tried("norms", "waiting"))
    assert one.run(dry=True).splitlines() == [
        "would refresh: input statistics moved",
        "recalibrate: refused after 12 s: is refused on validation",
        "norms: about 60 s (1 run of this rung)",
    ]
    assert one.ran == []


def test_what_champions_learned_from_is_followed_back_to_the_first(base: Path) -> None:
    one = Fake(base, {})
    first, second = one.folder(story()) / "norms", one.folder(story(number=2)) / "distil"
    story(workspace=base).write(first.parent)
    more = [{"folder": "windows/evening", "digest": "e", "labelled_by": "people"}]
    story(number=2, workspace=first, windows=more).write(second.parent)
    assert (one.learned(base), one.learned(first), one.learned(second)) == (set(), {"d"}, {"d", "e"})


def test_a_target_that_is_not_there_names_the_nearest(base: Path) -> None:
    with pytest.raises(ParamsError, match="no target 'phne'; did you mean 'phone'"):
        Refresh.quiet(base, "phne", RULES)


def test_without_a_champion_there_is_nothing_to_refresh(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refreshing.registry, "champion_of", lambda model, *, uri: None)
    with pytest.raises(LimbeckError, match="tiny-phone has no champion yet; run the pipeline first: make run"):
        Refresh.quiet(base, "phone", RULES).run()


def test_a_champion_of_elsewhere_is_not_refreshed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refreshing.registry, "champion_of", lambda model, *, uri: ("3", "elsewhere"))
    with pytest.raises(LimbeckError, match="version 3, the champion of tiny-phone, was made neither in"):
        Refresh.quiet(base, "phone", RULES).run()
