"""int8 versions of the published ResNet-56 beside its float file: by observer and by arithmetic, as ONNX Runtime answers.

Calibrated on 500 training images of CIFAR-10 below $LIMBECK_DATA, judged on all 10,000 test images: the squared error of the
logits over their variance, accuracy, answers unlike the float file's, and what the class lost that lost most. `means left` is
without the correction of the last bias (`limbeck.quantization.biases`). Times are of interleaved rounds, one thread. `plain` is a
session as ONNX Runtime opens it by itself, without the exact sums that ours ask for where there is no VNNI: there the answers depend
on the processor.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import yaml
from numpy.typing import NDArray
from pydantic import TypeAdapter

from benchmarks.arm import Told
from benchmarks.loops.ours import no_registry
from benchmarks.places import ROOT
from limbeck import params as params_file
from limbeck import quantization
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.edge import measure as edge
from limbeck.export import run, to_onnx
from limbeck.params import SplitParams, TeacherParams
from limbeck.quantization.biases import correct_bias_
from limbeck.teachers.making import Making

RECIPE = ROOT / "recipes/resnet56.yaml"
OPSET = 18
OBSERVERS: dict[str, dict[str, Any]] = {
    "mse": {"use": "mse"},
    "histogram": {"use": "histogram"},
    "min_max": {"use": "min_max"},
    "percentile 0.99999": {"use": "percentile", "share": 0.99999},
    "percentile 0.9999": {"use": "percentile", "share": 0.9999},
    "percentile 0.999": {"use": "percentile", "share": 0.999},
}
ARITHMETICS = ("u8s7", "u8s8", "s8s8")
LEFT = "mse, u8s7, means left"
LIMITS: dict[str, float] = {}


def plainly(path: Path, x: NDArray[Any]) -> NDArray[np.float32]:
    """Logits [N, K] of a session without settings."""
    opened = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([opened.run(None, {"input": x[s : s + 256]})[0] for s in range(0, len(x), 256)])


def lost_most(logits: NDArray[np.float32], before: NDArray[np.float32], y: NDArray[np.int64]) -> float:
    """What the class lost that lost most, in accuracy."""
    change = (logits.argmax(1) == y).astype(float) - (before.argmax(1) == y)
    return float(max(-change[y == index].mean() for index in np.unique(y)))


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Make the files and hold them to the float one; `params` other than the default's means one observer, few images."""
    if "LIMBECK_DATA" not in os.environ:
        raise SystemExit("int8: needs CIFAR-10; set LIMBECK_DATA as recipes/cifar10.yaml says.")
    quick = params != ROOT / "params.yaml"
    place = place / "int8"
    place.mkdir()
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    source = open_source(Component.model_validate(recipe["data"]["source"]))
    splits.write(place / "data", source, SplitParams.model_validate(recipe["data"]["split"]), 0, max_overlap=1)
    section: Any = TypeAdapter(TeacherParams).validate_python(recipe["teacher"])
    spec, network, _ = Making(place / "data", "accuracy", 0, Told(place), no_registry).make(section)
    calibration, _ = splits.read(place / "data", "calibration")
    x, y = (array[: 500 if quick else None] for array in splits.read(place / "data", "test"))

    files = {"teacher": place / "float.onnx"}
    to_onnx(files["teacher"], network, spec, OPSET, {})

    def quantized(name: str, observer: dict[str, Any], arithmetic: str, *, is_corrected: bool = True) -> None:
        how = quantization.describe("static", arithmetic, Component.model_validate(observer))
        prepared = quantization.prepare(network, how, spec.shape, torch.uint8)
        quantization.calibrate_(prepared, calibration, 32)
        if is_corrected:
            correct_bias_(prepared, network, calibration)
        files[name] = place / f"{name}.onnx"
        to_onnx(files[name], quantization.convert(prepared), spec, OPSET, {})

    by_arithmetic = {f"mse, {arithmetic}": arithmetic for arithmetic in ARITHMETICS[: 1 if quick else None]}
    for name, arithmetic in by_arithmetic.items():
        quantized(name, OBSERVERS["mse"], arithmetic)
    quantized(LEFT, OBSERVERS["mse"], "u8s7", is_corrected=False)
    for name, observer in [] if quick else OBSERVERS.items():
        if name != "mse":
            quantized(f"{name}, u8s7", observer, "u8s7")

    answers = {name: run(path, x) for name, path in files.items()}
    answers |= {f"{name}, plain": plainly(files[name], x) for name in by_arithmetic}
    variance = float(answers["teacher"].var())
    timed = edge.measure(
        {name: path for name, path in files.items() if name in ("teacher", *by_arithmetic)},
        threads=1, batch_size=1, **params_file.load(params).measure.model_dump(),
    )  # fmt: skip
    return {
        "seconds": {},
        "ratios": {pair.replace("teacher/", "float over "): ratio["value"] for pair, ratio in timed["ratios"].items()},
        "limits": LIMITS,
        "calibration_images": len(calibration),
        "test_images": len(x),
        "error": {
            name: float(np.square(logits - answers["teacher"]).mean() / variance) for name, logits in answers.items()
        },
        "accuracy": {name: float((logits.argmax(1) == y).mean()) for name, logits in answers.items()},
        "answers_differ": {
            name: float((logits.argmax(1) != answers["teacher"].argmax(1)).mean()) for name, logits in answers.items()
        },
        "worst_class": {name: lost_most(logits, answers["teacher"], y) for name, logits in answers.items()},
        "p50_ms": {name: row["p50_ms"]["value"] for name, row in timed["variants"].items()},
        "bytes": {name: path.stat().st_size for name, path in files.items()},
    }


def table(result: Any) -> str:
    """A row of Markdown for each file."""
    lines = [
        "| file | error of the logits | accuracy % | answers unlike float's % | worst class loses, points | p50 ms | bytes |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, accuracy in result["accuracy"].items():
        p50, size = result["p50_ms"].get(name), result["bytes"].get(name)
        lines.append(
            f"| {'float' if name == 'teacher' else name} | {result['error'][name]:.4f} | {100 * accuracy:.2f} "
            f"| {100 * result['answers_differ'][name]:.2f} | {100 * result['worst_class'][name]:.1f} "
            f"| {'' if p50 is None else f'{p50:.3f}'} | {'' if size is None else f'{size:,}'} |"
        )
    return "\n".join(lines)
