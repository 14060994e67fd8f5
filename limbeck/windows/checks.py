"""Whether a window is fit to train on. Legend: N samples, K classes, C channels.

A window is set aside, never mended in silence: samples that repeat others or cannot be used are left out and counted, and above
a share of them the whole window is not what it seems.

Poison. A label *contradicts* the teacher where the teacher gives another class a probability above `confident_above`. Their
share in a window is held against the share on old validation, by Fisher's exact test (one-sided: R. A. Fisher 1935, The Design
of Experiments; the conditional form of two binomials), for the window as a whole, for the samples of each label, and for
those of each answer of the teacher, which is where a targeted flip stands out; `significance` is divided among these 2K + 1
tests (Bonferroni). A window is poisoned where a test is significant *and* the difference of the shares is above a
margin: with enough samples any difference is significant.

What that cannot tell. Drift lowers agreement as well. Most of a covariate drift takes the teacher's confidence with it, and an
unsure teacher contradicts nobody; but a teacher that is sure and wrong (strong corruptions, and any change of what a label
*means*) looks like poison, and the window waits for a person: `limbeck windows release`. Poison below the margins, of
labels that the teacher itself would give, or of pixels that carry a trigger, is not seen at all.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from limbeck.data.content import fingerprint
from limbeck.data.npy import NpyWriter
from limbeck.data.window import UNLABELLED, Counts
from limbeck.windows.reference import Reference, Spread
from limbeck.windows.rules import PoisonRules, WindowRules

RELEASE = "look at it, then `limbeck windows release {name}`; or mend and drop it again"


class Reason(BaseModel):
    """Why a window was set aside."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    check: str
    expected: str
    found: str
    next_step: str


class Unfit(Exception):
    """What arrived cannot be read as a window at all; carries the reason."""

    def __init__(self, check: str, *, expected: str, found: str, next_step: str) -> None:
        super().__init__(found)
        self.reason = Reason(check=check, expected=expected, found=found, next_step=next_step)


