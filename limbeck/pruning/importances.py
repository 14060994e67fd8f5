"""How much a channel matters: what lies in IMPORTANCES makes an importance of torch-pruning.

An importance is called with a group, the layers that lose a channel together, and answers a score for each of its
channels [C], or None for a group that it cannot judge and that therefore stays. One that has a method
`observe(network, losses)` is first shown the losses of some training batches. Legend: C channels, g a gradient.
"""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

Importance: TypeAlias = Callable[[Any], Tensor | None]


@runtime_checkable
class Observing(Protocol):
    """An importance that looks at the training data."""

    def __call__(self, group: Any) -> Tensor | None:
        """The scores [C] of a group's channels."""

    def observe(self, network: nn.Module, losses: Iterable[Tensor]) -> None:
        """See the stage's own objective, batch by batch, before the groups are asked for; gradients may be left behind."""


def magnitude() -> Importance:
    """L2 norm of the weights that go with a channel, squared, over the mean of its group.

    Li et al. 2017, Pruning Filters for Efficient ConvNets, section 3.1, with L2 for their L1. Dividing by the mean
    makes groups comparable, whose weights differ in size.
    """
    import torch_pruning

    return torch_pruning.importance.GroupMagnitudeImportance(p=2)  # type: ignore[no-any-return]


def bn_scale() -> Importance:
    """|gamma|, the scale of the batch norm behind a channel, averaged where a group has several.

    Liu et al. 2017, Learning Efficient Convolutional Networks through Network Slimming: gamma of their eq. 2 ranks
    all channels of all layers. Their penalty, lambda sum |gamma| of eq. 1, is not in our training; weight decay shrinks
    gamma in its place. Groups without a batch norm stay.
    """
    import torch_pruning

    return torch_pruning.importance.BNScaleImportance(normalizer=None)  # type: ignore[no-any-return]


def taylor(*, num_batches: PositiveInt) -> Importance:
    """The change in the loss that losing a channel would make, to first order: the sum of (g w)^2 over its weights w.

    Molchanov et al. 2019, Importance Estimation for Neural Network Pruning, section 3: I_m = (g_m w_m)^2, summed over
    the weights that go together, and averaged over mini-batches *after* squaring, because the gradients of a trained
    network average to nothing. Layers need no scaling to be compared.
    """
    import torch_pruning

    library = torch_pruning.importance.GroupTaylorImportance(group_reduction="sum", normalizer=None)
    return FirstOrder(library, num_batches)


class FirstOrder:
    """Gradients of several batches for an importance of torch-pruning that adds up |w grad|."""

    def __init__(self, library: Importance, num_batches: int) -> None:
        self._library, self.num_batches = library, num_batches

    def observe(self, network: nn.Module, losses: Iterable[Tensor]) -> None:
        """Leave w E[g^2] where the library looks for a gradient: its |w grad| is then E[(g w)^2]."""
        weights = [parameter for parameter in network.parameters() if parameter.requires_grad]
        sums = [torch.zeros_like(weight) for weight in weights]
        num = 0
        for loss in islice(losses, self.num_batches):
            for total, gradient in zip(sums, torch.autograd.grad(loss, weights, allow_unused=True), strict=True):
                if gradient is not None:
                    total.addcmul_(gradient, gradient)
            num += 1
        for weight, total in zip(weights, sums, strict=True):
            weight.grad = weight.detach() * total / max(1, num)

    def __call__(self, group: Any) -> Tensor | None:
        """The scores [C] of a group's channels."""
        return self._library(group)


def random() -> Importance:
    """Channels by lot: the control that an importance has to beat."""
    import torch_pruning

    return torch_pruning.importance.RandomImportance()  # type: ignore[no-any-return]


IMPORTANCES: dict[str, Callable[..., Importance]] = {
    "magnitude": magnitude,
    "bn_scale": bn_scale,
    "taylor": taylor,
    "random": random,
}
