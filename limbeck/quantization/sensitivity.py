"""Which layer's rounding costs most: each is left in float in turn, beside those already chosen, and logits are compared.

Logits, not quality: one layer moves the quality by less than one sample, but every logit a little. They need no labels,
so the calibration split serves, and validation is left to say how many layers it takes. Each choice looks at all layers
again: errors of layers cancel and add up, and a list made once is wrong from its second entry on (docs/quantization.md).
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.observer import ObserverBase

from limbeck.prediction import predict
from limbeck.quantization.biases import round_biases_
from limbeck.quiet import quiet


class Rounded(nn.Module):
    """What an observer's range makes of a tensor once it is int8, ties aside."""

    scale: Tensor
    zero: Tensor

    def __init__(self, observer: ObserverBase) -> None:
        super().__init__()
        scale, zero = observer.calculate_qparams()
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero.int())
        self.low, self.high = observer.quant_min, observer.quant_max
        self.channel_axis = observer.ch_axis if len(scale) > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """[...] -> [...], in steps of `scale`."""
        if self.channel_axis is None:
            zero = int(self.zero)
            return torch.fake_quantize_per_tensor_affine(x, float(self.scale), zero, self.low, self.high)
        return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero, self.channel_axis, self.low, self.high)


def simulate(prepared: nn.Module) -> GraphModule:
    """A calibrated graph that rounds like its int8 version; `prepared` is left as it is."""
    with quiet():
        graph = copy.deepcopy(prepared)
    assert isinstance(graph, GraphModule)
    round_biases_(graph)
    for name, module in list(graph._modules.items()):  # named_children() leaves out what has two names
        if isinstance(module, ObserverBase):
            setattr(graph, name, Rounded(module))
    return graph


def layers_of(graph: GraphModule) -> dict[str, Node]:
    """The nodes that multiply rounded weights, by the name of their module in the network, in the graph's order."""
    found = {}
    for node in graph.graph.nodes:
        inputs = [_unrounded(graph, argument) for argument in node.args[:2]]
        if len(inputs) == 2 and inputs[0] is not None and inputs[1] is not None and inputs[1].op == "get_attr":
            (module, _), *_ = reversed(node.meta["nn_module_stack"].values())
            found[module.removeprefix("L['self'].")] = node
    return found


def _unrounded(graph: GraphModule, argument: object) -> Node | None:
    """What was rounded to give this argument; None when nothing was."""
    if not isinstance(argument, Node) or argument.op != "call_module":
        return None
    before = argument.args[0] if isinstance(graph.get_submodule(str(argument.target)), Rounded) else None
    return before if isinstance(before, Node) else None


@contextmanager
def left_float(graph: GraphModule, layer: Node) -> Iterator[None]:
    """Let one layer of a simulated graph read its inputs and weights unrounded; others go on reading them rounded.

    A table of embeddings that is this layer's weights (tied) is read unrounded with it, as where the layer stays float.
    """
    weights = layer.args[1]
    assert isinstance(weights, Node)
    rounded = {layer: layer.args}
    layer.args = (*(_unrounded(graph, argument) for argument in layer.args[:2]), *layer.args[2:])
    for reader in list(weights.users):
        rounded[reader] = reader.args
        reader.args = tuple(_unrounded(graph, weights) if each is weights else each for each in reader.args)
    graph.recompile()
    try:
        yield
    finally:
        for node, arguments in rounded.items():
            node.args = arguments
        graph.recompile()


def most_sensitive(
    prepared: nn.Module, network: nn.Module, x: NDArray[np.generic], progress: Callable[[int, int, str], None]
) -> Iterator[str]:
    """The layer to leave in float first, the one to leave in float beside it, and so on; each when it is asked for.

    Args:
        prepared: calibrated.
        network: the float network that it was made from.
        x: raw samples [N, ...]; the variance of their logits' errors decides.
        progress: told (done, total, note).

    """
    graph = simulate(prepared)
    expected_NK = predict(network, x)
    left = layers_of(graph)
    with ExitStack() as chosen:
        while left:
            errors = {}
            for index, (name, node) in enumerate(left.items(), start=1):
                with left_float(graph, node):
                    # what a logit moves on average does not count: the bias takes it back (limbeck.quantization.biases)
                    errors[name] = float((predict(graph, x) - expected_NK).astype(np.float64).var(axis=0).mean())
                progress(index, len(left), f"sensitivity of {name}")
            best = min(errors, key=lambda name: errors[name])
            chosen.enter_context(left_float(graph, left.pop(best)))
            yield best
