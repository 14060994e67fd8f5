"""Augmented views that can be made again: view v of sample i has the same pixels whoever asks.

Chance is drawn once per view for all samples (`draw`), a few numbers each, from a generator seeded by
(seed, view); pixels are made from those numbers batch by batch (`apply`). The teacher that labels view v
and the student that trains on it therefore see equal bytes, and no pixels need storing.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Protocol

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torch.nn import functional


class Augment(Protocol):
    """What an augmentation component returns when its keywords are filled in."""

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """Chance for `num` samples: float32 [num, D]."""

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        """Raw samples [B, ...] and their draws [B, D] -> raw samples of the same shape and dtype."""


class _Identity:
    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num, 0)

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        return samples


class _Affine:
    """Rotation, scale and shift about the centre, bilinear, edges filled with the border's own values."""

    def __init__(self, degrees: float, scale: float, shift: float) -> None:
        self.ranges = torch.tensor([np.deg2rad(degrees), scale, shift, shift], dtype=torch.float32)

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return (torch.rand(num, 4, generator=generator) * 2 - 1) * self.ranges

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        images_BCHW = samples.permute(0, 3, 1, 2).float()
        height, width = images_BCHW.shape[2:]
        angle, scale, down, right = draws.unbind(1)
        cos, sin = torch.cos(angle) / (1 + scale), torch.sin(angle) / (1 + scale)
        # theta maps output to input coordinates, which run from -1 to 1: a pixel is 2 / size of that
        row_x = torch.stack([cos, -sin * height / width, 2 * right / width], dim=1)
        row_y = torch.stack([sin * width / height, cos, 2 * down / height], dim=1)
        theta_B23 = torch.stack([row_x, row_y], dim=1)
        grid = functional.affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
        moved = functional.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)
        return moved.round_().clamp_(0, 255).to(samples.dtype).permute(0, 2, 3, 1)


class _CropFlip:
    """Pad by zeros, crop back to size at a random place, mirror left-right half of the time."""

    def __init__(self, pad: int, flip: bool) -> None:
        self.pad, self.flip = pad, flip

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        places = torch.randint(0, 2 * self.pad + 1, (num, 2), generator=generator)
        mirrored = torch.randint(0, 2, (num, 1), generator=generator) * int(self.flip)
        return torch.cat([places, mirrored], dim=1).float()

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        batch, height, width, _ = samples.shape
        top, left, mirrored = draws.long().unbind(1)
        padded = functional.pad(samples, (0, 0, self.pad, self.pad, self.pad, self.pad))
        rows = top[:, None] + torch.arange(height)
        columns = torch.arange(width).expand(batch, width)
        columns = left[:, None] + torch.where(mirrored[:, None] == 1, width - 1 - columns, columns)
        return padded[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]


def none() -> Augment:
    """Samples as they are."""
    return _Identity()


def affine(
    *, degrees: NonNegativeFloat, scale: Annotated[float, Field(ge=0, lt=1)], shift: NonNegativeFloat
) -> Augment:
    """Rotation up to `degrees`, scale by 1 +- `scale`, shift by up to `shift` pixels, each uniform."""
    return _Affine(degrees, scale, shift)


def crop_flip(*, pad: NonNegativeInt, flip: bool) -> Augment:
    """Zero padding by `pad` pixels, a random crop back to size, a left-right flip (He et al. 2015, section 4.2)."""
    return _CropFlip(pad, flip)


AUGMENTS: dict[str, Callable[..., Augment]] = {"none": none, "affine": affine, "crop_flip": crop_flip}


class Views:
    """Numbered views of a split. View v of sample i depends on (seed, v, i, augmentation) alone.

    samples: [N, ...] raw, memory-mapped. num_views: after so many they start again; None: never.
    """

    def __init__(
        self,
        samples: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
        augment: Augment,
        seed: int,
        num_views: int | None = None,
    ) -> None:
        self.samples, self.augment, self.seed, self.num_views = samples, augment, seed, num_views
        self._draws = lru_cache(maxsize=2)(self._draw)

    def __len__(self) -> int:
        return len(self.samples)

    def _draw(self, view: int) -> Tensor:
        mixed = int(np.random.SeedSequence([self.seed, view]).generate_state(1, np.uint64)[0] >> 1)
        return self.augment.draw(len(self.samples), torch.Generator().manual_seed(mixed))

    def get(self, view: int, indices: Tensor) -> Tensor:
        """Raw samples [B, ...] of `view` at `indices` [B] (int64)."""
        if self.num_views is not None:
            view %= self.num_views
        samples = torch.from_numpy(np.ascontiguousarray(self.samples[indices.numpy()]))
        return self.augment.apply(samples, self._draws(view)[indices])
