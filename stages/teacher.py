"""The large network: trained here, or brought along."""

from pathlib import Path
from typing import Any

import torch

from limbeck import checkpoint, models
from limbeck.data.splits import read, read_meta
from limbeck.params import Out, RegistryTeacher, TeacherParams
from limbeck.recording import Report
from limbeck.teachers.making import Making


def run(*, data: Path, out: Out, teacher: TeacherParams, metric: str, seed: int, report: Report) -> dict[str, Any]:
    """Train a teacher, or take one from weights, a checkpoint, a registry or several of them, and adapt it as asked."""
    spec, network, figures = Making(data, metric, seed, report, fetch).make(teacher)
    models.save(out, spec, network)
    checkpoint.note_quality(out, figures["validation"], metric=metric, data_digest=read_meta(data).digest)
    x, _ = read(data, "train")
    return {
        **figures,
        "parameters": models.num_params(network),
        "macs": models.count_macs(network, torch.from_numpy(x[:1].copy())),
    }


def fetch(teacher: RegistryTeacher, into: Path) -> Path:
    """Download a registered checkpoint; mlflow is imported for teachers from a registry alone."""
    from limbeck.tracking.checkpoints import fetch_checkpoint
    from limbeck.tracking.server import tracking_uri

    return fetch_checkpoint(teacher.model, into, uri=tracking_uri(teacher.uri))
