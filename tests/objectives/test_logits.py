import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from limbeck.components import Component, bind
from limbeck.errors import ComponentError
from limbeck.objectives import (
    LOSSES,
    Batch,
    Loss,
    adaptive,
    cross_entropy,
    dist,
    dkd,
    kd,
    standardized,
)

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


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def kl(p: NDArray[Any], q: NDArray[Any]) -> NDArray[Any]:
    return (p * np.log(p / q)).sum(1)


def decoupled(student: NDArray[Any], teacher: NDArray[Any], labels: list[int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """TCKD and NCKD by their definitions: drop the label's class, renormalize the rest."""
    p, q = softmax(teacher), softmax(student)
    rows = np.arange(len(labels))
    binary = [np.stack([x[rows, labels], 1 - x[rows, labels]], 1) for x in (p, q)]
    rest = [
        np.array([np.delete(row, label) / np.delete(row, label).sum() for row, label in zip(x, labels, strict=True)])
        for x in (p, q)
    ]
    return kl(*binary), kl(*rest)


def standard(logits: NDArray[Any]) -> NDArray[Any]:
    return (logits - logits.mean(1, keepdims=True)) / logits.std(1, keepdims=True)


@given(temperature=st.floats(1, 8))
def test_dkd_is_the_label_against_the_rest_and_the_rest_among_itself(temperature: float) -> None:
    target, others = decoupled(STUDENT.numpy() / temperature, TEACHER.numpy() / temperature, [0, 2])
    settings = {"temperature": temperature, "hard": 0.0}
    for alpha, beta in ((1.0, 0.0), (0.0, 1.0), (0.5, 8.0)):
        expected = temperature**2 * (alpha * target + beta * others).mean()
        assert dkd(STUDENT, batch(), alpha=alpha, beta=beta, **settings).item() == pytest.approx(expected, rel=1e-3)


def test_kd_is_dkd_whose_second_part_counts_by_what_the_teacher_leaves_to_the_rest() -> None:
    """Zhao et al. 2022, eq. 6."""
    for index, label in enumerate(LABELS.tolist()):
        one = Batch(torch.zeros(1, 1), LABELS[index : index + 1], TEACHER[index : index + 1])
        left = 1 - TEACHER[index].softmax(0)[label].item()
        whole = kd(STUDENT[index : index + 1], one, alpha=1.0, temperature=1.0)
        parted = dkd(STUDENT[index : index + 1], one, alpha=1.0, beta=left, temperature=1.0, hard=0.0)
        assert parted.item() == pytest.approx(whole.item(), rel=1e-4)


def test_dist_is_one_minus_pearsons_r_of_rows_and_of_columns() -> None:
    p, q = softmax(TEACHER.numpy() / 2), softmax(STUDENT.numpy() / 2)
    between = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    within = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    found = dist(STUDENT, batch(), inter=0.7, intra=0.3, temperature=2.0, hard=0.0).item()
    assert found == pytest.approx(4 * (0.7 * between + 0.3 * within), rel=1e-4)


def test_standardized_is_kl_of_z_scores() -> None:
    expected = 9 * kl(softmax(standard(TEACHER.numpy()) / 2), softmax(standard(STUDENT.numpy()) / 2)).mean() * 4
    found = standardized(STUDENT, batch(), weight=9.0, temperature=2.0, hard=0.0).item()
    assert found == pytest.approx(expected, rel=1e-4)


def test_adaptive_trusts_a_sure_teacher_more_and_sharpens_where_both_disagree() -> None:
    p, q = softmax(TEACHER.numpy()), softmax(STUDENT.numpy())
    alpha = 0.8 * (1 + (p * np.log(p)).sum(1) / math.log(3)) ** 2
    distance = np.abs(p - q).sum(1) / 2
    expected = 0.0
    for index, label in enumerate(LABELS.tolist()):
        temperature = 4.0 + 3.0 * (distance.mean() - distance[index])
        expected += by_hand(STUDENT[index].tolist(), TEACHER[index].tolist(), label, alpha[index], temperature) / 2
    found = adaptive(STUDENT, batch(), alpha=0.8, temperature=4.0, confidence=2.0, gap=3.0).item()
    assert found == pytest.approx(expected, rel=1e-4)


@given(alpha=st.floats(0, 1), temperature=st.floats(0.5, 10))
def test_adaptive_without_its_adaptations_is_kd(alpha: float, temperature: float) -> None:
    plain = kd(STUDENT, batch(), alpha=alpha, temperature=temperature)
    found = adaptive(STUDENT, batch(), alpha=alpha, temperature=temperature, confidence=0.0, gap=0.0)
    assert found.item() == pytest.approx(plain.item(), rel=1e-5, abs=1e-6)


def test_no_gap_makes_a_temperature_below_one() -> None:
    steady = adaptive(STUDENT, batch(), alpha=1.0, temperature=1.0, confidence=0.0, gap=0.0)
    assert adaptive(STUDENT, batch(), alpha=1.0, temperature=1.0, confidence=0.0, gap=1e9).item() >= 0
    same = adaptive(TEACHER, batch(), alpha=1.0, temperature=1.0, confidence=0.0, gap=1e9)
    assert same.item() == pytest.approx(0, abs=1e-6)
    assert steady.item() > 0


# Soft parts alone: no weight on the labels.
SOFT: dict[str, Loss] = {
    "kd": partial(kd, alpha=1.0, temperature=3.0),
    "dkd": partial(dkd, alpha=1.0, beta=2.0, temperature=3.0, hard=0.0),
    "dist": partial(dist, inter=1.0, intra=1.0, temperature=3.0, hard=0.0),
    "standardized": partial(standardized, weight=1.0, temperature=3.0, hard=0.0),
    "adaptive": partial(adaptive, alpha=1.0, temperature=3.0, confidence=1.0, gap=1.0),
}
FULL: dict[str, Loss] = {
    "kd": partial(kd, alpha=0.5, temperature=3.0),
    "dkd": partial(dkd, alpha=1.0, beta=2.0, temperature=3.0),
    "dist": partial(dist, inter=1.0, intra=1.0, temperature=3.0),
    "standardized": partial(standardized, weight=1.0, temperature=3.0),
}
LOGITS = st.lists(st.lists(st.floats(-30, 30, width=32), min_size=3, max_size=3), min_size=2, max_size=2).map(
    torch.tensor
)


@pytest.mark.parametrize("name", ["kd", "dkd", "dist", "standardized"])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it(name: str) -> None:
    assert SOFT[name](TEACHER, batch()).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", SOFT)
@given(student=LOGITS, teacher=LOGITS)
def test_no_logits_make_a_loss_or_its_gradient_infinite_or_a_loss_negative(
    name: str, student: Tensor, teacher: Tensor
) -> None:
    student = student.clone().requires_grad_()
    loss = SOFT[name](student, batch(teacher))
    loss.backward()
    assert student.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()
    assert loss.item() >= -1e-4


@pytest.mark.parametrize("name", SOFT)
def test_equal_logits_of_every_class_have_finite_gradients(name: str) -> None:
    flat = torch.zeros(2, 3, requires_grad=True)
    SOFT[name](flat, batch()).backward()
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize("name", SOFT)
@given(shift=st.floats(-10, 10))
def test_logits_mean_the_same_when_all_are_shifted(name: str, shift: float) -> None:
    expected = SOFT[name](STUDENT, batch()).item()
    assert SOFT[name](STUDENT + shift, batch(TEACHER - shift)).item() == pytest.approx(expected, rel=1e-3, abs=1e-5)


@given(scale=st.floats(0.1, 20))
def test_standardized_logits_mean_the_same_at_any_scale(scale: float) -> None:
    expected = SOFT["standardized"](STUDENT, batch()).item()
    assert SOFT["standardized"](STUDENT * scale, batch()).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", FULL)
@given(share=st.floats(0, 1))
def test_the_loss_of_a_mixture_is_that_of_both_labels_by_their_shares(name: str, share: float) -> None:
    partners = torch.tensor([1, 2])  # of another class, and of the same
    mixed = share * functional.one_hot(LABELS, 3) + (1 - share) * functional.one_hot(partners, 3)
    own, others, both = (FULL[name](STUDENT, Batch(torch.zeros(2, 1), y, TEACHER)) for y in (LABELS, partners, mixed))
    assert both.item() == pytest.approx((share * own + (1 - share) * others).item(), rel=1e-4)


def test_hard_weighs_the_labels() -> None:
    for name in ("dkd", "dist", "standardized"):
        expected = SOFT[name](STUDENT, batch()) + 0.3 * cross_entropy(STUDENT, batch())
        settings = SOFT[name].keywords | {"hard": 0.3}  # type: ignore[attr-defined]
        assert SOFT[name].func(STUDENT, batch(), **settings).item() == pytest.approx(expected.item(), rel=1e-5)  # type: ignore[attr-defined]
