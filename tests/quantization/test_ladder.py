from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.models import Network
from limbeck.params import Params, QuantizeParams
from limbeck.quantization import ladder, sensitivity
from limbeck.quantization.ladder import Ladder, Rung, best_of
from tests.conftest import Remembering
from tests.quantization.conftest import LAYERS


@pytest.fixture
def climb(
    network: Network, spec: Spec, x: NDArray[np.uint8], tiny: Params, report: Remembering
) -> Callable[..., list[Rung]]:
    """Climb with `qualities` as what each rung is worth; 0.9 is enough."""
    quantize = tiny.targets["phone"].quantize
    assert isinstance(quantize, QuantizeParams)

    def make(
        *qualities: float, float_quality: float = 1.0, max_float_layers: int = 2, qat: Any = quantize.qat, **more: Any
    ) -> list[Rung]:
        worth = iter(qualities)
        observers = (Component(use="min_max"), Component(use="mse"))
        made = Ladder(
            network=network, spec=spec, x=x, arithmetic="u8s7", report=report,
            params=quantize.model_copy(update={"observers": observers, "max_float_layers": max_float_layers, "qat": qat}),
            quality_of=lambda _: next(worth), float_quality=float_quality, keeps=lambda quality: quality >= 0.9,
            **{"train_": lambda _: None, **more},
        )  # fmt: skip
        tried = made.climb()
        assert next(worth, None) is None, "every rung that was expected was tried"
        return tried

    return make


@pytest.fixture
def _without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which rung follows which needs no network."""
    monkeypatch.setattr(ladder, "prepare", lambda *_: nn.Identity())
    monkeypatch.setattr(ladder, "calibrate_", lambda *_: None)
    monkeypatch.setattr(ladder, "correct_bias_", lambda *_: None)
    monkeypatch.setattr(ladder, "convert", lambda prepared: prepared)
    monkeypatch.setattr(sensitivity, "most_sensitive", lambda *_: iter(LAYERS))


def names(tried: list[Rung]) -> list[str]:
    return [rung.name for rung in tried]


@pytest.mark.usefixtures("_without_graphs")
@pytest.mark.parametrize(
    ("qualities", "expected", "best"),
    [
        ([0.91, 0.95], ["static_min_max", "static_mse"], "static_mse"),
        ([0.95, 0.95], ["static_min_max", "static_mse"], "static_min_max"),
        ([0.5, 0.6, 0.9], ["static_min_max", "static_mse", "mixed_1"], "mixed_1"),
        ([0.5, 0.6, 0.7, 0.9], ["static_min_max", "static_mse", "mixed_1", "mixed_2"], "mixed_2"),
        ([0.5, 0.6, 0.7, 0.8, 0.9], ["static_min_max", "static_mse", "mixed_1", "mixed_2", "qat"], "qat"),
        ([0.5, 0.6, 0.7, 0.8, 0.1], ["static_min_max", "static_mse", "mixed_1", "mixed_2", "qat"], "mixed_2"),
    ],
)
def test_the_first_rung_that_keeps_the_contract_ends_the_ladder(
    climb: Callable[..., list[Rung]], qualities: list[float], expected: list[str], best: str
) -> None:
    tried = climb(*qualities)
    assert names(tried) == expected
    assert best_of(tried).name == best
    assert [rung.kept for rung in tried] == [quality >= 0.9 for quality in qualities]


@pytest.mark.usefixtures("_without_graphs")
def test_layers_are_left_in_float_one_after_the_other_with_the_best_observer(climb: Callable[..., list[Rung]]) -> None:
    tried = climb(0.5, 0.6, 0.7, 0.8, 0.9)
    assert [rung.described.float_layers for rung in tried] == [(), (), LAYERS[:1], LAYERS[:2], LAYERS[:2]]
    assert [rung.described.trained for rung in tried] == [False] * 4 + [True]
    assert {rung.described.observer.use for rung in tried[1:]} == {"mse"}


@pytest.mark.usefixtures("_without_graphs")
def test_training_starts_from_the_best_rung_not_from_the_last(climb: Callable[..., list[Rung]]) -> None:
    assert climb(0.5, 0.6, 0.4, 0.3, 0.9)[-1].described.float_layers == ()


@pytest.mark.usefixtures("_without_graphs")
def test_no_layer_is_left_in_float_where_all_of_them_would_not_be_enough(climb: Callable[..., list[Rung]]) -> None:
    assert names(climb(0.5, 0.6, 0.9, float_quality=0.8)) == ["static_min_max", "static_mse", "qat"]
    assert names(climb(0.5, 0.6, 0.9, max_float_layers=0)) == ["static_min_max", "static_mse", "qat"]


@pytest.mark.usefixtures("_without_graphs")
def test_a_ladder_without_training_ends_before_it(climb: Callable[..., list[Rung]]) -> None:
    assert names(climb(0.5, 0.6, 0.7, 0.8, qat=None)) == ["static_min_max", "static_mse", "mixed_1", "mixed_2"]
    assert names(climb(0.5, 0.6, max_float_layers=0, qat=None)) == ["static_min_max", "static_mse"]


def test_every_rung_is_a_model_of_its_own(climb: Callable[..., list[Rung]], report: Remembering) -> None:
    trained: list[nn.Module] = []
    tried = climb(0.1, 0.2, 0.3, 0.4, max_float_layers=1, train_=trained.append)
    assert tried[2].described.float_layers == ("body.layers.3",)
    assert trained == [tried[3].prepared]
    assert len({id(rung.prepared) for rung in tried}) == 4
    assert report.lines[-1] == "qat: 0.4000 on validation, not enough"
