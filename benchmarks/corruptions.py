"""Worlds that moved: seeded corruptions of images at five severities, and other shares of classes.

In the spirit of CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019), with values of our own: severity 1 hardly shows on a 32x32
image, 5 leaves what a person still recognises. Images are uint8 [N, H, W, C], C 1 or 3, and come back so; a sample's bytes
depend on the seed and on its place among the others. Strengths of blur and pixelate grow with an image's side.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Images = NDArray[np.uint8]
SEVERITIES = (1, 2, 3, 4, 5)

NOISE_STD = (8, 14, 22, 32, 45)
BRIGHTER_BY = (15, 30, 45, 65, 90)
CONTRAST = (0.75, 0.6, 0.45, 0.3, 0.2)
BLUR_RADIUS = (0.5, 0.75, 1.0, 1.4, 1.9)
"""Pixels of an image 32 wide."""
PIXELS_LEFT = (0.85, 0.7, 0.58, 0.48, 0.4)
"""Share of the rows and columns."""
JPEG_QUALITY = (50, 30, 18, 11, 6)
DEGREES = (8, 15, 25, 40, 60)
PRIOR_ODDS = (1.5, 2.5, 4.0, 8.0, 20.0)


def corrupt(images: Images, name: str, severity: int, seed: int) -> Images:
    """The images with one of `CORRUPTIONS` at a severity of 1 to 5."""
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity}; expected one of 1 to 5")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise ValueError(f"{images.dtype} {list(images.shape)} are no images; expected uint8 [N, H, W, 1 or 3]")
    return CORRUPTIONS[name](images, severity - 1, np.random.default_rng(seed))


def shifted_prior(labels_N: NDArray[np.int64], num: int, severity: int, seed: int) -> NDArray[np.int64]:
    """Rows [num], drawn with replacement, in which half of the classes, chosen by seed, are so many times as likely as the rest."""
    generator = np.random.default_rng(seed)
    classes = np.unique(labels_N)
    favoured = generator.permutation(classes)[: len(classes) // 2]
    weights = np.where(np.isin(labels_N, favoured), PRIOR_ODDS[severity - 1], 1.0)
    return generator.choice(len(labels_N), num, p=weights / weights.sum())


def gaussian_noise(images: Images, step: int, generator: np.random.Generator) -> Images:
    """Independent in every value."""
    return _as_bytes(images + generator.normal(0, NOISE_STD[step], images.shape))


def brightness(images: Images, step: int, _: np.random.Generator) -> Images:
    """Everything lighter by the same amount."""
    return _as_bytes(images + float(BRIGHTER_BY[step]))


def contrast(images: Images, step: int, _: np.random.Generator) -> Images:
    """Nearer to the image's own mean."""
    means = images.mean((1, 2), keepdims=True)
    return _as_bytes(means + CONTRAST[step] * (images - means))


def blur(images: Images, step: int, _: np.random.Generator) -> Images:
    """Gaussian."""
    radius = BLUR_RADIUS[step] * images.shape[2] / 32
    return _each(images, lambda image, _: image.filter(ImageFilter.GaussianBlur(radius)))


def pixelate(images: Images, step: int, _: np.random.Generator) -> Images:
    """Fewer pixels, made large again."""
    height, width = images.shape[1:3]
    small = (max(1, round(width * PIXELS_LEFT[step])), max(1, round(height * PIXELS_LEFT[step])))
    return _each(
        images,
        lambda image, _: image.resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.NEAREST),
    )


def jpeg(images: Images, step: int, _: np.random.Generator) -> Images:
    """Compressed and read back."""

    def through(image: Image.Image, _: int) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=JPEG_QUALITY[step])
        return Image.open(stream)

    return _each(images, through)


def rotation(images: Images, step: int, generator: np.random.Generator) -> Images:
    """By the same angle either way; what comes in at the corners mirrors the image, so that its mean tells nothing."""
    _, height, width, _ = images.shape
    rows, columns = height // 2, width // 2
    mirrored = np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode="symmetric")
    signs = generator.choice((-1, 1), len(images))
    turned = _each(
        mirrored, lambda image, index: image.rotate(DEGREES[step] * int(signs[index]), Image.Resampling.BILINEAR)
    )
    return np.ascontiguousarray(turned[:, rows : rows + height, columns : columns + width])


CORRUPTIONS: dict[str, Callable[[Images, int, np.random.Generator], Images]] = {
    "gaussian noise": gaussian_noise,
    "brightness": brightness,
    "contrast": contrast,
    "blur": blur,
    "pixelate": pixelate,
    "jpeg": jpeg,
    "rotation": rotation,
}


def _as_bytes(values: NDArray[np.floating]) -> Images:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _each(images: Images, change: Callable[[Image.Image, int], Image.Image]) -> Images:
    changed = [
        np.asarray(change(Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image), index))
        for index, image in enumerate(images)
    ]
    return np.stack(changed).reshape(images.shape)
