"""Files in a folder, a .zip or a .tar: listed once, then read from front to back, never unpacked."""

import importlib
import os
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from limbeck.data.sources.source import Broken
from limbeck.data.sources.telling import Telling
from limbeck.errors import DataError

MARKS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\xfd7zXZ\x00": "lzma"}
"""How a compressed file begins, and the module that reads it."""


class Names:
    """Paths with `/`, in the bytes of their text and eight more: a million `str` in a list take twice as much."""

    def __init__(self) -> None:
        self._text, self._ends = bytearray(), array("Q")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> str:
        start = self._ends[number - 1] if number else 0
        return self._text[start : self._ends[number]].decode("utf-8", "surrogateescape")

    def append(self, name: str) -> None:
        """Add a path."""
        self._text += name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._text))


class Packed(Protocol):
    """Files, in an order that is the same each time.

    Attributes:
        names: of them.
        num_bytes: of all of them, unpacked, as their place says.

    """

    names: Names
    num_bytes: int

    def contents(self, wanted: NDArray[np.bool_]) -> Iterator[tuple[str, bytes | Broken]]:
        """Name and content of every wanted [len(names)] file, in order; `Broken` for one that cannot be read.

        Raises:
            DataError: reading cannot go on behind it.
        """


def listed(place: Path, suffixes: set[str]) -> Packed:
    """The files with one of `suffixes`, less hidden ones and those that macOS adds to its archives.

    Raises:
        DataError: an archive is damaged or cut short, or a member points out of it or is a link.
    """
    if place.is_dir():
        return _Folder(place, suffixes)
    return _Zip(place, suffixes) if place.suffix.lower() == ".zip" else _Tar(place, suffixes)


def _is_wanted(name: str, suffixes: set[str]) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in suffixes and not any(part[0] == "." or part == "__MACOSX" for part in path.parts)


def _safe(place: Path, name: str) -> str:
    """A member's name without `./` in front, when it stays inside its archive."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise DataError(f"{place}: {name!r} points out of the archive, which cannot be trusted.")
    return str(path)


class _Folder:
    def __init__(self, place: Path, suffixes: set[str]) -> None:
        self.place, self.names, self.num_bytes = place, Names(), 0
        for name in self._walk(""):
            if _is_wanted(name, suffixes):
                self.names.append(name)
                self.num_bytes += (place / name).stat().st_size

    def _walk(self, below: str) -> Iterator[str]:
        """Paths below the place, each folder's in the order of their names."""
        try:
            entries = sorted(os.scandir(self.place / below), key=lambda entry: entry.name)
            for entry in entries:
                name = below + entry.name
                if entry.is_dir() and entry.name[0] != ".":
                    yield from self._walk(f"{name}/")
                elif entry.is_file():
                    yield name
        except OSError as error:  # permission, or links to folders that lead round in a circle
            raise DataError(f"{self.place / below} cannot be listed: {error.strerror}.") from None

    def contents(self, wanted: NDArray[np.bool_]) -> Iterator[tuple[str, bytes | Broken]]:
        for number in np.flatnonzero(wanted).tolist():
            name = self.names[number]
            try:
                yield name, (self.place / name).read_bytes()
            except OSError as error:
                yield name, Broken(name, str(error.strerror))


class _Zip:
    """zipfile keeps an archive's whole table of contents, about 0.6 kB for each file."""

    def __init__(self, place: Path, suffixes: set[str]) -> None:
        self.place, self.names, self.num_bytes = place, Names(), 0
        members = array("Q")
        with self._open() as archive:
            for number, member in enumerate(archive.infolist()):
                name = _safe(place, member.filename)
                if member.is_dir() or not _is_wanted(name, suffixes):
                    continue
                if member.external_attr >> 16 & 0o170000 == 0o120000:
                    raise DataError(f"{place}: {name} is a link; pack the file itself.")
                self.names.append(name)
                members.append(number)
                self.num_bytes += member.file_size
        self._members = np.array(members, np.int64)

    @contextmanager
    def _open(self) -> Iterator[zipfile.ZipFile]:
        try:
            archive = zipfile.ZipFile(self.place)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{self.place} is no zip archive, or cut short: {error}.") from None
        with archive:
            yield archive

    def contents(self, wanted: NDArray[np.bool_]) -> Iterator[tuple[str, bytes | Broken]]:
        with self._open() as archive:
            members = archive.infolist()
            for number in np.flatnonzero(wanted).tolist():
                name = self.names[number]
                try:
                    yield name, archive.read(members[self._members[number]])
                except (
                    zipfile.BadZipFile,
                    zlib.error,
                    EOFError,
                    OSError,
                    RuntimeError,
                ) as error:  # or it has a password
                    yield name, Broken(name, str(error))


class _LastRead:
    """A stream that remembers what was read last."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream, self.last = stream, b""
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        self.last = self.stream.read(size)
        return self.last


class _Tar:
    """Members are listed with their place in the stream, so that a later pass need not parse headers again."""

    def __init__(self, place: Path, suffixes: set[str]) -> None:
        self.place, self.names, self.num_bytes = place, Names(), 0
        offsets, sizes = array("Q"), array("Q")
        with place.open("rb") as file, self._open(file) as stream, self._explained():
            telling, num_bytes = Telling(f"listing {place}"), place.stat().st_size
            for member in self._members(stream):
                telling.progress(file.tell(), num_bytes)
                name = _safe(place, member.name)
                if member.isdir() or not _is_wanted(name, suffixes):
                    continue
                if not member.isreg() or member.issparse():
                    raise DataError(f"{place}: {name} is a link or no plain file; pack the file itself (tar -h).")
                self.names.append(name)
                offsets.append(member.offset_data)
                sizes.append(member.size)
                self.num_bytes += member.size
        self._offsets, self._sizes = np.array(offsets, np.int64), np.array(sizes, np.int64)

    def _open(self, file: IO[bytes]) -> IO[bytes]:
        start = file.read(max(map(len, MARKS)))
        file.seek(0)
        for mark, module in MARKS.items():
            if start.startswith(mark):
                opener: Callable[[IO[bytes]], IO[bytes]] = importlib.import_module(module).open
                return opener(file)
        return file

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            after = f" behind {self.names[len(self.names) - 1]}" if len(self.names) else ""
            raise DataError(
                f"{self.place} cannot be read as .tar, .tar.gz, .tar.bz2 or .tar.xz{after}: {error}. "
                "Get it or pack it again."
            ) from None

    def _members(self, stream: IO[bytes]) -> Iterator[tarfile.TarInfo]:
        whole = _LastRead(stream)
        with tarfile.open(fileobj=cast(IO[bytes], whole), mode="r:") as archive:
            while (member := archive.next()) is not None:
                cast(Any, archive).members.clear()  # else it keeps every header it has seen
                yield member
        # tarfile takes a damaged header, or the end of a file cut short, for the end of the archive
        if len(whole.last) != tarfile.BLOCKSIZE or any(whole.last):
            raise tarfile.ReadError("it ends without the block of zeros that ends an archive")
        while stream.read(1 << 20):  # a compressed stream holds its checksum at its very end
            pass

    def contents(self, wanted: NDArray[np.bool_]) -> Iterator[tuple[str, bytes | Broken]]:
        with self.place.open("rb") as file, self._open(file) as stream, self._explained():
            for number in np.flatnonzero(wanted).tolist():
                stream.seek(int(self._offsets[number]))  # forward only: a compressed stream goes no other way
                content = stream.read(int(self._sizes[number]))
                if len(content) < self._sizes[number]:
                    raise EOFError("it has become shorter while it was read")
                yield self.names[number], content
