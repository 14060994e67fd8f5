"""What a microphone does to sound: later or earlier, further away, beside noise. Legend: B batch, T samples, C channels."""

from functools import lru_cache
from typing import Annotated, TypeAlias

import torch
from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from limbeck.data.augment.views import Augment
from limbeck.errors import ComponentError

Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
TAPE = 1 << 19
"""Numbers of the noise from which every sample gets a piece: a minute of sound at 8 kHz."""
SILENT = 1e-9


def expect_sequences(samples: Tensor, name: str) -> None:
    """Let sequences [B, T, C] pass.

    Raises:
        ComponentError: the samples are none.

    """
    if samples.ndim != 3:
        raise ComponentError(
            f"augmentation {name!r} takes sound and other sequences, found samples of shape {tuple(samples.shape[1:])}; "
            "choose another one."
        )


def _as(samples: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats -> what they were; whole numbers are cut off where a microphone's are."""
    if dtype.is_floating_point:
        return samples.to(dtype)
    bounds = torch.iinfo(dtype)
    return samples.round().clamp(bounds.min, bounds.max).to(dtype)


class _TimeShift:
    def __init__(self, samples: int) -> None:
        self.samples = samples

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return torch.randint(-self.samples, self.samples + 1, (num, 1), generator=generator).float()

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        expect_sequences(samples, "time_shift")
        length = samples.shape[1]
        came_from = torch.arange(length) - draws.long()
        is_inside = (came_from >= 0) & (came_from < length)
        index = came_from.clamp(0, length - 1)[:, :, None].expand_as(samples)
        return samples.gather(1, index) * is_inside[:, :, None]


class _Gain:
    def __init__(self, db: float) -> None:
        self.db = db

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return (torch.rand(num, 1, generator=generator) * 2 - 1) * self.db

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        expect_sequences(samples, "gain")
        return _as(samples * 10 ** (draws[:, :, None] / 20), samples.dtype)


class _Noise:
    """Drawn: how far below the sound, in decibels (infinite: none), and where on the tape the noise begins."""

    def __init__(self, low_db: float, high_db: float, probability: float) -> None:
        self.low_db, self.high_db, self.probability = low_db, high_db, probability

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        below_db = self.low_db + (self.high_db - self.low_db) * torch.rand(num, generator=generator)
        is_noisy = torch.rand(num, generator=generator) < self.probability
        below_db = torch.where(is_noisy, below_db, torch.inf)
        return torch.stack([below_db, torch.randint(0, TAPE, (num,), generator=generator).float()], dim=1)

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        expect_sequences(samples, "noise")
        below_db, start = draws.unbind(1)
        sound = samples.double()  # sums of one sample come out alike whatever its batch; rounded, they are equal
        loudness_B = sound.square().mean((1, 2)).clamp(min=SILENT).sqrt()
        index = start.long()[:, None] + torch.arange(samples.shape[1] * samples.shape[2])
        noise = _tape()[index % TAPE].reshape(samples.shape)
        return _as(sound + noise * (loudness_B * 10 ** (-below_db.double() / 20))[:, None, None], samples.dtype)


@lru_cache(maxsize=1)
def _tape() -> Tensor:
    """White noise of deviation 1."""
    return torch.randn(TAPE, generator=torch.Generator().manual_seed(0))


def _ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise ValueError("expected the lower bound first")
    return bounds


Decibels: TypeAlias = Annotated[tuple[float, float], AfterValidator(_ordered)]


def time_shift(*, samples: PositiveInt) -> Augment:
    """Up to so many samples later or earlier, uniform; zeros move in."""
    return _TimeShift(samples)


def gain(*, db: NonNegativeFloat) -> Augment:
    """Up to so many decibels louder or softer, uniform in decibels; whole numbers are cut off at their type's ends."""
    return _Gain(db)


def noise(*, snr_db: Decibels, probability: Probability = 1.0) -> Augment:
    """White noise, its level drawn uniformly from `snr_db` = [lowest, highest] decibels below the sound's own."""
    return _Noise(*snr_db, probability)
