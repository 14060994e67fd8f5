from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from limbeck.edge.session import open_session
from limbeck.export import session

NUM_PRODUCTS = 3 * 3 * 8
STEP = 10_000.0


def write_largest_products(path: Path, activations: int) -> int:
    """A convolution of int8 that adds the largest products there are; the sum it has to find, in steps."""
    largest = 255 if activations == TensorProto.UINT8 else 127
    weights = np.full((4, 8, 3, 3), 127, np.int8)
    zero = helper.make_tensor("zero", activations, [], [0])
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "one", "zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "one", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["w_q", "one", "zero_w"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "step", "zero"], ["y_q"]),
        helper.make_node("DequantizeLinear", ["y_q", "step", "zero"], ["logits"]),
    ]
    given = [
        helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]), helper.make_tensor("step", TensorProto.FLOAT, [], [STEP]),
        zero, helper.make_tensor("zero_w", TensorProto.INT8, [], [0]), onnx.numpy_helper.from_array(weights, "w_q"),
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("input", "logits")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], given)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return round(NUM_PRODUCTS * largest * 127 / STEP)


@pytest.mark.parametrize("opened", [session, lambda path: open_session(path, 1)], ids=["export", "edge"])
@pytest.mark.parametrize("activations", [TensorProto.UINT8, TensorProto.INT8])
def test_sums_of_int8_products_do_not_overflow_on_any_processor(
    tmp_path: Path, opened: Callable[[Path], Any], activations: int
) -> None:
    steps = write_largest_products(tmp_path / "largest.onnx", activations)
    x = np.full((1, 8, 3, 3), 255 if activations == TensorProto.UINT8 else 127, np.float32)
    (found,) = opened(tmp_path / "largest.onnx").run(None, {"input": x})
    assert found.ravel().tolist() == [min(steps, 255 if activations == TensorProto.UINT8 else 127) * STEP] * 4


@pytest.mark.parametrize(("has", "asked"), [({"avx2"}, True), ({"avx2", "avx512_vnni"}, False), (set(), True)])
def test_exact_sums_are_asked_for_where_the_processor_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: set[str], asked: bool
) -> None:
    monkeypatch.setattr("limbeck.edge.session.this_one", lambda: ("", frozenset(has)))
    write_largest_products(tmp_path / "largest.onnx", TensorProto.UINT8)
    options = open_session(tmp_path / "largest.onnx", 1).get_session_options()
    entry = partial(options.get_session_config_entry, "session.x64quantprecision")
    if asked:
        assert entry() == "1"
    else:
        with pytest.raises(RuntimeError, match="does not have configuration"):
            entry()
