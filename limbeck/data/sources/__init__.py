"""Where samples come from: a function with keyword-only settings that returns a `Source`, one line of SOURCES."""

from collections.abc import Callable

from limbeck.data.sources.arrays import arrays
from limbeck.data.sources.cifar10 import cifar10
from limbeck.data.sources.digits import digits
from limbeck.data.sources.idx import idx
from limbeck.data.sources.images import image_folder
from limbeck.data.sources.source import Source

SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "image_folder": image_folder,
    "cifar10": cifar10,
    "idx": idx,
    "arrays": arrays,
}
