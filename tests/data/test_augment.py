import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from limbeck.data.augment import AUGMENTS, Augment, Views, affine, crop_flip, none

COMPONENTS = [none(), affine(degrees=15, scale=0.2, shift=1.5), crop_flip(pad=2, flip=True)]


def images(num: int = 12, size: int = 8, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num, size, size, channels), dtype=np.uint8)


@pytest.mark.parametrize("augment", COMPONENTS)
def test_a_view_has_the_same_pixels_whatever_batch_asks_for_it(augment: Augment) -> None:
    views = Views(images(), augment, seed=3)
    whole = views.get(5, torch.arange(12))
    again = Views(images(), augment, seed=3)
    for indices in (torch.tensor([7]), torch.tensor([11, 0, 4])):
        assert torch.equal(again.get(5, indices), whole[indices])


@pytest.mark.parametrize("augment", COMPONENTS[1:])
def test_views_and_seeds_differ(augment: Augment) -> None:
    every = torch.arange(12)
    first = Views(images(), augment, seed=3)
    assert not torch.equal(first.get(0, every), first.get(1, every))
    assert not torch.equal(first.get(0, every), Views(images(), augment, seed=4).get(0, every))


@given(view=st.integers(0, 10_000))
@settings(max_examples=20)
def test_an_affine_of_nothing_leaves_pixels_alone(view: int) -> None:
    views = Views(images(), affine(degrees=0, scale=0, shift=0), seed=0)
    assert torch.equal(views.get(view, torch.arange(12)), torch.from_numpy(images()))


def test_a_whole_pixel_shift_moves_pixels_without_blur() -> None:
    augment = affine(degrees=0, scale=0, shift=1)
    moved = augment.apply(torch.from_numpy(images()), torch.tensor([[0.0, 0.0, 0.0, 1.0]]).expand(12, 4))
    assert np.array_equal(moved.numpy()[:, :, :-1], images()[:, :, 1:])


def test_a_crop_in_the_middle_is_the_image_and_a_flip_mirrors_it() -> None:
    augment = crop_flip(pad=2, flip=True)
    batch = torch.from_numpy(images())
    middle = torch.tensor([[2.0, 2.0, 0.0]]).expand(12, 3)
    mirrored = torch.tensor([[2.0, 2.0, 1.0]]).expand(12, 3)
    assert torch.equal(augment.apply(batch, middle), batch)
    assert torch.equal(augment.apply(batch, mirrored), batch.flip(2))


def test_every_component_of_the_table_keeps_shape_and_dtype() -> None:
    assert set(AUGMENTS) == {"none", "affine", "crop_flip"}
    for augment in COMPONENTS:
        out = Views(images(), augment, seed=0).get(1, torch.arange(4))
        assert out.shape == (4, 8, 8, 3)
        assert out.dtype == torch.uint8
