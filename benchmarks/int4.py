"""Where four bits pay: tables of embeddings, and matrices, beside int8, as ONNX Runtime reads and multiplies them.

`rows`: 32 rows of a table [10,000, 64] and their mean, nothing else in the file. `matrices`: one linear layer, its input and
output in float. `students`: what the recipes `intents` and `recommend` made, with tables of 8 and of 4 bits; quality on test.
Times are of interleaved rounds, one thread; ratios above 1 are gains. Needs the workspaces of both recipes, finished.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.places import ROOT
from limbeck import models, quantization
from limbeck import params as params_file
from limbeck.data.prepared import read
from limbeck.edge import measure as edge
from limbeck.evaluation import estimate, paired_difference, scorer
from limbeck.export import run, to_onnx
from limbeck.graphs import pack
from limbeck.params import QuantizeParams
from limbeck.quantization.arithmetic import arithmetic_of

OPSET = 18
ROWS, WIDTH, LENGTH = 10_000, 64, 32
BLOCK = 32
MATRICES = {
    "of a text transformer, 32 x 96 by 96 x 384": (32, 96, 384),
    "of a user, 1 x 128 by 128 x 64": (1, 128, 64),
    "of a catalogue, 1 x 64 by 64 x 10,000": (1, 64, 10_000),
}
"""Rows, inputs, outputs."""
RECIPES = ("intents", "recommend")
TARGET = "phone"
LIMITS: dict[str, float] = {}


def file_of(
    path: Path, nodes: list[onnx.NodeProto], tensors: dict[str, NDArray[Any]], shape: list[int], *, codes: bool
) -> Path:
    """A graph from `input` [batch, ...] to `logits`, written."""
    described = [
        helper.make_tensor_value_info("input", TensorProto.INT64 if codes else TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, None),
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "made", described[:1], described[1:], constants)
    domains = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
    model = pack(helper.make_model(graph, opset_imports=domains, ir_version=10))
    path.write_bytes(model.SerializeToString())
    return path


def in_steps(values: NDArray[Any], largest: int, block: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers [N, D] and steps [N, ceil(D / block)], by the largest number of each block."""
    blocks = values.reshape(len(values), -1, min(block, values.shape[1]))
    steps = (np.abs(blocks).max(2, keepdims=True) / largest).astype(np.float32)
    return np.rint(blocks / steps).astype(np.int8).reshape(values.shape), steps[:, :, 0]


