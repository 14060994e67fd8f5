"""Images that need no arithmetic before their first layer."""

from collections import Counter
from itertools import takewhile

import numpy as np
import onnx

from limbeck.graphs.exported import without_unused

MOVES = ("Transpose", "Reshape")
"""What may stand between the normalization of an image and its first layer."""
NORMALIZING = ["QuantizeLinear", "Mul", "Sub", "Cast"]
"""Normalization and rounding, from the last operator to the first."""


def take_pixels(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give the first int8 layer the input itself, in place, where rounding makes of every pixel what it was.

    QuantizeLinear(Move((Cast(input) - mean) * scale)) is Move(input) then. Whether it is, all 256 pixels say.
    """
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    given = {value.name for value in graph.output}
    uses = Counter([*(name for node in graph.node for name in node.input), *given])
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim[1:]]
        for value in graph.input if value.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    }  # fmt: skip
    for rounding in [n for n in graph.node if n.op_type == "QuantizeLinear" and n.output[0] not in given]:
        path = [rounding]
        while (before := makers.get(path[-1].input[0])) is not None and uses[before.output[0]] == 1:
            path.append(before)
        moves = [*takewhile(lambda node: node.op_type in MOVES, path[1:])]
        steps = [rounding, *path[1 + len(moves) :]]
        shape = shapes.get(steps[-1].input[0])
        settings = [constants[name] for node in steps[:-1] for name in node.input[1:] if name in constants]
        if shape is None or len(settings) != 4 or [node.op_type for node in steps] != NORMALIZING:
            continue
        step, zero, scale, mean = settings
        if (
            step.size != 1
            or zero.dtype != np.uint8
            or np.broadcast_shapes(shape, mean.shape, scale.shape) != tuple(shape)
        ):
            continue
        pixels = np.arange(256, dtype=np.uint8).reshape(-1, *(1 for _ in shape))
        if not (np.rint((pixels.astype(np.float32) - mean) * scale / step) + zero == pixels).all():
            continue
        taken = steps[-1].input[0]
        if moves:
            moves[-1].input[0], taken = taken, moves[0].output[0]
        for node in graph.node:
            node.input[:] = [taken if name == rounding.output[0] else name for name in node.input]
        for node in steps:
            graph.node.remove(node)
    return without_unused(model)
