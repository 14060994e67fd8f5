"""Labels that contradict the teacher, and samples that do not differ."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from limbeck.windows import checks
from limbeck.windows.labelling import fill
from limbeck.windows.reference import Spread
from limbeck.windows.rules import PoisonRules

CLASSES = tuple("abcde")
RULES = PoisonRules(confident_above=0.9, significance=0.001, max_excess=0.15, max_class_excess=0.4)


def teacher(
    num: int, seed: int, wrong: float = 0.03, unsure: float = 0.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Probabilities [N, 5] of a teacher that errs with confidence, or is unsure, so often; and the truth."""
    chance = np.random.default_rng(seed)
    truth = np.arange(num) % 5
    said = np.where(chance.random(num) < wrong, (truth + 1) % 5, truth)
    sure = np.where(chance.random(num) < unsure, 0.5, 0.96)
    probabilities = np.repeat(((1 - sure) / 4)[:, None], 5, axis=1)
    probabilities[np.arange(num), said] = sure
    return probabilities, truth


VALIDATION = teacher(500, 0)


def found(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> list[str]:
    return [each.found for each in checks.of_labels(probabilities, labels, VALIDATION, CLASSES, RULES)]


def test_honest_labels_pass_however_many_there_are() -> None:
    for num in (20, 200, 2000):
        assert not any(found(*teacher(num, seed)) for seed in range(8))


def test_labels_that_contradict_en_masse_are_poison() -> None:
    probabilities, truth = teacher(200, 1)
    assert found(probabilities, np.roll(truth, 1))[0].startswith("200 of 200 all labelled samples (100.0%")


def test_a_targeted_flip_stands_out_though_most_labels_are_right() -> None:
    probabilities, truth = teacher(500, 1)
    said = found(probabilities, np.where((truth == 3) & (np.arange(500) < 300), 2, truth))
    assert any("samples that look like d" in each for each in said)
    assert not any("all labelled samples" in each for each in said)


def test_an_unsure_teacher_contradicts_nobody() -> None:
    probabilities, truth = teacher(500, 1, unsure=1.0)
    assert not found(probabilities, np.roll(truth, 1))


def test_significant_is_not_enough_the_difference_has_to_matter() -> None:
    assert not found(*teacher(20_000, 1, wrong=0.1))


def test_labels_of_classes_that_the_teacher_does_not_know_are_no_contradiction() -> None:
    probabilities, _ = teacher(200, 1)
    assert not found(probabilities, np.full(200, 7))
    assert not found(probabilities, np.full(200, -1))


def test_by_chance_alone_fewer_windows_than_promised_are_set_aside() -> None:
    without_margin = PoisonRules(confident_above=0.9, significance=0.2, max_excess=0, max_class_excess=0)
    aside = [
        bool(checks.of_labels(*teacher(100, seed), teacher(200, 1000 + seed), CLASSES, without_margin))
        for seed in range(100)
    ]
    assert np.mean(aside) <= 0.2


@given(st.lists(st.integers(0, 255), min_size=8, max_size=64))
def test_spread_is_the_variance_between_samples_however_they_come(values: list[int]) -> None:
    block = np.array(values[: len(values) // 4 * 4], np.float64).reshape(-1, 2, 2)
    spread = Spread(np.array([100.0, 50.0]))
    for part in np.array_split(block, 2):
        spread.add(part)
    assert spread.variance == pytest.approx(block.var(axis=0).sum(axis=0), abs=1e-6)


@given(st.integers(0, 1000), st.floats(0, 1))
def test_the_teacher_never_overrules_people(seed: int, bound: float) -> None:
    probabilities, truth = teacher(40, seed, wrong=0.3, unsure=0.5)
    y = np.where(np.random.default_rng(seed).random(40) < 0.5, truth, -1)
    filled, confidence = fill(y, probabilities, bound)
    assert (filled[y >= 0] == y[y >= 0]).all()
    assert np.isnan(confidence[y >= 0]).all()
    assert ((filled[y < 0] >= 0) == (probabilities[y < 0].max(axis=1) >= bound)).all()
