import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.augment import Augment, Views
from limbeck.data.augment.series import jitter, scaling, tempo
from limbeck.errors import ComponentError

X = np.random.default_rng(0).normal(size=(6, 20, 3)).astype(np.float32)


@pytest.mark.parametrize("augment", [jitter(share=0), scaling(scale=0), tempo(speed=0, shift=0)])
def test_nothing_asked_for_changes_nothing(augment: Augment) -> None:
    assert np.array_equal(Views(X, augment, seed=0).get(3, torch.arange(6)).numpy(), X)


def test_jitter_is_as_large_as_asked_by_channel_and_a_silent_one_stays_silent() -> None:
    still = np.random.default_rng(0).normal(size=(50, 400, 3)).astype(np.float32) * [1, 10, 0]
    out = Views(still.astype(np.float32), jitter(share=0.5), seed=0).get(0, torch.arange(50)).numpy()
    assert np.allclose((out - still).std((0, 1)), [0.5, 5, 0], rtol=0.05)


def test_scaling_is_one_factor_for_all_channels_within_its_range() -> None:
    ratio = Views(X, scaling(scale=0.3), seed=0).get(0, torch.arange(6)).numpy() / X
    assert np.allclose(ratio, ratio[:, :1, :1], rtol=1e-5)
    assert (np.abs(ratio - 1) <= 0.3 + 1e-5).all()


@given(st.integers(-5, 5))
def test_whole_steps_move_a_series_and_its_ends_stand_still(shift: int) -> None:
    moved = tempo(speed=0, shift=5).apply(torch.from_numpy(X), torch.tensor([[1.0, shift]] * 6)).numpy()
    assert np.array_equal(moved, X[:, np.clip(np.arange(20) + shift, 0, 19)])


def test_twice_as_fast_shows_every_second_step() -> None:
    ramp = torch.arange(21.0)[None, :, None]
    fast = tempo(speed=0.9, shift=0).apply(ramp, torch.tensor([[2.0, 0.0]]))[0, :, 0]
    assert fast[6:15].tolist() == [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0]


@pytest.mark.parametrize("augment", [jitter(share=1), scaling(scale=0.1), tempo(speed=0, shift=0)])
@pytest.mark.parametrize("shape", [(4, 8, 8, 3), (4, 5)])
def test_what_changes_series_refuses_other_kinds(augment: Augment, shape: tuple[int, ...]) -> None:
    with pytest.raises(ComponentError, match=r"takes series \[T, C\] of floats, found float32"):
        augment.apply(torch.zeros(shape), torch.ones(4, 2))
    with pytest.raises(ComponentError, match=r"found int16\[9, 1\]"):
        augment.apply(torch.zeros(4, 9, 1, dtype=torch.int16), torch.ones(4, 2))
