"""Folders and archives of PNG and JPEG: `CLASS/*.png`, or `train/CLASS/*.png` and `test/CLASS/*.png`."""

import gzip
import io
import itertools
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from limbeck.data.sources.source import Broken, OnError, Part, Source, located
from limbeck.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg"}
MODES = {"rgb": "RGB", "grey": "L"}
AT_ONCE = 32
"""Files read ahead of the decoders: of photographs, hundreds would not be flat memory."""
HOW = "Expected a folder, .tar.gz or .zip of CLASS/*.png (or .jpg), or of train/CLASS/* and test/CLASS/*."


def image_folder(
    *, path: str, size: PositiveInt | None = None, color: Literal["rgb", "grey"] = "rgb", on_error: OnError = "fail"
) -> Source:
    """Images in a folder for each class; classes are the sorted names of the folders.

    Decoded by the processor's cores, in order. An archive is read from front to back and never unpacked.

    Args:
        path: a folder, .tar, .tar.gz, .tgz or .zip; below $LIMBECK_DATA when it is relative.
        size: scale every image to size x size pixels; None: all have to have one size already.
        color: three channels, or one.
        on_error: what images that cannot be read do, once all of them are counted.

    Raises:
        DataError: nothing there, no image in it, another layout, or a member that points out of its archive.

    """
    place = located(path, HOW)
    images = _Folder(place) if place.is_dir() else _Zip(place) if place.suffix == ".zip" else _Tar(place)
    names = images.names()
    layout = [_placed(name) for name in names]
    if not layout:
        raise DataError(f"{place} holds no .png or .jpg. {HOW}")
    has_own = {which for which, _ in layout} == {"train", "test"}
    if not has_own and any(which for which, _ in layout):
        raise DataError(f"{place} has images in {sorted({which or 'class folders' for which, _ in layout})}. {HOW}")
    classes = sorted({label for _, label in layout})
    index = {label: number for number, label in enumerate(classes)}

    def part(which: str) -> Part:
        mine = {name for name, (whose, _) in zip(names, layout, strict=True) if whose == which}
        labels = [index[label] for whose, label in layout if whose == which]
        return Part(np.array(labels, np.int64), lambda: _decoded(images, mine, size, MODES[color]))

    if not has_own:
        return Source(_stem(place), tuple(classes), part(""), on_error=on_error)
    missing = set(classes) - {label for which, label in layout if which == "train"}
    if missing:
        raise DataError(f"{place}: no training image of {', '.join(sorted(missing))}, which test has.")
    return Source(_stem(place), tuple(classes), part("train"), part("test"), on_error=on_error)


def _placed(name: str) -> tuple[str, str]:
    """`.../train/cat/1.png` -> (`train`, `cat`); `.../cat/1.png` -> (``, `cat`)."""
    *above, label, _ = ("", "", *PurePosixPath(name).parts)
    if not label:
        raise DataError(f"{name} lies in no class folder. {HOW}")
    return (above[-1] if above[-1] in ("train", "test") else ""), label


def _stem(place: Path) -> str:
    return place.name.split(".")[0]


@dataclass(frozen=True)
class _Folder:
    place: Path

    def names(self) -> list[str]:
        """Paths below the folder, sorted; hidden files are nobody's data."""
        found = (path.relative_to(self.place) for path in self.place.rglob("*"))
        images = (path for path in found if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
        return sorted(path.as_posix() for path in images)

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of every image, in the order of `names`."""
        for name in self.names():
            yield name, (self.place / name).read_bytes()


@dataclass(frozen=True)
class _Zip:
    place: Path

    def names(self) -> list[str]:
        """Images as the archive lists them."""
        try:
            with zipfile.ZipFile(self.place) as archive:
                return [name for name in archive.namelist() if _is_image(self.place, name)]
        except zipfile.BadZipFile as error:
            raise DataError(f"{self.place} is no zip archive: {error}. {HOW}") from None

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of every image, in the order of `names`."""
        with zipfile.ZipFile(self.place) as archive:
            for name in self.names():
                yield name, archive.read(name)


@dataclass(frozen=True)
class _Tar:
    place: Path

    def _members(self, *, content: bool) -> Iterator[tuple[str, bytes]]:
        try:
            is_plain = self.place.suffix == ".tar"
            with (
                self.place.open("rb") if is_plain else gzip.open(self.place) as whole,
                tarfile.open(fileobj=cast(IO[bytes], whole), mode="r|") as archive,
            ):
                for member in archive:
                    if member.isdir() or not _is_image(self.place, member.name):
                        continue
                    if not member.isfile():
                        raise DataError(f"{self.place}: {member.name} is a link; an archive of images holds files.")
                    stream = archive.extractfile(member) if content else None
                    yield member.name, stream.read() if stream else b""
                while whole.read(1 << 20):  # tarfile takes the end of a file cut short for the end of the archive
                    pass
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise DataError(f"{self.place} cannot be read: {error}. {HOW}") from None

    def names(self) -> list[str]:
        """Images in the archive's order."""
        return [name for name, _ in self._members(content=False)]

    def read(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of every image, in the order of `names`."""
        return self._members(content=True)


def _is_image(place: Path, name: str) -> bool:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise DataError(f"{place}: {name!r} points out of the archive, which cannot be trusted.")
    return path.suffix.lower() in SUFFIXES and path.name[0] != "." and "__MACOSX" not in path.parts


def _decoded(
    images: _Folder | _Zip | _Tar, mine: set[str], size: int | None, mode: str
) -> Iterator[NDArray[np.uint8] | Broken]:
    """Every image of a part, in order; some are decoded at once, and no more than those are in memory."""
    from PIL import Image, ImageOps

    def decode(named: tuple[str, bytes]) -> tuple[str, NDArray[np.uint8] | Broken]:
        name, content = named
        try:
            with Image.open(io.BytesIO(content)) as opened:
                image = ImageOps.exif_transpose(opened).convert(mode)
            if size:
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            return name, np.atleast_3d(np.asarray(image))
        except Exception as error:  # Pillow's plugins raise whatever the broken file makes of them
            return name, Broken(name, str(error) or type(error).__name__)

    shape: tuple[int, ...] | None = None
    contents = (named for named in images.read() if named[0] in mine)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while some := list(itertools.islice(contents, AT_ONCE)):
            for name, pixels in pool.map(decode, some):
                if not isinstance(pixels, Broken):
                    shape = shape or pixels.shape
                    if pixels.shape != shape:
                        raise DataError(
                            f"{name} is {_pixels(pixels.shape)}, those before it are {_pixels(shape)}; give the data "
                            "source a size: to which all are scaled."
                        )
                yield pixels


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
