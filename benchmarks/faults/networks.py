"""Versions to publish: tiny real networks, and what may be wrong with one.

`input` uint8 [batch, 8, 8, 1] -> `logits` float32 [batch, 10]: two layers and an offset that is the serial, so that an answer
tells which version gave it while classes and confidence stay what they are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from limbeck.edge.session import open_session

VARIANT = "model.fp32"
GOLDEN_INPUTS = np.random.default_rng(7).integers(1, 256, (4, 8, 8, 1), dtype=np.uint8)
BATCH = np.concatenate([np.random.default_rng(8).integers(1, 256, (1, 8, 8, 1)), np.zeros((1, 8, 8, 1))]).astype(
    np.uint8
)
"""What the application asks: a picture, and a black one, which golden inputs never are."""

GRAPH = """
<ir_version: 9, opset_import: ["": 18]>
tiny (uint8[batch,8,8,1] input) => (float[batch,10] logits) <float[64,128] first, float[128,10] second, float[1] serial, int64[1] axes> {
  x = Cast<to=1>(input)
  flat = Flatten(x)
  sum = ReduceSum<keepdims=0>(x)
  hidden = MatMul(flat, first)
  active = Relu(hidden)
  scores = MatMul(active, second)
  plain = Add(scores, serial)
  BODY
}
"""
PLAIN = "logits = Identity(plain)"
NAN = "zero = Sub(sum, sum) odd = Div(zero, zero) logits = Add(plain, odd)"
NAN_ON_BLACK = "log = Log(flat) zero = Constant<value_float=0.0>() odd = Mul(log, zero) row = ReduceSum(odd, axes) logits = Add(plain, row)"
RAISES_ON_BLACK = """
  row = ReduceSum<keepdims=0>(flat, axes) zero = Constant<value_float=0.0>() black = Equal(row, zero) index = Cast<to=7>(black)
  nothing = Constant<value_floats=[0.0]>() picked = Gather(nothing, index) more = Unsqueeze(picked, axes) logits = Add(plain, more)
"""
CRASHES = """
  whole = Cast<to=6>(sum) zero = Sub(whole, whole)
  least = Constant<value_ints=[-2147483648]>() least32 = Cast<to=6>(least) low = Add(zero, least32)
  minus = Constant<value_ints=[-1]>() minus32 = Cast<to=6>(minus) one = Add(zero, minus32)
  trap = {operator}(low, one) odd = Cast<to=1>(trap) logits = Add(plain, odd)
"""
"""The least integer over minus one has no result: x86 processors end whoever asks."""
LOOPS = """
  times = Constant<value_int={times}>() go = Constant<value=bool {{1}}>()
  logits = Loop(times, go, plain)<body = once (int64 i, bool on, float[batch,10] a) => (bool on_, float[batch,10] b)
    {{ on_ = Identity(on) b = Identity(a) }}>
"""


@dataclass(frozen=True)
class Version:
    """What is wrong with a version; nothing by itself.

    Attributes:
        body: of the graph, after `plain`.
        golden_factor: golden answers over true ones.
        max_p95_ms: the contract's clause.
        garbage: random bytes in place of a network.

    """

    body: str = PLAIN
    golden_factor: float = 1.0
    max_p95_ms: float = 5000.0
    garbage: bool = False


HONEST = Version()


def write_network(path: Path, serial: int, body: str = PLAIN) -> None:
    """A version's file."""
    model = onnx.parser.parse_model(GRAPH.replace("BODY", body))
    generator = np.random.default_rng(0)
    values = {
        "first": generator.standard_normal((64, 128)).astype(np.float32) / 1000,
        "second": generator.standard_normal((128, 10)).astype(np.float32) / 10,
        "serial": np.array([serial], np.float32),
        "axes": np.array([1], np.int64),
    }
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    onnx.save(model, path)


def answers(path: Path, inputs: np.ndarray) -> np.ndarray:
    """Logits [B, 10] of a version's file."""
    found: np.ndarray = open_session(path, 1).run(None, {"input": inputs})[0]
    return found
