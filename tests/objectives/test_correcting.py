"""A corrected teacher agrees with the labels and says the rest as it did."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.objectives import Batch, loss_of
from limbeck.objectives.correcting import corrected_logits

KD = {"use": "kd", "alpha": 0.7, "temperature": 3.0}


@given(seed=st.integers(0, 1000))
def test_the_label_comes_first_and_the_values_are_those_that_were_said(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    teacher, labels = torch.randn(16, 5, generator=generator), torch.randint(0, 5, (16,), generator=generator)
    found = corrected_logits(teacher, labels)
    assert torch.equal(found.argmax(1), labels)
    assert torch.equal(found.sort(1).values, teacher.sort(1).values)
    was_right = teacher.argmax(1) == labels
    assert torch.equal(found[was_right], teacher[was_right])
    assert ((found != teacher).sum(1) <= 2).all(), "two change places, the others stay"


def test_of_a_mixture_either_label_is_right_and_otherwise_the_larger_share_comes_first() -> None:
    teacher = torch.tensor([[0.0, 3.0, 1.0, 2.0], [0.0, 1.0, 3.0, 2.0]])
    shares = torch.tensor([[0.7, 0.3, 0.0, 0.0], [0.7, 0.3, 0.0, 0.0]])
    assert corrected_logits(teacher, shares).tolist() == [[0.0, 3.0, 1.0, 2.0], [3.0, 1.0, 0.0, 2.0]]


def test_the_loss_is_that_of_the_corrected_answers() -> None:
    student, teacher = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[2.0, -1.0, 0.5]])
    batch = Batch(torch.zeros(1, 1), torch.tensor([1]), teacher)
    found = loss_of(Component.model_validate({"use": "corrected", "loss": KD}))(student, batch)
    right = Batch(batch.inputs, batch.labels, torch.tensor([[-1.0, 2.0, 0.5]]))
    assert torch.equal(found, loss_of(Component.model_validate(KD))(student, right))
    assert found > functional.cross_entropy(student, batch.labels) * 0.3


def test_two_students_are_not_corrected_from_outside() -> None:
    mutual = {"use": "mutual", "weight": 1.0, "temperature": 1.0, "keep": "better"}
    with pytest.raises(ComponentError, match="mutual trains two students; turn it round"):
        loss_of(Component.model_validate({"use": "corrected", "loss": mutual}))
