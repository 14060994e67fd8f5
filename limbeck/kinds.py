"""What a sample can be. Its shape and type say which; sources, networks and augmentations go by that.

image      [H, W, C]          grey, colour, any number of channels
sequence   [T, C]             T steps of C channels: sensor series; sound is one of one channel, int16 as a microphone gives
features   [F]                numbers without neighbours: embeddings, observations
codes      [L] int32, int64   entries of a table: hashed words, items; they name rows and are never scaled
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["image", "sequence", "features", "codes"]

CODES = ("int32", "int64")


def kind_of(shape: Sequence[int], dtype: str) -> Kind:
    """The kind of one raw sample; more than three axes count as features."""
    if dtype in CODES:
        return "codes"
    return {3: "image", 2: "sequence"}.get(len(shape), "features")  # type: ignore[return-value]
