import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from limbeck.components import Component, bind
from limbeck.errors import ComponentError
from limbeck.objectives import LOSSES, Batch, cross_entropy, kd, on_head, on_logits, similarity

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


FEATURES = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


def of_features(teacher: torch.Tensor, student: torch.Tensor | None) -> Batch:
    return Batch(torch.zeros(6, 1), torch.tensor([0, 1, 2, 0, 1, 2]), None, teacher, student)


def test_similarity_is_the_mean_square_between_matrices_of_normalized_rows() -> None:
    other = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    logits = torch.zeros(6, 3)
    expected = 0.0
    for i in range(6):
        rows = []
        for features in (FEATURES, other):
            row = [float(features[i] @ features[j]) for j in range(6)]
            length = math.sqrt(sum(value**2 for value in row))
            rows.append([value / length for value in row])
        expected += sum((a - b) ** 2 for a, b in zip(*rows, strict=True)) / 36
    found = similarity(logits, of_features(FEATURES, other), gamma=7.0).item()
    assert found == pytest.approx(math.log(3) + 7 * expected, rel=1e-4)


@given(angle=st.floats(0, 6), scale=st.floats(0.1, 10))
def test_features_that_are_turned_or_scaled_as_a_whole_are_similar(angle: float, scale: float) -> None:
    turned = FEATURES.clone()
    cos, sin = math.cos(angle), math.sin(angle)
    turned[:, 0], turned[:, 1] = (
        cos * FEATURES[:, 0] - sin * FEATURES[:, 1],
        sin * FEATURES[:, 0] + cos * FEATURES[:, 1],
    )
    loss = similarity(torch.zeros(6, 3), of_features(FEATURES, scale * turned), gamma=1.0).item()
    assert loss == pytest.approx(math.log(3), abs=1e-4)


def test_similarity_reaches_the_layers_before_the_head_and_spares_a_model_without_layers() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    batch = Batch(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]), None, FEATURES)
    objective = on_logits(lambda logits, seen: similarity(logits, seen, gamma=1.0) - cross_entropy(logits, seen))
    objective(model, batch).backward()
    assert model[0].weight.grad is not None
    assert model[0].weight.grad.abs().sum() > 0
    assert model[2].weight.grad is None or not model[2].weight.grad.any(), "the head hears of it nothing"
    graph = torch.export.export(model, (batch.inputs,)).module()
    assert objective(graph, batch).item() == pytest.approx(0, abs=1e-6)


def test_a_frozen_body_stays_in_evaluation_while_its_head_trains() -> None:
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3), torch.nn.Dropout(0.5)).train()
    seen = []
    on_head(lambda m, _: seen.extend(part.training for part in m.children()) or torch.zeros(()), "1")(
        model, batch(None)
    )
    assert seen == [False, True, False]
