"""What the training loop adds to bare forward and backward passes, and its memory when the data grow ten times.

Recovery after a cut and QAT, on noise: how fast they are does not depend on what is learned. After each epoch of the
loop as many bare passes follow, over batches that lie ready, so that both meet the same machine. Views, soft labels,
clipping, the optimizer's step, averaging and the bookkeeping are what the loop adds; validation is told by itself.
"""

import copy
import json
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks import arm
from limbeck import models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.labels import read_views, write
from limbeck.models.compiled import compiled
from limbeck.objectives import Objective, objective_of
from limbeck.params import DistillParams, LabelParams, PruneParams, SplitParams, TrainParams
from limbeck.prediction import NetworkScorer
from limbeck.pruning import prune_
from limbeck.training import TrainingData, fit

TIMES = 10
NUM_SAMPLES, EPOCHS = 4_096, 5
LIMITS = {"recovery over bare passes": 1.2, "QAT over bare passes": 1.2, "memory, ten times the samples": 1.05}
SHAPE, NUM_CLASSES, VIEWS = (32, 32, 3), 10, 2
STUDENT = Component(use="resnet", width=16, depth=8)
DISTILL = DistillParams.model_validate({"use": "kd", "alpha": 0.9, "temperature": 4.0, "control": False})
PRUNE = PruneParams.model_validate({
    "use": "magnitude", "scope": "layer", "ratio": 0.25, "max_macs": None, "latency": None, "max_ratio": 0.9,
    "steps": 1, "round_to": 4, "recover": {"epochs": 1, "lr": 0.05},
})  # fmt: skip
LABEL = LabelParams.model_validate({
    "augment": {"use": "crop_flip", "pad": 4, "flip": True}, "num_views": VIEWS, "features": False, "max_mb": 64,
    "batch_size": 256, "compile": "never", "threads": 2,
})  # fmt: skip
TRAIN = {
    "batch_size": 128, "optimizer": {"use": "sgd", "momentum": 0.9}, "lr": 0.1, "weight_decay": 0.0005,
    "warmup_epochs": 0, "clip_norm": 5.0, "device": "cpu", "precision": "fp32", "threads": 2,
}  # fmt: skip


SPEC = Spec(
    model=STUDENT, shape=SHAPE, dtype="uint8", classes=tuple(map(str, range(NUM_CLASSES))), mean=(127.0,) * 3,
    std=(64.0,) * 3,
)  # fmt: skip


def prepared(place: Path, num: int) -> Path:
    """Noise in classes, prepared and labelled by an untrained teacher."""
    generator = np.random.default_rng(0)
    total = num + 400
    place.mkdir(parents=True)
    np.savez(
        place / "noise.npz", x=generator.integers(0, 256, (total, *SHAPE), dtype=np.uint8),
        y=np.arange(total) % NUM_CLASSES,
    )  # fmt: skip
    source = open_source(Component(use="arrays", path=str(place / "noise.npz")))
    shares = SplitParams(test=100 / total, validation=200 / total, calibration=100 / total)
    splits.write(place / "data", source, shares, 0, max_overlap=1)
    write(
        place / "labels", place / "data", models.build(SPEC), LABEL,
        seed=0, teacher_digest="none", teacher_quality=0.0, progress=lambda *_: None,
    )  # fmt: skip
    return place


def network(kind: str, place: Path) -> nn.Module:
    """What recovery or QAT trains: a student that was cut, or one with fake quantizers."""
    torch.manual_seed(0)
    student = models.build(SPEC)
    sample = torch.from_numpy(splits.read(place / "data", "validation")[0][:1].copy())
    if kind == "recovery":
        list(prune_(student, PRUNE, sample))
        return student
    described = quantization.describe("static", "u8s8", Component(use="min_max"), trained=True)
    return quantization.prepare(student, described, SPEC.shape, models.torch_dtype(SPEC.dtype))


