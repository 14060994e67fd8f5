from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from limbeck.components import Component, bind, unwatched
from limbeck.data.augment import AUGMENTS, Augment, Mixed, Views
from limbeck.data.augment.geometry import affine, crop_flip
from limbeck.errors import ComponentError

CHAIN = [{"use": "crop_flip", "pad": 2, "flip": True}, {"use": "erasing", "probability": 0.7, "area": 0.4}]
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "affine": {"degrees": 15, "scale": 0.2, "shift": 1.5},
    "crop_flip": {"pad": 2, "flip": True},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4},
    "randaugment": {"num_ops": 2, "magnitude": 9},
    "erasing": {"probability": 0.5, "area": 0.3},
    "drop_codes": {"probability": 0.3},
    "jitter": {"share": 0.1},
    "scaling": {"scale": 0.2},
    "tempo": {"speed": 0.2, "shift": 2},
    "mixup": {"alpha": 0.4, "probability": 0.8},
    "cutmix": {"alpha": 1.0, "probability": 0.8},
    "chain": {"steps": [*CHAIN, {"use": "cutmix", "alpha": 1.0, "probability": 1.0}]},
}


WAVES = {
    "time_shift": {"samples": 3},
    "gain": {"db": 6},
    "noise": {"snr_db": [0, 20], "probability": 0.8},
}
"""Of sound, in `test_waves.py`."""


def make(use: str, **keywords: Any) -> Augment | Mixed:
    made: Augment | Mixed = bind(Component.model_validate({"use": use, **keywords}), AUGMENTS, "augmentation")()
    return made


def images(num: int = 12, size: int = 8, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (num, size, size, channels), dtype=np.uint8)


def samples(use: str, num: int = 12, size: int = 8, channels: int = 3) -> NDArray[Any]:
    """Of the kind that an augmentation takes."""
    whole = images(num, size, channels)
    if use in SERIES:
        return whole[:, :, 0].astype(np.float32)
    return 1 + whole.reshape(num, -1).astype(np.int32) if use in CODES else whole


SERIES = {"jitter", "scaling", "tempo"}
CODES = {"drop_codes"}
every = pytest.mark.parametrize("use", sorted(set(AUGMENTS) - set(WAVES)))


@every
@given(
    view=st.integers(0, 1000), seed=st.integers(0, 99), size=st.sampled_from([8, 13, 32]),
    channels=st.sampled_from([1, 3]), indices=st.lists(st.integers(0, 39), min_size=1, max_size=40),
)  # fmt: skip
@settings(max_examples=10)
def test_a_view_has_the_same_pixels_whatever_batch_asks_for_it(
    use: str, view: int, seed: int, size: int, channels: int, indices: list[int]
) -> None:
    x = samples(use, 40, size, channels)
    whole, blend = Views(x, make(use, **SETTINGS[use]), seed).blended(view, torch.arange(40))
    again = Views(x, make(use, **SETTINGS[use]), seed)
    some, some_blend = again.blended(view, torch.tensor(indices))
    assert torch.equal(some, whole[indices])
    assert torch.equal(again.get(view, torch.tensor(indices)), some)
    assert (blend is None) == (some_blend is None)
    if blend is not None and some_blend is not None:
        assert torch.equal(some_blend.shares_B, blend.shares_B[indices])
        assert torch.equal(some_blend.partners_B, blend.partners_B[indices])


@every
def test_views_keep_shape_and_dtype_and_differ_with_number_and_seed(use: str) -> None:
    indices = torch.arange(12)
    x = samples(use)
    views = Views(x, make(use, **SETTINGS[use]), seed=3)
    first, second = views.get(0, indices), views.get(1, indices)
    assert (first.shape, first.dtype) == (x.shape, torch.from_numpy(x).dtype)
    if use != "none":
        assert not torch.equal(first, second)
        assert not torch.equal(first, Views(x, views_augment(use), seed=4).get(0, indices))


def views_augment(use: str) -> Augment | Mixed:
    return make(use, **SETTINGS[use])


