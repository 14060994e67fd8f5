"""What happens to a graph between torch's exporter and the file: the answers stay, the bytes shrink."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from limbeck.graphs import narrow_zeros, pack, strip, take_pixels, unfold_late, with_own_zero_points

ROWS, WIDTH = 12, 4


def model_of(nodes: list[onnx.NodeProto], opset: int = 18, **tensors: NDArray[np.generic]) -> onnx.ModelProto:
    """Row numbers in, floats out."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("input", TensorProto.INT64, ["batch"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def table(*, zeros: str, seed: int = 0) -> onnx.ModelProto:
    """Rows of a table in int8, gathered after they became floats."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node("DequantizeLinear", ["table", "scales", "zeros"], ["floats"], axis=0),
        helper.make_node("Gather", ["floats", "input"], ["logits"], axis=0),
    ]
    tensors: dict[str, NDArray[np.generic]] = {
        "table": rng.integers(-127, 128, (ROWS, WIDTH)).astype(np.int8),
        "scales": rng.random(ROWS).astype(np.float32),
        "zeros": np.zeros(ROWS, np.int8),
    }
    if zeros == "cast":
        nodes.insert(0, helper.make_node("Cast", ["long"], ["zeros"], to=TensorProto.INT8))
        tensors["long"] = tensors.pop("zeros").astype(np.int64)
    return model_of(nodes, **tensors)


def answers(model: onnx.ModelProto) -> NDArray[np.float32]:
    onnx.checker.check_model(model, full_check=True)
    opened = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = opened.run(None, {"input": np.arange(ROWS)[::-1].copy()})[0]
    assert isinstance(found, np.ndarray)
    return found


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("zeros", ["a constant", "cast"])
def test_rows_are_scaled_after_they_are_gathered(zeros: str) -> None:
    before, made = table(zeros=zeros), unfold_late(narrow_zeros(table(zeros=zeros)))
    assert operators(made) == ["Gather", "Cast", "Gather", "Mul"]
    assert {tensor.name for tensor in made.graph.initializer} == {"table", "scales.column"}
    np.testing.assert_array_equal(answers(made), answers(before))


def test_zero_points_are_bytes() -> None:
    """Those of 10,000 rows come as 64-bit numbers behind a Cast: the exporter does not fold so many."""
    made = narrow_zeros(table(zeros="cast"))
    assert operators(made) == ["DequantizeLinear", "Gather"]
    assert {tensor.name: tensor.data_type for tensor in made.graph.initializer}["zeros"] == TensorProto.INT8
    np.testing.assert_array_equal(answers(made), answers(table(zeros="cast")))


def small(num_rows: int, values: NDArray[np.int8], opset: int = 18) -> onnx.ModelProto:
    """Rows gathered from a table in int8, of which the first `ROWS` are asked for."""
    nodes = [
        helper.make_node("Gather", ["table", "input"], ["rows"], axis=0),
        helper.make_node("Cast", ["rows"], ["logits"], to=TensorProto.FLOAT),
    ]
    return model_of(nodes, opset, table=values.reshape(num_rows, WIDTH))


@pytest.mark.parametrize("opset", [18, 21])
@pytest.mark.parametrize("num_rows", [300, 301])
def test_a_table_of_four_bits_is_stored_two_numbers_to_a_byte(num_rows: int, opset: int, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-8, 8, num_rows * WIDTH).astype(np.int8)
    made = pack(small(num_rows, values, opset))
    assert sum(len(tensor.raw_data) for tensor in made.graph.initializer) < values.size / 2 + 50
    np.testing.assert_array_equal(answers(made), answers(small(num_rows, values)))
    folded = onnxruntime.SessionOptions()
    folded.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    folded.optimized_model_filepath = str(tmp_path / "folded.onnx")
    onnxruntime.InferenceSession(made.SerializeToString(), folded, providers=["CPUExecutionProvider"])
    assert operators(onnx.load(tmp_path / "folded.onnx")) == ["Gather", "Cast"], (
        "unpacked once, when the file is opened"
    )


@pytest.mark.parametrize(("num_rows", "largest"), [(300, 8), (100, 7)])
def test_a_table_of_eight_bits_and_a_small_one_stay_as_they_are(num_rows: int, largest: int) -> None:
    values = np.full(num_rows * WIDTH, largest, np.int8)
    assert operators(pack(small(num_rows, values))) == ["Gather", "Cast"]


def test_a_table_that_is_used_whole_as_well_stays_as_it_is_there() -> None:
    def tied() -> onnx.ModelProto:
        model = table(zeros="a constant")
        rows, total = model.graph.node[1], helper.make_node("ReduceSum", ["floats", "axes"], ["sum"], keepdims=0)
        rows.output[0] = "rows"
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
        model.graph.node.extend([total, helper.make_node("Add", ["rows", "sum"], ["logits"])])
        return model

    made = unfold_late(tied())
    assert sorted(operators(made)) == ["Add", "Cast", "DequantizeLinear", "Gather", "Gather", "Mul", "ReduceSum"]
    np.testing.assert_allclose(answers(made), answers(tied()), rtol=1e-6)


def test_columns_and_other_operators_are_left_alone() -> None:
    model = table(zeros="a constant")
    model.graph.node[0].attribute[0].i = 1
    for tensor in list(model.graph.initializer):
        if tensor.name != "table":
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[:WIDTH], tensor.name))
    assert operators(unfold_late(model)) == ["DequantizeLinear", "Gather"]


def shared_zero(low: int) -> onnx.ModelProto:
    nodes = [
        helper.make_node("DequantizeLinear", ["one", "scale", "zero"], ["one_f"]),
        helper.make_node("DequantizeLinear", ["two", "scale", "zero"], ["two_f"]),
        helper.make_node("Add", ["one_f", "two_f"], ["sum"]),
        helper.make_node("Gather", ["sum", "input"], ["logits"], axis=0),
    ]
    weights = np.full((ROWS, WIDTH), low, np.int8)
    return model_of(nodes, one=weights, two=-weights, scale=np.float32(0.5), zero=np.int8(0))


@pytest.mark.parametrize(("low", "names"), [(-100, {"zero", "zero.1"}), (-60, {"zero"})])
def test_weights_of_8_bits_have_zero_points_of_their_own(low: int, names: set[str]) -> None:
    made = with_own_zero_points(shared_zero(low))
    assert {node.input[2] for node in made.graph.node if node.op_type == "DequantizeLinear"} == names
    np.testing.assert_array_equal(answers(made), answers(shared_zero(low)))


def test_names_and_paths_are_gone_and_the_answers_stay() -> None:
    named = table(zeros="cast")
    named.producer_name = "somebody"
    named.graph.name = named.graph.node[0].name = "somebody/model.py"
    named.graph.node[0].metadata_props.add(key="stack_trace", value="somebody/model.py")
    expected = answers(named)
    made = strip(named)
    assert b"somebody" not in made.SerializeToString()
    assert {name for node in made.graph.node for name in [*node.input, *node.output]} <= {
        "input",
        "logits",
        *(f"v{number}" for number in range(5)),
    }
    np.testing.assert_array_equal(answers(made), expected)


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
    onnx.checker.check_model(model, full_check=True)
    opened = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = opened.run(None, {"input": np.arange(256, dtype=np.uint8)[:, None].repeat(2, axis=1)})[0]
    assert isinstance(found, np.ndarray)
    return found


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
