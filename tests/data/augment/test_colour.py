"""Point operations against Pillow's, which RandAugment's authors used."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from limbeck.data.augment import colour
from limbeck.data.augment.geometry import warp
from limbeck.data.augment.randaugment import OPERATIONS, randaugment
from limbeck.data.augment.views import Views, as_floats, as_raw

SEEDS = st.integers(0, 10_000)


def photos(seed: int, num: int = 3) -> NDArray[np.uint8]:
    """Smooth images with a narrow range of values, as photographs have: uint8 [num, 40, 30, 3]."""
    generator = np.random.default_rng(seed)
    low, spread = generator.integers(0, 100, (num, 1, 1, 3)), generator.integers(1, 150, (num, 1, 1, 3))
    ramp = np.add.outer(np.arange(40), np.arange(30))[None, :, :, None] / 68
    noise = generator.random((num, 40, 30, 3)) * 0.2
    return (low + spread * (ramp * 0.8 + noise)).astype(np.uint8)


def ours(x: NDArray[np.uint8], change: Callable[[Tensor], Tensor]) -> NDArray[np.int64]:
    return as_raw(change(as_floats(torch.from_numpy(x))), torch.uint8).numpy().astype(np.int64)


def pillows(x: NDArray[np.uint8], change: Callable[[Image.Image], Image.Image]) -> NDArray[np.int64]:
    return np.stack([np.asarray(change(Image.fromarray(image))) for image in x]).astype(np.int64)


@given(seed=SEEDS, threshold=st.integers(0, 256), bits=st.integers(1, 8))
def test_operations_on_whole_values_are_pillows_to_the_bit(seed: int, threshold: int, bits: int) -> None:
    x = photos(seed)
    thresholds, counts = torch.full((3,), float(threshold)), torch.full((3,), float(bits))
    assert (ours(x, colour.equalize) == pillows(x, ImageOps.equalize)).all()
    assert (
        ours(x, lambda i: colour.solarize(i, thresholds)) == pillows(x, lambda i: ImageOps.solarize(i, threshold))
    ).all()
    assert (ours(x, lambda i: colour.posterize(i, counts)) == pillows(x, lambda i: ImageOps.posterize(i, bits))).all()
    assert np.abs(ours(x, colour.autocontrast) - pillows(x, ImageOps.autocontrast)).max() <= 1, "Pillow cuts decimals"


@pytest.mark.parametrize(
    ("change", "enhancer"),
    [
        (colour.brightness, ImageEnhance.Brightness),
        (colour.contrast, ImageEnhance.Contrast),
        (colour.saturation, ImageEnhance.Color),
        (colour.sharpness, ImageEnhance.Sharpness),
    ],
)
@given(seed=SEEDS, factor=st.floats(0, 2))
def test_enhancements_are_pillows_but_for_rounding(
    change: Callable[[Tensor, Tensor], Tensor], enhancer: Callable[..., ImageEnhance._Enhance], seed: int, factor: float
) -> None:
    x = photos(seed)
    theirs = pillows(x, lambda image: enhancer(image).enhance(factor))
    assert np.abs(ours(x, lambda i: change(i, torch.full((3,), factor))) - theirs).max() <= 2


@pytest.mark.parametrize("change", [colour.brightness, colour.contrast, colour.saturation, colour.sharpness])
def test_a_factor_of_one_changes_nothing(change: Callable[[Tensor, Tensor], Tensor]) -> None:
    x = photos(1)
    assert (ours(x, lambda i: change(i, torch.ones(3))) == x).all()


@pytest.mark.parametrize("change", [colour.autocontrast, colour.equalize])
def test_a_channel_of_one_value_stays(change: Callable[[Tensor], Tensor]) -> None:
    x = np.full((1, 8, 8, 3), 77, np.uint8)
    assert (ours(x, change) == x).all()


def test_color_jitter_of_nothing_leaves_pixels_alone() -> None:
    x = photos(2)
    views = Views(x, colour.color_jitter(brightness=0, contrast=0, saturation=0), seed=0)
    assert np.array_equal(views.get(0, torch.arange(3)), x)


def test_at_magnitude_zero_only_the_two_operations_without_a_magnitude_change_anything() -> None:
    x = as_floats(torch.from_numpy(photos(3)))
    after = [operation(x, torch.zeros(3)).round() for operation in OPERATIONS]
    assert len(after) == 14
    assert sum(not torch.equal(images, x) for images in after) == 2


def test_each_sample_has_the_operations_that_were_drawn_for_it() -> None:
    x = photos(4, num=14)
    augment = randaugment(num_ops=1, magnitude=20)
    draws = torch.stack([torch.arange(14.0), torch.full((14,), -20 / 30)], dim=1)
    together = augment.apply(torch.from_numpy(x), draws)
    for number, operation in enumerate(OPERATIONS):
        alone = operation(as_floats(torch.from_numpy(x[number : number + 1])), draws[number : number + 1, 1])
        assert torch.equal(together[number], as_raw(alone, torch.uint8)[0])


def test_warping_moves_by_whole_pixels_and_turns_by_quarters_without_blur() -> None:
    x = torch.rand(2, 3, 6, 6)

    def matrix(*entries: float) -> Tensor:
        return torch.tensor(entries).reshape(1, 2, 3).expand(2, 2, 3)

    assert torch.allclose(warp(x, matrix(1, 0, 0, 0, 1, 0)), x, atol=1e-6)
    assert torch.allclose(warp(x, matrix(1, 0, 2, 0, 1, 0))[..., :-2], x[..., 2:], atol=1e-6)
    assert torch.allclose(warp(x, matrix(0, 1, 0, -1, 0, 0)), x.rot90(1, (3, 2)), atol=1e-5)
