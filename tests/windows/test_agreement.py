"""An accuracy without labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.errors import DataError
from limbeck.windows import read_window
from limbeck.windows.agreement import Answers, label_free, on_window
from limbeck.windows.reference import Reference
from tests.windows.conftest import CLASSES, RULES, TEACHER, Yard, drawn, logits


def answers(num: int, seed: int, teacher_errs: float, student_errs: float, known: float = 1.0) -> Answers:
    """Two that err apart from each other, so often; the teacher is sure of itself."""
    chance = np.random.default_rng(seed)
    truth = chance.integers(0, 10, num)
    said = np.where(chance.random(num) < teacher_errs, (truth + 1) % 10, truth)
    student = np.where(chance.random(num) < student_errs, (truth + 2) % 10, truth)
    teacher = np.full((num, 10), 0.01)
    teacher[np.arange(num), said] = 0.91
    return Answers(student, teacher, np.where(chance.random(num) < known, truth, -1))


@settings(max_examples=10)
@given(st.integers(0, 100))
def test_on_validation_itself_the_estimate_is_the_accuracy(seed: int) -> None:
    validation = answers(400, seed, 0.05, 0.15)
    found = label_free(validation, validation, 50, 0)
    assert found.accuracy["value"] == pytest.approx((validation.student == validation.truth).mean(), abs=0.005)
    assert found.error == pytest.approx(0, abs=0.005)
    assert found.accuracy["low"] <= found.accuracy["value"] <= found.accuracy["high"]


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(40):
        found = label_free(answers(500, seed, 0.05, 0.15), answers(500, 1000 + seed, 0.05, 0.15), 100, 0)
        covered += found.accuracy["low"] <= 0.85 <= found.accuracy["high"]
    assert covered >= 34


def test_where_two_never_disagreed_the_teacher_says_what_a_disagreement_means() -> None:
    validation = answers(200, 0, 0.0, 0.0)
    found = label_free(validation, answers(1000, 1, 0.0, 0.3), 100, 0)
    assert found.right_if_disagree == pytest.approx(0.01)
    assert found.error == pytest.approx(0, abs=0.01)


def test_a_teacher_that_loses_confidence_is_believed_less() -> None:
    validation, window = answers(500, 0, 0.05, 0.1), answers(500, 1, 0.05, 0.1)
    unsure = Answers(window.student, 0.5 * window.teacher_NK + 0.05, window.truth)
    sure, doubted = (label_free(validation, each, 100, 0) for each in (window, unsure))
    assert sure.agreement == doubted.agreement
    assert doubted.accuracy["value"] < 0.65 * sure.accuracy["value"]


def test_a_student_that_gets_worse_is_seen_without_labels() -> None:
    found = label_free(answers(1000, 0, 0.02, 0.1), answers(1000, 1, 0.02, 0.4, known=0), 200, 0)
    assert found.accuracy["high"] < 0.8
    assert (found.true, found.error, found.num_known) == (None, None, 0)


def test_where_truth_is_known_the_error_is_of_those_very_samples() -> None:
    window = answers(1000, 1, 0.02, 0.4, known=0.3)
    found = label_free(answers(1000, 0, 0.02, 0.1), window, 200, 0)
    known = window.where(window.truth >= 0)
    again = label_free(answers(1000, 0, 0.02, 0.1), known, 200, 0)
    assert found.error == pytest.approx(again.accuracy["value"] - (known.student == known.truth).mean())
    assert found.num_known == len(known.truth)
    assert found.true is not None


def test_errors_that_both_make_are_not_seen() -> None:
    window = answers(1000, 1, 1.0, 0.0)
    together = Answers((window.truth + 1) % 10, window.teacher_NK, window.truth)
    found = label_free(answers(1000, 0, 0.02, 0.1), together, 200, 0)
    assert found.error is not None
    assert found.error > 0.9


def test_nothing_is_estimated_from_nothing() -> None:
    some, none = answers(10, 0, 0.1, 0.1), answers(0, 0, 0.1, 0.1)
    for validation, window in ((some, none), (none, some), (answers(10, 0, 0.1, 0.1, known=0.5), some)):
        with pytest.raises(DataError, match="an estimate without labels needs validation samples whose truth is known"):
            label_free(validation, window, 10, 0)


def test_late_labels_bring_the_error_of_the_estimate(yard: Yard) -> None:
    x, y = drawn(60, 1)
    yard.put("new.npz", x=x)
    before = read_window(yard.take().arrived[0].folder)
    (yard.drop / "new.labels.csv").write_text("sample,class\n" + "".join(f"{n},{CLASSES[y[n]]}\n" for n in range(40)))
    after = read_window(yard.take().arrived[0].folder)
    reference = Reference(yard.data, TEACHER)
    first, second = (on_window(logits, reference, each, RULES) for each in (before, after))
    assert (first.error, first.num_known, second.num_known) == (None, 0, 40)
    assert second.true is not None
    assert second.true["value"] == 1.0
    assert second.error == pytest.approx(0, abs=0.02)
