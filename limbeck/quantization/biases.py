"""Biases of an int8 graph: in whole steps where integers are summed, and the last one gives back what rounding takes.

`round_biases_`: where a layer's output is int8, runtimes add its bias to integers, as an integer of 32 bits (Jacob et al. 2018,
Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, section 2.4). A graph that adds
the bias as it is answers otherwise: single steps at first, which later layers multiply.

`correct_bias_`: rounding errors are not zero on average. Where the means of logits move apart, some classes are answered more often than in
float and others less: quality hardly tells, the classes that lose do. The mean over calibration samples of the float logits
less the rounded ones is added to the last layer's bias, which int8 keeps in float (Nagel et al. 2019, Data-Free Quantization
Through Weight Equalization and Bias Correction, ICCV, section 4.2 and appendix D; there for every layer, a pass over the samples
each).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from limbeck.models import Network
from limbeck.prediction import predict


def correct_bias_(prepared: nn.Module, network: Network, x: NDArray[np.generic]) -> None:
    """Let the logits of a calibrated graph have float's means over `x` [N, ...] once they are rounded, in place.

    Nothing is done where the logits are not what a linear layer with a bias gives.
    """
    from limbeck.quantization.sensitivity import simulate

    bias_K = _last_bias(prepared)
    if bias_K is None:
        return
    shift_K = (predict(network, x) - predict(simulate(prepared), x)).mean(0)
    with torch.no_grad():
        bias_K.add_(torch.from_numpy(shift_K))


def _last_bias(prepared: nn.Module) -> Tensor | None:
    assert isinstance(prepared, GraphModule)
    node: Node = prepared.graph.output_node().all_input_nodes[0]
    while node.op == "call_module":  # an observer
        node = node.all_input_nodes[0]
    bias = node.args[2] if node.target == torch.ops.aten.linear.default and len(node.args) > 2 else None
    if not isinstance(bias, Node) or bias.op != "get_attr":
        return None
    return prepared.get_parameter(str(bias.target))


def round_biases_(prepared: nn.Module) -> None:
    """Let each bias that is added to integers be a multiple of what one of them stands for, in place.

    That is the step of the layer's inputs times the step of the channel's weights.
    """
    from limbeck.quantization.quantizer import AFTERWARDS, MULTIPLYING

    assert isinstance(prepared, GraphModule)
    for node in prepared.graph.nodes:
        if node.target not in MULTIPLYING or not isinstance(bias := [*node.args, None][2], Node):
            continue
        after = node
        while len(after.users) == 1 and (user := next(iter(after.users))).target in AFTERWARDS:
            after = user
        observers = [_observer(prepared, each) for each in (*node.args[:2], *after.users)]
        if bias.op == "get_attr" and None not in observers:
            steps = [observer.calculate_qparams()[0] for observer in observers[:2]]  # type: ignore[union-attr, operator]
            bias_C = prepared.get_parameter(str(bias.target))
            step_C = torch.as_tensor(steps[0] * steps[1])
            with torch.no_grad():
                bias_C.copy_((bias_C / step_C).round() * step_C)


def _observer(prepared: GraphModule, node: object) -> nn.Module | None:
    if not isinstance(node, Node) or node.op != "call_module":
        return None
    module = prepared.get_submodule(str(node.target))
    return module if hasattr(module, "calculate_qparams") else None
