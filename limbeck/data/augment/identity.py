"""No change at all."""

import torch
from torch import Tensor

from limbeck.data.augment.views import Augment


class _Identity:
    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return torch.zeros(num, 0)

    def apply(self, samples: Tensor, draws: Tensor) -> Tensor:
        return samples


def none() -> Augment:
    """Samples as they are."""
    return _Identity()
