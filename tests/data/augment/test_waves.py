from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from limbeck.components import Component, bind
from limbeck.data.augment import AUGMENTS, Views
from limbeck.data.augment.waves import gain, noise, time_shift
from limbeck.errors import ComponentError
from tests.data.augment.test_views import WAVES, images, make

every = pytest.mark.parametrize("use", WAVES)
ALL = torch.arange(12)


def sound(num: int = 12, length: int = 50, channels: int = 1, peak: int = 9000) -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(-peak, peak, (num, length, channels)).astype(np.int16)


def level(samples: NDArray[Any]) -> Any:
    """Root of the mean square of each sample."""
    return np.sqrt(np.square(samples.astype(np.float64)).mean((1, 2)))


@every
@given(
    view=st.integers(0, 1000), seed=st.integers(0, 99), length=st.sampled_from([1, 50, 333]),
    channels=st.sampled_from([1, 3]), indices=st.lists(st.integers(0, 39), min_size=1, max_size=40),
)  # fmt: skip
@settings(max_examples=10)
def test_a_view_has_the_same_samples_whatever_batch_asks_for_it(
    use: str, view: int, seed: int, length: int, channels: int, indices: list[int]
) -> None:
    x = sound(40, length, channels)
    whole = Views(x, make(use, **WAVES[use]), seed).get(view, torch.arange(40))
    again = Views(x, make(use, **WAVES[use]), seed)
    assert torch.equal(again.get(view, torch.tensor(indices)), whole[indices])


@every
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_views_keep_shape_and_type_and_differ_with_number_and_seed(use: str, dtype: str) -> None:
    x = sound().astype(dtype)
    views, others = (Views(x, make(use, **WAVES[use]), seed) for seed in (3, 4))
    assert (views.get(0, ALL).shape, views.get(0, ALL).dtype) == ((12, 50, 1), getattr(torch, dtype))
    assert not torch.equal(views.get(0, ALL), views.get(1, ALL))
    assert not torch.equal(views.get(0, ALL), others.get(0, ALL))


@given(st.integers(1, 60), st.integers(0, 100))
def test_a_shift_moves_all_of_it_and_lets_zeros_in(samples: int, view: int) -> None:
    x = sound(channels=2)
    shift = time_shift(samples=samples)
    draws = shift.draw(12, torch.Generator().manual_seed(view))
    assert draws.abs().max() <= samples
    for before, after, by in zip(
        x, shift.apply(torch.from_numpy(x), draws).numpy(), draws[:, 0].int().tolist(), strict=True
    ):
        expected = np.zeros_like(before)
        if by >= 0:
            expected[by:] = before[: max(0, 50 - by)]
        else:
            expected[:by] = before[-by:]
        assert np.array_equal(after, expected)


def test_gain_is_in_decibels_and_stops_where_a_microphone_does() -> None:
    x = torch.tensor([100, -100, 30_000, -30_000], dtype=torch.int16).reshape(1, 4, 1)
    louder = gain(db=20).apply(x, torch.tensor([[20.0]]))
    assert louder.flatten().tolist() == [1000, -1000, 32767, -32768]
    assert gain(db=20).apply(x, torch.tensor([[-20.0]])).flatten().tolist() == [10, -10, 3000, -3000]


@given(st.integers(0, 20), st.integers(0, 100))
@settings(max_examples=10)
def test_noise_lies_as_far_below_the_sound_as_it_says(snr_db: int, view: int) -> None:
    x = sound(length=4000, peak=4000)
    noisy = Views(x, noise(snr_db=(snr_db, snr_db)), seed=0).get(view, ALL).numpy()
    found_db = 20 * np.log10(level(x) / level(noisy.astype(np.float64) - x))
    assert np.abs(found_db - snr_db).max() < 0.5


def test_some_samples_stay_without_noise_and_silence_stays_silent() -> None:
    x = sound(200)
    clean = (Views(x, noise(snr_db=(0, 9), probability=0.25), seed=0).get(0, torch.arange(200)).numpy() == x).all(
        (1, 2)
    )
    assert 0.65 < clean.mean() < 0.85
    silence = np.zeros((12, 50, 1), np.int16)
    assert not Views(silence, noise(snr_db=(0, 9)), seed=0).get(0, ALL).any()


def test_steps_of_a_chain_act_on_sound() -> None:
    steps = [{"use": use, **WAVES[use]} for use in WAVES]
    views = Views(sound(), make("chain", steps=steps), seed=0)
    assert views.get(0, ALL).dtype == torch.int16


@every
def test_what_changes_sound_refuses_images(use: str) -> None:
    with pytest.raises(
        ComponentError, match=rf"'{use}' takes sound and other sequences, found samples of shape \(8, 8, 3\)"
    ):
        Views(images(), make(use, **WAVES[use]), seed=0).get(0, ALL)


def test_bounds_of_noise_stand_in_order() -> None:
    with pytest.raises(ComponentError, match="snr_db is .*; expected the lower bound first"):
        bind(Component.model_validate({"use": "noise", "snr_db": [9, 3]}), AUGMENTS, "augmentation")
