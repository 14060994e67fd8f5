"""Recordings of many steps, cut into windows of equal length that a network takes. Legend: T steps, C channels."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from limbeck.data.sources.source import Broken, Part

Step: TypeAlias = NDArray[np.float32] | str
"""The values [C] of one moment, or why there are none."""


@dataclass(frozen=True)
class Recording:
    """What was measured without a break.

    Attributes:
        name: of its file, and where in it.
        label: class index.
        group: recordings of one group stand in one split.
        num_steps: its length.

    """

    name: str
    label: int
    group: int
    num_steps: int


def part_of(
    recordings: Sequence[Recording], passes: Callable[[], Iterable[Iterable[Step]]], window: int, hop: int
) -> Part:
    """Windows [T, C] float32 of every recording, one after the other; what is left at its end is dropped.

    A window that holds a step without values is `Broken`, and so is a recording shorter than a window: one sample each.

    Args:
        recordings: in the order in which they are read.
        passes: starts a pass over the steps of all of them; memory holds one window.
        window: T.
        hop: steps from the start of a window to that of the next.

    """
    counts = [_num_windows(each.num_steps, window, hop) for each in recordings]

    def samples() -> Iterator[NDArray[np.float32] | Broken]:
        for recording, steps in zip(recordings, passes(), strict=True):
            yield from _windows(recording, steps, window, hop)

    return Part(
        np.repeat(np.array([each.label for each in recordings], np.int64), counts),
        samples,
        groups=np.repeat(np.array([each.group for each in recordings], np.int64), counts),
    )


def _num_windows(num_steps: int, window: int, hop: int) -> int:
    return 1 + max(0, num_steps - window) // hop


def _windows(
    recording: Recording, steps: Iterable[Step], window: int, hop: int
) -> Iterator[NDArray[np.float32] | Broken]:
    last: deque[Step] = deque(maxlen=window)
    for number, step in enumerate(steps, start=1 - window):
        last.append(step)
        if number >= 0 and number % hop == 0:
            why = next((each for each in last if isinstance(each, str)), None)
            yield np.stack(list(last)) if why is None else Broken(recording.name, why)
    if len(last) < window:
        yield Broken(
            recording.name,
            f"{len(last)} steps, fewer than a window of {window}; record longer or give a shorter window",
        )


def step_of(values: Sequence[float] | NDArray[Any], channels: Sequence[str], where: str) -> Step:
    """The values [C] of a moment as float32, unless one of them is no finite number there.

    Args:
        values: of its channels.
        channels: their names.
        where: the moment, for the reason.

    """
    with np.errstate(over="ignore"):
        found = np.asarray(values, np.float64).astype(np.float32)
    if np.isfinite(found).all():
        return found
    first = int(np.flatnonzero(~np.isfinite(found))[0])
    return f"{where}, channel {channels[first]}: {values[first]} is no finite number"
