"""The large network, trained."""

from pathlib import Path
from typing import Any

import torch

from limbeck import models
from limbeck.checkpoint import Spec
from limbeck.components import bind
from limbeck.data.augment import AUGMENTS, Views
from limbeck.data.splits import read, read_meta
from limbeck.evaluation import scorer
from limbeck.objectives import cross_entropy, on_logits
from limbeck.params import Out, TeacherParams
from limbeck.recording import Report
from limbeck.training import TrainingData, fit


def run(*, data: Path, out: Out, teacher: TeacherParams, metric: str, seed: int, report: Report) -> dict[str, Any]:
    """Train the teacher through the one loop on a fresh view of the data every epoch."""
    meta = read_meta(data)
    x, _ = read(data, "train")
    spec = Spec(
        model=teacher.model, shape=meta.shape, dtype=meta.dtype, classes=meta.classes, mean=meta.mean, std=meta.std
    )
    torch.manual_seed(seed)
    network = models.build(spec)
    views = Views(x, bind(teacher.augment, AUGMENTS, "augmentation")(), seed)
    training = TrainingData.of(data, views, None)
    fitted = fit(
        network, on_logits(cross_entropy), training, teacher.train,
        score=scorer(metric), seed=seed, report=report, arm="teacher",
    )  # fmt: skip
    models.save(out, spec, network)
    report.log(f"{metric} {fitted.best:.4f} on validation, epoch {fitted.best_epoch + 1}")
    return {
        "validation": fitted.best,
        "best_epoch": fitted.best_epoch,
        "parameters": models.num_params(network),
        "macs": models.count_macs(network, torch.from_numpy(x[:1].copy())),
    }