def test_views_start_again_after_the_last() -> None:
    views = Views(images(), views_augment("cutmix"), seed=0, num_views=3)
    assert torch.equal(views.get(1, torch.arange(12)), views.get(4, torch.arange(12)))


@pytest.mark.parametrize("use", sorted(set(AUGMENTS) - SERIES - CODES - {"none", "mixup", "chain", *WAVES}))
def test_what_changes_images_refuses_features(use: str) -> None:
    features = np.zeros((6, 5), np.float32)
    with pytest.raises(ComponentError, match=rf"'{use}' takes images, found samples of shape \(5,\); choose none or"):
        Views(features, views_augment(use), seed=0).get(0, torch.arange(6))


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


def test_erasing_hides_one_rectangle_of_one_grey_no_larger_than_asked() -> None:
    x = np.zeros((200, 20, 30, 3), np.uint8)
    out = Views(x, make("erasing", probability=1.0, area=0.25), seed=0).get(0, torch.arange(200))
    hidden = 0
    for image in out:
        assert len(image.unique()) <= 2
        where = image[..., 0].nonzero()
        if len(where):
            (top, left), (bottom, right) = where.min(0).values.tolist(), where.max(0).values.tolist()
            assert len(where) == (bottom - top + 1) * (right - left + 1) <= 0.25 * 600 * 1.15  # sides are rounded
            hidden += 1
    assert hidden > 190, "all but those hidden behind black"
    assert not Views(x, make("erasing", probability=0.0, area=0.25), seed=0).get(0, torch.arange(200)).any()


def test_a_chain_is_its_steps_one_after_the_other() -> None:
    x, generator = torch.from_numpy(images()), torch.Generator()
    steps = [make(**step) for step in CHAIN]
    chain = make("chain", steps=CHAIN)
    assert not isinstance(chain, Mixed)
    draws = chain.draw(12, generator.manual_seed(5))
    expected, again = x, generator.manual_seed(5)
    for step in steps:
        assert not isinstance(step, Mixed)
        expected = step.apply(expected, step.draw(12, again))
    assert torch.equal(chain.apply(x, draws), expected)


def test_a_chain_in_a_chain_is_one_chain() -> None:
    mixed = {"use": "mixup", "alpha": 1.0, "probability": 1.0}
    flat = Views(images(), make("chain", steps=[*CHAIN, mixed]), seed=1)
    nested = Views(images(), make("chain", steps=[CHAIN[0], {"use": "chain", "steps": [CHAIN[1], mixed]}]), seed=1)
    assert torch.equal(flat.get(2, torch.arange(12)), nested.get(2, torch.arange(12)))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([], "'chain': steps is .*; List should have at least 1 item"),
        ([{"use": "crop_flip", "padd": 4, "flip": True}], "'crop_flip' has no keyword 'padd'; did you mean 'pad'"),
        ([{"use": "crop_flop"}], "no augmentation 'crop_flop'; did you mean 'crop_flip'"),
        ([{"use": "chain", "steps": [{"use": "erasing", "probability": 2, "area": 0.1}]}], "probability is 2; Input"),
        ([{"pad": 4}], "'chain': steps is .*; Field required"),
    ],
)
def test_the_steps_of_a_chain_are_checked_before_any_work(steps: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        bind(Component.model_validate({"use": "chain", "steps": steps}), AUGMENTS, "augmentation")


def test_a_step_that_mixes_comes_last() -> None:
    with pytest.raises(ComponentError, match="'chain': mixup mixes samples; move it to the end"):
        make("chain", steps=[{"use": "mixup", "alpha": 1.0, "probability": 1.0}, {"use": "none"}])


def test_code_that_dvc_does_not_watch_is_named_in_a_chain_too() -> None:
    chain = Component.model_validate({"use": "chain", "steps": [{"use": "none"}, {"use": "elsewhere.blur:blur"}]})
    assert "'elsewhere.blur:blur': DVC does not watch" in (unwatched(chain, "augmentation") or "")
    ours = Component.model_validate({"use": "chain", "steps": [{"use": "custom.augmentations.blur:blur"}]})
    assert unwatched(ours, "augmentation") is None
