"""A source to copy: pictures of stripes, lying or standing. `{use: "custom.sources.template:stripes", num: 120, size: 8}`."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from limbeck.data.sources.source import Part, Source


def stripes(*, num: PositiveInt, size: PositiveInt) -> Source:
    """`num` grey pictures of size x size pixels. Labels are there at once, samples come one by one."""
    labels = np.arange(num) % 2

    def samples() -> Iterator[NDArray[np.uint8]]:
        generator = np.random.default_rng(0)  # a pass begins anew and gives the same
        for label in labels:
            lines = generator.integers(0, 256, (size, 1, 1), dtype=np.uint8)
            picture = np.broadcast_to(lines, (size, size, 1))
            yield picture if label == 0 else picture.transpose(1, 0, 2)

    return Source("stripes", ("lying", "standing"), Part(labels, samples))
