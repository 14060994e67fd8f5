"""What is done to an ONNX graph between torch's exporter and the file: fewer bytes, quicker rows, equal bytes everywhere."""

import math
from collections import Counter
from itertools import takewhile
from typing import Any

import numpy as np
import onnx

FOLDED = 1024
"""A constant of no more numbers is folded in any case."""
PACKED = 1024
"""What has fewer numbers is not packed: the nodes that unpack it would take more bytes."""
HAS_INT4 = 21
"""From this opset ONNX itself has a type for it."""
INT4 = np.arange(-8, 8, dtype=np.int8)
MOVES = ("Transpose", "Reshape")
"""What may stand between the normalization of an image and its first layer."""
NORMALIZING = ["QuantizeLinear", "Mul", "Sub", "Cast"]
"""Normalization and rounding, from the last operator to the first."""
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
    return _without_unused(model)


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
    return _without_unused(model)


def pack(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store tables and weights whose numbers need 4 bits two to a byte, in place; which those are, their numbers say.

    Where the opset has the type int4, that and a Cast; else operators of plain ONNX unpack them. All are over constants: ONNX
    Runtime folds them when it opens the file, and computes with bytes, as fast as if they had been stored so. (Its own
    operator for tables, GatherBlockQuantized, would leave them packed in memory. Other runtimes do not know that one, and
    none of its uses may be a multiplication.)
    """
    graph = model.graph
    used = {node.input[0] for node in graph.node if node.op_type in ("Gather", "DequantizeLinear")}
    has_int4 = any(opset.domain == "" and opset.version >= HAS_INT4 for opset in model.opset_import)
    nodes: list[onnx.NodeProto] = []
    for tensor in list(graph.initializer):
        if tensor.data_type != onnx.TensorProto.INT8 or tensor.name not in used:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        if values.size < PACKED or values.min() < INT4.min() or values.max() > INT4.max():
            continue
        table = tensor.name
        if has_int4:
            graph.initializer.remove(tensor)
            low, high = np.pad(values.flatten(), (0, values.size % 2)).view(np.uint8).reshape(-1, 2).T & 15
            raw = (low | high << 4).tobytes()
            packed = onnx.helper.make_tensor(f"{table}.packed", onnx.TensorProto.INT4, values.shape, raw, raw=True)
            graph.initializer.append(packed)
            nodes.append(onnx.helper.make_node("Cast", [f"{table}.packed"], [table], to=onnx.TensorProto.INT8))
            continue
        codes = (values - INT4[0]).astype(np.uint8)
        odd = len(codes) % 2
        low, high = np.split(np.pad(codes, ((0, odd), *((0, 0),) * (codes.ndim - 1))), 2)
        constants = {"packed": low | high << 4, "mask": np.uint8(15), "shift": np.uint8(4), "levels": INT4}
        steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
            ("BitwiseAnd", ["packed", "mask"], "low", {}),
            ("BitShift", ["packed", "shift"], "high", {"direction": "RIGHT"}),
            ("Concat", ["low", "high"], "codes", {"axis": 0}),
            ("Cast", ["codes"], "indices", {"to": onnx.TensorProto.INT32}),
            ("Gather", ["levels", "indices"], "table", {"axis": 0}),
        ]
        if odd:  # without the row that made them even
            constants |= {"from": np.array([0]), "to": np.array([-1])}
            steps[3:3] = [("Slice", ["codes", "from", "to"], "even", {})]
            steps[4] = ("Cast", ["even"], "indices", {"to": onnx.TensorProto.INT32})
        graph.initializer.remove(tensor)
        graph.initializer.extend(
            onnx.numpy_helper.from_array(np.asarray(value), f"{table}.{name}") for name, value in constants.items()
        )
        for operator, inputs, output, attributes in steps:
            made = table if output == "table" else f"{table}.{output}"
            nodes.append(onnx.helper.make_node(operator, [f"{table}.{name}" for name in inputs], [made], **attributes))
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    return model


def unfold_late(model: onnx.ModelProto) -> onnx.ModelProto:
    """Scale rows after they are gathered, not the whole table before, in place.

    Gather(DequantizeLinear(table)) makes floats of all rows for each request: ONNX Runtime does not move it (1.31). The same
    numbers come from Cast(Gather(table)) * Gather(scales), with the table left in int8.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    unfolded = {
        node.output[0]: node for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants and _axis(node) == 0
    }  # fmt: skip
    uses = Counter(name for node in graph.node for name in node.input)
    made: list[onnx.NodeProto] = []
    gone: set[str] = set()
    for node in graph.node:
        before = unfolded.get(node.input[0]) if node.op_type == "Gather" else None
        if before is None or _axis(node) != 0 or len(constants[before.input[1]].dims) != 1:
            made.append(node)
            continue
        zeros = [onnx.numpy_helper.to_array(constants[name]) for name in before.input[2:]]
        assert not any(zero.any() for zero in zeros), "rows are symmetric"
        table, scales, rows = before.input[0], before.input[1], node.input[1]
        column = f"{scales}.column"
        if column not in constants:
            tensor = onnx.numpy_helper.from_array(
                onnx.numpy_helper.to_array(constants[scales]).astype(np.float32)[:, None], column
            )
            graph.initializer.append(tensor)
            constants[column] = tensor
        whole, picked, scale = (f"{node.output[0]}.{part}" for part in ("int8", "float", "scale"))
        made += [
            onnx.helper.make_node("Gather", [table, rows], [whole], axis=0),
            onnx.helper.make_node("Cast", [whole], [picked], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Gather", [column, rows], [scale], axis=0),
            onnx.helper.make_node("Mul", [picked, scale], [node.output[0]]),
        ]
        uses[node.input[0]] -= 1
        if not uses[node.input[0]]:
            gone.add(node.input[0])
    kept = [node for node in made if not (node.op_type == "DequantizeLinear" and node.output[0] in gone)]
    del graph.node[:]
    graph.node.extend(kept)
    return _without_unused(model)


def _without_unused(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop constants that nothing reads, in place."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    left = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)
    return model


def _axis(node: onnx.NodeProto) -> int:
    default = 1 if node.op_type == "DequantizeLinear" else 0
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), default)


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
