"""One step of a staged rollout: what is signed, what stands in the ledger, and what a kill leaves to the next one."""

from pathlib import Path
from typing import Any

import pytest

from limbeck import ledger
from limbeck.errors import PublishingError
from limbeck.publishing import staged
from limbeck.publishing.keys import Keys
from limbeck.publishing.rollout import Rules
from limbeck.publishing.serving import Canary, Publisher
from tests.publishing.conftest import Device, FromFolder, Shelf
from tests.publishing.fleet import Fleet, devices
from tests.publishing.test_serving import Killed
from tests.tracking.conftest import MODEL

RULES = Rules(ladder=(0.3, 0.6), min_devices=6)
DAY_S = 24 * 3600.0


@pytest.fixture
def place(workspace: Path) -> Fleet:
    return Fleet(workspace / "published")


def begun(publisher: Publisher, share: float = 0.3) -> Canary:
    publisher.publish(MODEL, serial=1)
    publisher.publish(MODEL, "canary", serial=2, share=share)
    return present(publisher)


def present(publisher: Publisher) -> Canary:
    found = publisher.canary(MODEL)
    assert found is not None
    return found


def goes_well(place: Fleet, canary: Canary, now: float) -> None:
    ours, theirs = devices(canary, 8, 8)
    for device in ours:
        place.tells(device, canary.served, now)
    for device in theirs:
        place.tells(device, canary.champion, now)


def goes_wrong(place: Fleet, canary: Canary, now: float) -> None:
    for device in devices(canary, 8, 0)[0]:
        place.gives_up(device, canary.served, now)


def step(publisher: Publisher, now: float, rules: Rules = RULES) -> str:
    """What the flow does with a model."""
    staged.settle(publisher, MODEL)
    found = staged.look(publisher, MODEL, rules, now=now)
    if found is None:
        return "no canary"
    staged.take(publisher, found)
    return found.decision.action


def decisions(workspace: Path) -> list[str]:
    return [e.why.partition(",")[0] for e in ledger.read(workspace / "ledger.jsonl") if e.alias == staged.DECIDED]


def test_a_canary_that_does_well_is_widened_and_promoted_one_step_at_a_time(
    publisher: Publisher, place: Fleet, device: Device, shelf: Shelf, workspace: Path
) -> None:
    canary = begun(publisher)
    now = canary.since + DAY_S + 60
    assert step(publisher, now) == "wait"
    goes_well(place, canary, now)
    assert step(publisher, canary.since + DAY_S - 60) == "wait"
    assert step(publisher, now) == "widen"
    wider = present(publisher)
    assert (wider.share, wider.salt, wider.began) == (0.6, canary.salt, canary.began)
    assert decisions(workspace) == ["to widen from 0.3 to 0.6"]
    goes_well(place, wider, wider.since + DAY_S + 60)
    assert step(publisher, wider.since + DAY_S + 60) == "promote"
    assert (device.sees()["serial"], device.sees("canary")) == (2, {})
    assert shelf.aliases[MODEL, "champion"] == "2"
    assert step(publisher, now) == "no canary"
    assert decisions(workspace) == ["to widen from 0.3 to 0.6", "to promote"]
    entry = ledger.read(workspace / "ledger.jsonl")
    told = next(e.why for e in entry if e.alias == staged.DECIDED)
    assert "share that went back 0, at least 0, allowed 0.05, 8 devices: kept" in told


def test_a_canary_that_does_badly_is_taken_back_with_its_reasons(
    publisher: Publisher, place: Fleet, device: Device, shelf: Shelf, workspace: Path
) -> None:
    canary = begun(publisher)
    goes_wrong(place, canary, canary.since + 60)
    assert step(publisher, canary.since + 61) == "take back"
    assert (device.sees()["serial"], device.sees("canary")) == (1, {})
    assert (MODEL, "canary") not in shelf.aliases
    assert step(publisher, canary.since + 62) == "no canary"
    (entry,) = [e for e in ledger.read(workspace / "ledger.jsonl") if e.alias == staged.DECIDED]
    assert (entry.previous, entry.version) == ("1", "2")
    assert entry.why.endswith("8 devices: broken; 8x refused: too slow")


def test_twice_in_a_row_does_nothing_twice(publisher: Publisher, place: Fleet, workspace: Path) -> None:
    canary = begun(publisher)
    goes_well(place, canary, canary.since + DAY_S)
    assert step(publisher, canary.since + DAY_S) == "widen"
    before = (workspace / "ledger.jsonl").read_bytes(), place.read("timestamp.json")
    assert step(publisher, present(publisher).since + 60) == "wait"
    assert ((workspace / "ledger.jsonl").read_bytes(), place.read("timestamp.json")) == before


