"""Old samples and new ones are taught by a loss each, and every sample counts once."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.objectives import Batch, loss_of

KD = {"use": "kd", "alpha": 0.9, "temperature": 4.0}
LABELS = {"use": "cross_entropy"}


def value(component: dict[str, Any], batch: Batch, logits_BK: torch.Tensor) -> float:
    return loss_of(Component.model_validate(component))(logits_BK, batch).item()


def drawn(origins: list[int], seed: int = 0) -> tuple[torch.Tensor, Batch]:
    generator = torch.Generator().manual_seed(seed)
    num = len(origins)
    student, teacher = torch.randn(num, 4, generator=generator), torch.randn(num, 4, generator=generator)
    labels = torch.randint(0, 4, (num,), generator=generator)
    return student, Batch(torch.zeros(num, 1), labels, teacher, origins_B=torch.tensor(origins, dtype=torch.int16))


@given(
    origins=st.lists(st.integers(-2, 3), min_size=1, max_size=12), seed=st.integers(0, 99), weight=st.floats(0.1, 10)
)
def test_each_sample_is_taught_by_the_loss_of_its_origin(origins: list[int], seed: int, weight: float) -> None:
    student, batch = drawn(origins, seed)
    alone = [
        weight * value(LABELS, batch.rows(row), student[row]) if origin else value(KD, batch.rows(row), student[row])
        for origin, row in zip(origins, torch.eye(len(origins), dtype=torch.bool), strict=True)
    ]
    found = value({"use": "by_origin", "old": KD, "new": LABELS, "weight": weight}, batch, student)
    assert found == pytest.approx(sum(alone) / len(alone), rel=1e-5, abs=1e-6)


@given(seed=st.integers(0, 99))
def test_one_loss_for_both_is_that_loss(seed: int) -> None:
    student, batch = drawn([0, 2, 1, 0, 0], seed)
    both = {"use": "by_origin", "old": KD, "new": KD}
    assert value(both, batch, student) == pytest.approx(value(KD, batch, student), rel=1e-5)


@pytest.mark.parametrize("num_new", [1, 2])
def test_a_batch_with_hardly_a_new_sample_has_a_finite_gradient_whatever_is_compared(num_new: int) -> None:
    student, batch = drawn([0, 0, 0] + [1] * num_new)
    student.requires_grad_(True)
    dist = {"use": "dist", "inter": 2.0, "intra": 2.0, "temperature": 4.0}
    loss = loss_of(
        Component.model_validate({"use": "by_origin", "old": dist, "new": {"use": "corrected", "loss": dist}})
    )
    loss(student, batch).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert (student.grad != 0).any(1).all()


def test_without_windows_all_samples_are_old() -> None:
    student, batch = drawn([0, 0])
    plain = Batch(batch.inputs, batch.labels, batch.teacher_BK)
    assert value({"use": "by_origin", "old": KD, "new": LABELS}, plain, student) == value(KD, plain, student)


def test_a_part_may_move_with_the_training_and_be_corrected() -> None:
    student, batch = drawn([0, 1, 1])
    rising = {"use": "kd", "alpha": {"schedule": "linear", "from": 0.0, "to": 0.9}, "temperature": 4.0}
    moving = {"use": "by_origin", "old": rising, "new": {"use": "corrected", "loss": rising}}
    still = {"use": "by_origin", "old": {**KD, "alpha": 0.0}, "new": LABELS}
    assert value(moving, batch, student) == pytest.approx(value(still, batch, student), rel=1e-5)


@pytest.mark.parametrize(
    "part",
    [
        {"use": "momentum", "of": "student", "decay": 0.9, "alpha": 0.5, "temperature": 2.0},
        {"use": "sum", "parts": [KD, {"use": "hint", "gamma": 1.0, "hard": 0}], "weights": None},
    ],
)
def test_losses_with_networks_of_their_own_see_whole_batches(part: dict[str, Any]) -> None:
    with pytest.raises(ComponentError, match=f"loss 'by_origin': {part['use']} owns networks"):
        loss_of(Component.model_validate({"use": "by_origin", "old": part, "new": KD}))
