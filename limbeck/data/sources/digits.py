"""scikit-learn's digits."""

import numpy as np

from limbeck.data.sources.source import Source, in_memory


def digits() -> Source:
    """The 1,797 handwritten digits that scikit-learn embeds: 8x8 pixels, 0 to 16, scaled to 0 to 255.

    E. Alpaydin and C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images_NHWC = np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    return Source("digits", tuple("0123456789"), in_memory(images_NHWC, labels))
