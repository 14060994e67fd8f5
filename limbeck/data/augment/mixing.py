"""Views that blend two samples, as the teacher sees them too: its soft label answers the very mixture.

The hard label of a mixture is both samples' labels by their shares (see `Blend`). Partners come from the whole
split, so that a mixture does not depend on a batch. Legend: B batch, N samples.
"""

from typing import Annotated, TypeAlias

import numpy as np
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from limbeck.data.augment.erasing import inside_box
from limbeck.data.augment.identity import none
from limbeck.data.augment.views import Mixed, expect_images

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]


class _Shares:
    """Shares from Beta(alpha, alpha) with `probability`, else 1: a sample as it is."""

    def __init__(self, alpha: float, probability: float) -> None:
        self.alpha, self.probability = alpha, probability

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """float32 [N]; torch's own Beta takes no generator, numpy's is seeded by it."""
        seed = int(torch.randint(0, 2**62, (), generator=generator))
        beta_N = torch.from_numpy(np.random.default_rng(seed).beta(self.alpha, self.alpha, num))
        is_mixed_N = torch.rand(num, generator=generator) < self.probability
        return torch.where(is_mixed_N, beta_N.float(), torch.ones(num))


class _Mixup:
    def __init__(self, shares: _Shares) -> None:
        self.shares = shares

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return self.shares.draw(num, generator)[:, None]

    def mix(self, samples: Tensor, others: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        shares_B = draws[:, 0]
        shares = shares_B.reshape(-1, *(1,) * (samples.ndim - 1))
        mixed = samples * shares + others * (1 - shares)
        return (mixed if samples.is_floating_point() else mixed.round()).to(samples.dtype), shares_B


class _CutMix:
    """Drawn: side of the box as a share of the image's, where its centre lies."""

    def __init__(self, shares: _Shares) -> None:
        self.shares = shares

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        sides_N1 = (1 - self.shares.draw(num, generator))[:, None].sqrt()
        return torch.cat([sides_N1, torch.rand(num, 2, generator=generator)], dim=1)

    def mix(self, samples: Tensor, others: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        expect_images(samples, "cutmix")
        height, width = samples.shape[1:3]
        side, down, right = draws.unbind(1)
        rows, columns = (side * height).floor(), (side * width).floor()
        top, left = (down * height - rows / 2).floor(), (right * width - columns / 2).floor()
        inside = inside_box(samples, top, left, rows, columns)
        return torch.where(inside, others, samples), 1 - inside.sum((1, 2, 3)) / (height * width)


def mixup(*, alpha: PositiveFloat, probability: Probability) -> Mixed:
    """Each sample times a share from Beta(alpha, alpha) plus another one times the rest (Zhang et al. 2018, mixup)."""
    return Mixed(none(), _Mixup(_Shares(alpha, probability)))


def cutmix(*, alpha: PositiveFloat, probability: Probability) -> Mixed:
    """A box of each image from another one, as large as the rest of a share from Beta(alpha, alpha).

    What lies outside the image is cut off, and the share is what remains (Yun et al. 2019, CutMix, section 3.1).
    """
    return Mixed(none(), _CutMix(_Shares(alpha, probability)))
