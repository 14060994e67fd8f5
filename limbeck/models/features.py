"""A network's features: what enters its head, the last convolution or linear layer to run. Legend: B batch, D features."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from limbeck.models import LAYERS


def head_of(module: nn.Module, sample: Tensor) -> str:
    """The name of the submodule that makes the logits, found by running one `sample` [1, ...].

    Raises:
        ValueError: none of its submodules multiplies.

    """
    names = {layer: name for name, layer in module.named_modules() if isinstance(layer, LAYERS)}
    order: list[str] = []
    handles = [layer.register_forward_hook(lambda layer, *_: order.append(names[layer])) for layer in names]
    was_training = module.training
    with torch.no_grad():
        module.eval()(sample)
    module.train(was_training)
    for handle in handles:
        handle.remove()
    if not order:
        raise ValueError(
            f"nothing in it that multiplies is one of {', '.join(layer.__name__ for layer in LAYERS)}, as a module"
        )
    return order[-1]


class Tap:
    """Where `tapped` leaves the features of the last forward pass."""

    def __init__(self) -> None:
        self._last: Tensor | None = None

    def keep(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Remember what enters a layer; what is remembered in the end entered the last one."""
        self._last = inputs[0]

    @property
    def features(self) -> Tensor | None:
        """[B, D] that entered the head, flattened; None in a graph that has no layers as modules (a quantized one)."""
        return None if self._last is None else self._last.flatten(1)


@contextmanager
def tapped(model: nn.Module) -> Iterator[Tap]:
    """Within, a forward pass of `model` leaves its features in the tap."""
    tap = Tap()
    layers = [layer for layer in model.modules() if isinstance(layer, LAYERS)]
    handles = [layer.register_forward_pre_hook(tap.keep) for layer in layers]
    try:
        yield tap
    finally:
        for handle in handles:
            handle.remove()


def width_of(model: nn.Module, samples: Tensor) -> int | None:
    """D, from a forward pass of raw samples [B, ...] in evaluation mode; None of a graph that has no layers as modules."""
    if not any(isinstance(layer, LAYERS) for layer in model.modules()):
        return None
    was_training = model.training
    with torch.no_grad(), tapped(model.eval()) as tap:
        model(samples)
    model.train(was_training)
    return None if tap.features is None else tap.features.shape[1]
