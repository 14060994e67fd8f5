"""The stage `teacher` on digits, for every kind and every way to adapt."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck import checkpoint, models
from limbeck.atomic import sha256
from limbeck.checkpoint import Spec
from limbeck.data import splits
from limbeck.data.sources.digits import digits
from limbeck.data.sources.source import Source, in_memory
from limbeck.errors import CheckpointError, ComponentError
from limbeck.params import Params
from limbeck.prediction import predict
from stages.teacher import run
from tests.conftest import Remembering


@pytest.fixture(scope="module")
def made(data: Path, tiny: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher trained for seconds, as the stage writes it; its state dict lies beside it."""
    folder = tmp_path_factory.mktemp("made") / "teacher"
    report = Remembering(folder.parent / "scratch")
    trained = tiny.teacher.model_copy(update={"train": settings(tiny, epochs=6)})
    run(data=data, out=folder, teacher=trained, metric="accuracy", seed=0, report=report)  # type: ignore[arg-type]
    network = models.load(folder)[1]
    torch.save({"net": network.body.state_dict()}, folder.parent / "w.pt")
    return folder


def settings(tiny: Params, **changes: Any) -> Any:
    return tiny.teacher.train.model_copy(update={"lr": 0.1, "warmup_epochs": 0.0, **changes})  # type: ignore[union-attr]


def adapt(tiny: Params, use: str, epochs: int = 2, lr: float = 0.05) -> dict[str, Any]:
    train = settings(tiny, epochs=epochs, lr=lr, ema_decay=0.0)
    return {"use": use, "augment": {"use": "none"}, "train": train.model_dump()}


def weights(made: Path, data: Path, **changes: Any) -> dict[str, Any]:
    spec, _ = checkpoint.read(made)
    return {
        "use": "weights", "file": str(made.parent / "w.pt"), "sha256": None, "key": "net", "prefix": "",
        "match": "names", "model": spec.model.model_dump(),
        "input": {"mean": list(spec.mean), "std": list(spec.std), "units": "raw", "size": None},
        "adapt": {"use": "none"}, **changes,
    }  # fmt: skip


def teach(tiny: Params, data: Path, out: Path, report: Remembering, section: dict[str, Any]) -> dict[str, Any]:
    teacher = Params.model_validate({**tiny.model_dump(), "teacher": section}).teacher
    return run(data=data, out=out, teacher=teacher, metric="accuracy", seed=0, report=report)  # type: ignore[arg-type]


def test_weights_taken_as_they_are_answer_as_they_did(
    tmp_path: Path, made: Path, data: Path, tiny: Params, report: Remembering
) -> None:
    figures = teach(tiny, data, tmp_path / "t", report, weights(made, data))
    x, y = splits.read(data, "test")
    before, after = (models.load(folder)[1] for folder in (made, tmp_path / "t"))
    assert np.array_equal(predict(before, x), predict(after, x))
    assert figures["test"] == (predict(after, x).argmax(1) == y).mean()
    assert figures["adapt"] == "none"
    assert [row["arm"] for row in report.rows] == ["teacher"]
    assert any("DVC does not watch" in warning and "Pin it, teacher.sha256: " in warning for warning in report.warnings)


def test_a_file_that_is_pinned_or_lies_where_dvc_looks_needs_no_warning(
    tmp_path: Path, made: Path, data: Path, tiny: Params, report: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "custom" / "teachers").mkdir(parents=True)
    shutil.copy(made.parent / "w.pt", tmp_path / "custom" / "teachers")
    teach(tiny, data, tmp_path / "t", report, weights(made, data, sha256=sha256(made.parent / "w.pt")))
    teach(tiny, data, tmp_path / "u", report, weights(made, data, file="custom/teachers/w.pt"))
    assert not report.warnings


def test_a_wrong_normalization_is_suspected(
    tmp_path: Path, made: Path, data: Path, tiny: Params, report: Remembering
) -> None:
    wrong = {"mean": [5000.0], "std": [1.0], "units": "raw", "size": None}
    teach(tiny, data, tmp_path / "t", report, weights(made, data, input=wrong))
    assert any("guessing among 10 classes" in warning and "mean, std, units" in warning for warning in report.warnings)


