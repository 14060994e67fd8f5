"""Blocks of pixels: the same integers from one first layer and the other, and no others than first layers of images."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from limbeck.graphs import finish
from limbeck.graphs.blocks import take_blocks
from tests.graphs.made import operators, run

HEIGHT = 6


def stem(
    *, width: int = 8, channels: int = 3, outputs: int = 5, kernel: int = 3, stride: int = 1, left: int = 1, right: int = 1,
    dtype: str = "uint8", activation: str = "Relu", answer: str = "logits", per_channel: bool = True, then: int = 0, zero: int = 0,
    **attributes: Any,
) -> onnx.ModelProto:  # fmt: skip
    """Pixels [batch, height, width, channels] through one convolution in int8; weights of 7 bits, which no processor's sums overflow."""
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.001, 0.01, outputs if per_channel else ()).astype(np.float32)
    tensors: dict[str, NDArray[np.generic]] = {
        "pixel": np.array(0.02, np.float32), "grey": np.array(100, dtype),
        "weights": rng.integers(-64, 64, (outputs, channels // attributes.get("group", 1), kernel, kernel)).astype(np.int8),
        "scales": scales, "zeros": np.zeros_like(scales, np.int8), "bias": rng.normal(size=outputs).astype(np.float32),
        "step": np.array(0.03, np.float32), "zero": np.array(zero, dtype),
    }  # fmt: skip
    attributes = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [1, left, 1, right], **attributes}
    nodes = [
        helper.make_node("Transpose", ["input"], ["moved"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["moved", "pixel", "grey"], ["floats"]),
        helper.make_node("DequantizeLinear", ["weights", "scales", "zeros"], ["weights_f"], axis=0),
        helper.make_node("Conv", ["floats", "weights_f", "bias"], ["sums"], **attributes),
        *([helper.make_node(activation, ["sums"], ["active"])] if activation else []),
        helper.make_node("QuantizeLinear", ["active" if activation else "sums", "step", "zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "step", "zero"], ["logits"]),
    ]
    if then:  # another layer
        nodes[-1].output[0] = "between"
        tensors |= {
            "weights_2": rng.integers(-64, 64, (then, outputs, 1, 1)).astype(np.int8),
            "scale_2": np.float32(0.01),
            "zero_2": np.int8(0),
        }
        nodes += [
            helper.make_node("DequantizeLinear", ["weights_2", "scale_2", "zero_2"], ["weights_2_f"]),
            helper.make_node("Conv", ["between", "weights_2_f"], ["sums_2"]),
            helper.make_node("QuantizeLinear", ["sums_2", "step", "zero"], ["rounded_2"]),
            helper.make_node("DequantizeLinear", ["rounded_2", "step", "zero"], ["logits"]),
        ]
    kind = getattr(TensorProto, dtype.upper())
    shapes = [helper.make_tensor_value_info("input", kind, ["batch", HEIGHT, width, channels])]
    answers = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * 4) for name in sorted({answer, "logits"})
    ]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "made", shapes, answers, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def outputs_of(model: onnx.ModelProto) -> NDArray[np.float32]:
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    return run(model, np.random.default_rng(1).integers(0, 256, (3, *shape[1:]), dtype=np.uint8))


@given(
    width=st.sampled_from([4, 8, 12]), channels=st.sampled_from([1, 2, 3]), outputs=st.integers(1, 40),
    kernel=st.integers(1, 7), stride=st.sampled_from([1, 2, 4]), left=st.integers(0, 6), per_channel=st.booleans(),
    activation=st.sampled_from(["Relu", ""]),
)  # fmt: skip
def test_blocks_of_pixels_give_the_same_integers(kernel: int, stride: int, left: int, **kinds: Any) -> None:
    left = min(left, kernel - 1)
    right = max(0, kernel - stride - left)  # as many columns out as there are strides
    zero = 0 if kinds["activation"] else 20
    before, made = (stem(kernel=kernel, stride=stride, left=left, right=right, zero=zero, **kinds) for _ in range(2))
    assert "Gather" in operators(take_blocks(made))
    np.testing.assert_array_equal(outputs_of(made), outputs_of(before))


def test_moves_and_layouts_are_gone_when_the_file_is_open(tmp_path: Path) -> None:
    """One convolution with four times the channels between two that move nothing, whatever takes more nodes in the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # "this file is for this machine only"
    options.optimized_model_filepath = str(tmp_path / "opened.onnx")
    made = finish(stem(outputs=16, then=8)).SerializeToString()
    onnxruntime.InferenceSession(made, options, providers=["CPUExecutionProvider"])
    assert operators(onnx.load(tmp_path / "opened.onnx"))[:3] == ["Reshape", "QLinearConv", "Reshape"]


def twice_read() -> onnx.ModelProto:
    model = stem()
    model.graph.node.append(helper.make_node("Relu", ["floats"], ["other"]))
    model.graph.output.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [None] * 4))
    return model


def of_unknown_width() -> onnx.ModelProto:
    model = stem()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "width"
    return model


def of_no_use() -> onnx.ModelProto:
    model = stem()
    model.graph.node.append(helper.make_node("Conv", ["floats", "weights_f", "bias"], ["read by nobody"]))
    return model


def of_computed_weights() -> onnx.ModelProto:
    model = stem()
    model.graph.node.insert(0, helper.make_node("Identity", ["weights"], ["same"]))
    model.graph.node[3].input[0] = "same"
    return model


@pytest.mark.parametrize(
    "made",
    [
        stem(channels=4), stem(channels=6), stem(width=6), of_unknown_width(), stem(outputs=65), stem(stride=3, width=12),
        stem(right=2), stem(group=3, outputs=6), stem(dilations=[2, 2], left=2, right=2), stem(dtype="int8"),
        stem(activation="Abs"), stem(answer="sums"), stem(zero=20), twice_read(), of_no_use(), of_computed_weights(),
    ],
    ids=[
        "four channels", "six", "half a block", "width not known", "many outputs", "a stride that is no part of four",
        "a column more", "groups", "dilated", "int8", "not rounded at once", "answered", "a ReLU of its own", "pixels read twice", "read by nobody", "weights computed",
    ],
)  # fmt: skip
def test_other_layers_stay(made: onnx.ModelProto) -> None:
    before = made.SerializeToString(deterministic=True)
    assert take_blocks(made).SerializeToString(deterministic=True) == before
