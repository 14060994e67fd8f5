"""ONNX files that stand for a model: raw input, preprocessing inside, dynamic batch, equal bytes everywhere."""

import copy
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
from limbeck.graphs import finish, simplify_
from limbeck.models import Network, torch_dtype
from limbeck.prediction import predict
from limbeck.quiet import quiet


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
    model = finish(program.model_proto)
    for key, value in sorted({"classes": "\n".join(spec.classes), **notes}.items()):
        model.metadata_props.add(key=f"limbeck.{key}", value=value)
    onnx.checker.check_model(model, full_check=True)
    with replace(path) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))


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
