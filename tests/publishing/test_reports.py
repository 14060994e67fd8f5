"""What devices told, read as something that anybody may have written."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck.edge import spool
from limbeck.publishing.reports import FILE, MAX_HEARD, Evidence, Word, gather, last_days, reasons
from limbeck.publishing.serving import Canary, Publisher
from tests.publishing.fleet import Fleet, devices, key_of, stamp, usage
from tests.tracking.conftest import MODEL

NOW = time.time() + 7200


@pytest.fixture
def fleet(place: Fleet) -> Fleet:
    return place


@pytest.fixture
def place(workspace: Any) -> Fleet:
    return Fleet(workspace / "published")


@pytest.fixture
def canary(publisher: Publisher) -> Canary:
    publisher.publish(MODEL, serial=1)
    publisher.publish(MODEL, "canary", serial=2, share=0.5)
    found = publisher.canary(MODEL)
    assert found is not None
    return found


def heard(fleet: Fleet, canary: Canary, now: float = NOW) -> Evidence:
    return gather(fleet, MODEL, canary, batch_size=1, min_answers=100, now=now)


def test_each_device_has_one_word_on_its_own_version(fleet: Fleet, canary: Canary) -> None:
    (ours, mute), (theirs, *_) = devices(canary, 2, 1)
    for hour in range(3):
        fleet.tells(ours, canary.served, NOW - 600 * hour, calls=100 + hour, errors=1)
        fleet.tells(theirs, canary.champion, NOW - 600 * hour, logit=0.0)
    fleet.tells(mute, canary.champion, NOW)
    found = heard(fleet, canary)
    (word,), (other,) = found.canary, found.champion
    assert (word.gone_back, word.answers) == (None, 101)
    assert word.error_rate == pytest.approx(1 / 101)
    assert word.p95_ms == pytest.approx(0.5, rel=0.02)
    assert word.confidence == pytest.approx(0.953, abs=0.001)
    assert other.confidence == pytest.approx(0.5)
    assert (found.num_active, found.num_unusable) == (2, 0)


def test_the_latest_report_with_enough_answers_counts(fleet: Fleet, canary: Canary) -> None:
    (ours,), _ = devices(canary, 1, 0)
    fleet.tells(ours, canary.served, NOW - 3000, calls=300)
    fleet.tells(ours, canary.served, NOW - 2000, calls=200)
    fleet.tells(ours, canary.served, NOW - 1000, calls=50)
    assert heard(fleet, canary).canary[0].answers == 200


@pytest.mark.parametrize("event", ["refused", "reverted", "rolled back"])
def test_a_device_that_went_back_says_so_once(fleet: Fleet, canary: Canary, event: str) -> None:
    (ours,), _ = devices(canary, 1, 0)
    fleet.tells(ours, canary.served, NOW - 100)
    for _ in range(3):
        fleet.gives_up(ours, canary.served, NOW - 90, event=event, why="it\nraised\x1b[31m " + "x" * 900)
    (word,) = heard(fleet, canary).canary
    assert word.answers == 100
    assert str(word.gone_back).startswith(f"{event}: it raised [31m x")
    assert len(str(word.gone_back)) == 160


def test_a_device_that_tried_again_and_uses_it_did_not_go_back(fleet: Fleet, canary: Canary) -> None:
    (ours,), _ = devices(canary, 1, 0)
    fleet.gives_up(ours, canary.served, NOW - 5000)
    fleet.tells(ours, canary.served, NOW)
    assert heard(fleet, canary).canary[0].gone_back is None


def test_a_device_whose_turn_it_is_not_is_not_heard_on_the_canary(fleet: Fleet, canary: Canary) -> None:
    _, (other,) = devices(canary, 0, 1)
    fleet.gives_up(other, canary.served, NOW)
    assert heard(fleet, canary) == Evidence()


def test_what_was_told_before_the_canary_began_does_not_count(fleet: Fleet, canary: Canary) -> None:
    (ours, another), (theirs,) = devices(canary, 2, 1)
    fleet.gives_up(ours, canary.served, canary.began - 60)
    fleet.tells(another, canary.served, canary.began - 30 * 24 * 3600)
    fleet.tells(theirs, canary.champion, canary.began - 1)
    found = heard(fleet, canary)
    assert (found.canary, found.champion, found.num_active) == ((), (), 1)


def test_a_device_that_fell_silent_is_not_waited_for(fleet: Fleet, canary: Canary) -> None:
    (ours,), _ = devices(canary, 1, 0)
    fleet.tells(ours, canary.served, NOW)
    assert heard(fleet, canary, NOW + 6 * 24 * 3600).num_active == 1
    assert heard(fleet, canary, NOW + 8 * 24 * 3600).num_active == 0


def changed(**values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda said: said | values


BROKEN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no JSON": lambda said: b"\xff{",
    "nothing": lambda said: b"",
    "a list": lambda said: [said],
    "another device's": changed(device="f" * 16),
    "another model's": changed(model="digits-sensor"),
    "another version's": changed(bundle="9-" + "0" * 16),
    "of another format": changed(format=2),
    "of another kind": changed(kind="wish"),
    "less than nothing": changed(calls=-1),
    "a boolean": changed(calls=True),
    "too many": changed(calls=10**30),
    "a text": changed(calls="100"),
    "of the future": changed(to=NOW + 1e6),
    "of no time": lambda said: json.dumps(said | {"to": float("nan")}).encode(),
    "infinite": lambda said: json.dumps(said).replace('"p95_ms": ', '"p95_ms": 1e999, "p94_ms": ').encode(),
    "deep": lambda said: b'{"kind": "usage", "errors": ' + b"[" * 30_000,
    "without errors": lambda said: {key: value for key, value in said.items() if key != "errors"},
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_report_is_counted_and_left_out(fleet: Fleet, canary: Canary, how: str) -> None:
    (ours,), _ = devices(canary, 1, 0)
    fleet.put_report(ours, BROKEN[how](usage(ours, canary.served, NOW)), NOW - 3600, key_of(canary.served))
    found = heard(fleet, canary)
    assert (found.canary, found.num_unusable) == ((), 1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(["calls", "errors", "latency_ms", "confidence", "to", "from", "not_finite", "kind"]), value=JSON
)
def test_whatever_stands_in_a_report_nothing_is_raised_and_figures_stay_in_range(
    fleet: Fleet, canary: Canary, key: str, value: Any
) -> None:
    fleet.files.clear()
    (ours,), _ = devices(canary, 1, 0)
    fleet.put_report(ours, usage(ours, canary.served, NOW, calls=1) | {key: value}, NOW - 3600, key_of(canary.served))
    for word in heard(fleet, canary).canary:
        assert 0 <= word.error_rate <= 1
        assert word.confidence is None or 0 <= word.confidence <= 1


def test_files_with_other_names_are_not_even_opened(fleet: Fleet, canary: Canary) -> None:
    (ours,), _ = devices(canary, 1, 0)
    key = key_of(canary.served)
    strange = ("x.json", f"../{stamp(NOW)}-{key}-00000000.json", f"{stamp(NOW + 1e7)}-{key}-00000000.json")
    fleet.files = {ours: dict.fromkeys((*strange, f"{stamp(NOW)}-{key}-00000000.npz"), b"{}"), "../etc": {}}
    fleet.hear = None  # type: ignore[assignment, method-assign]
    assert heard(fleet, canary) == Evidence(num_unusable=2)


def test_files_are_named_as_devices_name_them(canary: Canary) -> None:
    found = FILE.fullmatch(f"{spool.new_name(key_of(canary.served))}.json")
    assert found is not None
    assert found[2] == key_of(canary.served)


# The last day of each device.

HOUR = 3600


def days(fleet: Fleet, canary: Canary, now: float = NOW) -> dict[str, list[float]]:
    """By device the ends of the reports that were read, in hours ago."""
    found = last_days(fleet, MODEL, canary.served.serial, now=now)
    return {device: [round((NOW - said["to"]) / HOUR) for said in reports] for device, reports in found.items()}


def test_of_each_device_the_last_day_is_heard_on_which_it_told_of_the_version(fleet: Fleet, canary: Canary) -> None:
    steady, away, gone, other = (f"{number:016x}" for number in range(4))
    for hours in (0, 1, 23, 25):
        fleet.tells(steady, canary.served, NOW - hours * HOUR)
    for hours in (48, 60, 73):
        fleet.tells(away, canary.served, NOW - hours * HOUR)
    fleet.tells(gone, canary.served, NOW - 8 * 24 * HOUR)
    fleet.tells(other, canary.champion, NOW)
    fleet.gives_up(other, canary.served, NOW)
    assert days(fleet, canary) == {steady: [23, 1, 0], away: [60, 48]}


@pytest.mark.parametrize("how", BROKEN)
def test_of_a_broken_report_nothing_is_heard(fleet: Fleet, canary: Canary, how: str) -> None:
    sound, torn = "a" * 16, "b" * 16
    fleet.tells(sound, canary.served, NOW)
    fleet.put_report(torn, BROKEN[how](usage(torn, canary.served, NOW)), NOW - HOUR, key_of(canary.served))
    assert days(fleet, canary) == {sound: [0]}


def test_what_is_told_of_a_bundle_that_was_never_kept_is_not_opened(fleet: Fleet, canary: Canary) -> None:
    fleet.put_report("a" * 16, b"{}", NOW, f"{canary.served.serial}-{'0' * 16}")
    fleet.hear = None  # type: ignore[assignment, method-assign]
    assert days(fleet, canary) == {}
    fleet.kept = lambda model: set()  # type: ignore[method-assign]
    fleet.reporters = None  # type: ignore[assignment, method-assign]
    assert days(fleet, canary) == {}, "a server without bundles is not even asked who reports"


def test_of_a_large_fleet_a_part_is_heard_and_always_the_same(fleet: Fleet, canary: Canary) -> None:
    for number in range(MAX_HEARD + 9):
        fleet.tells(f"{number:016x}", canary.served, NOW)
    before = days(fleet, canary)
    fleet.files = dict(reversed(fleet.files.items()))
    assert len(before) == MAX_HEARD
    assert days(fleet, canary) == before


def test_the_commonest_reasons_come_first() -> None:
    words = [Word(f"refused: {why}") for why in ("slow", "dark", "slow")]
    assert reasons((*words, Word())) == ["2x refused: slow", "1x refused: dark"]
