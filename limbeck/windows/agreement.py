"""How well a student does where nobody knows the truth, told from how often it agrees with its teacher.

On old validation labels are known, so that

    a = P(student right | it agrees with the teacher),    b = P(student right | it disagrees)

can be counted. With q the share of a window's samples on which the two agree, the law of total probability gives

    accuracy = q a + (1 - q) b,

*if* a and b are what they were. That is the assumption, and drift breaks it: where both err alike, a falls and nothing of it is
seen. The estimate is therefore optimistic under strong drift, and its interval covers sampling alone. That disagreement of
networks tells of their error at all is what Jiang et al. find (2022, Assessing Generalization via Disagreement, ICLR) for
well calibrated ones; Platanios et al. (2016, Estimating Accuracy from Unlabeled Data: A Bayesian Approach, ICML) estimate
error from agreement rates under weaker assumptions and more than two classifiers. Wherever true labels exist, `error` says how
far off the estimate was on those very samples: look at it before you believe the rest.

Legend: N samples.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.data.prepared import read
from limbeck.data.window import UNLABELLED, Window
from limbeck.errors import DataError
from limbeck.evaluation import Estimate, estimate
from limbeck.windows.reference import Reference
from limbeck.windows.rules import WindowRules

HALF = 0.5
"""Added to either count (Jeffreys' prior): a student that never disagreed on validation leaves b unknown, not zero."""


@dataclass(frozen=True)
class Answers:
    """What student and teacher said to the same N samples.

    Attributes:
        student: [N] class indices.
        teacher: [N] class indices.
        truth: [N] class indices of people; -1 where nobody knows.

    """

    student: NDArray[np.int64]
    teacher: NDArray[np.int64]
    truth: NDArray[np.int64]

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """[N]: both said the same."""
        return np.asarray(self.student == self.teacher)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """[N]: the truth is known."""
        return np.asarray(self.truth != UNLABELLED)

    def where(self, mask: NDArray[np.bool_]) -> "Answers":
        """Some of them."""
        return Answers(self.student[mask], self.teacher[mask], self.truth[mask])


@dataclass(frozen=True)
class LabelFree:
    """An accuracy without labels, and how wrong it was where there are some.

    Attributes:
        accuracy: of the student on the window, estimated; bootstrap over validation and window.
        agreement: share of the window's samples on which the two agree.
        right_if_agree: a, on validation.
        right_if_disagree: b, on validation.
        true: accuracy where truth is known; None: nowhere.
        error: the estimate for those samples less their true accuracy; None: nowhere.
        num_known: on how many samples.

    """

    accuracy: Estimate
    agreement: float
    right_if_agree: float
    right_if_disagree: float
    true: Estimate | None
    error: float | None
    num_known: int


def label_free(validation: Answers, window: Answers, num_resamples: int, seed: int) -> LabelFree:
    """Estimate the student's accuracy on a window.

    The bootstrap draws counts instead of samples: the four kinds of validation samples from their multinomial, the agreeing
    samples of the window from their binomial. That is what resampling both sets gives.

    Args:
        validation: answers to old samples whose truth is known.
        window: answers to new ones.
        num_resamples: of the bootstrap.
        seed: of it.

    Raises:
        DataError: nobody answered, or the truth on validation is not known.

    """
    if not len(window.student) or not len(validation.student) or not validation.is_known.all():
        raise DataError(
            f"an estimate without labels needs validation samples whose truth is known, found "
            f"{int(validation.is_known.sum())} of {len(validation.student)}, and samples of the window, found "
            f"{len(window.student)}."
        )
    is_right = validation.student == validation.truth
    kinds = np.array([
        (validation.agrees & is_right).sum(), (validation.agrees & ~is_right).sum(),
        (~validation.agrees & is_right).sum(), (~validation.agrees & ~is_right).sum(),
    ])  # fmt: skip
    num, agreement = len(window.student), float(window.agrees.mean())
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(kinds.sum(), kinds / kinds.sum(), num_resamples).T
    a, b = _rights(kinds)
    low, high = np.quantile(
        _total(*_rights(drawn), generator.binomial(num, agreement, num_resamples) / num), (0.025, 0.975)
    )
    value = float(_total(a, b, agreement))
    known = window.where(window.is_known)
    true = error = None
    if len(known.student):
        true = estimate((known.student == known.truth).astype(np.float64), num_resamples, seed)
        error = float(_total(a, b, known.agrees.mean())) - true["value"]
    return LabelFree(
        {"value": value, "low": min(float(low), value), "high": max(float(high), value)},
        agreement, float(a), float(b), true, error, len(known.student),
    )  # fmt: skip


def on_window(
    student: Callable[[NDArray[Any]], NDArray[np.float32]], reference: Reference, window: Window, rules: WindowRules
) -> LabelFree:
    """Estimate a student's accuracy on a window, against people's labels where there are some.

    Args:
        student: raw samples [N, ...] -> logits [N, K].
        reference: the prepared data, and the teacher.
        window: with labels of people or without.
        rules: resamples and seed.

    Raises:
        DataError: see `label_free`; or the prepared data are not what they should be.

    """
    assert reference.teacher is not None
    old_x, _ = read(reference.data, "validation")
    old_NK, old_y = reference.validation
    new_NK = reference.teacher.probabilities(window.x, len(reference.meta.classes))
    return label_free(
        Answers(student(old_x).argmax(axis=1), old_NK.argmax(axis=1), old_y),
        Answers(
            student(window.x).argmax(axis=1), new_NK.argmax(axis=1), np.where(window.is_by_people, window.y, UNLABELLED)
        ),
        rules.bootstrap,
        rules.seed,
    )


def _rights(kinds: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P(right | agree) and P(right | disagree) of counts [4, ...]."""
    agree_right, agree_wrong, disagree_right, disagree_wrong = kinds
    return (
        (agree_right + HALF) / (agree_right + agree_wrong + 2 * HALF),
        (disagree_right + HALF) / (disagree_right + disagree_wrong + 2 * HALF),
    )


def _total(
    a: NDArray[np.float64], b: NDArray[np.float64], agreement: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    return a * agreement + b * (1 - agreement)
