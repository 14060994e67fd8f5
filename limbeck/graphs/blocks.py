"""A first layer as ONNX Runtime's int8 kernels like it: four pixels at once instead of three channels."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from limbeck.graphs.exported import without_unused

BLOCK = 4
"""Pixels side by side. ONNX Runtime's convolution of bytes on x86 takes input channels by fours (1.31); of others it first copies every
patch into a matrix. (Inner layers that were cut to other widths stay: a layer on blocks takes some 800 bytes more.)"""
MOST = 256
"""Channels of a block's outputs. Each is multiplied with all pixels of the blocks it reaches: of more, that takes longer."""

Step = tuple[str, list[str], dict[str, Any]]
"""An operator, its inputs after the first, its attributes."""
TO_NHWC: Step = ("Transpose", [], {"perm": [0, 2, 3, 1]})
TO_NCHW: Step = ("Transpose", [], {"perm": [0, 3, 1, 2]})


def take_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Compute int8 convolutions of fewer than 4 input channels on blocks of 4 pixels, in place: equal integers.

    [B, C, H, W] is read as [B, 4 C, H, W / 4], and the outputs of a block are channels of it, which moves nothing where channels
    are last in memory. A weight stands where its pixel does, among zeros; constant operators put it there, which ONNX Runtime runs
    when it opens the file. Only where pixels are uint8, which is what x86 multiplies: on ARM nobody measured it.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    widths = _widths(model)
    before: dict[str, list[onnx.NodeProto]] = {}
    after: dict[str, list[onnx.NodeProto]] = {}
    for pixels, weights, conv, rounding in _quantized(graph, constants):
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in conv.attribute}
        weight = constants[weights.input[0]]
        placed = _placed(attributes, weight.shape, widths.get(pixels.input[0]))
        if placed is None:
            continue
        columns, sides = placed
        outputs, channels, height, _ = weight.shape
        repeats, num_blocks, _ = columns.shape
        stem = conv.output[0]
        new = {
            "weights": np.pad(weight, ((0, 0), (0, 0), (0, 0), (0, 1))), "columns": columns, "repeats": np.array([repeats]),
            "shape": np.array([repeats * outputs, BLOCK * channels, height, num_blocks]),
            "blocks": np.array([0, 0, -1, BLOCK * channels]), "pixels": np.array([0, 0, -1, outputs]),
        }  # fmt: skip
        graph.initializer.extend(numpy_helper.from_array(value, f"{stem}.{part}") for part, value in new.items())

        place: Step = ("Gather", [f"{stem}.columns"], {"axis": 3})
        order: Step = ("Transpose", [], {"perm": [3, 0, 5, 1, 2, 4]})
        made = _chain(f"{stem}.weights", f"{stem}.placed", place, order, ("Reshape", [f"{stem}.shape"], {}))
        weights.input[0] = f"{stem}.placed"
        for number, (node, index) in enumerate([(weights, 1), (weights, 2), (conv, 2)]):
            if len(node.input) > index and constants[node.input[index]].ndim == 1:
                name, node.input[index] = node.input[index], f"{stem}.repeated.{number}"
                made += _chain(name, node.input[index], ("Tile", [f"{stem}.repeats"], {}))
        before[weights.output[0]] = made

        name, pixels.input[0] = pixels.input[0], f"{stem}.in"
        before[pixels.output[0]] = _chain(name, f"{stem}.in", TO_NHWC, ("Reshape", [f"{stem}.blocks"], {}), TO_NCHW)
        name, rounding.output[0] = rounding.output[0], f"{stem}.out"
        after[f"{stem}.out"] = _chain(f"{stem}.out", name, TO_NHWC, ("Reshape", [f"{stem}.pixels"], {}), TO_NCHW)

        top, _, bottom, _ = attributes.get("pads", [0, 0, 0, 0])
        changed = {
            "kernel_shape": [height, num_blocks], "strides": [attributes.get("strides", [1, 1])[0], 1],
            "pads": [top, sides[0], bottom, sides[1]],
        }  # fmt: skip
        del conv.attribute[:]
        conv.attribute.extend(helper.make_attribute(name, value) for name, value in changed.items())
    nodes = [
        other for node in graph.node
        for other in [*before.get(node.output[0], ()), node, *after.get(node.output[0], ())]
    ]  # fmt: skip
    del graph.node[:]
    graph.node.extend(nodes)
    return without_unused(model)


