"""The format of MNIST and its family: `train-images-idx3-ubyte`, plain or compressed."""

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from limbeck.data.sources.source import Part, Source, located
from limbeck.errors import DataError

AT_ONCE = 1024
UBYTE = 8
HOW = "Expected a folder with {train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz."


def idx(*, folder: str, name: str, classes: tuple[str, ...]) -> Source:
    """The four files of an MNIST-like data set (LeCun et al. 1998), with its own test split.

    Raises:
        DataError: a file is missing, truncated, or of another kind.

    """
    place = located(folder, HOW)
    return Source(name, tuple(classes), _part(place, "train"), _part(place, "t10k"))


def _part(place: Path, which: str) -> Part:
    images, labels = (_file(place, f"{which}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    with _open(labels) as stream:
        (num,) = _sizes(stream, labels, 1)
        y = np.frombuffer(stream.read(num), np.uint8).astype(np.int64)
    with _open(images) as stream:
        count, height, width = _sizes(stream, images, 3)
    if not num == len(y) == count:
        raise DataError(f"{labels} says {num} labels and holds {len(y)}; {images} says {count} images. Get them again.")

    def samples() -> Iterator[NDArray[np.uint8]]:
        with _open(images) as stream:
            _sizes(stream, images, 3)
            for start in range(0, count, AT_ONCE):
                some = min(AT_ONCE, count - start)
                data = stream.read(some * height * width)
                if len(data) < some * height * width:
                    raise DataError(f"{images} ends before its {count} images; get it again.")
                yield from np.frombuffer(data, np.uint8).reshape(some, height, width, 1)

    return Part(y, samples)


def _file(place: Path, name: str) -> Path:
    for path in (place / f"{name}.gz", place / name):
        if path.exists():
            return path
    raise DataError(f"{place} holds no {name} or {name}.gz. {HOW}")


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _sizes(stream: IO[bytes], path: Path, num_axes: int) -> tuple[int, ...]:
    try:
        header = np.frombuffer(stream.read(4 + 4 * num_axes), ">u4")
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Get it again.") from None
    if len(header) != 1 + num_axes or header[0] != UBYTE << 8 | num_axes:
        raise DataError(f"{path} is no idx file of bytes with {num_axes} axes. {HOW}")
    return tuple(int(size) for size in header[1:])
