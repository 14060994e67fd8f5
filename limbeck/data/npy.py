"""A `.npy` that is written sample by sample, as `numpy.save` would have written it."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES = 1 << 18
"""About how much of a file waits to be written."""


class NpyWriter:
    """Samples [...] of one shape and dtype into an array [N, ...] on the disk.

    Attributes:
        count: samples so far.
        shape: of a sample; None before the first.
        dtype: of the samples.

    """

    def __init__(self, path: Path) -> None:
        self.count = 0
        self.shape: tuple[int, ...] | None = None
        self.dtype = np.dtype(np.uint8)
        self._stream = path.open("wb")
        self._header_size, self._block = 0, bytearray()

    def takes(self, sample: NDArray[Any]) -> bool:
        """Whether a sample is of the kind of those before it."""
        return self.shape is None or (sample.shape, sample.dtype) == (self.shape, self.dtype)

    def append(self, raw: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Write one sample's bytes."""
        if self.shape is None:
            self.shape, self.dtype = shape, dtype
            self._write_header(0)
            self._header_size = self._stream.tell()
        self.count += 1
        self._block += raw
        if len(self._block) >= BLOCK_BYTES:
            self._write_block()

    def look(self, block: bytearray) -> None:
        """Told of the bytes of whole samples, just before they are written."""

    def _write_block(self) -> None:
        self.look(self._block)
        self._stream.write(self._block)
        self._block = bytearray()

    def _write_header(self, count: int) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False,
                  "shape": (count, *(self.shape or ()))}  # fmt: skip
        np.lib.format.write_array_header_1_0(self._stream, header)

    def finish(self) -> None:
        """Write what waits, and the header. Without a sample the file stays empty."""
        if self.shape is not None:
            if self._block:
                self._write_block()
            self._stream.seek(0)
            self._write_header(self.count)  # numpy's header leaves room for any count
            assert self._stream.tell() == self._header_size
        self._stream.close()

    def abandon(self) -> None:
        """Let go of the file, finished or not."""
        self._stream.close()
