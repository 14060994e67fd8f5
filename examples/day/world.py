"""What a day brings: digits as the champion knows them, the same in glaring light, and a digit nobody knew."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from limbeck.data.sources.digits import digits

KNOWN, NEW = tuple("012345678"), "9"
GLARE = 55
"""Added to every pixel, of 255."""

SEED = 7


@dataclass(frozen=True)
class Digits:
    """Images [N, 8, 8, 1] and the names of their classes [N]."""

    x: NDArray[np.uint8]
    names: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: slice) -> "Digits":
        return Digits(self.x[rows], self.names[rows])

    def __add__(self, other: "Digits") -> "Digits":
        """These and others, mixed in a seeded order."""
        order = np.random.default_rng(SEED).permutation(len(self) + len(other))
        return Digits(np.concatenate([self.x, other.x])[order], np.concatenate([self.names, other.names])[order])

    def glaring(self) -> "Digits":
        """As a camera sees them when the sun stands in its lens."""
        return Digits(np.minimum(self.x.astype(int) + GLARE, 255).astype(np.uint8), self.names)

    def write(self, path: Path) -> None:
        """As an entry of a drop folder; a name that ends with .partial while it is written."""
        partial = path.with_name(f"{path.name}.partial")
        with partial.open("wb") as stream:
            np.savez(stream, x=self.x, y=self.names)
        partial.rename(path)


@dataclass(frozen=True)
class World:
    """All digits there are, each in one place alone."""

    base: Digits
    morning: Digits
    noon: Digits
    evening: Digits
    held_new: Digits


def world() -> World:
    """The day, the same every time."""
    part = digits().train
    order = np.random.default_rng(SEED).permutation(len(part.labels))
    every = Digits(np.stack(list(part.samples()))[order], part.labels[order].astype(str))
    is_new = every.names == NEW
    old, new = Digits(every.x[~is_new], every.names[~is_new]), Digits(every.x[is_new], every.names[is_new])
    return World(
        base=old[:900],
        morning=old[900:1120],
        noon=old[1120:1470].glaring(),
        evening=old[1470:].glaring() + new[60:].glaring(),
        held_new=new[:60].glaring(),
    )
