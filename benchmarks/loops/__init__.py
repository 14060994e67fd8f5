"""The distill stage beside the loops people write: the textbook one, and torchdistill's.

Same student (the recipe's `sensor`), teacher, data, batch, epochs, learning rates and threads; each arm in a process of its own, by
turns. Ours and the textbook's once more with a ResNet-8, which computes a fifth more.

    ours          label once (V views), then epochs from the cached logits
    textbook      fp32, DataLoader with transforms by sample, the teacher asked in every step
    torchdistill  its DistillationBox with its KDLoss over the textbook's loader

A subset of CIFAR-10 below $LIMBECK_DATA. Every arm is timed by whole epochs, validation included; what comes before the
first one (compiling, opening) is counted once. From these, label + distill over 90 epochs of all 45,000 images follow.
Ours and the textbook's learn with several seeds, since one says little after so few epochs; the first one is timed. What the
best epochs of all answer to 10,000 further images tells them apart.
"""

import json
import os
from math import sqrt
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np
import yaml

from benchmarks import arm
from benchmarks.peers import python_with
from benchmarks.places import ROOT
from limbeck.data.splits import read

RECIPE = ROOT / "recipes/cifar10.yaml"
NUM_TRAIN, NUM_VALIDATION, NUM_TEST, EPOCHS = 10_000, 2_000, 10_000, 5
SEEDS = (0, 1, 2, 3, 4)
ALL_IMAGES, ALL_EPOCHS = 45_000, 90
RESNET8 = {"use": "resnet", "width": 16, "depth": 8}
TRAIN = {
    "epochs": EPOCHS, "batch_size": 128, "optimizer": {"use": "sgd", "momentum": 0.9}, "lr": 0.1, "weight_decay": 0.0005,
    "warmup_epochs": 1, "clip_norm": 5.0, "ema_decay": 0.0, "precision": "auto", "device": "auto", "compile": "always",
    "threads": 2,
}  # fmt: skip
"""Compiled, as `auto` decides for the 90 epochs of all images that these few stand for; the time it takes is counted once. Weights as
they are: the others average none, and an average over 100 of 390 steps would be of earlier ones."""
PEERS = ["torchvision==0.29.2", "torchdistill==1.1.5"]
LIMITS = {
    "samples per second, ours over textbook": 8.0,
    "samples per second, ours over torchdistill": 8.0,
    "label + distill over 90 epochs, one target": 6.0,
}
"""At least so many."""
OPERATORS = ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "deform_conv2d")
KEPT: list[Any] = []


