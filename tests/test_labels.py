from pathlib import Path

import numpy as np
import pytest
import torch

from limbeck import checkpoint, labels, models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data.splits import read_meta
from limbeck.errors import DataError
from limbeck.models import Network
from limbeck.params import LabelParams, Params
from limbeck.prediction import NetworkScorer
from limbeck.training import TrainingData
from stages import label
from tests.conftest import Remembering


@pytest.fixture(scope="module")
def teacher(data: Path, small: Component) -> Network:
    meta = read_meta(data)
    torch.manual_seed(0)
    return models.build(
        Spec(model=small, shape=meta.shape, dtype=meta.dtype, classes=meta.classes, mean=meta.mean, std=meta.std)
    ).eval()


def write(folder: Path, data: Path, teacher: Network, params: LabelParams) -> None:
    labels.write(
        folder, data, teacher, params, seed=0, teacher_digest="t", teacher_quality=0.9, progress=lambda *_: None
    )


def read(data: Path, folder: Path, *, with_teacher: bool) -> TrainingData:
    return TrainingData.of(data, *labels.read_views(data, folder, with_teacher=with_teacher))


def test_a_students_pixels_are_the_labelled_ones_and_cached_logits_a_live_teachers(
    tmp_path: Path, data: Path, teacher: Network, tiny: Params
) -> None:
    write(tmp_path / "labels", data, teacher, tiny.label)
    training = read(data, tmp_path / "labels", with_teacher=True)
    for epoch in range(tiny.label.num_views + 1):
        batch = next(training.batches(epoch, 32, seed=0))
        other = next(read(data, tmp_path / "labels", with_teacher=True).batches(epoch, 32, seed=0))
        assert torch.equal(batch.inputs, other.inputs), "pixels are equal to the bit"
        with torch.inference_mode():
            live = teacher(batch.inputs)
        assert batch.teacher_BK is not None
        # another batch size may add in another order: one step of fp16, no more
        assert torch.allclose(batch.teacher_BK.float(), live, rtol=2**-10, atol=1e-4)


def test_batches_answered_side_by_side_give_the_same_bytes(
    tmp_path: Path, data: Path, teacher: Network, tiny: Params
) -> None:
    for threads in (1, 2):
        params = tiny.label.model_copy(update={"threads": threads, "batch_size": 100})  # the last batch is smaller
        write(tmp_path / f"{threads}", data, teacher, params)
    assert (tmp_path / "1/logits.npy").read_bytes() == (tmp_path / "2/logits.npy").read_bytes()


def test_a_mixed_views_soft_label_is_the_teachers_answer_to_the_very_mixture(
    tmp_path: Path, data: Path, teacher: Network, tiny: Params
) -> None:
    cut = {"use": "cutmix", "alpha": 1.0, "probability": 0.8}
    augment = Component.model_validate({"use": "chain", "steps": [{"use": "crop_flip", "pad": 1, "flip": False}, cut]})
    write(tmp_path / "labels", data, teacher, tiny.label.model_copy(update={"augment": augment}))
    taught = read(data, tmp_path / "labels", with_teacher=True)
    control = read(data, tmp_path / "labels", with_teacher=False)
    for epoch in range(tiny.label.num_views + 1):
        batch, twin = next(taught.batches(epoch, 32, seed=0)), next(control.batches(epoch, 32, seed=0))
        with torch.inference_mode():
            live = teacher(batch.inputs)
        assert batch.teacher_BK is not None
        assert torch.allclose(batch.teacher_BK.float(), live, rtol=2**-10, atol=1e-4)
        assert torch.equal(batch.inputs, twin.inputs)
        assert torch.equal(batch.labels, twin.labels)
        assert batch.labels.shape == (32, 10)
        assert int((batch.labels.max(1).values < 1).sum()) > 5, "some belong to two classes"


def test_a_teacher_may_answer_in_bf16(tmp_path: Path, data: Path, teacher: Network, tiny: Params) -> None:
    write(tmp_path / "labels", data, teacher, tiny.label.model_copy(update={"precision": "bf16"}))
    batch = next(read(data, tmp_path / "labels", with_teacher=True).batches(0, 32, seed=0))
    assert batch.teacher_BK is not None
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        short = teacher(batch.inputs).float()
    with torch.inference_mode():
        full = teacher(batch.inputs)
    stored = batch.teacher_BK.float()
    assert not torch.allclose(stored, full, rtol=2**-10, atol=1e-4), "8 bits of mantissa, not 24"
    assert torch.allclose(stored, short, rtol=2**-6, atol=2**-6)
    assert torch.allclose(stored, full, atol=0.05 * float(full.abs().max()))


def test_a_student_without_a_teacher_sees_the_same_pixels(
    tmp_path: Path, data: Path, teacher: Network, tiny: Params
) -> None:
    write(tmp_path / "labels", data, teacher, tiny.label)
    taught = read(data, tmp_path / "labels", with_teacher=True)
    control = read(data, tmp_path / "labels", with_teacher=False)
    for epoch in (0, 1, 2, 5):
        with_teacher, without = next(taught.batches(epoch, 32, 0)), next(control.batches(epoch, 32, 0))
        assert torch.equal(with_teacher.inputs, without.inputs)
        assert without.teacher_BK is None


def test_more_than_the_allowed_megabytes_are_refused_with_the_sum(
    tmp_path: Path, data: Path, teacher: Network, tiny: Params
) -> None:
    greedy = tiny.label.model_copy(update={"num_views": 1000})
    with pytest.raises(DataError, match=r"1000 views x 772 samples x 10 classes x 2 bytes = 15.4 MB; .* allows 8"):
        write(tmp_path / "labels", data, teacher, greedy)
    assert not (tmp_path / "labels").exists()


def test_logits_that_changed_are_refused(tmp_path: Path, data: Path, teacher: Network, tiny: Params) -> None:
    write(tmp_path / "labels", data, teacher, tiny.label)
    stored = np.load(tmp_path / "labels" / labels.LOGITS, mmap_mode="r+")
    stored[0, 0, 0] += 1
    stored.flush()
    with pytest.raises(DataError, match="logits.npy has changed since it was made"):
        read(data, tmp_path / "labels", with_teacher=True)


def test_what_a_teacher_is_worth_is_measured_once(
    tmp_path: Path, data: Path, teacher: Network, tiny: Params, report: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = read_meta(data)
    spec = Spec(
        model=Component(use="mlp"),
        shape=meta.shape,
        dtype=meta.dtype,
        classes=meta.classes,
        mean=meta.mean,
        std=meta.std,
    )
    monkeypatch.setattr(models, "load", lambda _: (spec, teacher))
    models.save(tmp_path / "teacher", spec, teacher)

    def said(noted_for: str) -> float:
        checkpoint.note_quality(tmp_path / "teacher", 0.625, metric="accuracy", data_digest=noted_for)
        told = label.run(
            data=data, teacher=tmp_path / "teacher", out=tmp_path / noted_for[:8], label=tiny.label, metric="accuracy",
            seed=0, report=report,
        )  # fmt: skip
        return float(told["teacher_validation"])

    assert said(meta.digest) == 0.625
    assert said("of other data") == NetworkScorer("accuracy", data).quality(teacher)
