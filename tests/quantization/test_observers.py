import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from limbeck import quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component, bind, check
from limbeck.errors import ComponentError
from limbeck.models import Network
from limbeck.prediction import predict
from limbeck.quantization.observers import OBSERVERS

EVERY = [Component.model_validate(o) for o in ({"use": "min_max"}, {"use": "histogram"}, {"use": "mse"})]
EVERY += [Component.model_validate({"use": "percentile", "share": 0.999})]


def shown(component: Component, *batches: Tensor) -> Any:
    """An observer of uint8 that has seen these batches."""
    kind, settings = bind(component, OBSERVERS, "observer")()
    observer = kind(dtype=torch.uint8, quant_min=0, quant_max=255, eps=2**-12, **settings)
    for batch in batches:
        observer(batch)
    return observer


def range_of(observer: Any) -> tuple[float, float]:
    scale, zero = (float(value) for value in observer.calculate_qparams())
    return -zero * scale, (255 - zero) * scale


def error_of(observer: Any, values: Tensor) -> float:
    scale, zero = (value.item() for value in observer.calculate_qparams())
    rounded = torch.fake_quantize_per_tensor_affine(values, scale, int(zero), 0, 255)
    return float((rounded - values).double().square().sum())


def percentile(share: float) -> Component:
    return Component.model_validate({"use": "percentile", "share": share})


def test_the_table_is_what_is_tested() -> None:
    assert {component.use for component in EVERY} == set(OBSERVERS)


@pytest.mark.parametrize("component", EVERY, ids=lambda component: component.use)
def test_memory_does_not_grow_with_the_samples(component: Component) -> None:
    generator = torch.Generator().manual_seed(0)

    def size_after(num_batches: int) -> int:
        observer = shown(component, *(torch.randn(64, generator=generator) for _ in range(num_batches)))
        tensors = [*observer.state_dict().values(), *(v for v in vars(observer).values() if isinstance(v, Tensor))]
        return sum(tensor.untyped_storage().nbytes() for tensor in tensors)

    assert size_after(1) == size_after(200) <= 64 * 1024


@pytest.mark.parametrize("component", EVERY, ids=lambda component: component.use)
def test_a_tensor_that_never_changes_and_one_never_seen_have_a_range(component: Component) -> None:
    low, high = range_of(shown(component, torch.full((8,), 3.0), torch.full((8,), 3.0)))
    assert low <= 0
    assert high == pytest.approx(3.0)
    assert float(shown(component, torch.zeros(4)).calculate_qparams()[0]) > 0


@given(st.floats(0.6, 1.0))
def test_a_percentile_leaves_that_share_below_its_upper_end(share: float) -> None:
    low, high = range_of(shown(percentile(share), torch.linspace(-1, 1, 20_001)))
    assert high == pytest.approx(2 * share - 1, abs=0.01)
    assert low == pytest.approx(1 - 2 * share, abs=0.01)


def test_all_of_the_values_are_the_smallest_to_the_largest() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    assert range_of(shown(percentile(1.0), values)) == pytest.approx(range_of(shown(EVERY[0], values)), rel=1e-3)


@given(st.integers(0, 1000), st.sampled_from([1.0, 3.0, 30.0]), st.booleans())
def test_mse_errs_no_more_than_any_other_range(seed: int, outlier: float, positive: bool) -> None:
    values = torch.randn(4000, generator=torch.Generator().manual_seed(seed))
    values[0] *= outlier
    values = values.relu() if positive else values
    least, *others = (
        error_of(shown(component, values), values) for component in sorted(EVERY, key=lambda c: c.use != "mse")
    )
    assert least <= 1.05 * min(others), "it sees bins, not values"


def test_a_lone_outlier_is_clipped_where_that_pays_and_not_where_it_does_not() -> None:
    many = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)).abs()
    assert range_of(shown(Component(use="mse"), torch.cat([many, torch.tensor([8.0])])))[1] < 7
    assert range_of(shown(Component(use="mse"), torch.cat([many[:1000], torch.tensor([8.0])])))[1] > 7.9
    assert range_of(shown(Component(use="mse"), torch.linspace(0, 1, 1000)))[1] > 0.98


def test_what_was_observed_comes_back_to_the_bit(
    network: Network, spec: Spec, x: NDArray[np.uint8], tmp_path: Path
) -> None:
    """Here `percentile`; tests/test_zoo.py stores `mse`, tests/quantization/test_sensitivity.py `min_max`."""
    described = quantization.describe("static", "u8s7", percentile(0.999))
    prepared = quantization.prepare(network, described, spec.shape, torch.uint8)
    quantization.calibrate_(prepared, x, 16)
    quantization.save(tmp_path, spec.model_copy(update={"quantization": described}), prepared)
    _, loaded = quantization.load(tmp_path)
    assert np.array_equal(predict(loaded, x), predict(quantization.convert(prepared), x))


@pytest.mark.parametrize("trained", [False, True])
def test_the_smallest_step_comes_back_as_well(
    trained: bool, network: Network, spec: Spec, x: NDArray[np.uint8], tmp_path: Path
) -> None:
    network = copy.deepcopy(network)
    with torch.no_grad():
        network.body.get_submodule("head").weight.mul_(1e-6)
    described = quantization.describe("static", "u8s7", Component(use="mse"), trained=trained)
    prepared = quantization.prepare(network, described, spec.shape, torch.uint8)
    quantization.calibrate_(prepared, x, 16)
    quantization.save(tmp_path, spec.model_copy(update={"quantization": described}), prepared)
    _, loaded = quantization.load(tmp_path)
    assert np.array_equal(predict(loaded, x), predict(quantization.convert(prepared), x))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"use": "percentile", "share": 0.3}, r"observer 'percentile': share is 0.3; Input should be greater than 0.5"),
        ({"use": "percentile"}, r"observer 'percentile' needs share"),
        ({"use": "entropy"}, r"no observer 'entropy'; .* 'custom.quantizations.my_file:my_name'"),
    ],
)
def test_a_misspelled_observer_stops_before_any_work(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        check(Component.model_validate(keywords), OBSERVERS, "observer")
