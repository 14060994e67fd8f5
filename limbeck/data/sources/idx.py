"""The format of MNIST and its family: `train-images-idx3-ubyte`, plain or compressed."""

import gzip
import zlib
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


def idx(*, folder: str, name: str, classes: tuple[str, ...], get: str | None = None) -> Source:
    """The four files of an MNIST-like data set (LeCun et al. 1998), with its own test split.

    Args:
        folder: with the four files; below $LIMBECK_DATA when it is relative.
        name: of the data set.
        classes: names of the labels 0, 1, ...
        get: how to get the files, told when they are absent.

    Raises:
        DataError: a file is missing, truncated, damaged, or of another kind.

    """
    place = located(folder, get or HOW)
    return Source(name, tuple(classes), _part(place, "train"), _part(place, "t10k"))


def _part(place: Path, which: str) -> Part:
    images, labels = (_file(place, f"{which}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    with _open(labels) as stream:
        (num,) = _sizes(stream, labels, 1)
        y = np.frombuffer(_bytes(stream, labels, num), np.uint8).astype(np.int64)
        _ends(stream, labels)
    with _open(images) as stream:
        count, height, width = _sizes(stream, images, 3)
    if num != count:
        raise DataError(f"{labels} holds {num} labels and {images} {count} images; expected equal numbers.")

    def samples() -> Iterator[NDArray[np.uint8]]:
        with _open(images) as stream:
            _sizes(stream, images, 3)
            for start in range(0, count, AT_ONCE):
                some = min(AT_ONCE, count - start)
                data = _bytes(stream, images, some * height * width)
                yield from np.frombuffer(data, np.uint8).reshape(some, height, width, 1)
            _ends(stream, images)

    return Part(y, samples)


def _file(place: Path, name: str) -> Path:
    for path in (place / f"{name}.gz", place / name):
        if path.exists():
            return path
    raise DataError(f"{place} holds no {name} or {name}.gz. {HOW}")


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _read(stream: IO[bytes], path: Path, num: int) -> bytes:
    try:
        return stream.read(num)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}. Get it again.") from None


def _bytes(stream: IO[bytes], path: Path, num: int) -> bytes:
    data = _read(stream, path, num)
    if len(data) < num:
        raise DataError(f"{path} ends before what its header announces. Get it again.")
    return data


def _ends(stream: IO[bytes], path: Path) -> None:
    """Read to the end, where a compressed file has its checksum."""
    if _read(stream, path, 1):
        raise DataError(f"{path} holds more than its header announces. Get it again.")


def _sizes(stream: IO[bytes], path: Path, num_axes: int) -> tuple[int, ...]:
    header = np.frombuffer(_bytes(stream, path, 4 + 4 * num_axes), ">u4")
    if header[0] != UBYTE << 8 | num_axes:
        raise DataError(f"{path} is no idx file of bytes with {num_axes} axes. {HOW}")
    return tuple(int(size) for size in header[1:])
