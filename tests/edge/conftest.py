"""Tiny ONNX files with raw input, as an export writes them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from limbeck.edge.home import Home
from tests.edge.delivery import ArtifactServer, Publisher, provisioned, serving


def write_onnx(path: Path, *, scale: float = 1.0) -> Path:
    """`input` uint8 [batch, 8, 8, 1] -> `logits` float32 [batch, 10]: flatten, one fixed random matrix times `scale`."""
    weights = (np.random.default_rng(0).standard_normal((64, 10)) * scale).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["float"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", 8, 8, 1])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def write_identity(path: Path, kind: int, shape: list[str | int]) -> Path:
    """`input` -> `logits`, unchanged: any type and shape."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["logits"])],
        "identity",
        [helper.make_tensor_value_info("input", kind, shape)],
        [helper.make_tensor_value_info("logits", kind, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    names = ("teacher", "model.fp32", "model.int8")
    return {name: write_onnx(tmp_path / f"{name}.onnx") for name in names}


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path / "stick")


@pytest.fixture
def server(publisher: Publisher) -> Iterator[ArtifactServer]:
    with serving(publisher.folder) as running:
        yield running


@pytest.fixture
def home(publisher: Publisher, server: ArtifactServer, tmp_path: Path) -> Home:
    return provisioned(publisher, tmp_path, server.address)
