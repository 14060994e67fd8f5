"""Which windows moved: each for itself, against every world that the champion knows."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.drift import RULES
from limbeck.drift import Signals
from limbeck.drift.signals import Kind, joined
from limbeck.refresh.worlds import Arrived, Group, decisive, judged
from tests.drift.conftest import CLASSES, NOW, world

RULES_HERE = RULES.model_copy(update={"permutations": 1499, "max_pairs": 100})
GLARE: tuple[Kind, ...] = ("inputs", "confidence")


def arrived(name: str, signals: Signals, *, is_unsure: bool = False) -> Arrived:
    return Arrived(Path(name), signals, is_unsure)


def groups(*windows: Arrived, known: Signals | None = None, **learned: Signals) -> tuple[Group, ...]:
    worlds = {"": known or world(600, 0)} | learned
    return judged(worlds, windows, RULES_HERE, seed=0, now=NOW, last_action=None, classes=CLASSES)


def unsure(signals: Signals, below: float = 0.8) -> Signals:
    """What devices upload of them."""
    assert signals.confidence_N is not None
    return signals.take(np.flatnonzero(signals.confidence_N < below))


def test_a_still_window_does_not_hide_one_that_moved() -> None:
    still, moved = groups(arrived("still", world(2000, 1)), arrived("moved", world(150, 2, GLARE)))
    assert (still.report.fires, still.is_settled) == (False, True)
    assert (moved.report.fires, moved.folders) == (True, (Path("moved"),))
    assert decisive([still, moved]) is moved


def test_a_window_whose_labels_contradict_stays_apart_from_one_that_moved() -> None:
    doubted, moved = groups(arrived("doubted", world(400, 1, ("accuracy",))), arrived("moved", world(400, 2, GLARE)))
    assert doubted.asks_a_person
    assert not doubted.is_settled
    assert moved.report.fires


def test_small_windows_are_judged_together() -> None:
    (both,) = groups(arrived("a", world(60, 1, GLARE)), arrived("b", world(60, 2, GLARE)))
    assert both.folders == (Path("a"), Path("b"))
    assert both.report.fires
    (alone,) = groups(arrived("a", world(60, 1, GLARE)))
    assert not alone.report.tests
    assert not alone.is_settled


def test_what_was_learned_is_no_drift_any_more() -> None:
    glare = world(200, 3, GLARE)
    known = joined([world(600, 0), glare])
    (again,) = groups(arrived("again", world(300, 4, GLARE)), known=known, noon=glare)
    assert not again.report.fires
    assert again.report.reason == "nothing moved since noon, which was learned"
    assert again.is_settled
    (unknown,) = groups(arrived("other", world(300, 4, ("prior", "agreement"))), known=known, noon=glare)
    assert unknown.report.fires


def test_labels_that_contradict_are_told_in_every_world() -> None:
    """Of a hundred samples none might tell."""
    (found,) = groups(arrived("doubted", world(400, 1, ("accuracy",))), noon=world(100, 2))
    assert found.asks_a_person


def test_a_world_of_few_samples_is_none_that_a_large_window_may_be_like() -> None:
    glare = world(120, 3, GLARE)
    known = joined([world(600, 0), glare])
    assert groups(arrived("again", world(1500, 4, GLARE)), known=known, noon=glare)[0].report.fires
    assert not groups(arrived("again", world(400, 4, GLARE)), known=known, noon=glare)[0].report.fires


def test_too_few_samples_of_a_learned_window_say_nothing() -> None:
    glare = world(50, 3, GLARE)
    (again,) = groups(arrived("again", world(300, 4, GLARE)), known=joined([world(600, 0), glare]), noon=glare)
    assert again.report.fires


@pytest.mark.parametrize("seed", range(5))
def test_uploads_of_a_still_world_are_held_against_what_was_unsure_before(seed: int) -> None:
    known, uploads = world(2000, 10 * seed), unsure(world(2000, 10 * seed + 1))
    assert groups(arrived("drop", uploads), known=known)[0].report.sources, "chosen samples differ from all"
    (found,) = groups(arrived("feedback", uploads, is_unsure=True), known=known)
    assert found.report.reason == "nothing moved"


def test_uploads_of_a_world_that_moved_still_fire() -> None:
    uploads = unsure(world(2000, 1, ("inputs", "agreement")))
    (found,) = groups(arrived("feedback", uploads, is_unsure=True), known=world(2000, 0))
    assert found.report.fires
