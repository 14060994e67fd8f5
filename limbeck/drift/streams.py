"""Where in a stream of numbers the mean changed: ADWIN (Bifet and Gavalda 2007) and Page-Hinkley (Page 1954), from River.

River is imported within: it brings half of its packages and takes more than a second.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from limbeck.drift.rules import StreamRules
from limbeck.drift.two_samples import Values

Detector: TypeAlias = Literal["adwin", "page-hinkley"]


@dataclass(frozen=True)
class Change:
    """A change of the mean.

    Attributes:
        detector: who says so.
        found: index of the sample after which it was found.
        began: index of the first sample that is after the change, as estimated.
        num: samples of the stream.

    """

    detector: Detector
    found: int
    began: int
    num: int


def adwin(values_N: Values, rules: StreamRules) -> list[Change]:
    """Changes in a stream, by adaptive windowing."""
    from river.drift import ADWIN

    return _changes("adwin", ADWIN(rules.adwin_delta, rules.adwin_every, grace_period=rules.min_samples), values_N)


def page_hinkley(values_N: Values, rules: StreamRules) -> list[Change]:
    """Changes in a stream, by the Page-Hinkley test for either direction."""
    from river.drift import PageHinkley

    detector = PageHinkley(
        min_instances=rules.min_samples,
        delta=rules.page_hinkley_delta,
        threshold=rules.page_hinkley_threshold,
        alpha=rules.page_hinkley_forgetting,
    )
    return _changes("page-hinkley", detector, values_N)


def _changes(name: Detector, detector: Any, values_N: Values) -> list[Change]:
    """What a detector of River's finds, and where each change began.

    Page-Hinkley does not tell and ADWIN only as finely as its buckets are. The estimate for both is that of CUSUM: where, since
    the last change began, the sums of deviations from the mean are farthest from zero.
    """
    changes: list[Change] = []
    start = 0
    for index, value in enumerate(values_N.tolist()):
        detector.update(value)
        if detector.drift_detected:
            since = values_N[start : index + 1]
            start += int(np.abs(np.cumsum(since - since.mean())[:-1]).argmax()) + 1
            changes.append(Change(name, index, start, len(values_N)))
    return changes


def changes_within(reference_N: Values, window_M: Values, rules: StreamRules) -> list[Change]:
    """Changes that either detector finds in the window when it follows the reference; indices count from the window's start."""
    stream = np.concatenate([reference_N, window_M])
    num = len(reference_N)
    found = [change for detect in (adwin, page_hinkley) for change in detect(stream, rules) if change.found >= num]
    return [Change(change.detector, change.found - num, max(change.began - num, 0), len(window_M)) for change in found]
