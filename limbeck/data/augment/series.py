"""What a sensor's series could have been: other noise, another gain, another tempo.

T. T. Um et al. (2017), Data Augmentation of Wearable Sensor Data. Legend: B batch, T steps, C channels.
"""

from typing import Annotated, TypeAlias

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor

from limbeck.data.augment.views import Augment
from limbeck.errors import ComponentError

Range: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
"""A factor is drawn from 1 - this to 1 + this."""
SEEDS = 2**24
"""As many whole numbers float32 tells apart."""


class _Jitter:
    """Drawn: a seed for each sample, as noise has as many values as a sample."""

    def __init__(self, share: float) -> None:
        self.share = share

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return torch.randint(0, SEEDS, (num, 1), generator=generator).float()

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        expect_series(samples, "jitter")
        generator, noise = torch.Generator(), torch.empty_like(samples)
        for seed, of_sample in zip(draws[:, 0].long().tolist(), noise, strict=True):
            of_sample.normal_(generator=generator.manual_seed(seed))
        spread_B1C = (samples - samples.mean(1, keepdim=True)).square().mean(1, keepdim=True).sqrt()
        return samples + noise * spread_B1C * self.share


class _Scaling:
    """Drawn: one factor for all channels; sensors of one device do not grow apart."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return 1 + (torch.rand(num, 1, generator=generator) * 2 - 1) * self.scale

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        expect_series(samples, "scaling")
        return samples * draws[:, :, None]


class _Tempo:
    """Drawn: speed, steps later. Between two steps values are interpolated, outside stand the first and the last."""

    def __init__(self, speed: float, shift: int) -> None:
        self.ranges = torch.tensor([speed, shift], dtype=torch.float32)

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return (torch.rand(num, 2, generator=generator) * 2 - 1) * self.ranges + torch.tensor([1.0, 0.0])

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        expect_series(samples, "tempo")
        last, centre = samples.shape[1] - 1, (samples.shape[1] - 1) / 2
        speed_B1, shift_B1 = draws[:, :1], draws[:, 1:]
        places_BT = ((torch.arange(last + 1) - centre) * speed_B1 + centre + shift_B1).clamp(0, last)
        before_BT = places_BT.floor().long()
        after_BT = (before_BT + 1).clamp(max=last)
        rows_B1, weight_BT1 = torch.arange(len(samples))[:, None], (places_BT - before_BT)[:, :, None]
        before_BTC, after_BTC = samples[rows_B1, before_BT], samples[rows_B1, after_BT]
        return before_BTC + (after_BTC - before_BTC) * weight_BT1


def expect_series(samples: Tensor, name: str) -> None:
    """Let series [B, T, C] of floats pass.

    Raises:
        ComponentError: the samples are no series.

    """
    if samples.ndim != 3 or not samples.is_floating_point():
        raise ComponentError(
            f"augmentation {name!r} takes series [T, C] of floats, found {str(samples.dtype).removeprefix('torch.')}"
            f"{list(samples.shape[1:])}; choose one for that kind of input, or none."
        )


def jitter(*, share: NonNegativeFloat) -> Augment:
    """Noise: normal, of `share` times the standard deviation that each channel of the sample has."""
    return _Jitter(share)


def scaling(*, scale: Range) -> Augment:
    """Gain: all channels times one factor, uniform in 1 +- `scale`."""
    return _Scaling(scale)


def tempo(*, speed: Range, shift: NonNegativeInt) -> Augment:
    """Tempo: 1 +- `speed` times as fast about the window's middle, and up to `shift` steps earlier or later."""
    return _Tempo(speed, shift)