def spec_for(place: Path, quick: bool) -> dict[str, Any]:
    """What all arms are told."""
    params = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    train, epochs, views = (640, 2, 2) if quick else (NUM_TRAIN, EPOCHS, params["label"]["num_views"])
    return {
        "place": str(place), "source": params["data"]["source"], "teacher": params["teacher"], "num_train": train,
        "num_validation": NUM_VALIDATION, "num_test": NUM_TEST, "num_views": views,
        "student": params["targets"]["sensor"]["student"]["model"],
        "train": {**TRAIN, "epochs": epochs}, "kd": {"alpha": 0.9, "temperature": 4.0}, "seed": SEEDS[0],
    }  # fmt: skip


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Run the arms; `params` other than the default's means quick."""
    if "LIMBECK_DATA" not in os.environ:
        raise SystemExit("loops: needs CIFAR-10; set LIMBECK_DATA as recipes/cifar10.yaml says.")
    place = place / "loops"
    place.mkdir()
    spec = spec_for(place, quick=params != ROOT / "params.yaml")
    python = python_with(place / "peers", PEERS)

    def run(name: str, seed: int = SEEDS[0], student: dict[str, Any] = spec["student"]) -> dict[str, Any]:
        told = place / f"{name}-{student['use']}-{seed}.json"
        told.write_text(json.dumps({**spec, "seed": seed, "student": student}), encoding="utf-8")
        return arm.run(python, f"benchmarks.loops.{name}", told)

    arms = {"ours": run("ours"), "textbook": run("textbook"), "torchdistill": run("box")}
    resnet8 = {name: median(run(name, student=RESNET8)["epoch_s"]) for name in ("ours", "textbook")}
    accuracy = {name: [found["accuracy"]] for name, found in arms.items()}
    for name in ("ours", "textbook"):
        accuracy[name] += [run(name, seed)["accuracy"] for seed in SEEDS[1:]]

    samples, result = spec["num_train"], {"seconds": {}, "ratios": {}, "limits": LIMITS}  # type: ignore[var-annotated]
    epoch = {name: median(found["epoch_s"]) for name, found in arms.items()}
    rate = {name: samples / seconds for name, seconds in epoch.items()}
    first = {name: found["before_s"] for name, found in arms.items()}
    labelling = arms["ours"]["label_s"] / (samples * spec["num_views"])
    whole = {name: first[name] + ALL_EPOCHS * ALL_IMAGES / rate[name] for name in arms}
    labels_s = labelling * ALL_IMAGES * spec["num_views"]
    for name in arms:
        result["seconds"][f"{name}, an epoch of {samples:,}"] = epoch[name]
        result["seconds"][f"{name}, before its first epoch"] = first[name]
    result["seconds"][f"label, {spec['num_views']} views of {ALL_IMAGES:,}"] = labels_s
    for peer in ("textbook", "torchdistill"):
        result["ratios"][f"samples per second, ours over {peer}"] = rate["ours"] / rate[peer]
    result["ratios"]["samples per second, with a ResNet-8"] = resnet8["textbook"] / resnet8["ours"]
    for targets, word in ((1, "one target"), (2, "two targets")):
        result["ratios"][f"label + distill over 90 epochs, {word}"] = (
            targets * whole["textbook"] / (labels_s + targets * whole["ours"])
        )
    return {
        **result,
        "samples_per_second": rate,
        "accuracy": accuracy,
        "num_views": spec["num_views"],
        "cache_bytes": spec["num_views"] * ALL_IMAGES * 10 * 2,
        "peak_mb": {name: found["peak_mb"] for name, found in arms.items()},
        "peers": PEERS,
    }


def table(result: Any) -> str:
    """Two tables in Markdown: the loops, and what label + distill take over 90 epochs."""
    of = result["samples_per_second"]
    lines = ["| loop | samples per second | ours over it | accuracy %, by seed | peak MB |", "|---|---|---|---|---|"]
    for name, rate in of.items():
        seeds = ", ".join(f"{100 * value:.1f}" for value in result["accuracy"][name])
        lines.append(f"| {name} | {rate:,.0f} | {of['ours'] / rate:.1f}x | {seeds} | {result['peak_mb'][name]:,.0f} |")
    lines += ["", "| over the textbook loop | faster |", "|---|---|"]
    lines += [
        f"| {key} | {value:.1f}x |" for key, value in result["ratios"].items() if "label" in key or "ResNet-8" in key
    ]
    return "\n".join(lines)


def lead(accuracy: dict[str, list[float]]) -> tuple[float, float, float]:
    """Points by which ours is before the textbook's, the mean over seeds, and the bounds of its 95 % interval for other seeds."""
    from scipy.stats import t

    points = [100 * (ours - textbook) for ours, textbook in zip(accuracy["ours"], accuracy["textbook"], strict=True)]
    half = t.ppf(0.975, len(points) - 1) * stdev(points) / sqrt(len(points))
    return mean(points), mean(points) - half, mean(points) + half


def images(spec: dict[str, Any]) -> dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """The raw images [N, H, W, C] and labels [N] that `ours` prepared, by split."""
    return {name: read(Path(spec["place"]) / "data", name) for name in ("train", "validation", "test")}  # type: ignore[arg-type]


def torchvision_without_cuda() -> None:
    """Let torchvision be imported beside a CPU build of torch: its wheel's own operators need CUDA, its transforms do not."""
    import torch

    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms", *(f"{op}{way}" for op in OPERATORS for way in ("", "_backward"))):
        operators.define(f"{'_' if name.endswith('_backward') else ''}{name}(Tensor x) -> Tensor")
    KEPT.append(operators)  # what it defines goes with it
