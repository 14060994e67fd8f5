"""Where samples come from: a function with keyword-only settings that returns a `Source`, one line of SOURCES."""

from collections.abc import Callable

from limbeck.components import Component, bind
from limbeck.data.sources.arrays import arrays
from limbeck.data.sources.cifar10 import cifar10
from limbeck.data.sources.digits import digits
from limbeck.data.sources.episodes import episodes
from limbeck.data.sources.idx import idx
from limbeck.data.sources.images import image_folder
from limbeck.data.sources.interactions import interactions
from limbeck.data.sources.series import series
from limbeck.data.sources.shop import shop
from limbeck.data.sources.source import Source
from limbeck.data.sources.texts import texts
from limbeck.data.sources.watch import watch
from limbeck.data.sources.wavs import wavs
from limbeck.data.sources.windows import windows
from limbeck.errors import DataError

SOURCES: dict[str, Callable[..., Source]] = {
    "digits": digits,
    "image_folder": image_folder,
    "cifar10": cifar10,
    "idx": idx,
    "arrays": arrays,
    "texts": texts,
    "series": series,
    "watch": watch,
    "wavs": wavs,
    "windows": windows,
    "episodes": episodes,
    "interactions": interactions,
    "shop": shop,
}


def open_source(component: Component) -> Source:
    """The source that `data.source` names; its labels are read, its samples wait to be streamed.

    Raises:
        ComponentError: there is no such source, or it rejects its keywords.
        DataError: what it says of its files, or it returns something else.
    """
    source = bind(component, SOURCES, "data source")()
    if not isinstance(source, Source):
        raise DataError(
            f"data source {component.use!r} returned {type(source).__name__}, expected "
            "limbeck.data.sources.source.Source; custom/sources/template.py shows one."
        )
    return source