class Sieve(NpyWriter):
    """Writes the samples that are usable and new to `x.npy`, and counts the others.

    Args:
        path: of the array.
        reference: what is known.
        rules: of the intake.
        known: fingerprints of samples in data/ and earlier windows.

    """

    def __init__(self, path: Any, reference: Reference, rules: WindowRules, known: set[int]) -> None:
        super().__init__(path)
        self._known, self._meta = known, reference.meta
        self._spread = Spread(reference.centre)
        self._low: NDArray[np.float64] | None = None
        if np.dtype(reference.meta.dtype).kind == "f":  # bytes can hold nothing else than bytes
            low, high = reference.range
            self._low = low - rules.range_margin * (high - low)
            self._high = high + rules.range_margin * (high - low)
        self._num_codes = None if reference.tokenizer is None else reference.tokenizer.size
        self._expected, self._has_values = reference.variance, not reference.is_codes
        self.repeated = self.broken = self.not_finite = self.out_of_range = 0

    def passes(self, sample: NDArray[Any]) -> bool:
        """Take a sample, or count why not.

        Raises:
            Unfit: it is of another dtype or shape than the prepared data's.

        """
        if (sample.shape, str(sample.dtype)) != (self._meta.shape, self._meta.dtype):
            raise Unfit(
                "schema",
                expected=f"samples of {self._meta.dtype}{list(self._meta.shape)}, as data/meta.json says",
                found=f"{sample.dtype}{list(sample.shape)}",
                next_step="convert them as the base data were, and drop them again under the same name",
            )
        if self._low is not None:
            if not np.isfinite(sample).all():
                self.not_finite += 1
                return False
            values = sample.reshape(-1, sample.shape[-1])
            if (values < self._low).any() or (values > self._high).any():
                self.out_of_range += 1
                return False
        if self._num_codes is not None and not ((sample >= 0) & (sample < self._num_codes)).all():
            self.out_of_range += 1
            return False
        raw = sample.tobytes()
        known_as = fingerprint(raw)
        if known_as in self._known:
            self.repeated += 1
            return False
        self._known.add(known_as)
        self.append(raw, sample.shape, sample.dtype)
        return True

    def look(self, block: bytearray) -> None:
        """Learn how much samples differ."""
        if not self._has_values:
            return
        values = np.frombuffer(block, self.dtype).astype(np.float64)
        size = math.prod(self._meta.shape)
        self._spread.add(values.reshape(len(values) // size, -1, self._meta.shape[-1]))

    @property
    def spread(self) -> float:
        """How much the samples differ from each other over how much training samples do; the median of the channels."""
        varies = self._expected > 0
        ratios = np.sqrt(self._spread.variance[varies] / self._expected[varies])
        return float(np.median(ratios)) if len(ratios) else 1.0


def of_counts(counts: Counts, rules: WindowRules) -> list[Reason]:
    """Too few samples, too many repeated or unusable ones."""
    found = []
    offered = max(counts.offered, 1)
    if counts.unusable > rules.max_unusable * offered:
        found.append(
            Reason(
                check="unusable",
                expected=f"at most {rules.max_unusable:.0%} of samples that cannot be used (max_unusable)",
                found=f"{counts.unusable:,} of {offered:,}: {counts.broken:,} broken, {counts.not_finite:,} not finite, "
                f"{counts.out_of_range:,} out of range",
                next_step="look at where they come from (a sensor, a unit, a codec); mend them and drop them again",
            )
        )
    if counts.repeated > rules.max_repeated * offered:
        found.append(
            Reason(
                check="repeated",
                expected=f"at most {rules.max_repeated:.0%} of samples that are there already (max_repeated)",
                found=f"{counts.repeated:,} of {offered:,} stand in data/, in an earlier window, or twice in this one",
                next_step=RELEASE,
            )
        )
    if counts.kept < rules.min_samples:
        found.append(
            Reason(
                check="too few",
                expected=f"at least {rules.min_samples:,} new samples (min_samples)",
                found=f"{counts.kept:,} of {offered:,} that arrived",
                next_step="drop them together with more; or " + RELEASE,
            )
        )
    return found


def of_spread(spread: float, rules: WindowRules) -> list[Reason]:
    """Samples that are all nearly the same: a covered lens, a picture that stands still."""
    if spread >= rules.min_spread:
        return []
    return [
        Reason(
            check="near-constant",
            expected=f"samples that differ at least {rules.min_spread:g} times as much as training samples do (min_spread)",
            found=f"{spread:.3f} times",
            next_step="look at the sensor (covered? frozen?); if the world is like that, " + RELEASE,
        )
    ]


def of_classes(new: tuple[str, ...], requested: tuple[str, ...]) -> list[Reason]:
    """Classes that nobody asked for."""
    foreign = [name for name in new if name not in requested]
    if not foreign:
        return []
    shown = ", ".join(foreign[:10]) + (f" and {len(foreign) - 10} more" if len(foreign) > 10 else "")
    return [
        Reason(
            check="unknown classes",
            expected="known classes, or those that a request names",
            found=shown,
            next_step="mend the names; or request the new classes; or " + RELEASE,
        )
    ]


def contradicts(
    probabilities_NK: NDArray[np.float64], y: NDArray[np.int64], confident_above: float
) -> NDArray[np.bool_]:
    """[N]: the teacher is sure of another class than the label."""
    return np.asarray((probabilities_NK.argmax(axis=1) != y) & (probabilities_NK.max(axis=1) > confident_above))


def of_labels(
    probabilities_NK: NDArray[np.float64],
    y: NDArray[np.int64],
    validation: tuple[NDArray[np.float64], NDArray[np.int64]],
    classes: tuple[str, ...],
    rules: PoisonRules,
) -> list[Reason]:
    """Labels of people that contradict the teacher more than labels on validation do.

    Args:
        probabilities_NK: the teacher's, for the window's samples.
        y: [N] people's labels; -1 and classes that the teacher does not know are left out.
        validation: its probabilities and the labels there.
        classes: the K that the teacher knows.
        rules: when it is poison.

    """
    from scipy.stats import hypergeom

    known = (y != UNLABELLED) & (y < len(classes))
    old_NK, old_y = validation
    answers, labels = probabilities_NK.argmax(axis=1), y
    against = contradicts(probabilities_NK, y, rules.confident_above) & known
    old_answers, old_against = old_NK.argmax(axis=1), contradicts(old_NK, old_y, rules.confident_above)
    groups = [("all labelled samples", known, np.ones(len(old_y), bool), rules.max_excess)]
    for index, name in enumerate(classes):
        groups.append((f"samples labelled {name}", known & (labels == index), old_y == index, rules.max_class_excess))
        groups.append(
            (f"samples that look like {name}", known & (answers == index), old_answers == index, rules.max_class_excess)
        )
    found = []
    for what, group, old_group, margin in groups:
        n, n_old = int(group.sum()), int(old_group.sum())
        if not n or not n_old:
            continue
        k, k_old = int(against[group].sum()), int(old_against[old_group].sum())
        chance = float(hypergeom.sf(k - 1, n + n_old, k + k_old, n))
        if chance < rules.significance / len(groups) and k / n - k_old / n_old > margin:
            found.append(
                Reason(
                    check="poison",
                    expected=f"labels that contradict a confident teacher about as often as on validation, {k_old} of "
                    f"{n_old} ({k_old / n_old:.1%}), at most {100 * margin:g} points more often",
                    found=f"{k} of {n} {what} ({k / n:.1%}; by chance {chance:.1g})",
                    next_step="have a person look at some: wrong labels are mended and dropped again; if the world has "
                    "changed and the teacher is what is wrong, `limbeck windows release {name}`",
                )
            )
    return found
