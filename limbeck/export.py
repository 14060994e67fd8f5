"""ONNX files that stand for a model: raw input, preprocessing inside, dynamic batch, equal bytes everywhere."""

import copy
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from limbeck.atomic import replace
from limbeck.checkpoint import Spec
from limbeck.errors import ExportError
from limbeck.evaluation import predict
from limbeck.models import Network, torch_dtype
from limbeck.quiet import quiet

FOLDED = 1024
"""A constant of no more numbers is folded in any case."""


def fuse(network: nn.Module) -> nn.Module:
    """Fold each BatchNorm into the convolution before it. Pairs are found by tracing; an untraceable network stays."""
    with quiet():
        from torch.fx.experimental import optimization
        from torch.fx.proxy import TraceError

        try:
            return optimization.fuse(network)
        except TraceError:
            return network


def to_onnx(path: Path, network: nn.Module, spec: Spec, opset: int, notes: dict[str, str]) -> None:
    """Write a network as ONNX: `input` [batch, ...] raw -> `logits` [batch, K] float32.

    Stripped of source paths, stack traces and long names, so that the bytes depend on the model alone.
    `notes` become metadata, beside the classes.

    Raises:
        ExportError: the network cannot be expressed.

    """
    if isinstance(network, Network):
        network = fuse(copy.deepcopy(network).eval())
    example = torch.zeros((2, *spec.shape), dtype=torch_dtype(spec.dtype))
    with quiet():
        try:
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=opset,
                input_names=["input"],
                output_names=["logits"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                external_data=False,
                verbose=False,
                optimize=False,
            )
            assert program is not None
            simplify_(program.model)
        except Exception as error:
            raise ExportError(f"{spec.model.use} cannot be exported to ONNX opset {opset}: {error}") from error
    model = strip(with_own_zero_points(unfold_late(program.model_proto)))
    for key, value in sorted({"classes": "\n".join(spec.classes), **notes}.items()):
        model.metadata_props.add(key=f"limbeck.{key}", value=value)
    onnx.checker.check_model(model, full_check=True)
    with replace(path) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))


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
    cast = {node.output[0]: node for node in graph.node if node.op_type == "Cast" and node.input[0] in constants}
    uses = Counter(name for node in graph.node for name in node.input)
    made: list[onnx.NodeProto] = []
    gone: set[str] = set()
    for node in graph.node:
        before = unfolded.get(node.input[0]) if node.op_type == "Gather" else None
        if before is None or _axis(node) != 0 or len(constants[before.input[1]].dims) != 1:
            made.append(node)
            continue
        zeros = [
            cast[name].input[0] if name in cast else name for name in before.input[2:]
        ]  # of long tables: not folded
        assert not any(onnx.numpy_helper.to_array(constants[name]).any() for name in zeros), "rows are symmetric"
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
    used = {name for node in kept for name in node.input}
    kept = [node for node in kept if node.output[0] not in cast or node.output[0] in used]
    del graph.node[:]
    graph.node.extend(kept)
    needed = {name for node in kept for name in node.input}
    left = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(left)
    return model


def _axis(node: onnx.NodeProto) -> int:
    default = 1 if node.op_type == "DequantizeLinear" else 0
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), default)


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


@dataclass(frozen=True)
class Parity:
    """How near ONNX Runtime's answers are to torch's."""

    max_difference: float
    equal_predictions: float


def session(path: Path) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on one core. (What is measured is opened in `limbeck.edge`, which stages here skip.)"""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # as where it serves: see `limbeck.edge.session`
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(path: Path, x: NDArray[np.generic], batch_size: int = 256) -> NDArray[np.float32]:
    """An exported file's logits [N, K] for raw samples [N, ...]."""
    opened = session(path)
    starts = range(0, len(x), batch_size)
    answers: list[Any] = [
        opened.run(["logits"], {"input": np.ascontiguousarray(x[s : s + batch_size])})[0] for s in starts
    ]
    return np.concatenate(answers)


def check_parity(
    path: Path, network: nn.Module, x: NDArray[np.generic], *, max_difference: float | None, min_equal: float
) -> Parity:
    """Hold the file's answers against the model's on raw samples [N, ...].

    `max_difference` is relative to the largest logit; None where rounding to int8 steps makes it meaningless.

    Raises:
        ExportError: they differ by more, or too few predictions are equal.

    """
    expected, found = predict(network, x), run(path, x)
    difference = float(np.abs(expected - found).max() / max(1e-9, np.abs(expected).max()))
    # of equal logits, which int8 makes in catalogues of thousands, either is the model's answer
    said_N = np.take_along_axis(expected, found.argmax(1)[:, None], axis=1)[:, 0]
    equal = float((said_N == expected.max(1)).mean())
    if equal < min_equal or (max_difference is not None and not difference <= max_difference):
        raise ExportError(
            f"{path.name} does not answer like its model: logits differ by {difference:.2g} of the largest "
            f"(allowed {max_difference}), {equal:.2%} of predictions are equal (needed {min_equal:.2%})."
        )
    return Parity(difference, equal)
