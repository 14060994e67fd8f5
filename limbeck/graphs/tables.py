"""Tables of int8 and 4 bits: stored in few bytes, read by rows."""

from collections import Counter
from typing import Any

import numpy as np
import onnx

from limbeck.graphs.exported import without_unused

PACKED = 1024
"""What has fewer numbers is not packed: the nodes that unpack it would take more bytes."""
HAS_INT4 = 21
"""From this opset ONNX itself has a type for it."""
INT4 = np.arange(-8, 8, dtype=np.int8)


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
    return without_unused(model)


def _axis(node: onnx.NodeProto) -> int:
    default = 1 if node.op_type == "DequantizeLinear" else 0
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), default)
