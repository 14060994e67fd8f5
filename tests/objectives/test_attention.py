import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.objectives import Attention, Batch, loss_of, on_logits, supplies_of


def net(seed: int, width: int, stride: int = 2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Identity(), nn.Conv2d(1, width, 3, stride, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, stride, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3),
    )  # fmt: skip


def images() -> Batch:
    pixels = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Batch(pixels, torch.tensor([0, 1, 2, 0, 1]), None)


@pytest.fixture
def batch() -> Batch:
    return images()


def attention(teacher: nn.Module | None, **settings: float) -> Attention:
    supplies = supplies_of(teacher=None if teacher is None else lambda: teacher)
    made = loss_of(Component.model_validate({"use": "attention", "beta": 100.0} | settings), supplies)
    assert isinstance(made, Attention)
    return made


def test_maps_are_the_last_activation_of_each_size(batch: Batch) -> None:
    student, teacher = net(0, 4), net(1, 6)
    loss = attention(teacher, hard=0.0)
    loss.begin(student, batch)
    assert loss.sizes == [(4, 4), (2, 2)], "the pixels themselves are no map"
    expected = 0.0
    for last in (3, 5):  # the modules up to each ReLU
        each = []
        for network in (student, teacher):
            squares = (network[:last](batch.inputs).detach().numpy() ** 2).mean(1).reshape(5, -1)
            each.append(squares / np.linalg.norm(squares, axis=1, keepdims=True))
        expected += ((each[0] - each[1]) ** 2).mean()
    assert on_logits(loss)(student, batch).item() == pytest.approx(100 * expected, rel=1e-4)


def test_a_student_that_looks_where_its_teacher_looks_has_nothing_to_learn_from_it(batch: Batch) -> None:
    loss = attention(net(0, 4))
    loss.begin(net(0, 4), batch)
    student = net(0, 4)
    expected = functional.cross_entropy(student(batch.inputs), batch.labels).item()
    assert on_logits(loss)(student, batch).item() == pytest.approx(expected, rel=1e-5)


@given(st.floats(0.1, 10))
def test_how_strongly_a_teacher_looks_does_not_matter(scale: float) -> None:
    teacher, student, batch = net(0, 4), net(0, 4), images()
    with torch.no_grad():
        for weight in teacher[3].parameters():  # a ReLU follows: its map has this scale
            weight.mul_(scale)
    loss = attention(teacher, hard=0.0)
    loss.begin(student, batch)
    assert on_logits(loss)(student, batch).item() == pytest.approx(0, abs=1e-9)


def test_the_teacher_is_not_trained(batch: Batch) -> None:
    teacher = net(1, 6)
    loss = attention(teacher)
    loss.begin(net(0, 4), batch)
    assert loss.watches
    assert not list(loss.learners())
    assert not loss.train().teacher[0].training
    assert not loss.state_dict(), "a killed training loads it again"


def test_networks_without_a_size_in_common_are_refused_at_the_start(batch: Batch) -> None:
    loss = attention(net(1, 6, stride=3))
    with pytest.raises(
        ComponentError, match=r"no map of the student \(4x4, 2x2\) has the size of one of the teacher's"
    ):
        loss.begin(net(0, 4), batch)


def test_without_a_teacher_at_hand_the_labels_teach(batch: Batch, caplog: pytest.LogCaptureFixture) -> None:
    student, loss = net(0, 4), attention(None)
    loss.begin(student, batch)
    assert not loss.watches
    expected = functional.cross_entropy(student(batch.inputs), batch.labels)
    assert torch.equal(on_logits(loss)(student, batch), expected)
    assert "attention: there are no two networks to compare here; the labels teach" in caplog.text
