"""What values pixels have: brightness, contrast, saturation, and the point operations of RandAugment.

Images are float32 [B, C, H, W] of whole values 0 to 255; factors and bits are float32 [B]. Every result is whole
again. Means are taken of whole numbers, which add up to the same bits in any order. Legend: B batch, C channels,
H W image, V = 256 values.
"""

from typing import Annotated, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from limbeck.data.augment.views import Augment, as_floats, as_raw, expect_images

Range: TypeAlias = Annotated[float, Field(ge=0, le=1)]
"""A factor is drawn from 1 - this to 1 + this."""
LUMA = (299, 587, 114)
"""Shares of red, green and blue in brightness, per mille (ITU-R BT.601)."""


def blend(far: Tensor, images_BCHW: Tensor, factors_B: Tensor) -> Tensor:
    """From `far` (factor 0) over the image itself (1) to beyond it."""
    return (far + (images_BCHW - far) * factors_B[:, None, None, None]).round().clamp(0, 255)


def grey(images_BCHW: Tensor) -> Tensor:
    """[B, 1, H, W] brightness of colour images; the mean of the channels of others."""
    channels = images_BCHW.shape[1]
    weights = torch.tensor(LUMA if channels == 3 else (1,) * channels)
    return ((images_BCHW * weights[:, None, None]).sum(1, keepdim=True) / weights.sum()).round()


def brightness(images_BCHW: Tensor, factors_B: Tensor) -> Tensor:
    """Towards black below 1."""
    return blend(torch.zeros(()), images_BCHW, factors_B)


def contrast(images_BCHW: Tensor, factors_B: Tensor) -> Tensor:
    """Towards the image's mean brightness below 1."""
    mean_B111 = grey(images_BCHW).double().mean((1, 2, 3), keepdim=True).round().float()
    return blend(mean_B111, images_BCHW, factors_B)


def saturation(images_BCHW: Tensor, factors_B: Tensor) -> Tensor:
    """Towards grey below 1; one channel stays as it is."""
    return blend(grey(images_BCHW), images_BCHW, factors_B)


def sharpness(images_BCHW: Tensor, factors_B: Tensor) -> Tensor:
    """Towards a 3x3 mean with a heavy centre below 1; the border's pixels stay."""
    height, width = images_BCHW.shape[2:]
    if min(height, width) < 3:
        return images_BCHW
    shifted = (images_BCHW[:, :, y : height - 2 + y, x : width - 2 + x] for y in range(3) for x in range(3))
    smooth = images_BCHW.clone()
    smooth[:, :, 1:-1, 1:-1] = ((sum(shifted) + 4 * images_BCHW[:, :, 1:-1, 1:-1]) / 13).round()
    return blend(smooth, images_BCHW, factors_B)


def solarize(images_BCHW: Tensor, thresholds_B: Tensor) -> Tensor:
    """Invert the values from the threshold up."""
    return torch.where(images_BCHW >= thresholds_B[:, None, None, None], 255 - images_BCHW, images_BCHW)


def posterize(images_BCHW: Tensor, bits_B: Tensor) -> Tensor:
    """Keep the highest bits of each value."""
    steps = torch.exp2(8 - bits_B.round())[:, None, None, None]
    return (images_BCHW / steps).floor() * steps


def autocontrast(images_BCHW: Tensor) -> Tensor:
    """Stretch each channel's values to 0 and 255; a channel of one value stays."""
    low, high = images_BCHW.amin((2, 3), keepdim=True), images_BCHW.amax((2, 3), keepdim=True)
    stretched = ((images_BCHW - low) * 255 / (high - low).clamp(min=1)).round()
    return torch.where(high > low, stretched, images_BCHW)


def equalize(images_BCHW: Tensor) -> Tensor:
    """Give each channel's values equal shares of the range, as far as whole values go; one of few values stays."""
    values_RP = images_BCHW.flatten(2).flatten(0, 1).long()  # R rows: one for each channel of each image; P pixels
    histogram_RV = torch.zeros(len(values_RP), 256, dtype=torch.long).scatter_add_(
        1, values_RP, torch.ones_like(values_RP)
    )
    largest_R1 = histogram_RV.gather(1, values_RP.amax(1, keepdim=True))
    steps_R1 = (values_RP.shape[1] - largest_R1) // 255
    below_RV = histogram_RV.cumsum(1) - histogram_RV
    table_RV = ((below_RV + steps_R1 // 2) // steps_R1.clamp(min=1)).clamp(max=255)
    equal_RP = torch.where(steps_R1 > 0, table_RV.gather(1, values_RP), values_RP)
    return equal_RP.reshape(images_BCHW.shape).float()


class _ColorJitter:
    def __init__(self, *ranges: float) -> None:
        self.ranges = torch.tensor(ranges, dtype=torch.float32)

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return 1 + (torch.rand(num, 3, generator=generator) * 2 - 1) * self.ranges

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        expect_images(samples, "color_jitter")
        images_BCHW = as_floats(samples)
        for change, factors_B in zip((brightness, contrast, saturation), draws.unbind(1), strict=True):
            images_BCHW = change(images_BCHW, factors_B)
        return as_raw(images_BCHW, samples.dtype)


def color_jitter(*, brightness: Range, contrast: Range, saturation: Range) -> Augment:
    """Brightness, then contrast, then saturation, each by a factor uniform in 1 +- its range."""
    return _ColorJitter(brightness, contrast, saturation)
