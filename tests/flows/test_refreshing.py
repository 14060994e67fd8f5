"""The order of a refresh, with a pipeline that answers at once; the real one is in tests/pipeline/test_refresh_slow.py."""

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flows import environment
from flows.refreshing import climbing, requesting, shipping, standing
from flows.refreshing.climbing import Refresh
from flows.refreshing.standing import Waits, turn
from flows.turns import Busy
from limbeck.atomic import write_json
from limbeck.data.window import Origin
from limbeck.drift import Report, Signals
from limbeck.errors import ContractBroken, DataError, LimbeckError, ParamsError
from limbeck.refresh import rules as rules_file
from limbeck.refresh import story as story_file
from limbeck.refresh.looking import Look
from limbeck.refresh.requests import AddTarget, ChangeBudget, Meaning, TaskRequest
from limbeck.refresh.story import Story, Try
from limbeck.refresh.worlds import Group
from tests.conftest import ROOT, TINY
from tests.refresh.stories import judged, story, tried

RULES = rules_file.load(ROOT / "refresh.yaml")


class Fake(Refresh):
    """Each rung ends as `ends` says, at once; nobody else changes the champion."""

    def __init__(self, base: Path, ends: dict[str, Any], rules: Any = RULES) -> None:
        self.said: list[str] = []
        super().__init__(base, "phone", rules, run_stages=self.run_one, approve=lambda *_: "", say=self.said.append)
        self.ends, self.ran, self.shipped, self.by_now = ends, [], [], ""
        self.failing: str | None = None

    def run_one(self, place: Path, target: str, until: str) -> None:
        """Ends as told; what is an exception is raised."""
        assert until == "benchmark", "it ships in another test"
        self.ran.append(place.name)
        if isinstance(self.ends[place.name], BaseException):
            raise self.ends[place.name]

    def begin(self, told: Any, request: Any, standing: Any = (), **_: Any) -> str:
        return "no new window: nothing to do"

    def judge(self, told: Story, each: Try, place: Path) -> str:
        """Ends as told; a number is what one gains that passes."""
        ends = self.ends[each.rung]
        each.state = ends if isinstance(ends, str) else "passed"
        each.verdict = judged(ends == "passed") if isinstance(ends, str) else judged(True, gain=ends)
        return "model.int8"

    def ship(self, told: Story, rung: Any) -> str:
        self.shipped.append(rung)
        if self.failing:
            self.end(told, "refused", self.failing)
            raise ContractBroken(self.failing)
        return self.end(told, "champion", "better")

    def overtaken(self, told: Story) -> str:
        return self.by_now


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    monkeypatch.setattr("flows.workspace.create", lambda place, *_, **__: place)
    shutil.copy(TINY, tmp_path / "params.yaml")
    return tmp_path


def opened(refresh: Refresh, *tries: Try, **more: Any) -> Story:
    told = story(*tries, **more)
    told.write(refresh.folder(told))
    return told


WAITING = tuple(tried(rung, "waiting") for rung in ("recalibrate", "norms", "distil"))


def test_the_first_rung_that_passes_ships_and_no_later_one_is_tried(base: Path) -> None:
    one = Fake(base, {"recalibrate": "refused", "norms": "passed"})
    opened(one, *WAITING)
    assert one.run().startswith("champion: better; see work/refresh/tiny-phone/0001/report.html")
    assert (one.ran, one.shipped) == (["recalibrate", "norms"], ["norms"])
    assert (base / "work/refresh/tiny-phone/0001/report.html").is_file()


@pytest.mark.parametrize(
    ("gains", "shipped"),
    [
        ({"recalibrate": 0.02, "norms": 0.24}, "norms"),
        ({"recalibrate": 0.02, "norms": 0.2, "distil": 0.1}, "norms"),
        ({"recalibrate": 0.1, "norms": "refused", "distil": 0.1}, "recalibrate"),
    ],
)
def test_who_passes_but_regains_little_is_kept_while_the_next_is_tried_and_the_best_ships(
    base: Path, gains: dict[str, Any], shipped: str
) -> None:
    one = Fake(base, gains)
    opened(one, *WAITING)
    one.run()
    assert (one.ran, one.shipped) == ([*gains], [shipped])
    if gains["recalibrate"] == 0.02:
        assert "recalibrate regains 8% of what was lost" in one.said


