"""Changes to codes, such as texts. A view of a text is a text that somebody else would have written shorter."""

import torch
from torch import Tensor

from limbeck.data.augment.views import Augment
from limbeck.errors import ComponentError
from limbeck.params import Share

NUM_DRAWS = 64
"""Chances of a sample; a longer text uses them again."""


class _DropCodes:
    def __init__(self, probability: float) -> None:
        self.probability = probability

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return torch.rand(num, NUM_DRAWS, generator=generator)

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        if samples.ndim != 2 or samples.is_floating_point():
            raise ComponentError(
                f"augmentation 'drop_codes' takes codes [L], found samples of shape {tuple(samples.shape[1:])}; choose another."
            )
        length = samples.shape[1]
        chances_BL = draws.repeat(1, -(-length // NUM_DRAWS))[:, :length]
        is_there_BL = samples != 0
        luckiest_B1 = chances_BL.masked_fill(~is_there_BL, -1).argmax(1, keepdim=True)
        stays_BL = (chances_BL >= self.probability).scatter(1, luckiest_B1, True) & is_there_BL
        order_BL = (~stays_BL).to(torch.uint8).argsort(dim=1, stable=True)  # what stays moves up, in its order
        return (samples * stays_BL).gather(1, order_BL)


def drop_codes(*, probability: Share) -> Augment:
    """Each code is left out by chance, and the others move up; one stays.

    Word dropout of Iyyer et al. 2015, Deep Unordered Composition Rivals Syntactic Methods for Text Classification, section 3.1.
    The teacher answers the shorter text: more of what it knows than the texts alone ask for.
    """
    return _DropCodes(probability)
