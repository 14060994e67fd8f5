"""A teacher of another class set, end to end: it names the ten digits, the student learns even and odd from its features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck import labels, models
from limbeck.checkpoint import digest_of
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources.digits import digits
from limbeck.data.sources.source import Part, Source
from limbeck.params import CheckpointTeacher, DistillParams, LabelParams, Params, StudentParams
from stages import distill, label, teacher
from tests.conftest import Remembering

EVEN_ODD = ("even", "odd")


@pytest.fixture(scope="module")
def parity(tmp_path_factory: pytest.TempPathFactory, tiny: Params) -> Path:
    source = digits()
    folder = tmp_path_factory.mktemp("parity") / "data"
    part = Part(source.train.labels % 2, source.train.samples)
    splits.write(folder, Source("parity", EVEN_ODD, part), tiny.data.split, 0)
    return folder


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, data: Path, parity: Path, tiny: Params) -> Path:
    """A folder with `ten`, the teacher of ten digits, `teacher`, its features under a head for two, and `labels`."""
    folder = tmp_path_factory.mktemp("taught")
    report: Any = Remembering(folder / "scratch")
    settings = tiny.teacher.train.model_copy(update={"epochs": 8, "lr": 0.1, "ema_decay": 0.9})  # type: ignore[union-attr]
    ten = tiny.teacher.model_copy(update={"train": settings})
    teacher.run(data=data, out=folder / "ten", teacher=ten, metric="accuracy", seed=0, report=report)
    section = CheckpointTeacher.model_validate(
        {
            "use": "checkpoint", "folder": str(folder / "ten"), "sha256": digest_of(folder / "ten"), "trust": [],
            "adapt": {"use": "head", "augment": {"use": "none"}, "train": settings.model_copy(update={"epochs": 4})},
        }
    )  # fmt: skip
    report = Remembering(folder / "scratch of the head")
    teacher.run(data=parity, out=folder / "teacher", teacher=section, metric="accuracy", seed=0, report=report)
    params = tiny.label.model_copy(update={"num_views": 8, "features": True})
    label.run(
        data=parity, teacher=folder / "teacher", out=folder / "labels", label=params, metric="accuracy", seed=0, report=report
    )  # fmt: skip
    return folder


def test_its_head_answers_the_new_classes_from_the_old_features(taught: Path) -> None:
    ten, two = (models.load(taught / name) for name in ("ten", "teacher"))
    assert two[0].classes == EVEN_ODD
    before, after = ten[1].state_dict(), two[1].state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before if "head" not in name)


def test_its_features_lie_beside_its_logits(taught: Path, parity: Path) -> None:
    views, logits, features = labels.read_views(parity, taught / "labels", with_teacher=True)
    assert logits is not None
    assert features is not None
    assert logits.shape == (8, len(views), 2)
    assert features.shape == (8, len(views), 32)


def test_a_student_of_its_features_beats_its_control_or_is_said_not_to(
    tmp_path: Path, taught: Path, parity: Path, tiny: Params
) -> None:
    report: Any = Remembering(tmp_path / "scratch")
    train = tiny.targets["sensor"].student.train.model_copy(update={"epochs": 8, "lr": 0.1})
    figures = distill.run(
        data=parity, labels=taught / "labels", teacher=taught / "teacher", out=tmp_path / "student", control=tmp_path / "control",
        student=StudentParams(model=Component.model_validate({"use": "convnet", "width": 8, "depth": 2}), train=train),
        distill=DistillParams.model_validate({"use": "similarity", "gamma": 100.0, "control": True}),
        bootstrap=200, bootstrap_seed=0, metric="accuracy", seed=0, report=report,
    )  # fmt: skip
    gain = figures["gain"]
    assert gain["beyond_noise"] == (gain["low"] > 0 or gain["high"] < 0)
    (said,) = (line for line in report.lines if line.startswith("gain of distillation"))
    assert said.endswith("none beyond the noise") != gain["beyond_noise"]
    assert gain["value"] > -0.02, "it does no harm"
    assert figures["validation"] > 0.8


def test_features_count_towards_the_megabytes(tmp_path: Path, taught: Path, parity: Path, tiny: Params) -> None:
    params = LabelParams.model_validate({**tiny.label.model_dump(), "num_views": 500, "features": True})
    with pytest.raises(
        labels.DataError, match=r"500 views x 772 samples x \(2 classes \+ 32 features\) x 2 bytes = 26.2 MB"
    ):
        label.run(
            data=parity, teacher=taught / "teacher", out=tmp_path / "l", label=params, metric="accuracy", seed=0,
            report=Remembering(tmp_path / "scratch"),  # type: ignore[arg-type]
        )  # fmt: skip


def test_features_that_changed_are_refused(tmp_path: Path, taught: Path, parity: Path) -> None:
    import shutil

    shutil.copytree(taught / "labels", tmp_path / "labels")
    stored = np.load(tmp_path / "labels" / labels.FEATURES, mmap_mode="r+")
    stored[0, 0, 0] += 1
    stored.flush()
    with pytest.raises(labels.DataError, match="features.npy has changed since it was made"):
        labels.read_views(parity, tmp_path / "labels", with_teacher=True)
