"""Augmented views that can be made again: view v of sample i has the same pixels whoever asks.

Chance is drawn once per view for all samples (`draw`), a few numbers each, from a generator seeded by
(seed, view); pixels are made from those numbers batch by batch (`apply`). The teacher that labels view v
and the student that trains on it therefore see equal bytes, and no pixels need storing. That holds for views
that mix two samples, too: the partner is drawn with the rest. Legend: N samples, B of a batch, D drawn numbers.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from limbeck.errors import ComponentError


class Augment(Protocol):
    """What an augmentation component returns when its keywords are filled in."""

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """Chance for `num` samples: float32 [num, D]."""

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        """Raw samples [B, ...] and their draws [B, D] -> raw samples of the same shape and dtype.

        A sample's bytes may depend on its own draws alone, not on its neighbours in the batch.
        """


class Mix(Protocol):
    """How two samples become one."""

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """Chance for `num` samples: float32 [num, D]."""

    def mix(self, samples: Tensor, others: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Raw samples [B, ...] and their partners -> mixtures of the same shape and dtype, each one's own share [B]."""


@dataclass(frozen=True)
class Mixed:
    """What a component returns whose views blend two samples: each is augmented, then they are mixed."""

    augment: Augment
    mix: Mix


class Blend(NamedTuple):
    """Whose label a mixed sample carries: `shares_B` (float32) of its own, the rest of that of `partners_B` (int64)."""

    partners_B: Tensor
    shares_B: Tensor


class _Drawn(NamedTuple):
    augment_ND: Tensor
    partners_N: Tensor
    mix_ND: Tensor


class Views:
    """Numbered views of a split. View v of sample i depends on (seed, v, i, augmentation) alone.

    samples: [N, ...] raw, memory-mapped. num_views: after so many they start again; None: never.
    """

    def __init__(
        self,
        samples: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
        augment: Augment | Mixed,
        seed: int,
        num_views: int | None = None,
    ) -> None:
        self.samples, self.seed, self.num_views = samples, seed, num_views
        self.augment: Augment = augment.augment if isinstance(augment, Mixed) else augment
        self.mix: Mix | None = augment.mix if isinstance(augment, Mixed) else None
        self._drawn = lru_cache(maxsize=2)(self._draw)

    def __len__(self) -> int:
        return len(self.samples)

    def _draw(self, view: int) -> _Drawn:
        mixed = int(np.random.SeedSequence([self.seed, view]).generate_state(1, np.uint64)[0] >> 1)
        generator = torch.Generator().manual_seed(mixed)
        num, nothing = len(self.samples), torch.empty(0)
        augment_ND = self.augment.draw(num, generator)
        if self.mix is None:
            return _Drawn(augment_ND, nothing, nothing)
        return _Drawn(augment_ND, torch.randperm(num, generator=generator), self.mix.draw(num, generator))

    def _augmented(self, drawn: _Drawn, indices: Tensor) -> Tensor:
        samples = torch.from_numpy(np.ascontiguousarray(self.samples[indices.numpy()]))
        return self.augment.apply(samples, drawn.augment_ND[indices])

    def blended(self, view: int, indices: Tensor) -> tuple[Tensor, Blend | None]:
        """Raw samples [B, ...] of `view` at `indices` [B] (int64), and how their labels mix, None where none does."""
        if self.num_views is not None:
            view %= self.num_views
        drawn = self._drawn(view)
        samples = self._augmented(drawn, indices)
        if self.mix is None:
            return samples, None
        partners_B = drawn.partners_N[indices]
        samples, shares_B = self.mix.mix(samples, self._augmented(drawn, partners_B), drawn.mix_ND[indices])
        return samples, Blend(partners_B, shares_B)

    def get(self, view: int, indices: Tensor) -> Tensor:
        """Raw samples [B, ...] of `view` at `indices` [B] (int64)."""
        return self.blended(view, indices)[0]


def expect_images(samples: Tensor, name: str) -> None:
    """Let images [B, H, W, C] pass.

    Raises:
        ComponentError: the samples are no images.

    """
    if samples.ndim != 4:
        raise ComponentError(
            f"augmentation {name!r} takes images, found samples of shape {tuple(samples.shape[1:])}; "
            "choose none or mixup, or write one of your own."
        )


def as_floats(samples: Tensor) -> Tensor:
    """Raw images [B, H, W, C] -> [B, C, H, W] float32, values as they are."""
    return samples.permute(0, 3, 1, 2).float()


def as_raw(images_BCHW: Tensor, dtype: torch.dtype) -> Tensor:
    """Float images of values 0 to 255 -> raw images [B, H, W, C]."""
    return images_BCHW.round().clamp(0, 255).to(dtype).permute(0, 2, 3, 1)
