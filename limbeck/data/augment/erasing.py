"""Random erasing (Zhong et al. 2017): a rectangle of each image is hidden."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from limbeck.data.augment.views import Augment, expect_images

SMALLEST = 0.02
"""The least share of an image that is erased (section 5.1 of the paper)."""
NARROWEST = 0.3
"""The least ratio of a rectangle's sides."""


class _Erasing:
    """Drawn: whether, area, ratio of height to width, where from the top, where from the left, value."""

    def __init__(self, probability: float, area: float) -> None:
        self.probability, self.area = probability, area

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        draws = torch.rand(num, 6, generator=generator)
        draws[:, 0] = (draws[:, 0] < self.probability).float()
        draws[:, 1] = SMALLEST + draws[:, 1] * (self.area - SMALLEST)
        draws[:, 2] = NARROWEST ** (1 - 2 * draws[:, 2])
        draws[:, 5] = (draws[:, 5] * 256).floor()
        return draws

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        expect_images(samples, "erasing")
        height, width = samples.shape[1:3]
        erased, area, ratio, top, left, values = draws.unbind(1)
        rows = (area * height * width * ratio).sqrt().round().clamp(1, height)
        columns = (area * height * width / ratio).sqrt().round().clamp(1, width)
        first_row, first_column = (top * (height - rows + 1)).floor(), (left * (width - columns + 1)).floor()
        inside = inside_box(samples, first_row, first_column, rows * erased, columns * erased)
        return torch.where(inside, values[:, None, None, None].to(samples.dtype), samples)


def inside_box(samples: Tensor, top: Tensor, left: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """For images [B, H, W, C] and boxes [B] in whole pixels: bool [B, H, W, 1]; parts outside an image are cut off."""
    y, x = torch.arange(samples.shape[1])[:, None], torch.arange(samples.shape[2])
    top, left, rows, columns = (edge[:, None, None] for edge in (top, left, rows, columns))
    return ((y >= top) & (y < top + rows) & (x >= left) & (x < left + columns))[..., None]


def erasing(
    *, probability: Annotated[float, Field(ge=0, le=1)], area: Annotated[float, Field(ge=SMALLEST, lt=1)]
) -> Augment:
    """Hide a rectangle of up to the share `area` of an image behind one grey, with `probability`."""
    return _Erasing(probability, area)
