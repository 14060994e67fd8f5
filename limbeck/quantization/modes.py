"""Training and evaluation mode of exported graphs, whose dropouts and norms had theirs written into them.

torchao's own switch draws random numbers whenever it is turned, gives every dropout a probability of one half, and returns nothing.
"""

from types import MethodType

import torch
from torch import nn
from torch.fx import GraphModule

aten = torch.ops.aten
FLAGS = {aten.dropout.default: 2, aten.batch_norm.default: 5}
"""Where an operator is told whether it is in training."""


def _train(graph: GraphModule, mode: bool = True) -> GraphModule:
    nn.Module.train(graph, mode)
    told = [(node, FLAGS[node.target]) for node in graph.graph.nodes if node.target in FLAGS]
    told = [(node, position) for node, position in told if node.args[position] != mode]
    for node, position in told:
        node.update_arg(position, mode)
    if told:
        graph.recompile()
    return graph


def switchable(graph: GraphModule) -> GraphModule:
    """The graph, whose `train` and `eval` do what a network's do; a copy of it has them no more."""
    graph.train = MethodType(_train, graph)  # type: ignore[method-assign]
    graph.eval = MethodType(nn.Module.eval, graph)  # type: ignore[method-assign]
    return graph