def test_a_teacher_that_has_seen_the_validation_images_is_suspected(
    tmp_path: Path, made: Path, data: Path, tiny: Params, report: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    quality = {"validation": 1.0, "test": 0.9}
    monkeypatch.setattr("limbeck.teachers.making.Making.quality", lambda self, network, split: quality[split])
    teach(tiny, data, tmp_path / "t", report, weights(made, data))
    assert any("has probably been trained on samples that are in validation" in warning for warning in report.warnings)


def test_a_head_is_trained_on_features_that_stay_to_the_bit(
    tmp_path: Path, made: Path, data: Path, tiny: Params, report: Remembering
) -> None:
    figures = teach(tiny, data, tmp_path / "t", report, weights(made, data, adapt=adapt(tiny, "head")))
    before, after = (models.load(folder)[1].state_dict() for folder in (made, tmp_path / "t"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"body.head.weight", "body.head.bias"}, "norms keep their statistics too"
    assert figures["validation"] > 0.5


def test_fine_tuning_moves_every_weight(
    tmp_path: Path, made: Path, data: Path, tiny: Params, report: Remembering
) -> None:
    teach(tiny, data, tmp_path / "t", report, weights(made, data, adapt=adapt(tiny, "all")))
    before, after = (dict(models.load(folder)[1].named_parameters()) for folder in (made, tmp_path / "t"))
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_is_taken_fine_tuned_and_evaluated_in_its_turn(
    tmp_path: Path, made: Path, data: Path, tiny: Params, report: Remembering
) -> None:
    section = {
        "use": "checkpoint", "folder": str(made), "sha256": checkpoint.digest_of(made), "trust": [],
        "adapt": {"use": "none"},
    }  # fmt: skip
    teach(tiny, data, tmp_path / "t", report, section)
    assert checkpoint.digest_of(tmp_path / "t") == checkpoint.digest_of(made), (
        "taken as it is, it is the same checkpoint"
    )
    assert not report.warnings
    with pytest.raises(CheckpointError, match="sha256"):
        teach(tiny, data, tmp_path / "u", report, {**section, "sha256": "0" * 64})


def test_several_teachers_are_one_checkpoint_each_member_with_a_seed_of_its_own(
    tmp_path: Path, made: Path, data: Path, tiny: Params, report: Remembering
) -> None:
    trained = tiny.teacher.model_copy(update={"train": settings(tiny, epochs=2)}).model_dump()
    members = [weights(made, data), trained, trained]
    section = {"use": "ensemble", "members": members, "weights": [2, 1, 1]}
    figures = teach(tiny, data, tmp_path / "t", report, section)
    spec, network = models.load(tmp_path / "t")
    assert spec.model.use == "ensemble"
    x, _ = splits.read(data, "validation")
    parts = list(network.body.get_submodule("members").children())
    one, two, three = (torch.from_numpy(predict(part, x)).double().softmax(1) for part in parts)
    assert not torch.equal(two, three), "other seeds, other networks"
    together = torch.from_numpy(predict(network, x)).double().exp()
    assert torch.allclose(together, (2 * one + two + three) / 4, atol=1e-5)
    assert {"member1", "member2", "member3", "validation", "test"} <= set(figures)
    assert figures["parameters"] == sum(models.num_params(part) for part in parts)  # type: ignore[arg-type]


def test_an_imported_architecture_is_named_with_its_package(
    tmp_path: Path, data: Path, tiny: Params, report: Remembering
) -> None:
    section = tiny.teacher.model_dump() | {
        "model": {"use": "tests.models.foreign:backbone", "in_chans": 1},
        "train": settings(tiny, epochs=1).model_dump(),
    }
    assert teach(tiny, data, tmp_path / "t", report, section)["package"] == "tests"
    assert models.load(tmp_path / "t")[0].model.use == "tests.models.foreign:backbone"


def test_an_imported_architecture_that_cannot_take_the_samples_is_named_before_it_trains(
    tmp_path: Path, data: Path, tiny: Params, report: Remembering
) -> None:
    section = tiny.teacher.model_dump() | {"model": {"use": "tests.models.foreign:backbone"}}
    with pytest.raises(ComponentError, match=r"cannot take a sample of \(1, 8, 8\) .*timm: in_chans"):
        teach(tiny, data, tmp_path / "t", report, section)
    assert not report.steps


def test_a_teacher_of_other_data_normalizes_as_it_did_there(
    tmp_path: Path, made: Path, tiny: Params, report: Remembering
) -> None:
    images = np.stack(list(digits().train.samples()))
    part = in_memory(images // 2 + 100, digits().train.labels)
    brighter = Source("bright", digits().classes, part)
    bright = splits.write(tmp_path / "bright", brighter, tiny.data.split, 0, max_overlap=1)
    theirs: Spec = checkpoint.read(made)[0]
    teach(tiny, tmp_path / "bright", tmp_path / "t", report, weights(made, tmp_path / "bright"))
    assert models.load(tmp_path / "t")[0].mean == theirs.mean != bright.mean