def test_the_teacher_does_not_go_on_learning_where_a_cheaper_rung_has_passed(base: Path) -> None:
    one = Fake(base, {"distil": 0.1})
    opened(one, tried("distil", "waiting"), tried("teacher", "waiting"))
    one.run()
    assert (one.ran, one.shipped) == (["distil"], ["distil"])
    assert "teacher: skipped: distil has passed the gate" in "\n".join(one.said)


def test_what_has_passed_does_not_wait_for_tomorrows_budget(base: Path) -> None:
    one = Fake(base, {}, RULES.model_copy(update={"minutes_per_day": 1.4}))
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    opened(one, tried("recalibrate", "passed", gain=0.1, by_day={today: 30.0}), tried("norms", "waiting"))
    one.run()
    assert (one.ran, one.shipped) == ([], ["recalibrate"])
    assert "(minutes_per_day) are spent; recalibrate has passed the gate" in "\n".join(one.said)


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
    other.failing = "fails the exam"
    opened(other, tried("recalibrate", "passed"))
    assert other.run().splitlines() == ["fails the exam", "no new window: nothing to do"]


def test_a_model_is_found_in_the_workspace_that_makes_it(base: Path) -> None:
    own = base / "work/fashion/params.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(TINY.read_text().replace("name: tiny", "name: fashion"))
    (base / "work/broken").mkdir()
    (base / "work/broken/params.yaml").write_text("name: []")
    assert standing.made_in("tiny-sensor") == (base, "sensor")
    assert standing.made_in("fashion-phone") == (own.parent, "phone")
    assert standing.made_in("somebody-elses") is None


def test_a_rung_that_would_not_end_within_the_days_budget_waits(base: Path) -> None:
    one = Fake(base, {}, RULES.model_copy(update={"minutes_per_day": 1.4}))
    today, yesterday = (f"{datetime.now(UTC) - timedelta(days=days):%Y-%m-%d}" for days in (0, 1))
    opened(one, tried("recalibrate", "refused", by_day={yesterday: 900.0, today: 30.0}), tried("norms", "waiting"))
    with pytest.raises(
        Waits, match=r"norms: it would take about 60 s, and 30 of today's 84 s \(minutes_per_day\) are spent"
    ):
        one.run()
    assert story_file.read(one.place / "0001").outcome is None, "it goes on when it is run again"


def test_a_rung_that_no_days_budget_allows_is_passed_over_and_does_not_wait_for_ever(base: Path) -> None:
    one = Fake(base, {}, RULES.model_copy(update={"minutes_per_day": 0.5}))
    opened(one, *WAITING)
    assert "no rung came as far as the gate; the champion stays" in one.run()
    assert one.ran == []
    assert "norms: skipped: it would take about 60 s, and no day has more than 30 s (minutes_per_day)" in one.said


def test_what_a_killed_attempt_took_counts_up_to_its_last_sign_of_life(base: Path) -> None:
    one = Fake(base, {"recalibrate": KeyboardInterrupt()})
    began = datetime.now(UTC) - timedelta(hours=5)
    opened(one, tried("recalibrate", "waiting", began=began))
    status = one.place / "0001/recalibrate/.limbeck/status/label.json"
    status.parent.mkdir(parents=True)
    status.touch()
    os.utime(status, (began.timestamp() + 90,) * 2)
    with pytest.raises(KeyboardInterrupt):
        one.run()
    (found,) = story_file.read(one.place / "0001").tries
    assert found.seconds == pytest.approx(90, abs=5)
    assert sum(found.by_day.values()) == found.seconds
    assert (found.state, found.began) == ("waiting", None), (
        "the second attempt was interrupted in order, and is counted"
    )


def test_a_rung_that_begins_says_so_in_its_story_before_it_does(base: Path) -> None:
    one = Fake(base, {})

    def look(place: Path, *_: str) -> None:
        assert story_file.read(place.parent).tries[0].began is not None
        raise ContractBroken("seen")

    one.run_stages = look
    opened(one, WAITING[0])
    one.run()
    assert story_file.read(one.place / "0001").tries[0].why == "seen"


def test_where_every_rung_broke_down_the_gate_is_not_blamed(base: Path) -> None:
    one = Fake(base, dict.fromkeys(("recalibrate", "norms", "distil"), DataError("no room on the disk")))
    opened(one, *WAITING)
    assert "no rung came as far as the gate" in one.run()
    assert "norms: failed: no room on the disk" in (one.place / "0001/report.md").read_text()


