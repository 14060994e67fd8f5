import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limbeck import models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.data.augment import Views, affine
from limbeck.data.augment.mixing import mixup
from limbeck.data.splits import read, read_meta
from limbeck.errors import TrainingDiverged
from limbeck.models import parallel
from limbeck.models.averaged import Averaged
from limbeck.models.parallel import num_parts
from limbeck.objectives import Batch, cross_entropy, learned_of, objective_of, on_logits
from limbeck.params import DistillParams, TrainParams
from limbeck.prediction import NetworkScorer
from limbeck.training import Fitted, TrainingData, fit, learning_rate
from tests.conftest import Killed, KilledAt, Remembering

OBJECTIVE = on_logits(cross_entropy)


@dataclass(frozen=True)
class Judged(TrainingData):
    """With the figure that decides about it."""

    quality: Callable[[nn.Module], float] = lambda _: 0.0


@pytest.fixture
def training(data: Path) -> Judged:
    x, y = read(data, "train")
    views = Views(x, affine(degrees=10, scale=0.1, shift=1.0), seed=0)
    return Judged(views, np.asarray(y), None, quality=NetworkScorer("accuracy", data).quality)


def network(data: Path, small: Component, seed: int = 0) -> models.Network:
    meta = read_meta(data)
    torch.manual_seed(seed)
    return models.build(
        Spec(model=small, shape=meta.shape, dtype=meta.dtype, classes=meta.classes, mean=meta.mean, std=meta.std)
    )


def train(model: nn.Module, training: Judged, settings: TrainParams, report: Remembering) -> Fitted:
    return fit(model, OBJECTIVE, training, settings, quality=training.quality, seed=0, report=report, arm="arm")