class Anonymous(threading.Thread):
    """The most memory of this process's own seen: pages of mapped files are the kernel's to take back."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0

    def run(self) -> None:
        """Look twenty times a second."""
        while True:
            lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
            found = next(line for line in lines if line.startswith("RssAnon:"))
            self.peak_mb = max(self.peak_mb, int(found.split()[1]) * 1024 / 1e6)
            time.sleep(0.05)


class Bare(arm.Told):
    """After every epoch of the loop, its forward and backward passes alone."""

    def __init__(self, scratch: Path, model: nn.Module, objective: Objective, training: TrainingData, compile: bool):
        super().__init__(scratch)
        self.model, self.objective = copy.deepcopy(model).train(), objective
        self.batches = list(training.batches(0, TRAIN["batch_size"], 0))
        self.stepped = compiled(self.model, lambda trial: self.step(trial, 0)) if compile else self.model
        self.passes(2)
        self.bare_s: list[float] = []

    def step(self, model: nn.Module, number: int) -> None:
        """One pass forward and one backward."""
        self.objective(model, self.batches[number]).backward()  # type: ignore[no-untyped-call]

    def passes(self, num: int) -> float:
        """Seconds of so many."""
        began = time.perf_counter()
        for number in range(num):
            self.step(self.stepped, number)
            self.model.zero_grad(set_to_none=True)
        return time.perf_counter() - began

    def curve(self, row: dict[str, float | str]) -> None:
        """The loop's epoch is over."""
        super().curve(row)
        self.bare_s.append(self.passes(len(self.batches)) / len(self.batches))

    def loop_s(self) -> list[float]:
        """Seconds of a step by epoch, from its first step's end to its last one's."""
        by_epoch = np.reshape(self.steps, (len(self.epochs), -1))
        return [float(ends[-1] - ends[0]) / (len(ends) - 1) for ends in by_epoch]


def main() -> None:
    """One arm: train, and pass barely beside it where asked."""
    spec, place = arm.read_spec()
    torch.set_num_threads(TRAIN["threads"])
    watched = Anonymous()
    watched.start()
    training = TrainingData.of(place / "data", *read_views(place / "data", place / "labels", with_teacher=True))
    model, kind = network(spec["kind"], place), spec["kind"]
    compile = "always" if kind == "recovery" and spec["bare"] else "never"
    params = TrainParams.model_validate({
        **TRAIN, "epochs": spec["epochs"], "compile": compile, "ema_decay": 0.99 if kind == "recovery" else 0.0,
    })  # fmt: skip
    scratch = place / f"scratch-{kind}"
    scratch.mkdir(exist_ok=True)
    told: Any = arm.Told(scratch)
    if spec["bare"]:
        told = Bare(scratch, model, objective_of(DISTILL), training, compile == "always")
    quality = NetworkScorer("accuracy", place / "data").quality
    fit(model, objective_of(DISTILL), training, params, quality=quality, seed=0, report=told, arm="benchmark")
    bare = {"loop_s": told.loop_s(), "bare_s": told.bare_s} if spec["bare"] else {}
    arm.done(anonymous_mb=watched.peak_mb, **bare)


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Train on noise and on ten times as much; `params` other than the default's means quick."""
    quick = params.name == "tiny.yaml"
    num, epochs = (512, 2) if quick else (NUM_SAMPLES, EPOCHS)
    small, large = (prepared(place / "training" / str(count), count) for count in (num, num * TIMES))

    def one(folder: Path, kind: str, epochs: int, *, bare: bool) -> dict[str, Any]:
        told = folder / f"{kind}-{bare}.json"
        told.write_text(json.dumps({"place": str(folder), "kind": kind, "bare": bare, "epochs": epochs}))
        return arm.run(sys.executable, "benchmarks.training", told)

    result: dict[str, Any] = {"seconds": {}, "ratios": {}, "limits": LIMITS, "peak_mb": {}}
    for kind, name in (("recovery", "recovery"), ("qat", "QAT")):
        found = one(small, kind, epochs, bare=True)
        result["seconds"] |= {
            f"{name}, a step of the loop": median(found["loop_s"]),
            f"{name}, bare": median(found["bare_s"]),
        }
        result["ratios"][f"{name} over bare passes"] = median(np.divide(found["loop_s"], found["bare_s"]).tolist())
    # equally many steps: what the allocator keeps grows with the first hundreds of them
    few, many = (one(folder, "recovery", times, bare=False) for folder, times in ((small, TIMES), (large, 1)))
    for count, found in ((num, few), (num * TIMES, many)):
        result["peak_mb"][f"{count:,} samples"] = found["anonymous_mb"]
    result["ratios"]["memory, ten times the samples"] = many["anonymous_mb"] / few["anonymous_mb"]
    return result


def table(result: Any) -> str:
    """Markdown: each ratio beside what it has to keep."""
    rows = (f"| {key} | {value:.2f} | {result['limits'][key]:.2f} |" for key, value in result["ratios"].items())
    return "\n".join(["| what | measured | limit |", "|---|---|---|", *rows])


if __name__ == "__main__":
    sys.exit(main())
