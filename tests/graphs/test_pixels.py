"""Pixels: taken as they are where rounding would make the same of them, and only there."""

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from limbeck.graphs.pixels import take_pixels
from tests.graphs.made import operators, run


def normalizing(
    mean: list[float], step: float | list[float] = 1 / 60, *, zero: int = 120, dtype: str = "uint8", moved: str = "after",
    width: int = 2,
) -> onnx.ModelProto:  # fmt: skip
    """Pixels [batch, width], normalized by channel, moved on the way, in steps around a zero point, and floats again."""
    nodes = [
        helper.make_node("Cast", ["input"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["normalized"]),
        helper.make_node("QuantizeLinear", ["normalized", "step", "zero"][: 2 if dtype == "no zero" else 3], ["int8"]),
        helper.make_node("DequantizeLinear", ["int8", "step", "zero"], ["logits"]),
    ]
    if moved != "never":
        where = {"after": 3, "between": 2}[moved]
        nodes.insert(where, helper.make_node("Transpose", [nodes[where].input[0]], ["moved"], perm=[1, 0]))
        nodes[where + 1].input[0] = "moved"
    tensors = {
        "mean": np.array(mean, np.float32), "scale": np.full(1, 1 / 60, np.float32),
        "step": np.array(step, np.float32), "zero": np.full(np.shape(step), zero, dtype if dtype == "int8" else "uint8"),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", width])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [None, None])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def of_all_pixels(model: onnx.ModelProto) -> NDArray[np.float32]:
    return run(model, np.arange(256, dtype=np.uint8)[:, None].repeat(2, axis=1))


@pytest.mark.parametrize("moved", ["after", "never"])
def test_pixels_that_rounding_leaves_as_they_are_are_taken_as_they_are(moved: str) -> None:
    before, made = (normalizing([120.0, 120.0], moved=moved) for _ in range(2))
    take_pixels(made)
    assert operators(made) == ["Transpose"] * (moved == "after") + ["DequantizeLinear"]
    assert {tensor.name for tensor in made.graph.initializer} == {"step", "zero"}
    np.testing.assert_array_equal(of_all_pixels(made), of_all_pixels(before))


def read_twice() -> onnx.ModelProto:
    """What is rounded for one layer is taken as floats by another."""
    model = normalizing([120.0, 120.0])
    model.graph.node.append(helper.make_node("Relu", ["normalized"], ["other"]))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [None, None]))
    return model


def answered(name: str, kind: int) -> onnx.ModelProto:
    """A value on the way is an answer, too."""
    model = normalizing([120.0, 120.0])
    model.graph.output.append(helper.make_tensor_value_info(name, kind, [None, None]))
    return model


@pytest.mark.parametrize(
    "made",
    [
        normalizing([120.0, 121.0]),
        normalizing([120.6, 120.6]),
        normalizing([120.0, 120.0], 1 / 59),
        normalizing([120.0, 120.0], zero=119),
        normalizing([0.0, 0.0], zero=0, dtype="int8"),
        normalizing([0.0, 0.0], zero=0, dtype="no zero"),
        normalizing([120.0, 120.0], [1 / 60, 1 / 60]),
        normalizing([120.0, 120.0], moved="between"),
        normalizing([120.0, 120.0, 120.0], width=1),
        read_twice(),
        answered("normalized", TensorProto.FLOAT),
        answered("int8", TensorProto.UINT8),
    ],
    ids=[
        "another mean", "no whole mean", "another step", "another zero", "int8", "no zero", "a step for each", "moved between",
        "grey made three", "read twice", "answered as floats", "answered rounded",
    ],
)  # fmt: skip
def test_otherwise_they_are_normalized_and_rounded(made: onnx.ModelProto) -> None:
    before = list(made.graph.node)
    assert list(take_pixels(made).graph.node) == before
