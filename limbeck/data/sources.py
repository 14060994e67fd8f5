"""Where samples come from. A source yields a `Source`; `prepare` splits and stores it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Source:
    """Samples with labels, in a fixed order.

    x: [N, ...] raw samples, as a device will feed them: uint8 [N, H, W, C] for images.
    y: [N] int64 class indices.
    classes: the K class names.
    """

    name: str
    x: NDArray[np.generic]
    y: NDArray[np.int64]
    classes: tuple[str, ...]


def digits() -> Source:
    """The 1,797 handwritten digits that scikit-learn embeds: 8x8 pixels, 0 to 16, scaled to 0 to 255.

    E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images_NHWC = np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return Source("digits", images_NHWC, labels.astype(np.int64), tuple("0123456789"))


SOURCES: dict[str, Callable[..., Source]] = {"digits": digits}
