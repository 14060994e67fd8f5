"""numpy files: an `.npz`, or a folder of `.npy`."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from limbeck.data.sources.source import Part, Source, located
from limbeck.errors import DataError

CHUNK_BYTES = 1 << 20
HOW = (
    "Expected an .npz, or a folder of .npy, that holds `x` [N, ...] and `y` [N], and if it brings its own test "
    "split `x_test` and `y_test`; `classes` names the classes."
)


def arrays(*, path: str, get: str | None = None) -> Source:
    """Arrays `x` and `y`, perhaps `x_test` and `y_test`, perhaps `classes`, read in pieces and never unpickled.

    Samples are stored as they are, but images [N, H, W] uint8 get their one channel.

    Args:
        path: an .npz, or a folder of .npy; below $LIMBECK_DATA when it is relative.
        get: how to get the files, told when they are absent.

    Raises:
        DataError: a file or an array is missing or damaged, or holds Python objects.

    """
    place = located(path, get or HOW)
    names = names_in(place)
    if not {"x", "y"} <= names:
        raise DataError(f"{place} holds {', '.join(sorted(names)) or 'no arrays'}. {HOW}")
    labels = {name: whole(place, name) for name in ("y", "y_test") if name in names}
    for name, values in labels.items():
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise DataError(f"{place}: {name} is {values.dtype}{list(values.shape)}; expected integers [N].")
    lonely = [
        name for name, pair in (("x_test", "y_test"), ("y_test", "x_test")) if name in names and pair not in names
    ]
    if lonely:
        raise DataError(f"{place} holds {lonely[0]} alone; expected both x_test and y_test, or none.")
    count = 1 + max((int(values.max()) for values in labels.values() if len(values)), default=-1)
    classes = whole(place, "classes") if "classes" in names else np.arange(count)
    test = _part(place, "x_test", labels["y_test"]) if {"x_test", "y_test"} <= names else None
    return Source(place.stem, tuple(str(name) for name in classes), _part(place, "x", labels["y"]), test)


def _part(place: Path, name: str, labels: NDArray[Any]) -> Part:
    shape, _ = header_of(place, name)
    if not shape or shape[0] != len(labels):
        raise DataError(f"{place}: {name} is {list(shape)} and its labels are [{len(labels)}]; expected equal counts.")

    def samples() -> Iterator[NDArray[Any]]:
        for sample in streamed(place, name):
            yield sample[..., None] if sample.dtype == np.uint8 and sample.ndim == 2 else sample

    return Part(labels.astype(np.int64), samples)


def streamed(place: Path, name: str) -> Iterator[NDArray[Any]]:
    """The samples of an array [N, ...], as they are; CHUNK_BYTES are in memory.

    Raises:
        DataError: it is damaged or cut short, or holds Python objects.
    """
    with _open(place, name) as stream:
        (num, *rest), dtype = _header(stream, place, name)
        size = int(np.prod(rest)) * dtype.itemsize
        at_once = max(1, CHUNK_BYTES // max(1, size))
        for start in range(0, num, at_once):
            count = min(at_once, num - start)
            data = stream.read(count * size)
            if len(data) < count * size:
                raise DataError(f"{place}: {name} ends after {start + len(data) // size} of {num} samples.")
            yield from np.frombuffer(data, dtype).reshape(count, *rest)


def header_of(place: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype that an array says it has.

    Raises:
        DataError: see `streamed`.
    """
    with _open(place, name) as stream:
        return _header(stream, place, name)


def names_in(place: Path) -> set[str]:
    """The arrays of an .npz or a folder.

    Raises:
        DataError: it is no .npz.
    """
    if place.is_dir():
        return {file.stem for file in place.glob("*.npy")}
    try:
        with zipfile.ZipFile(place) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except zipfile.BadZipFile:
        raise DataError(f"{place} is no .npz. {HOW}") from None


@contextmanager
def _open(place: Path, name: str) -> Iterator[IO[bytes]]:
    """An array's stream."""
    try:
        if place.is_dir():
            with (place / f"{name}.npy").open("rb") as stream:
                yield stream
        else:
            with zipfile.ZipFile(place) as archive, archive.open(f"{name}.npy") as stream:
                yield stream
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, RuntimeError) as error:  # or it has a password
        raise DataError(f"{place}: {name} cannot be read: {error}. Get or save it again.") from None


def _header(stream: IO[bytes], place: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(stream)
    except ValueError as error:
        raise DataError(f"{place}: {name} is no array that numpy wrote: {error}.") from None
    if dtype.hasobject or is_fortran:
        raise DataError(f"{place}: {name} holds {'Python objects' if dtype.hasobject else 'columns first'}; save it "
                        "as plain numbers, samples first (np.ascontiguousarray).")  # fmt: skip
    return shape, dtype


def whole(place: Path, name: str) -> NDArray[Any]:
    """An array in memory.

    Raises:
        DataError: see `streamed`.
    """
    with _open(place, name) as stream:
        try:
            values: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        except ValueError as error:
            raise DataError(f"{place}: {name} cannot be read: {error}.") from None
    return values
