"""Tables: the answers stay, the bytes shrink."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from limbeck.graphs.exported import narrow_zeros
from limbeck.graphs.tables import pack, unfold_late
from tests.graphs.made import WIDTH, answers, model_of, operators, table


@pytest.mark.parametrize("zeros", ["a constant", "cast"])
def test_rows_are_scaled_after_they_are_gathered(zeros: str) -> None:
    before, made = table(zeros=zeros), unfold_late(narrow_zeros(table(zeros=zeros)))
    assert operators(made) == ["Gather", "Cast", "Gather", "Mul"]
    assert {tensor.name for tensor in made.graph.initializer} == {"table", "scales.column"}
    np.testing.assert_array_equal(answers(made), answers(before))


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