@pytest.mark.parametrize(
    ("kill_at", "changed"),
    [
        (5, {}), (12, {}), (13, {}), (20, {}), (12, {"optimizer": Component(use="muon")}), (12, {"threads": 2}),
        (12, {"threads": 3}), (12, {"threads": 2, "compile": "always"}),
    ],
)  # fmt: skip
def test_a_killed_training_resumes_and_ends_in_the_same_bytes(
    tmp_path: Path, data: Path, small: Component, training: Judged, settings: TrainParams, kill_at: int,
    changed: dict[str, Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = settings.model_copy(update=changed)
    monkeypatch.setattr(parallel, "LEAST_SAMPLES", 16)
    monkeypatch.setattr(parallel, "LEAST_MACS", 0)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    inputs = next(training.batches(0, 64, 0)).inputs
    part = inputs[: len(inputs) // settings.threads]
    assert num_parts(network(data, small), part, settings.threads) == settings.threads
    monkeypatch.setattr("limbeck.training.CHECKPOINT_EVERY_S", 0.0)  # keep the state at every step
    straight = network(data, small)
    whole_report = Remembering(tmp_path / "straight")
    whole = train(straight, training, settings, whole_report)

    with pytest.raises(Killed):
        train(network(data, small), training, settings, KilledAt(tmp_path / "killed", kill_at))
    resumed = network(data, small)
    report = Remembering(tmp_path / "killed")
    again = train(resumed, training, settings, report)

    assert report.steps[0] >= kill_at - 1, "it went on from the state, not from the start"
    assert again == whole
    assert report.rows == whole_report.rows
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_state_that_began_with_other_weights_is_put_away_and_the_training_begins_anew(
    tmp_path: Path, data: Path, small: Component, training: Judged, settings: TrainParams,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("limbeck.training.CHECKPOINT_EVERY_S", 0.0)
    with pytest.raises(Killed):
        train(network(data, small), training, settings, KilledAt(tmp_path / "killed", 20))
    assert list((tmp_path / "killed").glob("*.pt"))
    report = Remembering(tmp_path / "killed")
    again = train(network(data, small, seed=1), training, settings, report)
    assert "began with other weights" in caplog.text
    assert report.steps[0] == 1
    assert again == train(network(data, small, seed=1), training, settings, Remembering(tmp_path / "straight"))


def test_a_damaged_state_is_put_away_and_the_training_begins_anew(
    data: Path, small: Component, training: Judged, settings: TrainParams, report: Remembering,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    (report.scratch / "arm.pt").write_bytes(b"half of a state")
    history = train(network(data, small), training, settings, report).history
    assert "arm.pt is damaged" in caplog.text
    assert [row["train"] for row in history] == pytest.approx(GOLDEN, rel=1e-3)


def test_training_learns_and_keeps_the_weights_that_were_best_on_validation(
    data: Path, small: Component, training: Judged, settings: TrainParams, report: Remembering
) -> None:
    model = network(data, small)
    fitted = train(model, training, settings.model_copy(update={"epochs": 6}), report)
    qualities = [row["validation"] for row in fitted.history]
    assert fitted.best == max(qualities) > 0.5
    assert training.quality(model) == fitted.best


def test_the_first_losses_are_the_golden_ones(
    data: Path, small: Component, training: Judged, settings: TrainParams, report: Remembering
) -> None:
    history = train(network(data, small), training, settings, report).history
    assert [row["train"] for row in history] == pytest.approx(GOLDEN, rel=1e-3)


GOLDEN = [2.24600, 1.92208]
"""Two epochs of the loop on digits, fp32, one thread; other processors differ in the last digits only."""


def test_a_loss_that_is_not_finite_stops_at_once_and_names_the_step(
    data: Path, small: Component, training: Judged, settings: TrainParams, report: Remembering
) -> None:
    steps = 0

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        nonlocal steps
        steps += 1
        return OBJECTIVE(model, batch) * (float("nan") if steps == 3 else 1.0)

    with pytest.raises(TrainingDiverged, match=r"the loss is nan at step 3 of 24 \(epoch 1\).*Lower train.lr"):
        fit(
            network(data, small),
            objective,
            training,
            settings,
            quality=training.quality,
            seed=0,
            report=report,
            arm="arm",
        )
    assert steps == 3


def test_a_student_meets_the_soft_labels_of_the_view_it_trains_on(training: Judged) -> None:
    num, views = len(training.views), 3
    answers = np.zeros((views, num, 2), np.float16)
    answers[..., 0] = np.arange(views)[:, None]
    taught = TrainingData(training.views, training.labels_N, answers)
    for epoch in (0, 2, 4):
        batch = next(taught.batches(epoch, 16, seed=0))
        assert batch.teacher_BK is not None
        assert set(batch.teacher_BK[:, 0].tolist()) == {epoch % views}
        order = np.random.default_rng([0, epoch]).permutation(num)[:16]
        assert torch.equal(batch.inputs, training.views.get(epoch % views, torch.from_numpy(order)))


def test_a_loss_is_told_which_samples_are_new(training: Judged) -> None:
    origins = (np.arange(len(training.views)) % 3).astype(np.int16)
    batch = next(replace(training, origins_N=origins).batches(1, 16, seed=0))
    assert batch.origins_B is not None
    assert (
        batch.origins_B.tolist() == (np.random.default_rng([0, 1]).permutation(len(training.views))[:16] % 3).tolist()
    )
    assert next(training.batches(1, 16, seed=0)).origins_B is None


@pytest.fixture
def mixed(training: Judged) -> Judged:
    views = Views(training.views.samples, mixup(alpha=1.0, probability=0.7), seed=0)
    return replace(training, views=views, num_classes=10)


def test_the_hard_label_of_a_mixture_is_both_samples_labels_by_their_shares(mixed: Judged) -> None:
    for epoch in (0, 3):
        order = np.random.default_rng([0, epoch]).permutation(len(mixed.views))[:16]
        inputs, blend = mixed.views.blended(epoch, torch.from_numpy(order))
        assert blend is not None
        batch = next(mixed.batches(epoch, 16, seed=0))
        assert torch.equal(batch.inputs, inputs)
        assert torch.equal(batch.labels.sum(1), torch.ones(16))
        for row, own, partner, share in zip(batch.labels, order, *blend, strict=True):
            expected = torch.zeros(10)
            expected[int(mixed.labels_N[own])] += share
            expected[int(mixed.labels_N[int(partner)])] += 1 - share
            assert torch.allclose(row, expected)


def test_training_on_mixtures_learns_and_a_killed_one_ends_in_the_same_bytes(
    tmp_path: Path, data: Path, small: Component, mixed: Judged, settings: TrainParams,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = settings.model_copy(update={"epochs": 6})
    straight = network(data, small)
    whole = train(straight, mixed, settings, Remembering(tmp_path / "straight"))
    assert whole.best > 0.5
    monkeypatch.setattr("limbeck.training.CHECKPOINT_EVERY_S", 0.0)
    resumed = network(data, small)
    with pytest.raises(Killed):
        train(resumed, mixed, settings, KilledAt(tmp_path / "killed", 15))
    resumed = network(data, small)
    assert train(resumed, mixed, settings, Remembering(tmp_path / "killed")) == whole
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


ONE_OF_EACH: dict[str, dict[str, Any]] = {
    "hint": {"use": "hint", "gamma": 1.0},
    "sum": {
        "use": "sum",
        "parts": [
            {"use": "hint", "gamma": {"schedule": "cosine", "from": 1.0, "to": 0.0}},
            {"use": "kd", "alpha": 0.5, "temperature": 2},
        ],
        "weights": [{"schedule": "linear", "from": 1.0, "to": 0.0}, 1.0],
    },
    "mutual": {
        "use": "mutual", "own": {"use": "hint", "gamma": 1.0}, "weight": {"schedule": "linear", "from": 0.0, "to": 1.0},
        "temperature": 1.0, "keep": "better",
    },
    "momentum of the student": {
        "use": "momentum", "of": "student", "decay": 0.9, "alpha": {"schedule": "linear", "from": 0.0, "to": 0.5, "until": 0.3},
        "temperature": 2.0,
    },
    "momentum of the teacher": {"use": "momentum", "of": "teacher", "decay": 0.9, "alpha": 0.5, "temperature": 2.0},
    "attention": {"use": "attention", "beta": 100.0},
}  # fmt: skip
"""Objectives whose losses own networks or move with the training."""


def test_the_better_of_two_students_on_validation_is_kept(
    tmp_path: Path, data: Path, small: Component, training: Judged, settings: TrainParams
) -> None:
    mutual = {"use": "mutual", "weight": 1.0, "temperature": 1.0}
    reports = {keep: Remembering(tmp_path / keep) for keep in ("better", "student", "peer")}
    best = {
        keep: train_with({**mutual, "keep": keep}, data, small, training, settings, report)[0].best
        for keep, report in reports.items()
    }
    by_name = {name: [row[f"validation_{name}"] for row in reports["better"].rows] for name in ("student", "peer")}
    assert best["student"] == max(by_name["student"])
    assert best["peer"] == max(by_name["peer"])
    assert best["better"] == max(best["student"], best["peer"])
    assert "validation_peer" not in reports["peer"].rows[-1], "where one is named there is nothing to compare"


@pytest.fixture
def taught(training: Judged) -> Judged:
    """With the answers and features of a teacher that guesses."""
    generator, num = np.random.default_rng(0), len(training.views)
    logits, features = (generator.normal(size=(2, num, width)).astype(np.float16) for width in (10, 6))
    return replace(training, teacher_VNK=logits, features_VND=features)


@pytest.mark.parametrize("distill", ONE_OF_EACH.values(), ids=ONE_OF_EACH)
def test_a_killed_training_resumes_with_the_networks_that_its_loss_owns(
    tmp_path: Path, data: Path, small: Component, taught: Judged, settings: TrainParams, distill: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("limbeck.training.CHECKPOINT_EVERY_S", 0.0)

    def trained(report: Remembering) -> Trained:
        return train_with(distill, data, small, taught, settings, report)

    whole = trained(Remembering(tmp_path / "straight"))
    with pytest.raises(Killed):
        trained(KilledAt(tmp_path / "killed", 15))
    report = Remembering(tmp_path / "killed")
    again = trained(report)
    assert report.steps[0] >= 14, "it went on from the state, not from the start"
    assert_same(again, whole)


def test_what_tries_a_compiler_teaches_the_networks_of_a_loss_nothing(
    tmp_path: Path, data: Path, small: Component, taught: Judged, settings: TrainParams,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    distill = ONE_OF_EACH["mutual"] | {"own": None}
    taught = replace(taught, features_VND=None)
    whole = train_with(distill, data, small, taught, settings, Remembering(tmp_path / "eager"))
    tries = []

    def compiled(model: nn.Module, run: Callable[[nn.Module], object]) -> nn.Module:
        tries.append(run(copy.deepcopy(model)))
        return model

    monkeypatch.setattr("limbeck.training.compiled", compiled)
    always = settings.model_copy(update={"compile": "always"})
    assert_same(train_with(distill, data, small, taught, always, Remembering(tmp_path / "compiled")), whole)
    assert len(tries) == 1


Trained: TypeAlias = tuple[Fitted, dict[str, Any], dict[str, Any]]
"""How it went, the student's state, and that of the networks its loss owns."""


def train_with(
    distill: dict[str, Any],
    data: Path,
    small: Component,
    taught: Judged,
    settings: TrainParams,
    report: Remembering,
) -> Trained:
    model = network(data, small)
    objective = objective_of(
        DistillParams.model_validate(distill | {"control": False}),
        teacher=lambda: network(data, small), student=lambda: network(data, small, seed=1),
    )  # fmt: skip
    fitted = fit(model, objective, taught, settings, quality=taught.quality, seed=0, report=report, arm="arm")
    return fitted, model.state_dict(), learned_of(objective).state_dict()


def assert_same(one: Trained, other: Trained) -> None:
    assert one[0] == other[0]
    for before, after in zip(one[1:], other[1:], strict=True):
        assert before.keys() == after.keys()
        for name, value in before.items():
            assert torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name], name


def test_a_projector_is_trained_and_no_part_of_the_student(
    data: Path, small: Component, taught: Judged, settings: TrainParams, report: Remembering
) -> None:
    model = network(data, small)
    names = set(model.state_dict())
    objective = objective_of(DistillParams(use="hint", control=False, gamma=1.0))
    seen: list[Tensor] = []
    learned = learned_of(objective)
    learned.register_forward_hook(lambda *_: seen.append(learned.projector.weight.detach().clone()))  # type: ignore[union-attr]
    fit(model, objective, taught, settings, quality=taught.quality, seed=0, report=report, arm="arm")
    assert all(not torch.equal(before, after) for before, after in pairwise(seen))
    assert set(model.state_dict()) == names


def test_the_loss_is_told_how_much_of_the_training_is_done(
    data: Path, small: Component, training: Judged, settings: TrainParams, report: Remembering
) -> None:
    seen: list[float] = []

    def loss(logits_BK: Tensor, batch: Batch) -> Tensor:
        seen.append(batch.progress)
        return cross_entropy(logits_BK, batch)

    fit(
        network(data, small),
        on_logits(loss),
        training,
        settings,
        quality=training.quality,
        seed=0,
        report=report,
        arm="arm",
    )
    assert seen == pytest.approx([step / 23 for step in range(24)])


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    rates = [learning_rate(step, 100, 10, 0.5) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[10] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_averaging_takes_weights_and_norm_buffers_alike() -> None:
    model = nn.BatchNorm1d(2)
    averaged = Averaged(model, 0.5)
    averaged.num_updates = 1000
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(2.0)  # type: ignore[union-attr]
        model.num_batches_tracked.fill_(7)  # type: ignore[union-attr]
    averaged.update(model)
    state = averaged.model.state_dict()
    assert state["weight"].tolist() == [2.0, 2.0]
    assert state["running_mean"].tolist() == [1.0, 1.0]
    assert state["num_batches_tracked"].item() == 7
