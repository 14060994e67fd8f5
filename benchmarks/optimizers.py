"""How far few epochs take a student under each optimizer, every one at its best rate of some.

The network of recipes/cifar10.yaml's `sensor`, from labels alone, on some of CIFAR-10's training images below $LIMBECK_DATA;
validation and test are others of them. Rates are chosen by validation with the first seed; then test says what each
optimizer reached with all of them.
"""

import os
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import yaml
from pydantic import TypeAdapter

from benchmarks.arm import Told
from benchmarks.loops import RECIPE
from benchmarks.loops.ours import no_registry, prepare
from benchmarks.places import ROOT
from limbeck.params import TeacherParams
from limbeck.prediction import NetworkScorer
from limbeck.teachers.making import Making

NUM_TRAIN, NUM_HELD_OUT, EPOCHS, SEEDS = 10_000, 2_000, 6, (0, 1, 2)
OPTIMIZERS: dict[str, tuple[dict[str, Any], float, tuple[float, ...]]] = {
    "sgd": ({"use": "sgd", "momentum": 0.9}, 5e-4, (0.05, 0.1, 0.2, 0.4)),
    "adamw": ({"use": "adamw"}, 0.05, (0.001, 0.003, 0.01)),
    "muon": ({"use": "muon"}, 0.05, (0.025, 0.05, 0.1, 0.2)),
}
"""Settings, weight decay, rates."""


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Train each with every rate, then the best of them with the other seeds."""
    if "LIMBECK_DATA" not in os.environ:
        raise SystemExit("optimizers: needs CIFAR-10; set LIMBECK_DATA as recipes/cifar10.yaml says.")
    quick = params != ROOT / "params.yaml"
    recipe = yaml.safe_load(RECIPE.read_text(encoding="utf-8"))
    student = recipe["targets"]["sensor"]["student"]
    num_train, epochs, seeds = (640, 2, SEEDS[:2]) if quick else (NUM_TRAIN, EPOCHS, SEEDS)
    place = place / "optimizers"
    place.mkdir()
    source = recipe["data"]["source"]
    prepare({"source": source, "num_train": num_train, "num_validation": NUM_HELD_OUT, "num_test": NUM_HELD_OUT}, place)
    score = NetworkScorer("accuracy", place / "data")

    seconds: dict[str, list[float]] = {name: [] for name in OPTIMIZERS}

    def trained(name: str, rate: float, seed: int) -> tuple[float, float]:
        """Validation and test."""
        optimizer, decay, _ = OPTIMIZERS[name]
        settings = {"epochs": epochs, "optimizer": optimizer, "lr": rate, "weight_decay": decay}
        section: Any = TypeAdapter(TeacherParams).validate_python({
            "use": "train", "model": student["model"], "augment": {"use": "crop_flip", "pad": 4, "flip": True},
            "train": {**student["train"], **settings},
        })  # fmt: skip
        scratch = place / f"{name}-{rate:g}-{seed}"
        scratch.mkdir()
        told: Any = Told(scratch)
        _, network, _ = Making(place / "data", "accuracy", seed, told, no_registry).make(section)
        seconds[name].extend(np.diff(told.epochs))
        return max(told.validation), float(score.of_model(network, "test").mean())

    result: dict[str, Any] = {"ratios": {}, "limits": {}, "epochs": epochs, "images": num_train}
    result["validation"], result["rate"], result["test"] = {}, {}, {}
    for name, (_, _, rates) in OPTIMIZERS.items():
        found = {rate: trained(name, rate, seeds[0]) for rate in rates}
        best = max(found, key=lambda rate: found[rate][0])
        result["validation"][name] = {f"{rate:g}": validation for rate, (validation, _) in found.items()}
        result["rate"][name] = best
        result["test"][name] = [found[best][1], *(trained(name, best, seed)[1] for seed in seeds[1:])]
    result["seconds"] = {f"{name}, an epoch": median(epochs) for name, epochs in seconds.items()}
    return result


def table(result: Any) -> str:
    """Markdown: validation by rate, test at the best of them, time."""
    lines = ["| `optimizer` | validation %, by `lr` | test % at the best, by seed | an epoch, s |", "|---|---|---|---|"]
    for name, by_rate in result["validation"].items():
        rates = ", ".join(f"{rate}: {100 * value:.1f}" for rate, value in by_rate.items())
        tests = ", ".join(f"{100 * value:.1f}" for value in result["test"][name])
        lines.append(f"| `{name}` | {rates} | {tests} | {result['seconds'][f'{name}, an epoch']:.1f} |")
    return "\n".join(lines)
