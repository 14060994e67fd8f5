"""RandAugment (Cubuk et al. 2020, Practical Automated Data Augmentation with a Reduced Search Space).

Its fourteen operations; what moves in from outside is the border's own value.
"""

from collections.abc import Callable
from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from limbeck.data.augment import colour
from limbeck.data.augment.geometry import warp
from limbeck.data.augment.views import Augment, as_floats, as_raw, expect_images

LARGEST = 30
"""The magnitude at which every operation does its utmost."""


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b, c], dim=1), torch.stack([d, e, f], dim=1)], dim=1)


def _rotate(images_BCHW: Tensor, degrees_B: Tensor) -> Tensor:
    # the library's cosine may round otherwise in batches of another size; of whole degrees it comes from a table
    table = torch.deg2rad(torch.arange(-LARGEST, LARGEST + 1, dtype=torch.float64))
    place = degrees_B.round().long() + LARGEST
    cos, sin, none = table.cos().float()[place], table.sin().float()[place], torch.zeros_like(degrees_B)
    return warp(images_BCHW, _matrix(cos, -sin, none, sin, cos, none))


def _shear_x(images_BCHW: Tensor, shares_B: Tensor) -> Tensor:
    one, none = torch.ones_like(shares_B), torch.zeros_like(shares_B)
    return warp(images_BCHW, _matrix(one, shares_B, none, none, one, none))


def _shear_y(images_BCHW: Tensor, shares_B: Tensor) -> Tensor:
    one, none = torch.ones_like(shares_B), torch.zeros_like(shares_B)
    return warp(images_BCHW, _matrix(one, none, none, shares_B, one, none))


def _translate_x(images_BCHW: Tensor, shares_B: Tensor) -> Tensor:
    one, none = torch.ones_like(shares_B), torch.zeros_like(shares_B)
    return warp(images_BCHW, _matrix(one, none, shares_B * images_BCHW.shape[3], none, one, none))


def _translate_y(images_BCHW: Tensor, shares_B: Tensor) -> Tensor:
    one, none = torch.ones_like(shares_B), torch.zeros_like(shares_B)
    return warp(images_BCHW, _matrix(one, none, none, none, one, shares_B * images_BCHW.shape[2]))


OPERATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda images, _: images,
    lambda images, _: colour.autocontrast(images),
    lambda images, _: colour.equalize(images),
    lambda images, m: _rotate(images, m * 30),
    lambda images, m: colour.solarize(images, 255 * (1 - m.abs())),
    lambda images, m: colour.saturation(images, 1 + m * 0.9),
    lambda images, m: colour.posterize(images, 8 - 4 * m.abs()),
    lambda images, m: colour.contrast(images, 1 + m * 0.9),
    lambda images, m: colour.brightness(images, 1 + m * 0.9),
    lambda images, m: colour.sharpness(images, 1 + m * 0.9),
    lambda images, m: _shear_x(images, m * 0.3),
    lambda images, m: _shear_y(images, m * 0.3),
    lambda images, m: _translate_x(images, m * 0.45),
    lambda images, m: _translate_y(images, m * 0.45),
)
"""Each with its range: m [B] runs from -1 to 1."""


class _RandAugment:
    def __init__(self, num_ops: int, magnitude: int) -> None:
        self.num_ops, self.magnitude = num_ops, magnitude / LARGEST

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        chosen = torch.randint(0, len(OPERATIONS), (num, self.num_ops), generator=generator)
        signs = torch.randint(0, 2, (num, self.num_ops), generator=generator) * 2 - 1
        return torch.cat([chosen, signs * self.magnitude], dim=1).float()

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        expect_images(samples, "randaugment")
        images_BCHW = as_floats(samples)
        for chosen_B, magnitudes_B in zip(
            draws[:, : self.num_ops].unbind(1), draws[:, self.num_ops :].unbind(1), strict=True
        ):
            changed = images_BCHW.clone()
            for number, operation in enumerate(OPERATIONS):
                where = (chosen_B == number).nonzero().squeeze(1)
                if len(where):
                    changed[where] = operation(images_BCHW[where], magnitudes_B[where]).round().clamp(0, 255)
            images_BCHW = changed
        return as_raw(images_BCHW, samples.dtype)


def randaugment(*, num_ops: PositiveInt, magnitude: Annotated[int, Field(ge=0, le=LARGEST)]) -> Augment:
    """`num_ops` operations by lot, one after the other, each at `magnitude` of 30 with a sign by lot."""
    return _RandAugment(num_ops, magnitude)