def nibbles(whole: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two numbers of -8 .. 7 to a byte along the last axis, the first one low, each with 8 added: as Microsoft's operators read."""
    codes = (whole + 8).astype(np.uint8)
    return np.asarray(codes[..., 0::2] | codes[..., 1::2] << 4)


def rows(place: Path) -> dict[str, Path]:
    """A table in every way, looked up."""
    table = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    mean = helper.make_node("ReduceMean", ["rows", "axis"], ["logits"], keepdims=0)

    def written(name: str, nodes: list[onnx.NodeProto], **tensors: NDArray[Any]) -> Path:
        path = place / f"rows {name}.onnx"
        return file_of(path, [*nodes, mean], {**tensors, "axis": np.array([1])}, [1, LENGTH], codes=True)

    scaled = [
        helper.make_node("Gather", ["table", "input"], ["whole"]),
        helper.make_node("Cast", ["whole"], ["picked"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["steps", "input"], ["scale"]),
        helper.make_node("Mul", ["picked", "scale"], ["rows"]),
    ]
    files = {}
    for name, largest in (("teacher", 127), ("int4, unpacked when opened", 7)):
        whole, steps = in_steps(table, largest, WIDTH)
        files[name] = written(name, scaled, table=whole, steps=steps)
    for block in (WIDTH, BLOCK):
        whole, steps = in_steps(table, 7, block)
        one = helper.make_node(
            "GatherBlockQuantized", ["table", "input", "steps"], ["rows"],
            domain="com.microsoft", bits=4, block_size=block, gather_axis=0, quantize_axis=1,
        )  # fmt: skip
        name = f"int4, GatherBlockQuantized, blocks of {block}"
        files[name] = written(name, [one], table=nibbles(whole), steps=steps)
    return files


def matrix(place: Path, size: tuple[int, int, int]) -> dict[str, Path]:
    """A linear layer in int8, as `static` makes it, in int4 and in float."""
    num_rows, inputs, outputs = size
    weight = np.random.default_rng(0).normal(size=(outputs, inputs)).astype(np.float32)

    def written(name: str, nodes: list[onnx.NodeProto], **tensors: NDArray[Any]) -> Path:
        return file_of(place / f"matrix {size} {name}.onnx", nodes, tensors, [num_rows, inputs], codes=False)

    whole, steps = in_steps(weight, 63, inputs)
    static = [
        helper.make_node("QuantizeLinear", ["input", "step", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "step", "zero"], ["x"]),
        helper.make_node("DequantizeLinear", ["whole", "steps", "zeros"], ["weight"], axis=0),
        helper.make_node("Gemm", ["x", "weight"], ["logits"], transB=1),
    ]
    zeros = np.zeros(outputs, np.int8)
    files = {
        "teacher": written(
            "int8", static, whole=whole, steps=steps[:, 0], zeros=zeros, step=np.float32(4 / 128), zero=np.uint8(128)
        ),
        "fp32": written("fp32", [helper.make_node("Gemm", ["input", "w"], ["logits"], transB=1)], w=weight),
    }
    whole, steps = in_steps(weight, 7, BLOCK)
    packed = nibbles(whole.reshape(outputs, -1, BLOCK))
    for level, name in ((4, "int4, MatMulNBits, input in int8"), (0, "int4, MatMulNBits, input in float")):
        one = helper.make_node(
            "MatMulNBits", ["input", "packed", "steps"], ["logits"],
            domain="com.microsoft", K=inputs, N=outputs, bits=4, block_size=BLOCK, accuracy_level=level,
        )  # fmt: skip
        files[name] = written(name, [one], packed=packed, steps=steps)
    return files


def student(place: Path, recipe: str) -> tuple[dict[str, Path], Callable[[Path], NDArray[np.float64]]]:
    """A recipe's student in float and with tables of 8 and of 4 bits, and what says how good a file is, sample by sample."""
    folder = ROOT / "work" / recipe
    if not (folder / "models" / TARGET / "prune").is_dir():
        raise SystemExit(f"int4: {folder} is not finished; run `make run RECIPE={recipe}` first.")
    params = params_file.load(folder / "params.yaml")
    target, data = params.targets[TARGET], folder / "data"
    assert isinstance(target.quantize, QuantizeParams)
    spec, network = models.load(folder / "models" / TARGET / "prune")
    files = {"float": place / f"{recipe} float.onnx"}
    to_onnx(files["float"], network, spec, OPSET, {})
    for name, bits in (("teacher", 8), ("int4", 4)):
        how = quantization.describe(
            "static", arithmetic_of("auto", target.instructions), target.quantize.observers[0], table_bits=bits
        )
        exported = quantization.calibrated(network, spec, how, read(data, "calibration")[0], target.quantize.batch_size)
        files[name] = place / f"{recipe} {bits}.onnx"
        to_onnx(files[name], exported, spec, OPSET, {})
    x, y = (np.asarray(part) for part in read(data, "test"))
    judge = scorer(params.metric)
    return files, lambda path: judge(run(path, x), y)


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Measure all of it; what everything is held to is int8, which `limbeck.edge` calls the teacher."""
    how = params_file.load(params).measure.model_dump()
    result: dict[str, Any] = {
        "niceness": os.nice(0), "load": os.getloadavg()[0], "seconds": {}, "p50_ms": {}, "bytes": {},
        "peak_memory_mb": {}, "ratios": {}, "intervals": {}, "quality": {}, "lost": {}, "limits": LIMITS,
    }  # fmt: skip
    groups = {f"rows of a table, {ROWS:,} x {WIDTH}": rows(place)}
    groups |= {f"matrix {name}": matrix(place, size) for name, size in MATRICES.items()}
    for recipe in RECIPES:
        groups[f"student of {recipe}"], scores_of = student(place, recipe)
        scores = {name: scores_of(path) for name, path in groups[f"student of {recipe}"].items()}
        for name, found in scores.items():
            label = f"student of {recipe}, {'int8' if name == 'teacher' else name}"
            result["quality"][label] = estimate(found, how["bootstrap"], how["seed"])
            if name != "teacher":
                result["lost"][label] = paired_difference(scores["teacher"], found, how["bootstrap"], how["seed"])
    for group, files in groups.items():
        answer = edge.measure(
            files, threads=1, batch_size=1 if "matrix" not in group else MATRICES[group[7:]][0], **how
        )
        for name, row in answer["variants"].items():
            label = f"{group}, {'int8' if name == 'teacher' else name}"
            result["p50_ms"][label], result["bytes"][label] = row["p50_ms"]["value"], row["bytes"]
            result["peak_memory_mb"][label] = row["peak_memory_mb"]
        for pair, ratio in answer["ratios"].items():
            label = f"{group}, {pair.partition('/')[2]}: faster than int8"
            result["ratios"][label] = ratio["value"]
            result["intervals"][label] = [ratio["low"], ratio["high"]]
    return result


def table(result: dict[str, Any]) -> str:
    """The rows of docs/quantization.md."""
    lines = [
        "| what | bytes | p50, µs | faster than int8 | on test | lost to int8, points |",
        "|---|---|---|---|---|---|",
    ]
    for label, num_bytes in result["bytes"].items():
        ratio = result["ratios"].get(f"{label}: faster than int8")
        quality, lost = result["quality"].get(label), result["lost"].get(label)
        faster = "" if ratio is None else f"{ratio:.2f}x"
        right = "" if quality is None else f"{100 * quality['value']:.2f} %"
        points = (
            "" if lost is None else f"{100 * lost['value']:.2f} [{100 * lost['low']:.2f}, {100 * lost['high']:.2f}]"
        )
        p50_us = 1000 * result["p50_ms"][label]
        lines.append(f"| {label} | {num_bytes:,} | {p50_us:,.1f} | {faster} | {right} | {points} |")
    return "\n".join(lines)
