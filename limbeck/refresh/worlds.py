"""Which of several windows moved: each is held against every world that the champion knows.

Windows are judged one by one, for a still one would hide a moved one beside it, and a moved one would lead to learning from one
whose labels contradict. Those with fewer samples than a verdict takes are judged together.

A world is what the champion was validated on: all of it, the first data alone, and each window that it has learned from. A window
that is like one of these is nothing new. To look for the likest world makes false alarms rarer, never more frequent; and drifts harder to
see. So a world has to bring a tenth as many samples as the window, and says nothing where labels alone contradict.

Devices upload samples that the student was not sure of. Such a window is held against those old ones of which it was
not sure either; against all of them it would always have moved.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from limbeck.drift import DriftRules, Report, Signals, detect
from limbeck.drift.signals import joined

LEAST = 0.1
"""Of a window's samples a world has to bring, to be one that it may be like."""
UNSURE_QUANTILE = 0.95
"""Of an uploaded window's confidences: up to here samples are compared. A device's int8 file is sure of slightly others."""


@dataclass(frozen=True)
class Arrived:
    """A window's figures.

    Attributes:
        folder: of the window.
        signals: of its samples.
        is_unsure: devices uploaded it: samples that the student was not sure of.

    """

    folder: Path
    signals: Signals
    is_unsure: bool


@dataclass(frozen=True)
class Group:
    """Windows that were judged together, most often one.

    Attributes:
        folders: of them, in the order of arrival.
        report: whether and what moved.
        reference: what they were held against.
        signals: their samples, as they were compared.

    """

    folders: tuple[Path, ...]
    report: Report
    reference: Signals
    signals: Signals

    @property
    def asks_a_person(self) -> bool:
        """Whether labels alone contradict what was learned: somebody has to say who is right."""
        return self.report.sources == ("labels",)

    @property
    def is_settled(self) -> bool:
        """Whether there were samples enough for a verdict that calls for nothing, and that neither time nor a person changes."""
        return bool(self.report.tests) and not (self.report.fires or self.report.cools_down or self.asks_a_person)

    @property
    def _weight(self) -> tuple[bool, bool, bool, bool, int]:
        report = self.report
        return (report.fires, report.cools_down, self.asks_a_person, bool(report.sources), self.signals.count)


def decisive(groups: Sequence[Group]) -> Group:
    """The one that calls for most; of several such the largest."""
    return max(groups, key=lambda group: group._weight)


def judged(
    worlds: Mapping[str, Signals],
    arrived: Sequence[Arrived],
    rules: DriftRules,
    *,
    unsure: Callable[[float], Mapping[str, Signals]] | None = None,
    seed: int,
    now: datetime,
    last_action: datetime | None,
    classes: Sequence[str],
) -> tuple[Group, ...]:
    """Judge windows.

    Args:
        worlds: by name, what the champion was validated on, first all of it, then each window that it has learned from.
        arrived: the windows.
        rules: when one differs.
        unsure: the samples of these of which the student is no surer than this, of more than are compared: they are few.
            None: of those that are compared.
        seed: of subsamples and permutations.
        now: when this is asked.
        last_action: when something was last done about drift.
        classes: names, for words.

    """
    everything, *others = worlds

    def one(together: Sequence[Arrived]) -> Group:
        window, known = joined([each.signals for each in together]), dict(worlds)
        if together[0].is_unsure and window.confidence_N is not None:
            limit = float(np.quantile(window.confidence_N, UNSURE_QUANTILE))
            known = dict(unsure(limit)) if unsure else {name: _below(world, limit) for name, world in worlds.items()}
            window = _below(window, limit)

        def against(world: str) -> Report:
            return detect(known[world], window, rules, seed=seed, now=now, last_action=last_action, classes=classes)

        report, like = against(everything), everything
        if report.sources and report.sources != ("labels",):
            for name in (name for name in others if name in known):
                if known[name].count < LEAST * min(window.count, rules.max_samples):
                    continue
                found = against(name)
                if found.tests and not found.sources:
                    report, like = replace(found, reason=f"nothing moved since {name}, which was learned"), name
                    break
        return Group(tuple(each.folder for each in together), report, known[like], window)

    return tuple(one(together) for together in _together(arrived, rules.min_samples))


def _together(arrived: Sequence[Arrived], min_samples: int) -> list[list[Arrived]]:
    """Each window alone, but the small ones, uploaded or not."""

    def is_large(each: Arrived) -> bool:
        return each.signals.count * (UNSURE_QUANTILE if each.is_unsure else 1.0) >= min_samples

    alone = [[each] for each in arrived if is_large(each)]
    small = [each for each in arrived if not is_large(each)]
    sides = [[each for each in small if each.is_unsure is is_unsure] for is_unsure in (False, True)]
    return [*alone, *(side for side in sides if side)]


def _below(signals: Signals, limit: float) -> Signals:
    """The samples of which the student was not surer."""
    assert signals.confidence_N is not None
    return signals.take(np.flatnonzero(signals.confidence_N <= limit))
