"""Where pixels go: rotation, scale, shift, crop, flip. Legend: B batch, H W C image."""

from typing import Annotated

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor
from torch.nn import functional

from limbeck.data.augment.views import Augment, as_floats, as_raw, expect_images


def warp(images_BCHW: Tensor, matrix_B23: Tensor) -> Tensor:
    """Move float images: output pixel (x, y), from the centre, takes its value at matrix (x, y, 1), bilinear.

    Outside stand the border's own values. Sums and products one by one: the bytes of a sample do not depend on the
    size of its batch, as those of a matrix product may.
    """
    height, width = images_BCHW.shape[2:]
    x_HW = (torch.arange(width) - (width - 1) / 2).expand(height, width)
    y_HW = (torch.arange(height) - (height - 1) / 2)[:, None].expand(height, width)
    a, b, c, d, e, f = (entry[:, None, None] for entry in matrix_B23.flatten(1).unbind(1))
    from_x, from_y = a * x_HW + b * y_HW + c, d * x_HW + e * y_HW + f
    # grid_sample counts from -1 to 1 over the outer edges of the image
    grid_BHW2 = torch.stack([from_x * (2 / width), from_y * (2 / height)], dim=3)
    return functional.grid_sample(images_BCHW, grid_BHW2, padding_mode="border", align_corners=False)


class _Affine:
    """Rotation, scale and shift about the centre, bilinear, edges filled with the border's own values."""

    def __init__(self, degrees: float, scale: float, shift: float) -> None:
        self.ranges = torch.tensor([np.deg2rad(degrees), scale, shift, shift], dtype=torch.float32)

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return (torch.rand(num, 4, generator=generator) * 2 - 1) * self.ranges

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        expect_images(samples, "affine")
        images_BCHW = as_floats(samples)
        height, width = images_BCHW.shape[2:]
        angle, scale, down, right = draws.unbind(1)
        cos, sin = torch.cos(angle) / (1 + scale), torch.sin(angle) / (1 + scale)
        # theta maps output to input coordinates, which run from -1 to 1: a pixel is 2 / size of that
        row_x = torch.stack([cos, -sin * height / width, 2 * right / width], dim=1)
        row_y = torch.stack([sin * width / height, cos, 2 * down / height], dim=1)
        theta_B23 = torch.stack([row_x, row_y], dim=1)
        grid = functional.affine_grid(theta_B23, list(images_BCHW.shape), align_corners=False)
        moved = functional.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)
        return as_raw(moved, samples.dtype)


class _CropFlip:
    """Pad by zeros, crop back to size at a random place, mirror left-right half of the time."""

    def __init__(self, pad: int, flip: bool) -> None:
        self.pad, self.flip = pad, flip

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        places = torch.randint(0, 2 * self.pad + 1, (num, 2), generator=generator)
        mirrored = torch.randint(0, 2, (num, 1), generator=generator) * int(self.flip)
        return torch.cat([places, mirrored], dim=1).float()

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        expect_images(samples, "crop_flip")
        batch, height, width, _ = samples.shape
        top, left, mirrored = draws.long().unbind(1)
        padded = functional.pad(samples, (0, 0, self.pad, self.pad, self.pad, self.pad))
        of_image = torch.arange(batch)[:, None] * padded.shape[1]
        rows = of_image + top[:, None] + torch.arange(height)
        columns = torch.arange(width).expand(batch, width)
        columns = left[:, None] + torch.where(mirrored[:, None] == 1, width - 1 - columns, columns)
        # one number for each pixel: torch is slower with three indices
        pixels = rows[:, :, None] * padded.shape[2] + columns[:, None, :]
        return padded.flatten(0, 2).index_select(0, pixels.flatten()).view(samples.shape)


def affine(
    *, degrees: NonNegativeFloat, scale: Annotated[float, Field(ge=0, lt=1)], shift: NonNegativeFloat
) -> Augment:
    """Rotation up to `degrees`, scale by 1 +- `scale`, shift by up to `shift` pixels, each uniform."""
    return _Affine(degrees, scale, shift)


def crop_flip(*, pad: NonNegativeInt, flip: bool) -> Augment:
    """Zero padding by `pad` pixels, a random crop back to size, a left-right flip (He et al. 2015, section 4.2)."""
    return _CropFlip(pad, flip)
