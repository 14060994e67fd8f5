"""Whether ONNX Runtime's own format, `.ort`, answers as fast as the `.onnx` file it is made from, and starts sooner.

Exported networks, untrained, in fp32 and int8, each beside its two `.ort` versions: `fixed` has the kernels of this
processor baked in, `runtime` leaves the choice to the device. Times are of interleaved rounds; ratios above 1 are gains.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from limbeck import models, quantization
from limbeck import params as params_file
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.edge import measure as edge
from limbeck.export import to_onnx
from limbeck.quantization.arithmetic import arithmetic_of

OPSET = 18
NETWORKS = {
    "resnet": {"use": "resnet", "width": 16, "depth": 8},
    "mobilenet": {"use": "mobilenet", "width": 16, "depth": 6},
    "mlp": {"use": "mlp", "width": 512, "depth": 3},
}
STYLES = {"fixed": "Fixed", "runtime": "Runtime"}
LIMITS: dict[str, float] = {}


def files_of(place: Path, name: str, keywords: dict[str, Any]) -> dict[str, dict[str, Path]]:
    """The `.onnx` file (under the name that ratios are made to) and both `.ort` ones, in fp32 and int8."""
    spec = Spec(
        model=Component.model_validate(keywords), shape=(32, 32, 3), dtype="uint8", classes=tuple("abcdefghij"),
        mean=(120.0,) * 3, std=(60.0,) * 3,
    )  # fmt: skip
    samples = np.random.default_rng(0).integers(0, 256, (64, *spec.shape), dtype=np.uint8)
    torch.manual_seed(0)
    network = models.build(spec).eval()
    how = quantization.describe("static", arithmetic_of("auto", "any"), Component(use="min_max"))
    variants = {"fp32": network, "int8": quantization.calibrated(network, spec, how, samples, 32)}
    found: dict[str, dict[str, Path]] = {}
    for kind, exported in variants.items():
        folder = place / f"{name}-{kind}"
        folder.mkdir()
        to_onnx(folder / "model.onnx", exported, spec, OPSET, {})
        found[kind] = {"teacher": folder / "model.onnx"}
        for label, style in STYLES.items():
            out = folder / label
            command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", str(folder / "model.onnx")]
            subprocess.run(
                [*command, "--output_dir", str(out), "--optimization_style", style], check=True, capture_output=True
            )
            (found[kind][label],) = [
                path for path in out.glob("*.ort") if "with_runtime_opt" in path.name or label == "fixed"
            ]
    return found


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Measure every network's files side by side, as `measure` of the params file says."""
    how = params_file.load(params).measure.model_dump()
    result: dict[str, Any] = {
        "niceness": os.nice(0), "load": os.getloadavg()[0], "seconds": {}, "p50_ms": {}, "cold_start_ms": {},
        "peak_memory_mb": {}, "bytes": {}, "ratios": {}, "intervals": {}, "limits": LIMITS,
    }  # fmt: skip
    for network, keywords in NETWORKS.items():
        for kind, files in files_of(place, network, keywords).items():
            answer = edge.measure(files, threads=1, batch_size=1, **how)
            for name, row in answer["variants"].items():
                label = f"{network}, {kind}, {'.onnx' if name == 'teacher' else f'.ort {name}'}"
                result["p50_ms"][label] = row["p50_ms"]["value"]
                for key in ("cold_start_ms", "peak_memory_mb", "bytes"):
                    result[key][label] = row[key]
            for pair, ratio in answer["ratios"].items():
                label = f"{network}, {kind}, .ort {pair.partition('/')[2]}: faster"
                result["ratios"][label] = ratio["value"]
                result["intervals"][label] = [ratio["low"], ratio["high"]]
    return result
