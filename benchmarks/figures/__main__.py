"""Run a recipe's target with a seed up to its benchmark, measure its files beside their peers, write it down."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from benchmarks import arm
from benchmarks.peers import python_with
from benchmarks.places import ROOT, about
from flows import environment, workspace
from flows.turns import forget_zombies
from limbeck.atomic import replace, write_json
from limbeck.components import NONE
from limbeck.selection import FP32, INT8

PLACE = ROOT / "work/figures"
RESULTS = ROOT / "benchmarks/results/figures"
LITERT = ["ai-edge-litert==2.3.0"]
MLPERF_TINY = {
    ("cifar10", "sensor"): "mlperf-tiny/pretrainedResnet_quant.tflite",
    ("cifar10", "phone"): "mlperf-tiny/pretrainedResnet_large_int8.tflite",
    ("quartet", "sensor"): "mlperf-tiny/pretrainedResnet_quant.tflite",
    ("quartet", "phone"): "mlperf-tiny/pretrainedResnet_large_int8.tflite",
    ("keywords", "speaker"): "mlperf-tiny/kws_ref_model.tflite",  # other words, of 49 x 10 MFCCs: no accuracy here
}


def with_seed(recipe: str, seed: int, *, control: bool = False) -> Path:
    """The workspace of a recipe with another seed; as a control, nothing in it is distilled."""
    params = yaml.safe_load(workspace.recipe(recipe).read_text(encoding="utf-8")) | {"seed": seed}
    if control:
        for target in params["targets"].values():
            target["distill"] = {"use": NONE}
    name = f"{recipe}-{seed}-control" if control else f"{recipe}-{seed}"
    source = PLACE / "params" / f"{name}.yaml"
    source.parent.mkdir(parents=True, exist_ok=True)
    with replace(source) as partial:
        partial.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    return workspace.create(PLACE / name, source, links=True)


def dynamically_quantized(folder: Path, target: str, into: Path) -> Path:
    """ONNX Runtime's quantize_dynamic of the teacher's file, which needs no data."""
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(
        folder / f"export/{target}/teacher.onnx", into.with_suffix(".float.onnx"), skip_symbolic_shape=True
    )
    quantize_dynamic(into.with_suffix(".float.onnx"), into)
    return into


def statically_quantized(folder: Path, target: str, variant: str, into: Path) -> Path:
    """ONNX Runtime's quantize_static of a float file, on the same calibration samples: QDQ, int8 by channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._samples = iter(np.load(folder / "data/calibration/x.npy"))

        def get_next(self) -> dict[str, Any] | None:
            sample = next(self._samples, None)
            return None if sample is None else {"input": sample[None]}

    quant_pre_process(
        folder / f"export/{target}/{variant}.onnx", into.with_suffix(".float.onnx"), skip_symbolic_shape=True
    )
    quantize_static(
        into.with_suffix(".float.onnx"), into, Samples(), per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return into


def beside_peers(recipe: str, target: str, folder: Path) -> dict[str, Any]:
    """The exported files, ONNX Runtime's own quantization and the published file, by turns on the same test images."""
    with tempfile.TemporaryDirectory() as place:
        names = ("teacher", "student", FP32, INT8)  # the student is not cut yet
        files = {name: folder / f"export/{target}/{name}.onnx" for name in names}
        files["onnxruntime quantize_static"] = statically_quantized(folder, target, FP32, Path(place) / "static.onnx")
        for whole in ("teacher", "student"):  # published networks are one of these
            if files[whole].is_file():
                files[f"onnxruntime quantize_static, {whole}"] = statically_quantized(
                    folder, target, whole, Path(place) / f"static-{whole}.onnx"
                )
        if recipe == "keywords":
            files["onnxruntime quantize_dynamic, teacher"] = dynamically_quantized(
                folder, target, Path(place) / "dynamic.onnx"
            )
        if published := MLPERF_TINY.get((recipe, target)):
            files["MLPerf Tiny, LiteRT"] = Path(os.environ["LIMBECK_DATA"]) / published
        files = {name: path.resolve() for name, path in files.items() if path.is_file()}
        spec = Path(place) / "spec.json"
        told = {
            "place": place,
            "data": str(folder / "data"),
            "files": {name: str(path) for name, path in files.items()},
        }
        spec.write_text(json.dumps(told), encoding="utf-8")
        found: dict[str, Any] = arm.run(python_with(PLACE / "peers", LITERT), "benchmarks.figures.turns", spec)["files"]
    return found


def figures(folder: Path, target: str) -> dict[str, Any]:
    """What the pipeline says of a target."""
    said = {
        name: json.loads((folder / f"metrics/{target}/{name}.json").read_text(encoding="utf-8"))
        for name in ("distill", "prune", "quantize", "export", "quality", "latency")
    }
    status = (folder / ".limbeck/status").glob("*.json")
    seconds = {path.stem: json.loads(path.read_text(encoding="utf-8"))["seconds"] for path in status}
    return {
        "quality": said["quality"]["variants"],
        "gain_of_distillation": said["distill"].get("gain"),
        "rung": said["quantize"].get("rung"),
        **{key: said["export"][key] for key in ("bytes", "parameters", "macs")},
        "int8_over_fp32": said["latency"]["ratios"].get(f"{INT8}/{FP32}"),
        "latency": {name: row["p50_ms"] for name, row in said["latency"]["variants"].items()},
        "stage_seconds": {
            name: value for name, value in sorted(seconds.items()) if name.endswith(target) or "@" not in name
        },
    }


def main(
    recipe: Annotated[str, typer.Argument(help="One of recipes/.")],
    target: Annotated[str, typer.Argument(help="One of its targets.")],
    seed: Annotated[int, typer.Option(help="Of splits, views and weights.")] = 0,
    control: Annotated[bool, typer.Option("--control", help="The same without a teacher: labels alone.")] = False,
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = RESULTS,
) -> None:
    """Run to the end, or on from where a killed one was; then measure beside peers on an otherwise idle machine."""
    environment.settle()
    folder = with_seed(recipe, seed, control=control)
    forget_zombies(folder)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dvc")), "--wait-for-lock", "repro", f"benchmark@{target}"], cwd=folder,
        env={**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.returncode)
    result = {
        **about(f"python -m benchmarks.figures {recipe} {target} --seed {seed}{' --control' if control else ''}"),
        "recipe": recipe, "target": target, "seed": seed, "control": control,
        **figures(folder, target), "by_turns": beside_peers(recipe, target, folder),
    }  # fmt: skip
    write_json(out / f"{recipe}-{target}-{seed}{'-control' if control else ''}.json", result)
    for name, found in result["by_turns"].items():
        quality = "-" if found["accuracy"] is None else f"{100 * found['accuracy']:.2f} %"
        print(f"{name:37} {found['bytes']:>9,} B  {quality}  p50 {found['p50_us']:.0f} us")


if __name__ == "__main__":
    typer.run(main)
