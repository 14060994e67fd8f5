"""Folders and archives of PNG and JPEG: `CLASS/*.png`, or `train/CLASS/*.png` and `test/CLASS/*.png`."""

import io
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from limbeck.data.sources.folders import by_folder
from limbeck.data.sources.packed import Packed, listed
from limbeck.data.sources.source import Broken, OnError, Source, located
from limbeck.errors import DataError

SUFFIXES = {".png", ".jpg", ".jpeg"}
MODES = {"rgb": "RGB", "grey": "L"}
CHUNK_FILES, CHUNK_BYTES = 32, 1 << 18
"""What one thread decodes at once: many thumbnails, or one photograph."""

HOW = "Expected a folder, .tar.gz or .zip of CLASS/*.png (or .jpg), or of train/CLASS/* and test/CLASS/*."


def image_folder(
    *,
    path: str,
    size: PositiveInt | None = None,
    color: Literal["rgb", "grey"] = "rgb",
    on_error: OnError = "fail",
    get: str | None = None,
) -> Source:
    """Images in a folder for each class; classes are the sorted names of the folders.

    Decoded by the processor's cores, in order: of a folder by name, of an archive as it was packed. The order is
    part of the result, the number of cores is not. Photographs are turned as their EXIF data says.

    Args:
        path: a folder, .tar, .tar.gz, .tgz or .zip; below $LIMBECK_DATA when it is relative.
        size: scale every image to size x size pixels; None: all have to have one size already.
        color: three channels, or one.
        on_error: what images that cannot be read do, once all of them are counted.
        get: how to get the files, told when they are absent.

    Raises:
        DataError: nothing there, no image in it, another layout, or a member that points out of its archive.

    """
    place = located(path, get or HOW)
    files = listed(place, SUFFIXES)
    if not len(files.names):
        raise DataError(f"{place} holds no .png or .jpg. {HOW}")
    labelled = by_folder(place, files, "image", HOW)
    return labelled.source(lambda wanted: _decoded(files, wanted, size, MODES[color]), on_error)


def _decoded(
    files: Packed, wanted: NDArray[np.bool_], size: int | None, mode: str
) -> Iterator[NDArray[np.uint8] | Broken]:
    """Every wanted image, in order. A chunk for each core, and two more, are in memory."""
    decoder = _Decoder(size, mode)
    shape: tuple[int, ...] | None = None
    for name, pixels in _on_cores(decoder.chunk, _chunks(files.contents(wanted))):
        if not isinstance(pixels, Broken):
            shape = shape or pixels.shape
            if pixels.shape != shape:
                raise DataError(
                    f"{name} is {_pixels(pixels.shape)}, those before it are {_pixels(shape)}; give the data "
                    "source a size: to which all are scaled."
                )
        yield pixels


def _chunks(contents: Iterator[tuple[str, bytes | Broken]]) -> Iterator[list[tuple[str, bytes | Broken]]]:
    chunk: list[tuple[str, bytes | Broken]] = []
    held = 0
    for name, content in contents:
        chunk.append((name, content))
        held += len(content) if isinstance(content, bytes) else 0
        if len(chunk) == CHUNK_FILES or held > CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    yield chunk


def _on_cores(work: Any, chunks: Iterator[list[Any]]) -> Iterator[Any]:
    """The results for every element of every chunk, in order."""
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(num_cores) as pool:
        waiting: deque[Future[list[Any]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(work, chunk))
            if len(waiting) > num_cores + 1:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


class _Decoder:
    """PNG or JPEG into [H, W, C] uint8."""

    def __init__(self, size: int | None, mode: str) -> None:
        self.size, self.mode = size, mode

    def chunk(self, named: list[tuple[str, bytes | Broken]]) -> list[tuple[str, NDArray[np.uint8] | Broken]]:
        """Decode one after the other."""
        return [(name, content if isinstance(content, Broken) else self(name, content)) for name, content in named]

    def __call__(self, name: str, content: bytes) -> NDArray[np.uint8] | Broken:
        """Decode one."""
        from PIL import Image, ImageOps

        try:
            with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
                if image.mode.startswith(("I", "F")):
                    return Broken(name, "it has 16 bits per pixel; expected 8 per channel")
                if self.size:  # a JPEG can be decoded at 1/2, 1/4 or 1/8 of its size in a part of the time
                    image.draft(None, (self.size, self.size))
                ImageOps.exif_transpose(image, in_place=True)
                pixels: Image.Image = image
                if "transparency" in image.info:
                    pixels = pixels.convert("RGBA")
                if pixels.mode != self.mode:
                    pixels = pixels.convert(self.mode)
                if self.size and pixels.size != (self.size, self.size):
                    pixels = pixels.resize((self.size, self.size), Image.Resampling.BILINEAR)
                return np.atleast_3d(np.asarray(pixels))
        except Exception as error:  # Pillow's plugins raise whatever the broken file makes of them
            return Broken(name, str(error) or type(error).__name__)


def _pixels(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
