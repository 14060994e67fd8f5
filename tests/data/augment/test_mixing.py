import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.augment import Blend, Views
from limbeck.data.augment.mixing import cutmix, mixup
from tests.data.augment.test_views import images, make

EVERY = torch.arange(12)


def blended(views: Views, view: int = 0) -> tuple[torch.Tensor, Blend]:
    samples, blend = views.blended(view, EVERY)
    assert blend is not None
    return samples, blend


@given(view=st.integers(0, 1000))
def test_a_mixture_is_its_share_of_one_sample_and_the_rest_of_its_partner(view: int) -> None:
    x = torch.from_numpy(images())
    samples, blend = blended(Views(images(), mixup(alpha=1.0, probability=1.0), seed=0), view)
    shares = blend.shares_B[:, None, None, None]
    expected = x * shares + x[blend.partners_B] * (1 - shares)
    assert (samples - expected).abs().max() <= 0.5


def test_features_are_mixed_without_rounding() -> None:
    x = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    samples, blend = blended(Views(x, mixup(alpha=1.0, probability=1.0), seed=0))
    own, other = torch.from_numpy(x), torch.from_numpy(x)[blend.partners_B]
    assert torch.equal(samples, own * blend.shares_B[:, None] + other * (1 - blend.shares_B[:, None]))


@given(view=st.integers(0, 1000))
def test_a_cut_pixel_is_one_of_two_and_the_share_is_counted_in_pixels(view: int) -> None:
    x = torch.arange(12, dtype=torch.uint8)[:, None, None, None].expand(12, 9, 7, 3)  # every sample is one value
    samples, blend = blended(Views(x.numpy(), cutmix(alpha=1.0, probability=1.0), seed=0), view)
    for index, (sample, partner, share) in enumerate(zip(samples, blend.partners_B, blend.shares_B, strict=True)):
        own = (sample == index).float().mean()
        assert set(sample.unique().tolist()) <= {index, int(partner)}
        if int(partner) != index:
            assert float(share) == pytest.approx(float(own))


def test_both_samples_are_augmented_before_they_are_mixed() -> None:
    flip = {"use": "crop_flip", "pad": 2, "flip": True}
    mixed = Views(images(), make("chain", steps=[flip, {"use": "cutmix", "alpha": 1.0, "probability": 1.0}]), seed=7)
    alone = Views(images(), make("crop_flip", pad=2, flip=True), seed=7).get(0, EVERY)
    samples, blend = blended(mixed)
    is_own, is_others = samples == alone, samples == alone[blend.partners_B]
    assert (is_own | is_others).all()
    assert not is_own.all()


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_without_probability_every_sample_is_whole(mix: object) -> None:
    samples, blend = blended(Views(images(), mix(alpha=0.2, probability=0.0), seed=0))  # type: ignore[operator]
    assert torch.equal(samples, torch.from_numpy(images()))
    assert torch.equal(blend.shares_B, torch.ones(12))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    x = np.zeros((20_000, 1), np.float32)
    _, blend = Views(x, mixup(alpha=alpha, probability=1.0), seed=0).blended(0, torch.arange(20_000))
    assert blend is not None
    assert float(blend.shares_B.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(blend.shares_B.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)
    assert sorted(blend.partners_B.tolist()) == list(range(20_000)), "everybody is somebody's partner"
