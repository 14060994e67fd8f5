import itertools
import math
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from limbeck.components import Component
from limbeck.objectives import (
    Batch,
    Hint,
    Loss,
    cross_entropy,
    learned_of,
    loss_of,
    objective_of,
    on_logits,
    relational,
    similarity,
)
from limbeck.params import DistillParams

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


def test_similarity_reaches_the_layers_before_the_head() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))
    batch = Batch(torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2]), None, FEATURES)
    objective = on_logits(lambda logits, seen: similarity(logits, seen, gamma=1.0) - cross_entropy(logits, seen))
    objective(model, batch).backward()
    assert model[0].weight.grad is not None
    assert model[0].weight.grad.abs().sum() > 0
    assert model[2].weight.grad is None or not model[2].weight.grad.any(), "the head hears of it nothing"


OTHER = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
RELATIONS: dict[str, Loss] = {
    "similarity": partial(similarity, gamma=1.0, hard=0.0),
    "distances": partial(relational, distance=1.0, angle=0.0, hard=0.0),
    "angles": partial(relational, distance=0.0, angle=1.0, hard=0.0),
}


def soft(name: str, teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    return RELATIONS[name](torch.zeros(6, 3), of_features(teacher, student))


def huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def test_relational_distances_are_those_of_pairs_over_their_mean() -> None:
    pairs = list(itertools.permutations(range(6), 2))
    each = []
    for features in (FEATURES.numpy(), OTHER.numpy()):
        lengths = np.array([np.linalg.norm(features[i] - features[j]) for i, j in pairs])
        each.append(lengths / lengths.mean())
    expected = np.mean([huber(a - b) for a, b in zip(*each, strict=True)])
    assert soft("distances", FEATURES, OTHER).item() == pytest.approx(expected, rel=1e-3)


def test_relational_angles_are_those_at_the_middle_of_triples() -> None:
    triples = list(itertools.permutations(range(6), 3))

    def cosine(features: NDArray[Any], i: int, j: int, k: int) -> float:
        one, two = features[i] - features[j], features[k] - features[j]
        return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))

    ours, theirs = ([cosine(features.numpy(), *triple) for triple in triples] for features in (OTHER, FEATURES))
    expected = np.mean([huber(a - b) for a, b in zip(ours, theirs, strict=True)])
    assert soft("angles", FEATURES, OTHER).item() == pytest.approx(expected, rel=1e-3)


def test_triples_are_taken_within_groups_of_the_batch() -> None:
    groups = [
        relational(
            torch.zeros(3, 3), Batch(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long), None, FEATURES[part], OTHER[part]),
            distance=0.0, angle=1.0, hard=0.0,
        ).item()
        for part in (slice(0, 3), slice(3, 6))
    ]  # fmt: skip
    found = relational(torch.zeros(6, 3), of_features(FEATURES, OTHER), distance=0.0, angle=1.0, hard=0.0, group=3)
    assert found.item() == pytest.approx(sum(groups) / 2, rel=1e-5)
    left_over = relational(torch.zeros(6, 3), of_features(FEATURES, OTHER), distance=0.0, angle=1.0, hard=0.0, group=4)
    four = Batch(torch.zeros(4, 1), torch.zeros(4, dtype=torch.long), None, FEATURES[:4], OTHER[:4])
    expected = relational(torch.zeros(4, 3), four, distance=0.0, angle=1.0, hard=0.0)
    assert left_over.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["distances", "angles"])
@given(angle=st.floats(0, 6), scale=st.floats(0.1, 10), shift=st.floats(-3, 3))
def test_relations_stay_when_features_are_turned_scaled_and_moved_as_a_whole(
    name: str, angle: float, scale: float, shift: float
) -> None:
    turn = torch.eye(5)
    turn[0, 0] = turn[1, 1] = math.cos(angle)
    turn[0, 1], turn[1, 0] = math.sin(angle), -math.sin(angle)
    assert soft(name, FEATURES, scale * FEATURES @ turn + shift).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("name", RELATIONS)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, -2.0, 1e-6, 1e3]), min_size=3, max_size=3), min_size=6, max_size=6))
def test_equal_and_vanishing_features_have_finite_gradients(name: str, rows: list[list[float]]) -> None:
    student = torch.tensor(rows, requires_grad=True)
    loss = soft(name, FEATURES, student)
    loss.backward()
    assert student.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_two_samples_have_a_distance_and_no_angle() -> None:
    two = Batch(torch.zeros(2, 1), torch.tensor([0, 1]), None, FEATURES[:2], OTHER[:2])
    for angle in (0.0, 50.0):
        loss = relational(torch.zeros(2, 3), two, distance=25.0, angle=angle)
        assert loss.item() == pytest.approx(math.log(3), abs=1e-5)


def hint(**settings: float) -> Hint:
    made = loss_of(Component.model_validate({"use": "hint", "gamma": 2.0} | settings))
    assert isinstance(made, Hint)
    return made


def test_hint_is_half_the_mean_square_to_projected_features() -> None:
    torch.manual_seed(0)
    loss = hint()
    loss.begin(
        nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)), Batch(torch.randn(6, 4), torch.zeros(6), None, FEATURES)
    )
    assert loss.projector is not None
    weight, bias = (value.detach().numpy() for value in (loss.projector.weight, loss.projector.bias))
    distance = ((OTHER.numpy() @ weight.T + bias - FEATURES.numpy()) ** 2).mean()
    found = loss(torch.zeros(6, 3), of_features(FEATURES, OTHER)).item()
    assert found == pytest.approx(math.log(3) + 2.0 * distance / 2, rel=1e-4)
    assert [share() for _, share in loss.learners()] == [1.0], "the projector is trained as fast as the student"


class Layerless(nn.Module):
    """What an exported graph is like: weights, but no layers as modules."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(inputs, self.weight, self.bias)


def test_a_graph_without_named_layers_learns_from_the_labels_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Linear(4, 3)
    batch = of_features(FEATURES, None)
    batch = replace(batch, inputs=torch.randn(6, 4))
    graph = Layerless(model)
    parts = [
        {"use": "hint", "gamma": 1},
        {"use": "relational", "distance": 25, "angle": 50},
        {"use": "similarity", "gamma": 1},
    ]
    objective = objective_of(DistillParams(use="sum", parts=parts, control=False))
    learned_of(objective).begin(graph, batch)
    for _ in range(2):
        expected = 3 * cross_entropy(model(batch.inputs), batch)
        assert objective(graph, batch).item() == pytest.approx(expected.item(), rel=1e-5)
    told = [record.message for record in caplog.records if record.name == "limbeck.objectives"]
    assert len(told) == 1
    assert told[0] == "hint: this network is a graph whose features have no name; the labels teach in its place"
