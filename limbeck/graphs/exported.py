"""What torch's exporter leaves: constants that are too long, names that say where it ran."""

import math
from typing import Any

import numpy as np
import onnx

FOLDED = 1024
"""A constant of no more numbers is folded in any case."""
BYTES = {onnx.TensorProto.INT8: np.int8, onnx.TensorProto.UINT8: np.uint8}


def simplify_(model: Any) -> None:
    """What torch's exporter does in the end, in place, but for constants that a formula says in fewer bytes.

    The kernels of a spectrogram are such: folded they would take more than the network behind them. ONNX Runtime folds
    them when it opens the file.
    """
    from onnxscript.optimizer import optimize_ir
    from onnxscript.rewriter import onnx_fusions

    def stays(node: Any) -> bool | None:
        """False: the node is not folded; None: as usual."""
        outputs = sum(
            math.prod(value.shape.numpy()) for value in node.outputs if value.shape and value.shape.is_static()
        )
        inputs = sum(
            value.const_value.size for value in node.inputs if value is not None and value.const_value is not None
        )
        return False if outputs > max(FOLDED, 2 * inputs) else None

    optimize_ir(model, should_fold=stays)
    onnx_fusions.fuse(model)


def narrow_zeros(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store zero points as the bytes that they are, in place.

    The exporter has them as 64-bit numbers behind a Cast, and folds it where they are few: a catalogue of 10,000 items would
    carry 80 kB of zeros.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in list(graph.node):
        wanted = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
        if node.op_type != "Cast" or wanted not in BYTES or node.input[0] not in constants:
            continue
        values = onnx.numpy_helper.to_array(constants[node.input[0]])
        graph.initializer.append(onnx.numpy_helper.from_array(values.astype(BYTES[wanted]), node.output[0]))
        graph.node.remove(node)
    return without_unused(model)


def without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop constants that nothing reads, in place."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    left = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)
    return model


def with_own_zero_points(model: onnx.ModelProto) -> onnx.ModelProto:
    """Where weights have all 8 bits, give every use of an int8 zero point a tensor of its own, in place.

    ONNX Runtime's exact sums on x86 (`session.x64quantprecision`) turn such weights into uint8 and rewrite the zero point
    beside each: one that several layers share ends in "Attempt to replace the existing tensor". Of 7 bits they stay.
    """
    int8 = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    uses = [node for node in model.graph.node if len(node.input) > 2 and node.input[2] in int8]
    weights = [onnx.numpy_helper.to_array(int8[node.input[0]]) for node in uses if node.input[0] in int8]
    if all(weight.min() >= -64 and weight.max() <= 63 for weight in weights):
        return model
    seen: set[str] = set()
    for number, node in enumerate(uses):
        name = node.input[2]
        if name in seen:
            own = onnx.TensorProto()
            own.CopyFrom(int8[name])
            own.name = node.input[2] = f"{name}.{number}"
            model.graph.initializer.append(own)
        seen.add(name)
    return model


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop what says where a graph came from, and give every inner value a short name, in place."""
    graph = model.graph
    kept = {value.name for value in [*graph.input, *graph.output]}
    short: dict[str, str] = {"": "", **{name: name for name in kept}}

    def rename(name: str) -> str:
        return short.setdefault(name, f"v{len(short) - 1 - len(kept):x}")

    for node in graph.node:
        node.name, node.doc_string = "", ""
        del node.metadata_props[:]
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
    for tensor in graph.initializer:
        tensor.name, tensor.doc_string = rename(tensor.name), ""
        del tensor.metadata_props[:]
    del graph.value_info[:], graph.metadata_props[:], model.metadata_props[:], model.functions[:]
    for value in [*graph.input, *graph.output]:
        value.doc_string = ""
        del value.metadata_props[:]
    graph.name, graph.doc_string, model.doc_string = "limbeck", "", ""
    model.producer_name, model.producer_version = "limbeck", ""
    return model
