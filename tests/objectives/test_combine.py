from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.objectives import Batch, features_for, loss_of

KD = {"use": "kd", "alpha": 0.7, "temperature": 3.0}
DIST = {"use": "dist", "inter": 1.0, "intra": 1.0, "temperature": 1.0, "hard": 0.0}
STUDENT = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]])
TEACHER = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, 3.0]])


def seen(progress: float = 0.0) -> Batch:
    return Batch(torch.zeros(2, 1), torch.tensor([0, 2]), TEACHER, progress=progress)


def value(component: dict[str, Any], progress: float = 0.0) -> float:
    return loss_of(Component.model_validate(component))(STUDENT, seen(progress)).item()


@given(weights=st.lists(st.floats(0, 10), min_size=2, max_size=2))
def test_a_sum_weighs_its_parts(weights: list[float]) -> None:
    expected = weights[0] * value(KD) + weights[1] * value(DIST)
    assert value({"use": "sum", "parts": [KD, DIST], "weights": weights}) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_without_weights_all_parts_count_by_one() -> None:
    assert value({"use": "sum", "parts": [KD, DIST]}) == pytest.approx(value(KD) + value(DIST), rel=1e-6)


def test_one_loss_may_take_over_from_another() -> None:
    falling = {"schedule": "linear", "from": 1.0, "to": 0.0}
    rising = {"schedule": "linear", "from": 0.0, "to": 1.0}
    handing_over = {"use": "sum", "parts": [KD, DIST], "weights": [falling, rising]}
    assert value(handing_over, 0.0) == pytest.approx(value(KD), rel=1e-6)
    assert value(handing_over, 1.0) == pytest.approx(value(DIST), rel=1e-6)


@pytest.mark.parametrize(
    ("component", "message"),
    [
        ({"use": "sum", "parts": []}, r"parts is \[\]; List should have at least 1 item"),
        ({"use": "sum", "parts": [{"use": "kdd"}]}, r"no loss 'kdd'; did you mean 'kd'\?"),
        ({"use": "sum", "parts": [{**KD, "alhpa": 1}]}, r"loss 'kd' has no keyword 'alhpa'; did you mean 'alpha'\?"),
        ({"use": "sum", "parts": [KD, DIST], "weights": [1]}, r"loss 'sum': 2 parts have 1 weights; give each one, or null"),
        ({"use": "sum", "parts": [KD], "weights": [-1]}, r"loss 'sum': weights is \[-1\]; Input should be greater than or"),
    ],
)  # fmt: skip
def test_a_wrong_sum_is_refused_before_anything_trains(component: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        loss_of(Component.model_validate(component))


def test_a_loss_on_features_is_found_however_deep() -> None:
    deep = {"use": "sum", "parts": [KD, {"use": "sum", "parts": [{"use": "similarity", "gamma": 1}]}]}
    assert features_for(Component.model_validate(deep)) == "similarity"
    assert features_for(Component.model_validate(KD)) is None
