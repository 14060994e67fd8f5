"""Whether devices tell of a world that the champion does not know: the sketches in their reports of use.

They are held against what the file that ships says of the champion's validation samples, rounded alike: its student in float is
sure of slightly others. Unlike uploads, reports are of whatever was answered; nobody chose it for what it is.

What is found asks for samples and for nothing else. Nobody checks what a device says, one account can speak for many, and the
samples of one device resemble each other more than a test believes. So no device counts for more answers than it may upload
samples (`windows.max_per_device`), and nobody is asked for samples before both sources that reports bring, samples and student, say so,
whatever `drift.min_kinds` asks of windows: inputs alone are a camera that is exposed otherwise.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.data.prepared import read, read_meta
from limbeck.drift import Report, Signals, picture
from limbeck.drift.signals import answers, as_told, joined, statistics, told
from limbeck.edge.usage import MAX_CLASSES, describe
from limbeck.errors import DataError
from limbeck.pictures import png
from limbeck.refresh.gate import answered
from limbeck.refresh.looking import rows_of_worlds
from limbeck.refresh.rules import Rules
from limbeck.refresh.worlds import Arrived, Group, judged

NUM_SOURCES = 2
"""That reports bring: samples and student."""
NEXT = (
    "nobody checks what a device says, so nothing is done about it: have some of them keep samples (samples_below in their "
    "settings, docs/device.md), or drop some of that world, labelled (docs/windows.md)"
)


@dataclass(frozen=True)
class Heard:
    """What devices told, compared.

    Attributes:
        group: the answers that count, and what became of them.
        num_devices: that told them.
        classes: that the champion knows.

    """

    group: Group
    num_devices: int
    classes: tuple[str, ...]

    @property
    def report(self) -> Report:
        """Whether and what moved; where in time nobody knows, for sketches have no order."""
        return replace(self.group.report, changes={})

    @property
    def moved(self) -> list[str]:
        """What did."""
        return [thing.what for thing in self.report.moved]

    @property
    def num_answers(self) -> int:
        """That were compared."""
        assert self.group.signals.confidence_N is not None
        return len(self.group.signals.confidence_N)

    def lines(self, version: str) -> list[str]:
        """For a log; none where nothing moved."""
        if not self.moved:
            return []
        whose = f"{self.num_devices} of them, {self.num_answers:,} answers of version {version}"
        lines = [f"what devices tell ({whose}): {self.report.reason}"]
        lines += [f"devices: {thing.what}: {thing.words}" for thing in self.report.moved]
        return [*lines, *([NEXT] if self.report.fires else [])]

    def picture(self) -> bytes | None:
        """What moved, as a PNG; None where nothing did."""
        drawn = picture(self.report, self.group.reference, self.group.signals, self.classes)
        return None if drawn is None else png(drawn)


def hear(
    reports: Mapping[str, Sequence[Mapping[str, Any]]], data: Path, file: Path, rules: Rules, *, now: datetime
) -> Heard | None:
    """Compare what devices tell with what the champion was validated on; None: of fewer than `drift.min_samples` answers.

    Args:
        reports: by device those of its use of the champion, parsed, each of other answers. Those that are none are left out.
        data: what the champion was made of.
        file: that ships.
        rules: of drift, and how many answers of a device count.
        now: when this is asked.

    Raises:
        DataError: the data are not what they should be.

    """
    meta, (x, _) = read_meta(data), read(data, "validation")
    parts = list(_parts(reports, describe(np.asarray(x[:1])).keys(), len(meta.classes), rules))
    if not parts or (window := joined(parts)).count < rules.drift.min_samples:
        return None
    worlds = rows_of_worlds(data, rules.drift, rules.seed)
    (group,) = judged(
        {name: _reference(np.asarray(x[rows]), file, rules) for name, rows in worlds.items()},
        [Arrived(Path("reports"), window, is_unsure=False)],
        rules.drift.model_copy(update={"min_kinds": NUM_SOURCES}),
        seed=rules.seed,
        now=now,
        last_action=None,
        classes=meta.classes,
    )
    return Heard(group, len(parts), meta.classes)


def _reference(x: NDArray[Any], file: Path, rules: Rules) -> Signals:
    """Of raw samples [N, ...], as devices would tell it."""
    said = joined([Signals({}, **answers(logits_BK)) for logits_BK in answered(file, x, threads=rules.threads)])
    return as_told(replace(said, inputs=statistics(x)))


def _parts(
    reports: Mapping[str, Sequence[Mapping[str, Any]]], names: Set[str], num_classes: int, rules: Rules
) -> Iterator[Signals]:
    """What each device tells, of as many answers as one device counts for, with the same kinds for all."""
    for number, device in enumerate(sorted(reports)):
        whole = [report for report in reports[device] if _is_whole(report, names, num_classes)]
        if whole:
            said = told(whole, rules.windows.max_per_device, rules.seed + number)
            yield replace(said, inputs={name: said.inputs[name] for name in names})


def _is_whole(report: Mapping[str, Any], names: Set[str], num_classes: int) -> bool:
    """Whether a report tells what a device with this champion tells of its answers, each kind of it."""
    try:
        said = told([report], 1, seed=0)
    except DataError:
        return False
    labels = [int(label) for label in report["predicted"]]
    return (
        said.confidence_N is not None
        and all(name in said.inputs and said.inputs[name].size for name in names)
        and bool(labels) == (num_classes <= MAX_CLASSES)
        and all(label < num_classes for label in labels)
    )
