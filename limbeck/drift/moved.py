"""The report of one window: what moved, in words and figures, and a picture of it.

class prior         the predicted classes come in other shares
input statistics    the raw samples look different
embedding           the student's features lie elsewhere
confidence          the student is surer, or less sure, than it was
agreement           student and teacher part company, or come together
accuracy            the student is right more or less often
concept             it is wrong more often although nothing moved that samples alone decide: the labels contradict
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from limbeck import pictures
from limbeck.drift.signals import Kind, Signals, both, class_counts
from limbeck.drift.streams import Change

if TYPE_CHECKING:
    from matplotlib.figure import Figure

What: TypeAlias = Literal[
    "class prior", "input statistics", "embedding", "confidence", "agreement", "accuracy", "concept"
]
NAMES: dict[Kind, What] = {
    "inputs": "input statistics",
    "embeddings": "embedding",
    "confidence": "confidence",
    "prior": "class prior",
    "agreement": "agreement",
    "accuracy": "accuracy",
}
MOST_NAMED = 4
"""Statistics of inputs that a report's words name."""


@dataclass(frozen=True)
class Tested:
    """One test of one window.

    Attributes:
        kind: what it looks at.
        method: which test, of `limbeck.drift.two_samples`.
        of: which statistic or class of signal.
        p: as the test gave it.
        corrected: for all tests of the window (Holm).

    """

    kind: Kind
    method: Literal["ks", "psi", "mmd", "chi-squared", "fisher"]
    of: str
    statistic: float
    effect: float
    p: float
    corrected: float


@dataclass(frozen=True)
class Moved:
    """Something that moved, with the tests that say so, the surest first."""

    what: What
    words: str
    tests: tuple[Tested, ...]


@dataclass(frozen=True)
class Report:
    """What became of one window.

    Attributes:
        fires: whether an action is called for.
        cools_down: it would be, had nothing been done of late.
        reason: why, or why not.
        sources: the independent sources of evidence that moved, see `limbeck.drift.trigger`.
        moved: what moved; also where that does not fire.
        changes: per stream where in the window its mean changed, counted in samples that were compared.
        tests: all of them.
        level: what corrected p-values were held against.
        num_reference: samples of the reference that were compared.
        num_window: of the window.

    """

    fires: bool
    cools_down: bool
    reason: str
    sources: tuple[str, ...]
    moved: tuple[Moved, ...]
    changes: Mapping[str, tuple[Change, ...]]
    tests: tuple[Tested, ...]
    level: float
    num_reference: int
    num_window: int

    def to_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a log: the decision, then what moved, then where."""
        began = [
            f"{name}: changed after {100 * change.began / change.num:.0f} % of the window, "
            f"as {change.detector} found after {100 * (change.found + 1) / change.num:.0f} %"
            for name, changes in self.changes.items()
            for change in changes
        ]
        return [self.reason, *(f"{moved.what}: {moved.words}" for moved in self.moved), *began]


def moved_of(
    tests: Sequence[Tested], level: float, classes: Sequence[str], reference: Signals, window: Signals
) -> list[Moved]:
    """What moved, by kind, from the tests of a window that are below the level."""
    found = []
    below = [test for test in tests if test.corrected < level]
    for kind in NAMES:
        told = tuple(
            sorted((test for test in below if test.kind == kind), key=lambda test: (test.p, -abs(test.effect)))
        )
        if not told:
            continue
        alone = {test.kind for test in below} == {"accuracy"}
        what: What = "concept" if alone and told[0].effect < 0 else NAMES[kind]
        found.append(Moved(what, _words(what, told, classes, reference, window), told))
    return found


def _words(what: What, tests: tuple[Tested, ...], classes: Sequence[str], reference: Signals, window: Signals) -> str:
    first = tests[0]
    sure = f"corrected p = {first.corrected:.2g}"
    if what == "class prior":
        shares = _shares(reference, window)
        order = np.argsort(-np.abs(shares[1] - shares[0]), kind="stable")[:3]
        named = ", ".join(
            f"{_name(index, classes)} {shares[0][index]:.0f} % -> {shares[1][index]:.0f} %" for index in order.tolist()
        )
        return f"{100 * first.effect:.0f} % of the samples would have to change class; {named} ({sure})"
    if what == "input statistics":
        named = ", ".join(f"{test.of} ({test.method} {test.effect:.2f})" for test in tests[:MOST_NAMED])
        more = f" and {len(tests) - MOST_NAMED} more" if len(tests) > MOST_NAMED else ""
        return f"{named}{more} ({sure})"
    if what == "embedding":
        return f"a distance of {first.effect:.2f} between features (mmd, 0 to 1.4; {sure})"
    if what == "confidence":
        before, after = (values.mean() for values in _pair("confidence", reference, window))
        return f"mean {before:.3f} -> {after:.3f} ({first.method} {first.effect:.2f}; {sure})"
    change = f"{'fell' if first.effect < 0 else 'rose'} by {100 * abs(first.effect):.1f} points ({sure})"
    if what == "concept":
        return (
            f"accuracy {change} while nothing moved that samples alone decide: the labels contradict what was learned"
        )
    return change


def _pair(kind: Kind, reference: Signals, window: Signals) -> tuple[NDArray[Any], NDArray[Any]]:
    found = both(kind, reference, window)
    assert found is not None, "what moved was compared"
    return found


def _shares(reference: Signals, window: Signals) -> list[NDArray[np.float64]]:
    """Of the predicted classes, in %."""
    return [100 * counts / counts.sum() for counts in class_counts(*_pair("prior", reference, window))]


def _name(index: int, classes: Sequence[str]) -> str:
    return classes[index] if index < len(classes) else str(index)


def picture(report: Report, reference: Signals, window: Signals, classes: Sequence[str]) -> "Figure | None":
    """Reference against window, a panel for each thing that moved; None where nothing did."""
    panels = [_panel(moved, reference, window, classes) for moved in report.moved]
    return pictures.drift(panels) if panels else None


def _panel(moved: Moved, reference: Signals, window: Signals, classes: Sequence[str]) -> pictures.Panel:
    kind = moved.tests[0].kind
    if kind == "prior":
        before, after = _shares(reference, window)
        return pictures.Panel("class prior, %", "bars", before, after, [_name(k, classes) for k in range(len(before))])
    if kind == "inputs":
        named = [test.of for test in moved.tests if test.of in reference.inputs]
        if named:
            return pictures.Panel(
                f"input: {named[0]}", "histogram", reference.inputs[named[0]], window.inputs[named[0]]
            )
    pair = _pair(kind, reference, window)
    if kind in ("inputs", "embeddings"):
        return _plane("samples, made coarse" if kind == "inputs" else "embedding", *pair)
    if kind == "confidence":
        return pictures.Panel(kind, "histogram", *pair)
    before, after = (np.array([100 * values.mean()]) for values in pair)
    return pictures.Panel(f"{kind}, %", "bars", before, after, [kind])


def _plane(title: str, reference_ND: NDArray[Any], window_MD: NDArray[Any]) -> pictures.Panel:
    """Both, along the way from one mean to the other and the direction across it in which the reference spreads most."""
    middle = reference_ND.mean(0, dtype=np.float64)
    centred = reference_ND - middle
    way = window_MD.mean(0, dtype=np.float64) - middle
    way /= np.linalg.norm(way) or 1.0
    across = np.linalg.svd(centred - np.outer(centred @ way, way), full_matrices=False)[2][0]
    axes = np.stack([way, across], axis=1)
    return pictures.Panel(title, "points", centred @ axes, (window_MD - middle) @ axes)
