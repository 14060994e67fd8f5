"""Limbeck's own stages: prepare, teacher and label, then the training that `distill` does."""

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from benchmarks.arm import Told, done, read_spec
from limbeck import checkpoint, labels, models
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.distillation import train_student
from limbeck.params import DistillParams, LabelParams, RegistryTeacher, SplitParams, StudentParams, TeacherParams
from limbeck.prediction import NetworkScorer
from limbeck.teachers.making import Making


def prepare(spec: dict[str, Any], place: Path) -> None:
    """Some images of the recipe's training split, as prepared data of their own below `place`/data."""
    shares = SplitParams(test=None, validation=0.1, calibration=0.01)
    splits.write(place / "all", open_source(Component.model_validate(spec["source"])), shares, 0, max_overlap=1)
    x, y = splits.read(place / "all", "train")
    calibration, test = 100, spec["num_test"]
    total = spec["num_train"] + spec["num_validation"] + calibration + test
    wanted = np.random.default_rng(0).permutation(len(x))[:total]
    np.savez(place / "images.npz", x=x[wanted], y=y[wanted])
    source = open_source(Component.model_validate({"use": "arrays", "path": str(place / "images.npz")}))
    shares = SplitParams(test=test / total, validation=spec["num_validation"] / total, calibration=calibration / total)
    splits.write(place / "data", source, shares, 0, max_overlap=1)


def no_registry(teacher: RegistryTeacher, into: Path) -> Path:
    """The recipe's teacher is a file."""
    raise AssertionError(teacher)


def label(spec: dict[str, Any], place: Path) -> float:
    """Prepare the images and let the teacher label them: the seconds of labelling."""
    prepare(spec, place)
    section: Any = TypeAdapter(TeacherParams).validate_python(spec["teacher"])
    unheard: Any = Told(place)
    teacher_spec, network, _ = Making(place / "data", "accuracy", 0, unheard, no_registry).make(section)
    models.save(place / "teacher", teacher_spec, network)
    params = LabelParams.model_validate({
        "augment": {"use": "crop_flip", "pad": 4, "flip": True}, "num_views": spec["num_views"], "features": False,
        "max_mb": 64, "batch_size": 256, "precision": "auto", "compile": "auto", "threads": spec["train"]["threads"],
    })  # fmt: skip
    began = time.perf_counter()
    labels.write(
        place / "labels", place / "data", network, params,
        seed=0, teacher_digest=checkpoint.digest_of(place / "teacher"), teacher_quality=0.0,
        progress=lambda *_: None,
    )  # fmt: skip
    return time.perf_counter() - began


def main() -> None:
    """Time labelling, once for all seeds, what comes before the first epoch, and the epochs."""
    spec, place = read_spec()
    label_s = None if (place / "labels/labels.json").exists() else label(spec, place)
    labelled, told = time.perf_counter(), Told(Path(sys.argv[1]).with_suffix(""))
    told.scratch.mkdir()
    student, _ = train_student(
        StudentParams.model_validate({"model": spec["student"], "train": spec["train"]}),
        DistillParams.model_validate({"use": "kd", **spec["kd"], "control": False}),
        data=place / "data", labels=place / "labels", teacher=place / "teacher",
        metric="accuracy", seed=spec["seed"], report=told, arm="student",
    )  # fmt: skip
    first, *_ = told.steps
    done(
        epoch_s=list(np.diff([first, *told.epochs])), before_s=first - labelled, label_s=label_s,
        accuracy=NetworkScorer("accuracy", place / "data").quality(student, "test"),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
