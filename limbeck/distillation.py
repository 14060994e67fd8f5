"""One student, taught: the core of the stage `distill`, and of `limbeck compare`."""

from pathlib import Path

import torch

from limbeck import models
from limbeck.checkpoint import Spec
from limbeck.data.splits import read_meta
from limbeck.evaluation import scorer
from limbeck.labels import read_views
from limbeck.objectives import objective_of
from limbeck.params import DistillParams, StudentParams, Unused
from limbeck.training import Fitted, Progress, TrainingData, fit


def spec_of(student: StudentParams, data: Path) -> Spec:
    """What the student is to be, for prepared data."""
    meta = read_meta(data)
    return Spec(
        model=student.model, shape=meta.shape, dtype=meta.dtype, classes=meta.classes, mean=meta.mean, std=meta.std
    )


def train_student(
    student: StudentParams,
    distill: DistillParams | Unused,
    *,
    data: Path,
    labels: Path,
    teacher: Path,
    metric: str,
    seed: int,
    report: Progress,
    arm: str,
) -> tuple[models.Network, Fitted]:
    """Train a student on the labelled views; `{use: none}` trains it on the same views without the teacher.

    Equal seeds start from equal weights and see equal batches, whatever teaches.

    Args:
        student: its model and how it is trained.
        distill: what it minimizes.
        data: `data/` of prepare.
        labels: `labels/` of label.
        teacher: the teacher's checkpoint, for losses that keep it at work.
        metric: decides the best epoch.
        seed: of weights and batches.
        report: told of progress; its scratch folder holds the state of a killed run.
        arm: names the training in it.

    """
    spec = spec_of(student, data)
    torch.manual_seed(seed)
    network = models.build(spec)
    objective = objective_of(distill, teacher=lambda: models.load(teacher)[1], student=lambda: models.build(spec))
    training = TrainingData.of(data, *read_views(data, labels, with_teacher=not isinstance(distill, Unused)))
    return network, fit(
        network, objective, training, student.train, score=scorer(metric), seed=seed, report=report, arm=arm
    )
