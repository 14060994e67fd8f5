"""Small graphs, and what ONNX Runtime answers to them."""

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

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


def run(model: onnx.ModelProto, samples: NDArray[np.generic]) -> NDArray[np.float32]:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    opened = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = opened.run(["logits"], {"input": samples})[0]
    assert isinstance(found, np.ndarray)
    return found


def answers(model: onnx.ModelProto) -> NDArray[np.float32]:
    return run(model, np.arange(ROWS)[::-1].copy())


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]
