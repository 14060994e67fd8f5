"""Files of two runtimes in one process, one thread, one sample at a time, by turns: time and accuracy on test samples."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.arm import done, read_spec

ROUNDS, RUNS = 20, 200
Answer = Callable[[NDArray[Any]], NDArray[Any]]


class OtherInput(Exception):
    """A file that answers another question can be timed, on what it does take, and not examined."""

    def __init__(self, fed: NDArray[Any]) -> None:
        super().__init__()
        self.fed = fed


def onnxruntime_of(path: Path) -> tuple[Answer, Answer]:
    """How a file takes one raw sample, and how it answers one."""
    from limbeck.edge.session import open_session

    session = open_session(path, 1)
    (name,) = (value.name for value in session.get_inputs())
    return lambda x: x[None], lambda fed: session.run(None, {name: fed})[0][0]  # type: ignore[no-any-return]


def litert_of(path: Path) -> tuple[Answer, Answer]:
    """The same of a LiteRT file: pixels are put on its input's scale before the clock starts."""
    from ai_edge_litert.interpreter import Interpreter  # in the peers' environment

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = taken["quantization"]
    limits = np.iinfo(taken["dtype"])

    def take(x: NDArray[Any]) -> NDArray[Any]:
        if (1, *x.shape) != tuple(taken["shape"]):
            raise OtherInput(np.zeros(taken["shape"], taken["dtype"]))
        steps = np.round(x[None] / scale + zero)
        return np.clip(steps, limits.min, limits.max).astype(taken["dtype"])

    def answer(fed: NDArray[Any]) -> NDArray[Any]:
        interpreter.set_tensor(taken["index"], fed)
        interpreter.invoke()
        return interpreter.get_tensor(given["index"])[0]  # type: ignore[no-any-return]

    return take, answer


def main() -> None:
    """All files answer all samples; then they take turns."""
    spec, _ = read_spec()
    x, y = (np.load(Path(spec["data"]) / f"test/{name}.npy", mmap_mode="r") for name in "xy")
    opened = {
        name: (litert_of if path.endswith(".tflite") else onnxruntime_of)(Path(path))
        for name, path in spec["files"].items()
    }
    right: dict[str, NDArray[np.bool_] | None] = {}
    fed = {}
    for name, (take, answer) in opened.items():
        try:
            right[name] = np.array([answer(take(one)).argmax() == label for one, label in zip(x, y, strict=True)])
            fed[name] = take(x[0])
        except OtherInput as other:
            right[name], fed[name] = None, other.fed
    p50: dict[str, list[float]] = {name: [] for name in opened}
    order = np.random.default_rng(0)
    for _ in range(ROUNDS):
        for name in order.permutation(list(opened)):
            _, answer = opened[name]
            times = []
            for _ in range(RUNS + RUNS // 10):
                began = time.perf_counter()
                answer(fed[name])
                times.append(time.perf_counter() - began)
            p50[name].append(1e6 * median(times[RUNS // 10 :]))
    done(
        files={
            name: {
                "bytes": Path(path).stat().st_size,
                "accuracy": None if (found := right[name]) is None else float(found.mean()),
                "right": None if found is None else np.packbits(found).tobytes().hex(),
                "p50_us": median(p50[name]),
            }
            for name, path in spec["files"].items()
        }
    )


if __name__ == "__main__":
    sys.exit(main())
