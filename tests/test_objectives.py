import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from limbeck.components import Component, bind
from limbeck.errors import ComponentError
from limbeck.objectives import LOSSES, Batch, cross_entropy, kd

LABELS = torch.tensor([0, 2])
STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, 3.0]])


def batch(teacher: torch.Tensor | None = TEACHER) -> Batch:
    return Batch(torch.zeros(2, 1), LABELS, teacher)


def by_hand(student: list[float], teacher: list[float], label: int, alpha: float, temperature: float) -> float:
    def soft(logits: list[float], t: float) -> list[float]:
        total = sum(math.exp(value / t) for value in logits)
        return [math.exp(value / t) / total for value in logits]

    p, q = soft(teacher, temperature), soft(student, temperature)
    kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return alpha * temperature**2 * kl - (1 - alpha) * math.log(soft(student, 1)[label])


@given(alpha=st.floats(0, 1), temperature=st.floats(0.5, 10))
def test_kd_is_hintons_formula(alpha: float, temperature: float) -> None:
    expected = sum(
        by_hand(s, t, y, alpha, temperature)
        for s, t, y in zip(STUDENT.tolist(), TEACHER.tolist(), LABELS.tolist(), strict=True)
    )
    assert kd(STUDENT, batch(), alpha=alpha, temperature=temperature).item() == pytest.approx(expected / 2, rel=1e-4)


@given(temperature=st.floats(0.5, 10))
def test_a_student_that_answers_like_its_teacher_has_no_soft_loss(temperature: float) -> None:
    assert kd(TEACHER, batch(), alpha=1.0, temperature=temperature).item() == pytest.approx(0, abs=1e-5)


def test_alpha_zero_is_cross_entropy() -> None:
    assert torch.equal(kd(STUDENT, batch(), alpha=0.0, temperature=4.0), cross_entropy(STUDENT, batch(None)))


@given(share=st.floats(0, 1), alpha=st.floats(0, 1))
def test_a_mixtures_loss_is_that_of_both_labels_by_their_shares(share: float, alpha: float) -> None:
    partners = torch.tensor([1, 2])
    one_hot = functional.one_hot
    mixed = share * one_hot(LABELS, 3) + (1 - share) * one_hot(partners, 3)
    for loss in (cross_entropy, partial(cross_entropy, label_smoothing=0.1), partial(kd, alpha=alpha, temperature=4.0)):
        own, others, both = (loss(STUDENT, Batch(torch.zeros(2, 1), y, TEACHER)) for y in (LABELS, partners, mixed))
        assert both.item() == pytest.approx((share * own + (1 - share) * others).item(), rel=1e-5)


def test_the_soft_gradient_keeps_its_size_when_the_temperature_grows() -> None:
    sizes = []
    for temperature in (10.0, 100.0):
        student = STUDENT.clone().requires_grad_()
        kd(student, batch(), alpha=1.0, temperature=temperature).backward()
        assert student.grad is not None
        sizes.append(student.grad.norm().item())
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


@pytest.mark.parametrize(("alpha", "temperature"), [(1.5, 4.0), (-0.1, 4.0), (0.5, 0.0)])
def test_settings_outside_their_range_are_refused(alpha: float, temperature: float) -> None:
    with pytest.raises(ComponentError, match="loss 'kd': (alpha|temperature) is .*; Input should be"):
        bind(Component(use="kd", alpha=alpha, temperature=temperature), LOSSES, "loss")
