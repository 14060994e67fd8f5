"""int8 versions of the published ResNet-56 beside its float file: by observer and by arithmetic, as ONNX Runtime answers.

Calibrated on 500 training images of CIFAR-10 below $LIMBECK_DATA, judged on all 10,000 test images: the squared error of the
logits over their variance, and accuracy. Times are of interleaved rounds, one thread. `plain` is a session as ONNX Runtime opens
it by itself, without the exact sums that ours ask for: there the answers depend on the processor.
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
LIMITS: dict[str, float] = {}


def plainly(path: Path, x: NDArray[Any]) -> NDArray[np.float32]:
    """Logits [N, K] of a session without settings."""
    opened = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([opened.run(None, {"input": x[s : s + 256]})[0] for s in range(0, len(x), 256)])


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

    def quantized(name: str, observer: dict[str, Any], arithmetic: str) -> None:
        how = quantization.describe("static", arithmetic, Component.model_validate(observer))
        prepared = quantization.prepare(network, how, spec.shape, torch.uint8)
        quantization.calibrate_(prepared, calibration, 32)
        files[name] = place / f"{name}.onnx"
        to_onnx(files[name], quantization.convert(prepared), spec, OPSET, {})

    for arithmetic in ARITHMETICS[: 1 if quick else None]:
        quantized(f"mse, {arithmetic}", OBSERVERS["mse"], arithmetic)
    for name, observer in [] if quick else OBSERVERS.items():
        if name != "mse":
            quantized(f"{name}, u8s7", observer, "u8s7")

    answers = {name: run(path, x) for name, path in files.items()}
    answers |= {f"{name}, plain": plainly(path, x) for name, path in files.items() if name.startswith("mse")}
    variance = float(answers["teacher"].var())
    timed = edge.measure(
        {name: path for name, path in files.items() if name == "teacher" or name.startswith("mse")},
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
        "p50_ms": {name: row["p50_ms"]["value"] for name, row in timed["variants"].items()},
        "bytes": {name: path.stat().st_size for name, path in files.items()},
    }