def test_a_champion_that_changed_meanwhile_ends_the_refresh_before_anything_more_is_spent(base: Path) -> None:
    one = Fake(base, {})
    one.by_now = "the champion is version 5 by now"
    opened(one, tried("recalibrate", "refused"), tried("norms", "waiting"))
    assert one.run().startswith("superseded: the champion is version 5 by now; see")
    assert (one.ran, one.shipped) == ([], [])
    assert "norms: not tried" in (one.place / "0001/report.md").read_text()


def test_two_refreshes_of_one_model_never_overlap(base: Path) -> None:
    with turn("tiny-phone"), pytest.raises(Busy, match="tiny-phone is being refreshed already"):
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


def test_what_champions_learned_from_is_followed_back_to_the_first(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also through a workspace that a request made, which has no story: the data themselves say it."""
    one = Fake(base, {})
    places = [one.folder(story()) / "norms", one.place / "requests/3fa", one.folder(story(number=2)) / "distil"]
    told = {base / "data": (), places[0] / "data": ("d",), places[1] / "data": ("d",), places[2] / "data": ("e",)}
    origins = {
        data: [Origin(name=name, digest=name, samples=1, repeated=0, unlabelled=0) for name in names]
        for data, names in told.items()
    }
    monkeypatch.setattr(standing, "read_meta", lambda data: SimpleNamespace(windows=origins[data], learned=()))
    for place, before in zip(places, (base, base, places[1]), strict=True):
        place.mkdir(parents=True)
        source = {"use": "windows", "base": str(before / "data"), "folders": []}
        (place / "params.yaml").write_text(yaml.safe_dump({"data": {"source": source}}))
    assert [one.learned(place) for place in (base, *places)] == [set(), {"d"}, {"d"}, {"d", "e"}]


def test_a_window_is_not_learned_while_samples_of_a_class_in_it_wait(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Fake(base, {})
    place, windows = one.folder(story()) / "distil", [base / "windows/noon", base / "windows/evening"]
    origins = [Origin(name=each.name, digest=each.name, samples=1, repeated=0, unlabelled=0) for each in windows]
    monkeypatch.setattr(standing, "read_meta", lambda data: SimpleNamespace(windows=origins, learned=()))
    monkeypatch.setattr(standing, "read_about", lambda folder: SimpleNamespace(digest=folder.name))
    monkeypatch.setattr(standing, "labelled_in", lambda folders: {"tram": 3} if folders[0].name == "evening" else {})
    place.mkdir(parents=True)
    source = {"use": "windows", "base": str(base / "data"), "folders": list(map(str, windows))}
    for left, learned in (({}, {"noon", "evening"}), ({"leave_out": ["tram"]}, {"noon"})):
        (place / "params.yaml").write_text(yaml.safe_dump({"data": {"source": source | left}}))
        assert one.learned(place) == learned


STANDS = "identity of the champion"


def decided(place: Path, identity: str) -> Path:
    write_json(place / "registry/phone.json", {"identity": identity, "variant": "model.int8"})
    return place


@pytest.mark.parametrize(
    ("stands", "expected"),
    [
        (("1", STANDS), ""),
        (("5", "another"), "the champion is version 5 by now, and the rungs were held against version 1"),
        (("2", "of norms"), ""),
        (None, "the champion is version none by now"),
        (("1", "not what lies there"), "holds another student than version 1 by now"),
    ],
)
def test_a_champion_is_overtaken_by_others_but_not_by_what_this_refresh_shipped(
    base: Path, monkeypatch: pytest.MonkeyPatch, stands: Any, expected: str
) -> None:
    one = Refresh.quiet(base, "phone", RULES)
    told = story(tried("norms", "passed"), workspace=decided(base, STANDS))
    decided(one.folder(told) / "norms", "of norms")
    monkeypatch.setattr(standing.registry, "champion_of", lambda model, *, uri: stands)
    found = one.overtaken(told)
    assert expected in found if expected else not found


def test_what_a_rung_did_otherwise_does_not_change_what_was_asked_for(base: Path) -> None:
    one = Fake(base, {})
    asked = one.wanted(base)
    told = story(tried("norms", "passed"), wanted=asked)
    told.write(one.folder(told))
    rung = one.folder(told) / "norms"
    rung.mkdir()
    held = yaml.safe_load((base / "params.yaml").read_text())
    held["targets"]["phone"]["contract"]["max_drop"] = 0.9
    held["targets"]["phone"]["distill"]["alpha"] = 0.1
    (rung / "params.yaml").write_text(yaml.safe_dump(held))
    assert one.contract(rung).max_drop == 0.9
    assert one.wanted(rung) == asked
    assert one.params(rung)["targets"]["phone"].items() >= asked.items()


class Ships(Refresh):
    """Its exam is sat; what would be registered and served is written down."""

    def __init__(self, base: Path, ask: str = "none", canary: float | None = None, answer: str = "") -> None:
        self.did: list[str] = []
        ship = RULES.ship.model_copy(update={"approval": ask, "canary": canary})
        rules = RULES.model_copy(update={"ship": ship})
        super().__init__(base, "phone", rules, run_stages=self.stage, approve=self.asked, say=lambda _: None)
        self.answer, self.by_now = answer, [""]

    def stage(self, place: Path, target: str, until: str) -> None:
        self.did.append(until)

    def asked(self, told: Story, keep: Any) -> str:
        self.did.append("asked")
        return self.answer

    def begin(self, told: Any, request: Any, standing: Any = (), **_: Any) -> str:
        return "no new window: nothing to do"

    def overtaken(self, told: Story) -> str:
        return self.by_now.pop(0) if len(self.by_now) > 1 else self.by_now[0]


@pytest.fixture
def appointed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    done = list[str]()
    monkeypatch.setattr(shipping, "appoint", lambda place, target, why: done.append(why) or "2")
    return done


PASSED = {"exam": judged(True), "data": "d"}


def test_what_passed_is_asked_about_registered_and_appointed_in_this_order(base: Path, appointed: list[str]) -> None:
    one = Ships(base, "ask")
    opened(one, tried("norms", "passed"), **PASSED)
    assert one.run().startswith("champion: refresh 1, norms: passes on validation")
    assert one.did == ["asked", "register"]
    assert appointed == ["refresh 1, norms: passes on validation"]
    told = story_file.read(one.place / "0001")
    assert told.version == "2"
    assert told.approved is not None


def test_a_refresh_that_was_killed_after_a_yes_does_not_ask_again(base: Path, appointed: list[str]) -> None:
    one = Ships(base, "ask")
    opened(one, tried("norms", "passed"), **PASSED, approved=datetime.now(UTC))
    one.run()
    assert one.did == ["register"]
    assert appointed


def test_an_exam_that_was_failed_is_not_sat_again_and_its_figures_are_in_the_report(
    base: Path, appointed: list[str]
) -> None:
    one = Ships(base)
    opened(one, tried("norms", "passed"), exam=judged(False, gain=-0.3), data="d")
    assert "fails the exam; the champion stays" in one.run()
    assert (one.did, appointed) == ([], [])
    assert "test, new" in (report := (one.place / "0001/report.md").read_text())
    assert "20.0" in report


def test_an_exam_that_was_passed_can_be_sat_again_where_nobody_said_yes(base: Path) -> None:
    one = Ships(base)
    for number, passed in ((1, True), (2, False)):
        told = story(number=number, outcome="refused", exam=judged(passed), data=f"data {number}")
        told.write(one.folder(told))
    assert one.failed_exams() == ["data 2"]


@pytest.mark.parametrize("why", ["a person said no", "nobody said yes within 24 h"])
def test_without_a_yes_nothing_is_registered_and_the_report_says_why(
    base: Path, appointed: list[str], why: str
) -> None:
    one = Ships(base, "ask", answer=why)
    opened(one, tried("norms", "passed"), **PASSED)
    assert one.run().startswith(f"refused: {why}; the champion stays")
    assert (one.did, appointed) == (["asked"], [])
    assert why in (one.place / "0001/report.md").read_text()


@pytest.mark.parametrize("checks", [["version 5"], ["", "version 5"]])
def test_nothing_ships_over_a_champion_that_it_was_not_held_against(
    base: Path, appointed: list[str], checks: list[str]
) -> None:
    """Neither one that came before the exam nor one that came while a person thought about it."""
    one = Ships(base, "ask")
    one.by_now = checks
    opened(one, tried("norms", "passed"), **PASSED)
    assert one.run().startswith("superseded: version 5")
    assert appointed == []


@pytest.mark.parametrize(("at", "outcome"), [("champion", "champion"), ("canary", "canary")])
def test_a_canary_that_went_on_while_the_refresh_was_dead_is_left_as_it_is(
    base: Path, monkeypatch: pytest.MonkeyPatch, at: str, outcome: str
) -> None:
    one = Ships(base, canary=0.1)
    opened(one, tried("norms", "passed"), **PASSED, version="2")
    monkeypatch.setattr(shipping, "registered", lambda place, target: "2")
    monkeypatch.setattr(shipping.registry, "is_at", lambda model, alias, number, *, uri: alias == at)
    assert one.run().startswith(f"{outcome}: ")  # publishing again would need keys, which are not here


def test_a_target_that_is_not_there_names_the_nearest(base: Path) -> None:
    with pytest.raises(ParamsError, match="no target 'phne'; did you mean 'phone'"):
        Refresh.quiet(base, "phne", RULES)


def test_without_a_champion_there_is_nothing_to_refresh(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing.registry, "champion_of", lambda model, *, uri: None)
    with pytest.raises(LimbeckError, match="tiny-phone has no champion yet; run the pipeline first: make run"):
        Refresh.quiet(base, "phone", RULES).run()


def test_a_champion_of_elsewhere_is_not_refreshed(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing.registry, "champion_of", lambda model, *, uri: ("3", "elsewhere"))
    with pytest.raises(LimbeckError, match="version 3, the champion of tiny-phone, was made neither in"):
        Refresh.quiet(base, "phone", RULES).run()


def looked(reason: str, *, sources: tuple[str, ...] = (), fires: bool = False) -> Any:
    """As much of a look as decides whether anything is done."""
    moved = () if not sources else (SimpleNamespace(what="concept"),)
    report = Report(fires, False, reason, sources, moved, {}, ("a test",), 0.01, 500, 300)  # type: ignore[arg-type]
    group, found = Group((Path("noon"),), report, Signals({}), Signals({})), object.__new__(Look)
    fields = {
        "groups": (group,),
        "acts": group.folders if fires else (),
        "harmless": (),
        "waiting": (),
        "num_known": 300,
    }
    for name, value in fields.items():
        object.__setattr__(found, name, value)
    return found


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (looked("nothing moved"), ""),
        (looked("accuracy", sources=("labels",)), ". Where the labels are right and the model is not: --anyway"),
        (looked("all", sources=("samples", "student"), fires=True), None),
    ],
)
def test_what_calls_for_nothing_says_what_a_person_could_do(found: Look, said: str | None) -> None:
    assert found.calls_for_nothing == said


@pytest.mark.parametrize(("sources", "is_settled"), [((), True), (("labels",), False)])
def test_a_look_that_found_the_same_is_kept_once_and_what_a_person_must_see_is_looked_at_again(
    base: Path, monkeypatch: pytest.MonkeyPatch, sources: tuple[str, ...], is_settled: bool
) -> None:
    monkeypatch.setattr(climbing, "_draw", lambda *_: None)
    monkeypatch.setattr(climbing, "read_about", lambda folder: SimpleNamespace(digest=folder.name))
    one, found = Fake(base, {}), looked("because", sources=sources)
    one.place.mkdir(parents=True)
    for hour in range(2):
        one.keep_look([Path("noon")], found, {"report": {"reason": "because"}}, datetime(2026, 1, 1, hour, tzinfo=UTC))
        one.settle(found.settled)
    assert len(list(one.place.glob("looks/*.json"))) == 1
    assert (one.place / "settled.json").exists() == is_settled


def test_windows_that_hardly_anybody_labelled_are_named_so_before_anything_is_spent(base: Path) -> None:
    told = Fake(base, {}).few_labels(99)
    assert told.startswith("only 99 of the new samples are labelled, by people or by a teacher that was sure")
    assert Fake(base, {}).few_labels(100) == ""


def test_a_request_waits_for_its_turn_with_the_model(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = yaml.safe_load((base / "params.yaml").read_text())
    meaning = Meaning("smaller", params={"phone": raw})
    monkeypatch.setattr(requesting, "_meaning", lambda *_: (meaning, base))
    with turn("tiny-phone"), pytest.raises(Busy, match="tiny-phone is being refreshed already"):
        requesting.fulfil(base, TaskRequest(new_classes=("a",)), RULES, run_stages=lambda *_: None, say=lambda _: None)


WATCH = AddTarget(name="watch", params=yaml.safe_load(TINY.read_text())["targets"]["phone"])


@pytest.fixture
def watch(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace of a target that a request added; it has been made and is the champion."""
    made = list[Path]()

    def run(place: Path, target: str, until: str) -> None:
        assert (target, until) == ("watch", "register")
        write_json(place / "registry/watch.json", {"identity": STANDS, "variant": "model.int8"})
        shutil.copy(place.with_suffix(".yaml"), place / "params.yaml")
        made.append(place)

    monkeypatch.setattr(requesting, "appoint", lambda place, target, why: "1")
    monkeypatch.setattr(standing.registry, "champion_of", lambda model, *, uri: ("1", STANDS))
    said = requesting.fulfil(base, TaskRequest(add_target=WATCH), RULES, run_stages=run, say=lambda _: None)
    assert said.startswith("tiny-watch: champion: version 1: target watch added")
    return made[0]


def test_a_target_that_a_request_added_is_refreshed_like_those_of_params_yaml(base: Path, watch: Path) -> None:
    assert standing.models_of(base) == {"phone": "tiny-phone", "sensor": "tiny-sensor", "watch": "tiny-watch"}
    assert standing.made_in("tiny-watch") == (base, "watch"), "a champion that changes is known for ours"
    one = Refresh.quiet(base, "watch", RULES)
    assert one.champion() == ("1", watch)
    assert one.params(watch)["targets"] == {"watch": WATCH.params}
    assert "watch" not in (base / "params.yaml").read_text(), "which stays as the user wrote it"


def test_a_target_that_a_request_added_is_its_workspaces_alone_and_is_added_once(base: Path, watch: Path) -> None:
    other = base / "work/other"
    other.mkdir(parents=True)
    shutil.copy(TINY, other / "params.yaml")
    assert [*standing.models_of(other)] == ["phone", "sensor"]
    with pytest.raises(
        ParamsError, match="watch is there already; choose another name, or ask to change_budget of watch"
    ):
        requesting.fulfil(base, TaskRequest(add_target=WATCH), RULES, run_stages=never, say=lambda _: None)


def test_a_target_whose_contract_was_broken_is_not_there(base: Path) -> None:
    with pytest.raises(ContractBroken, match="too large"):
        requesting.fulfil(base, TaskRequest(add_target=WATCH), RULES, run_stages=broken, say=lambda _: None)
    assert [*standing.models_of(base)] == ["phone", "sensor"]


def dry_run_of(base: Path, request: TaskRequest) -> str:
    return requesting.fulfil(base, request, RULES, run_stages=never, say=lambda _: None, dry=True)


def test_a_dry_run_of_a_request_says_what_is_not_there_yet_will_cost(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The target of tests/tiny.yaml learns 3 epochs, its twin 3; 1 after the cut, 1 quantized; the teacher 4, of 2 views."""
    request = TaskRequest(add_target=WATCH)
    assert f"would run its whole chain, at a cost that is known once {base} has data" in dry_run_of(base, request)
    (base / "data").mkdir()
    monkeypatch.setattr(requesting, "read_meta", lambda data: SimpleNamespace(counts={"train": 36_000}))
    said = dry_run_of(base, request)
    assert said.startswith(
        "tiny-watch: would run its whole chain, about 380 s (36,000 samples at the rates of refresh.yaml): "
    )
    (base / "labels").mkdir()
    assert "about 132 s (36,000 samples" in dry_run_of(base, request), "the teacher and its labels are there"


def test_a_dry_run_of_another_budget_counts_what_follows_the_champions_student_alone(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, params = base / "work/refresh/tiny-phone/0001/norms", yaml.safe_load(TINY.read_text())
    for folder in ("data", "labels"):
        (place / folder).mkdir(parents=True)
    params["targets"] = {"phone": params["targets"]["phone"]}
    warm = {"use": "checkpoint", "folder": "champion", "sha256": "a" * 64, "tune": "nothing"}
    params["targets"]["phone"]["student"]["model"] = warm
    counts = {place / "data": {"train": 36_000}}
    monkeypatch.setattr(requesting, "_meaning", lambda *_: (Meaning("smaller", params={"phone": params}), place))
    monkeypatch.setattr(requesting, "read_meta", lambda data: SimpleNamespace(counts=counts[data]))
    said = dry_run_of(base, TaskRequest(change_budget=ChangeBudget(target="phone", clauses={"max_size_kb": 9})))
    assert said.startswith("tiny-phone: would run its whole chain, about 78 s (36,000 samples"), "its recovery and qat"


def never(*_: Any) -> None:
    raise AssertionError("nothing was to run")


def broken(*_: Any) -> None:
    raise ContractBroken("too large")
