"""What torch's exporter leaves goes, and the answers stay."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from limbeck.graphs.exported import narrow_zeros, strip, with_own_zero_points
from tests.graphs.made import ROWS, WIDTH, answers, model_of, operators, table


def test_zero_points_are_bytes() -> None:
    """Those of 10,000 rows come as 64-bit numbers behind a Cast: the exporter does not fold so many."""
    made = narrow_zeros(table(zeros="cast"))
    assert operators(made) == ["DequantizeLinear", "Gather"]
    assert {tensor.name: tensor.data_type for tensor in made.graph.initializer}["zeros"] == TensorProto.INT8
    np.testing.assert_array_equal(answers(made), answers(table(zeros="cast")))


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
