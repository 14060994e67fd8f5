"""Digits that arrive later: as they were, or as another camera would see them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from limbeck.data.sources.digits import digits


def samples(rows: slice) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Some of the digits in a seeded order: x [N, 8, 8, 1] and y [N]."""
    part = digits().train
    order = np.random.default_rng(7).permutation(len(part.labels))[rows]
    return np.stack(list(part.samples()))[order], part.labels[order]


def turned(x: NDArray[np.uint8], *, degrees: float) -> NDArray[np.uint8]:
    """Images [N, H, W, 1] turned about their middles."""
    return np.stack(
        [np.asarray(Image.fromarray(image[..., 0]).rotate(degrees, Image.Resampling.BILINEAR)) for image in x]
    )[..., None]


def rotated(path: Path, count: int, *, seed: int, first: int = 0) -> None:
    """Write `path` (.npz) with so many digits, turned by about 30 degrees."""
    x, y = samples(slice(first, first + count))
    angles = 30 + 5 * np.random.default_rng(seed).normal(size=count)
    np.savez(
        path, x=np.concatenate([turned(x[i : i + 1], degrees=angle) for i, angle in enumerate(angles.tolist())]), y=y
    )