class Dying(Shelf):
    """A registry that is shown nothing any more: the publisher dies after it signed."""

    def mirror(self, model: str, alias: str, number: str | None) -> str | None:
        raise Killed


class DyingFleet(Fleet):
    """A place whose publisher dies at the n-th write, before or after it."""

    def __init__(self, of: Fleet, dies_at: int) -> None:
        super().__init__(of.path)
        self.files, self.left = of.files, dies_at

    def write(self, name: str, content: bytes) -> None:
        for then in (lambda: super(DyingFleet, self).write(name, content), lambda: None):
            self.left -= 1
            if self.left == 0:
                raise Killed
            then()


@pytest.mark.parametrize("how", ["widen", "promote", "take back"])
@pytest.mark.parametrize("dies_at", [1, 4, 5, 6, 99])
def test_killed_at_any_moment_the_next_step_ends_in_the_same_state(
    keys: Keys, publisher: Publisher, place: Fleet, shelf: Shelf, workspace: Path, how: str, dies_at: int
) -> None:
    canary = begun(publisher, share=0.6 if how == "promote" else 0.3)
    now = canary.since + DAY_S
    (goes_wrong if how == "take back" else goes_well)(place, canary, now)
    fragile: Any = DyingFleet(place, dies_at)
    dying = Publisher(keys, fragile, registry=Dying(), ledger_file=publisher.ledger_file)
    with pytest.raises(Killed):
        step(dying, now)
    again = Publisher(Keys.open(keys.folder), place, registry=shelf, ledger_file=publisher.ledger_file)
    done = step(again, now if dies_at < 6 else now - 60)
    assert done == (how if dies_at < 6 else "wait" if how == "widen" else "no canary")
    mine = Device(workspace / "mine", keys.root_bytes(1), FromFolder(place.path))
    expected = {"widen": (1, 2), "promote": (2, None), "take back": (1, None)}[how]
    assert (mine.sees()["serial"], mine.sees("canary").get("serial")) == expected
    assert shelf.aliases.get((MODEL, "canary")) == (None if expected[1] is None else "2")
    assert shelf.aliases[MODEL, "champion"] == str(expected[0])
    assert len(decisions(workspace)) == 1
    served = [(e.alias, e.version) for e in ledger.read(workspace / "ledger.jsonl") if e.alias.startswith("served")]
    assert len(served) == {"widen": 3, "promote": 4, "take back": 3}[how]


def test_what_somebody_did_meanwhile_stands(publisher: Publisher, place: Fleet, device: Device) -> None:
    canary = begun(publisher)
    goes_well(place, canary, canary.since + DAY_S)
    found = staged.look(publisher, MODEL, RULES, now=canary.since + DAY_S)
    assert found is not None
    publisher.withdraw(MODEL)
    with pytest.raises(PublishingError, match=r"changed while its canary was judged; nothing was done"):
        staged.take(publisher, found)
    assert device.sees("canary") == {}


def test_a_champion_that_training_moved_on_in_the_registry_stays_there(
    publisher: Publisher, place: Fleet, shelf: Shelf, workspace: Path
) -> None:
    canary = begun(publisher, share=0.6)
    goes_well(place, canary, canary.since + DAY_S)
    assert step(publisher, canary.since + DAY_S) == "promote"
    entry = ledger.now(model=MODEL, alias="champion", previous="2", version="3", why="better on this test split")
    ledger.append(publisher.ledger_file, entry)
    shelf.aliases[MODEL, "champion"] = "3"
    assert step(publisher, canary.since + DAY_S) == "no canary"
    assert shelf.aliases[MODEL, "champion"] == "3"


def test_a_share_set_by_hand_begins_its_time_anew(publisher: Publisher, place: Fleet) -> None:
    canary = begun(publisher)
    goes_well(place, canary, canary.since + DAY_S)
    publisher.publish(MODEL, "canary", serial=2, share=0.4)
    assert step(publisher, canary.since + DAY_S - 60) == "wait"
    assert step(publisher, canary.since + DAY_S + 60) == "widen"
    assert present(publisher).share == 0.6


def test_every_model_that_is_published_is_looked_at(publisher: Publisher) -> None:
    assert staged.models(publisher) == []
    begun(publisher)
    assert staged.models(publisher) == [MODEL]
