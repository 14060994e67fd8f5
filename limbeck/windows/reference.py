"""What a window is held against: the data that the models in use were made of."""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.data.content import fingerprints
from limbeck.data.prepared import NAMES, Meta, read, read_meta, tokenizer_file
from limbeck.data.sources.arrays import streamed
from limbeck.edge import tokenizer
from limbeck.edge.tokenizer import Tokenizer
from limbeck.kinds import kind_of
from limbeck.windows.labelling import Teacher

BLOCK = 1024
"""Samples that are looked at together."""


class Reference:
    """A prepared folder, and the teacher. Read when first asked, and kept.

    Args:
        data: what `prepare` wrote.
        teacher: None: there is none.
        root: what the first champion was made of, of which a refreshed one has a share: no original is new for it all the same.
            Of that, what is on the disk is known; None: `data` is all there is.

    """

    def __init__(self, data: Path, teacher: Teacher | None, root: Path | None = None) -> None:
        self.data, self.teacher, self.root = data, teacher, root
        self.meta: Meta = read_meta(data)

    @property
    def is_codes(self) -> bool:
        """Whether samples are rows of a table."""
        return kind_of(self.meta.shape, self.meta.dtype) == "codes"

    @cached_property
    def tokenizer(self) -> Tokenizer | None:
        """What made the codes of texts; None of other data."""
        file = tokenizer_file(self.data)
        return None if file is None else tokenizer.read(file)

    @cached_property
    def fingerprints(self) -> NDArray[np.uint64]:
        """Of every sample of every split, and of the root's: each once.

        Raises:
            DataError: a split of `data` is not what was prepared, or one of the root is damaged.

        """
        for name in NAMES:
            read(self.data, name)  # checked
        places = [self.data / name for name in NAMES]
        if self.root is not None and self.root != self.data:
            places += [self.root / name for name in NAMES if (self.root / name / "x.npy").exists()]
        return np.unique(np.concatenate([fingerprints(streamed(place, "x")) for place in places]))

    def _train_blocks(self) -> Iterator[NDArray[np.float64]]:
        """The training split [n, positions, channels], block by block."""
        samples, channels = streamed(self.data / "train", "x"), self.meta.shape[-1]
        while block := list(islice(samples, BLOCK)):
            yield np.stack(block).reshape(len(block), -1, channels).astype(np.float64)

    @cached_property
    def range(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Smallest and largest value of the training split, per channel."""
        low, high = np.full(self.meta.shape[-1], np.inf), np.full(self.meta.shape[-1], -np.inf)
        for block in self._train_blocks():
            low, high = np.minimum(low, block.min(axis=(0, 1))), np.maximum(high, block.max(axis=(0, 1)))
        return low, high

    @cached_property
    def centre(self) -> NDArray[np.float64]:
        """Mean of the training split per channel: sums of squares are taken about it, for the sake of their last digits."""
        return np.array(self.meta.mean or (0.0,) * self.meta.shape[-1], np.float64)  # codes have no mean

    @cached_property
    def variance(self) -> NDArray[np.float64]:
        """Of the training split between samples, summed over positions, per channel. Codes are names and have none: 0."""
        if self.is_codes:
            return np.zeros(1)
        spread = Spread(self.centre)
        for block in self._train_blocks():
            spread.add(block)
        return spread.variance

    @cached_property
    def validation(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """The teacher's probabilities [N, K] on validation, and its labels [N]."""
        assert self.teacher is not None
        x, y = read(self.data, "validation")
        return self.teacher.probabilities(x, len(self.meta.classes)), np.asarray(y)


class Spread:
    """How much samples differ from each other, from sums alone.

    Args:
        centre: per channel, near their mean.

    """

    def __init__(self, centre: NDArray[np.float64]) -> None:
        self.centre, self.count = centre, 0
        self._sum: NDArray[Any] = np.zeros(1)
        self._squares: NDArray[Any] = np.zeros(1)

    def add(self, block_NPC: NDArray[np.float64]) -> None:
        """Samples [n, positions, channels]."""
        from_centre = block_NPC - self.centre
        self.count += len(block_NPC)
        self._sum = self._sum + from_centre.sum(axis=0)
        self._squares = self._squares + np.square(from_centre).sum(axis=0)

    @property
    def variance(self) -> NDArray[np.float64]:
        """Summed over positions, per channel."""
        found = self._squares / max(self.count, 1) - np.square(self._sum / max(self.count, 1))
        summed: NDArray[np.float64] = np.atleast_2d(found.clip(min=0)).sum(axis=0)
        return summed
