import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.objectives import Batch, cross_entropy, on_logits, similarity

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
