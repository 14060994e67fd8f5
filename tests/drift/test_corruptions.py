"""The worlds that benchmarks move to: the same each time, worse with every severity."""

import numpy as np
import pytest

from benchmarks.corruptions import CORRUPTIONS, SEVERITIES, corrupt, shifted_prior


def blobs(channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Soft blobs with some grain, 32x32."""
    grid = np.stack(np.meshgrid(np.arange(32), np.arange(32)), -1) / 5
    centres = np.random.default_rng(0).uniform(1, 5, (6, 1, 1, channels, 2))
    images = 190 * np.exp(-((grid[None, :, :, None] - centres) ** 2).sum(-1))
    return np.round(images + np.random.default_rng(1).uniform(0, 40, images.shape)).astype(np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_stay_images_and_move_further_with_every_severity(name: str, channels: int) -> None:
    images = blobs(channels)
    moved = [corrupt(images, name, severity, seed=3) for severity in SEVERITIES]
    assert all((each.shape, each.dtype) == (images.shape, images.dtype) for each in moved)
    distances = [float(np.abs(each.astype(float) - images).mean()) for each in moved]
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert (corrupt(images, name, 3, seed=3) == moved[2]).all()


def test_a_rotation_leaves_the_mean_where_it_was() -> None:
    images = np.full((4, 16, 16, 1), 90, np.uint8)
    assert (corrupt(images, "rotation", 5, seed=0) == 90).all()


def test_half_of_the_classes_come_more_often_with_every_severity() -> None:
    labels = np.repeat(np.arange(10), 50)
    shares = []
    for severity in SEVERITIES:
        counts = np.bincount(labels[shifted_prior(labels, 4000, severity, seed=1)], minlength=10)
        shares.append(np.sort(counts)[5:].sum() / 4000)
    assert shares == sorted(shares)
    assert shares[-1] > 0.9
    assert shifted_prior(labels, 9, 2, seed=1).tolist() == shifted_prior(labels, 9, 2, seed=1).tolist()


@pytest.mark.parametrize(
    ("severity", "images"), [(0, np.zeros((1, 8, 8, 3), np.uint8)), (1, np.zeros((1, 8, 8, 2), np.uint8))]
)
def test_what_is_no_image_or_no_severity_is_refused(severity: int, images: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match="expected"):
        corrupt(images, "blur", severity, seed=0)
