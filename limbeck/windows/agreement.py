"""How well a student does where nobody knows the truth, told from how often it agrees with its teacher.

With q the share of a window's samples on which the two agree, the law of total probability gives

    accuracy = q a + (1 - q) b,    a = P(student right | agree),    b = P(student right | disagree).

Old validation, whose truth is known, has counts for both; what drift makes of them is taken from the teacher's probabilities p of
the student's answers, which need no labels. A teacher that loses confidence where both agree is right less often there:

    a = a_validation * mean(p | agree, window) / mean(p | agree, validation), at most 1,

the step from confidence to accuracy of Guillory et al. (2021, Predicting with Confidence on Unseen Distributions, ICCV), as a
ratio. And a good pair hardly ever disagrees on validation, so that b is hardly known from there, while drift is what makes
them disagree: the k right ones of n get one sample more, which is right as often as the teacher thinks,

    b = (k + mean(p | disagree, window)) / (n + 1).

That disagreement of networks tells of their error at all is what Jiang et al. find (2022, Assessing Generalization via
Disagreement, ICLR) for well calibrated ones.

What is not seen: both err alike and the teacher is sure of it. The estimate is then too high, and its interval, a bootstrap over
validation and window, covers sampling alone. Wherever true labels exist, `error` says how far off the estimate was on those very
samples: look at it before you believe the rest.

Legend: N samples, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from limbeck.data.prepared import read
from limbeck.data.window import UNLABELLED, Window
from limbeck.errors import DataError
from limbeck.evaluation import Estimate, estimate
from limbeck.windows.reference import Reference
from limbeck.windows.rules import WindowRules

HALF = 0.5
"""Added to either count of those that agree (Jeffreys' prior)."""


@dataclass(frozen=True)
class Answers:
    """What student and teacher said to the same N samples.

    Attributes:
        student: [N] class indices.
        teacher_NK: its probabilities.
        truth: [N] class indices of people; -1 where nobody knows.

    """

    student: NDArray[np.int64]
    teacher_NK: NDArray[np.float64]
    truth: NDArray[np.int64]

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """[N]: both said the same."""
        return np.asarray(self.teacher_NK.argmax(axis=1) == self.student)

    @property
    def granted(self) -> NDArray[np.float64]:
        """[N]: the teacher's probability of the student's answer."""
        found: NDArray[np.float64] = self.teacher_NK[np.arange(len(self.student)), self.student]
        return found

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """[N]: the truth is known."""
        return np.asarray(self.truth != UNLABELLED)

    def where(self, mask: NDArray[np.bool_]) -> "Answers":
        """Some of them."""
        return Answers(self.student[mask], self.teacher_NK[mask], self.truth[mask])


@dataclass(frozen=True)
class LabelFree:
    """An accuracy without labels, and how wrong it was where there are some.

    Attributes:
        accuracy: of the student on the window, estimated; bootstrap over validation and window.
        agreement: share of the window's samples on which the two agree.
        right_if_agree: a.
        right_if_disagree: b.
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
    old, new = _Sample.of(validation), _Sample.of(window)
    generator = np.random.default_rng(seed)
    drawn = np.empty(num_resamples)
    for index in range(num_resamples):  # one resample at a time: memory stays that of the answers
        drawn[index] = _total(*_rights(old.drawn(generator), again := new.drawn(generator)), again.agrees.mean())
    low, high = np.quantile(drawn, (0.025, 0.975))
    a, b = _rights(old, new)
    agreement = float(new.agrees.mean())
    value = _total(a, b, agreement)
    known = window.where(window.is_known)
    true = error = None
    if len(known.student):
        true = estimate((known.student == known.truth).astype(np.float64), num_resamples, seed)
        there = _Sample.of(known)
        error = _total(*_rights(old, there), float(there.agrees.mean())) - true["value"]
    return LabelFree(
        {"value": value, "low": min(float(low), value), "high": max(float(high), value)},
        agreement, a, b, true, error, len(known.student),
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
        Answers(student(old_x).argmax(axis=1), old_NK, old_y),
        Answers(student(window.x).argmax(axis=1), new_NK, np.where(window.is_by_people, window.y, UNLABELLED)),
        rules.bootstrap,
        rules.seed,
    )


class _Sample(NamedTuple):
    """What the estimate needs of each of N answers."""

    agrees: NDArray[np.bool_]
    granted: NDArray[np.float64]
    is_right: NDArray[np.bool_]

    @classmethod
    def of(cls, answers: Answers) -> "_Sample":
        return cls(answers.agrees, answers.granted, np.asarray(answers.student == answers.truth))

    def drawn(self, generator: np.random.Generator) -> "_Sample":
        """As many of them, with replacement."""
        chosen = generator.integers(0, len(self.agrees), len(self.agrees))
        return _Sample(self.agrees[chosen], self.granted[chosen], self.is_right[chosen])


def _rights(old: _Sample, new: _Sample) -> tuple[float, float]:
    """Both shares; see the top. Where nobody agrees, or disagrees, the one that is not used."""
    num_old = np.count_nonzero(old.agrees)
    a = (np.count_nonzero(old.is_right & old.agrees) + HALF) / (num_old + 2 * HALF)
    if num_old and new.agrees.any():
        a = min(1.0, a * new.granted[new.agrees].mean() / old.granted[old.agrees].mean())
    apart = ~new.agrees
    thought = new.granted[apart].mean() if apart.any() else 0.0
    b = (np.count_nonzero(old.is_right & ~old.agrees) + thought) / (len(old.agrees) - num_old + 1)
    return float(a), float(b)


def _total(a: float, b: float, agreement: float) -> float:
    return float(a * agreement + b * (1 - agreement))
