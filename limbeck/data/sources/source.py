"""What a source hands to `prepare`: labels at once, samples one after the other, so that memory stays flat."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from limbeck.data.window import Origin
from limbeck.data.worlds import World
from limbeck.edge.tokenizer import Tokenizer
from limbeck.errors import DataError

DATA = "LIMBECK_DATA"
"""Environment variable: the folder in which relative paths of sources are looked up."""

OnError: TypeAlias = Literal["fail", "skip"]


@dataclass(frozen=True)
class Broken:
    """Stands in the place of a sample that cannot be read."""

    path: str
    reason: str


@dataclass(frozen=True)
class Part:
    """Samples in a fixed order.

    Attributes:
        labels: [N] int64 class indices.
        samples: starts a pass over the N raw samples, as a device will feed them: uint8 [H, W, C] for images,
            [T, C] for sequences, [F] for features; a `Broken` in the place of one that cannot be read.
        assigned: [N] int8, the split that a sample has already, as its place in `splits.NAMES`; -1: it is to be
            divided. None: all are.
        origin: [N] int16, 0 for old samples, i for those of the i-th of the source's `windows` and -i for those of the i-th of
            `learned`; None: all are old.
        texts: of texts, starts a pass over the N texts themselves, None in the place of one that is not known.
        groups: [N] int64, what must not stand in two splits, such as the recording that overlapping windows come from;
            None: each sample stands alone. Not beside `assigned`.

    """

    labels: NDArray[np.int64]
    samples: Callable[[], Iterator[NDArray[Any] | Broken]]
    assigned: NDArray[np.int8] | None = None
    origin: NDArray[np.int16] | None = None
    texts: Callable[[], Iterator[str | None]] | None = None
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Source:
    """Everything `prepare` needs of a data set.

    Attributes:
        name: of the data set.
        classes: the K class names; labels count them from 0.
        train: all samples, or those beside `test`.
        test: the data set's own test split; None: `data.split.test` takes a share.
        on_error: what broken samples do, once all of them are counted: fail, or be left out.
        windows: where new samples came from, when they stand beside old ones.
        learned: windows whose samples are old by now, the oldest first.
        world: of decisions: the world that they are made in, where a metric may play.
        beside: folders that belong to the data, by name, each with what fills it; they are sealed with the splits.
        tokenizer: of texts, what made their codes and travels with the model.

    """

    name: str
    classes: tuple[str, ...]
    train: Part
    test: Part | None = None
    on_error: OnError = "fail"
    windows: tuple[Origin, ...] = ()
    learned: tuple[Origin, ...] = ()
    world: World | None = None
    beside: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)
    tokenizer: Tokenizer | None = None


def in_memory(x: NDArray[Any], y: NDArray[Any]) -> Part:
    """A part of samples [N, ...] and labels [N] that are there already."""
    return Part(np.asarray(y, np.int64), lambda: iter(x))


def located(path: str, how_to_get: str) -> Path:
    """A path as it stands, or below $LIMBECK_DATA, or below the working folder.

    Raises:
        DataError: nothing is there; the message ends with `how_to_get`.

    """
    found = Path(os.environ.get(DATA, "")) / path
    if not found.exists():
        where = f"{DATA} is {os.environ[DATA]}" if DATA in os.environ else f"{DATA} is not set"
        raise DataError(f"{found} is missing ({where}). {how_to_get}")
    return found
