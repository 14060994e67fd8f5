"""Bias correction: what rounding takes from the logits on average is given back.

Rounding errors are not zero on average. Where the means of logits move apart, some classes are answered more often than in
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

from limbeck.evaluation import predict
from limbeck.models import Network


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