def _quantized(graph: onnx.GraphProto, constants: dict[str, NDArray[Any]]) -> Iterator[tuple[onnx.NodeProto, ...]]:
    """Convolutions of uint8: what dequantizes the pixels and the weights of each, itself, and what rounds its outputs."""
    makers = {node.output[0]: node for node in graph.node}
    readers: dict[str, list[onnx.NodeProto | None]] = {value.name: [None] for value in graph.output}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def reader(node: onnx.NodeProto, operator: str) -> onnx.NodeProto | None:
        """What alone reads a node's answer, if it is such an operator."""
        first, *others = readers.get(node.output[0], [None])
        return None if others or first is None or first.op_type != operator else first

    for conv in [node for node in graph.node if node.op_type == "Conv"]:
        relu = reader(conv, "Relu")
        rounding = reader(relu or conv, "QuantizeLinear")
        pixels, weights = (makers.get(name) for name in conv.input[:2])
        if (
            pixels is None or reader(pixels, "Conv") is None or pixels.op_type != "DequantizeLinear"
            or weights is None or reader(weights, "Conv") is None or weights.op_type != "DequantizeLinear"
            or rounding is None or len(pixels.input) != 3 or len(rounding.input) != 3
        ):  # fmt: skip
            continue
        needed = [*pixels.input[1:], *weights.input, *conv.input[2:], *rounding.input[1:]]
        if not {*needed} <= {*constants} or constants[pixels.input[2]].dtype != np.uint8:
            continue
        if relu is None or not constants[rounding.input[2]].any():  # else nothing rounds away what is below zero
            yield pixels, weights, conv, rounding


def _placed(
    attributes: dict[str, Any], shape: tuple[int, ...], width: int | None
) -> tuple[NDArray[np.int32], tuple[int, int]] | None:
    """Which column of the kernel [pixels out, blocks, pixels in] multiplies, its last + 1 for none; blocks to the left and right.

    None where blocks are of no use, or the convolution is of another kind.
    """
    outputs, channels, *kernel = shape
    if len(kernel) != 2 or channels >= BLOCK or not width or width % BLOCK or attributes.get("group", 1) != 1:
        return None
    _, stride = attributes.get("strides", [1, 1])
    _, left, _, right = attributes.get("pads", [0, 0, 0, 0])
    repeats, rest = divmod(BLOCK, stride)
    if (
        rest or repeats * outputs > MOST or (width + left + right - kernel[1]) // stride + 1 != width // stride
        or attributes.get("dilations", [1, 1]) != [1, 1] or attributes.get("auto_pad", b"NOTSET") != b"NOTSET"
    ):  # fmt: skip
        return None
    sides = -(-left // BLOCK), ((repeats - 1) * stride - left + kernel[1] - 1) // BLOCK
    blocks = np.arange(-sides[0], sides[1] + 1)
    columns = left - stride * np.arange(repeats)[:, None, None] + BLOCK * blocks[:, None] + np.arange(BLOCK)
    columns[(columns < 0) | (columns >= kernel[1])] = kernel[1]
    return columns.astype(np.int32), sides


def _widths(model: onnx.ModelProto) -> dict[str, int]:
    """Last dimensions of images, where they are known."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: value.type.tensor_type.shape.dim[3].dim_value for value in [*inferred.value_info, *inferred.input]
        if len(value.type.tensor_type.shape.dim) == 4
    }  # fmt: skip


def _chain(name: str, last: str, *steps: Step) -> list[onnx.NodeProto]:
    """Operators one after another, from one value to another."""
    names = [name, *(f"{last}.{number}" for number in range(len(steps) - 1)), last]
    return [
        helper.make_node(operator, [names[number], *others], [names[number + 1]], **attributes)
        for number, (operator, others, attributes) in enumerate(steps)
    ]
