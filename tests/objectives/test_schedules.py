import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.objectives import Batch, Hint, kd, loss_of
from limbeck.objectives.schedules import Schedule

STUDENT, TEACHER = torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[0.0, 2.0, -1.0]])
SHARES = st.floats(0, 1)


def schedule(**keys: Any) -> Schedule:
    return Schedule.model_validate({"schedule": "linear", "from": 8.0, "to": 2.0} | keys)


def seen(progress: float) -> Batch:
    return Batch(torch.zeros(1, 1), torch.tensor([1]), TEACHER, progress=progress)


@pytest.mark.parametrize("name", ["linear", "cosine"])
@given(progress=SHARES, until=st.floats(0.1, 1))
def test_a_schedule_goes_from_one_end_to_the_other_and_stays_there(name: str, progress: float, until: float) -> None:
    made = schedule(schedule=name, until=until)
    assert made.at(0) == 8.0
    assert made.at(until) == made.at(1) == 2.0
    assert 2.0 <= made.at(progress) <= 8.0
    assert made.at(progress) >= made.at(min(1, progress + 0.1)), "without turning back"


def test_a_quarter_of_the_way_is_a_quarter_linearly_and_less_by_the_cosine() -> None:
    assert schedule().at(0.25) == 6.5
    assert schedule(schedule="cosine").at(0.25) == pytest.approx(8 - 6 * (1 - math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("progress", [0.0, 0.3, 1.0])
def test_any_setting_of_a_loss_may_move_with_the_training(progress: float) -> None:
    moving = loss_of(
        Component(
            use="kd",
            alpha={"schedule": "cosine", "from": 1.0, "to": 0.0},
            temperature={"schedule": "linear", "from": 8, "to": 2},
        )
    )
    alpha, temperature = (1 + math.cos(math.pi * progress)) / 2, 8 - 6 * progress
    expected = kd(STUDENT, seen(progress), alpha=alpha, temperature=temperature)
    assert moving(STUDENT, seen(progress)).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"schedule": "cosin", "from": 1, "to": 2}, r"loss 'kd': temperature: no schedule 'cosin'; did you mean 'cosine'\?"),
        ({"schedule": "linear", "from": 1, "too": 2}, r"temperature: a schedule has no 'too'; did you mean 'to'\?"),
        ({"schedule": "linear", "from": 1}, r"temperature: a schedule needs `from` and `to`; add 'to'"),
        ({"schedule": "linear", "from": "warm", "to": 2}, r"temperature: from is 'warm'; Input should be a valid number"),
        ({"schedule": "linear", "from": 1, "to": 2, "until": 0}, r"temperature: until is 0; Input should be greater than 0"),
        ({"schedule": "linear", "from": 4, "to": 0}, r"loss 'kd': temperature is 0.0; Input should be greater than 0"),
        ({"schedule": "linear", "from": -1, "to": 2}, r"loss 'kd': temperature is -1.0; Input should be greater than 0"),
        ({"from": 4, "to": 1}, r"temperature is {.*}; Input should be a valid number"),
    ],
)  # fmt: skip
def test_a_wrong_schedule_is_refused_before_anything_trains(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        loss_of(Component(use="kd", alpha=0.5, temperature=value))


def test_a_schedule_deep_in_a_sum_is_held_to_its_settings_range() -> None:
    part = {"use": "kd", "alpha": {"schedule": "linear", "from": 0, "to": 1.5}, "temperature": 2}
    with pytest.raises(ComponentError, match=r"loss 'kd': alpha is 1.5; Input should be less than or equal to 1"):
        loss_of(Component(use="sum", parts=[part]))


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_a_loss_that_owns_networks_moves_too(progress: float) -> None:
    gamma = {"schedule": "linear", "from": 4.0, "to": 0.0}
    loss = loss_of(Component(use="limbeck.objectives.features:Hint", gamma=gamma, hard=0.0))
    assert isinstance(loss, Hint)
    torch.manual_seed(0)
    features, own = torch.randn(4, 5), torch.randn(4, 3)
    batch = Batch(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), None, features, own, progress)
    loss.begin(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), batch)
    assert loss.projector is not None
    expected = 4.0 * (1 - progress) / 2 * functional.mse_loss(loss.projector(own), features)
    assert loss(torch.zeros(4, 2), batch).item() == pytest.approx(expected.item(), rel=1e-6)
