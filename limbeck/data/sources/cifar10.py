"""CIFAR-10 from its official binary archive."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from limbeck.data.sources.fetch import fetch
from limbeck.data.sources.source import DATA, Part, Source
from limbeck.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
NUM_BYTES = 170_052_171
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = ("test_batch.bin",)


def cifar10(*, folder: str, url: str = URL, num_bytes: PositiveInt = NUM_BYTES, sha256: str = SHA256) -> Source:
    """60,000 colour images 32x32 of ten classes, 10,000 of them test (Krizhevsky 2009), fetched when absent.

    Args:
        folder: where the archive lies or goes, below $LIMBECK_DATA when it is relative.
        url: of the archive.
        num_bytes: its size.
        sha256: its digest.

    Raises:
        DataError: the archive cannot be fetched or is not the one expected.

    """
    place = Path(os.environ.get(DATA, "")) / folder / url.rpartition("/")[2]
    archive = fetch(url, place, num_bytes=num_bytes, digest=sha256)
    return Source("cifar10", CLASSES, _part(archive, TRAIN), _part(archive, TEST))


def _part(archive: Path, names: tuple[str, ...]) -> Part:
    labels = np.concatenate([records[:, 0] for records in _batches(archive, names)]).astype(np.int64)

    def samples() -> Iterator[NDArray[np.uint8]]:
        for records in _batches(archive, names):
            yield from np.ascontiguousarray(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))

    return Part(labels, samples)


def _batches(archive: Path, names: tuple[str, ...]) -> Iterator[NDArray[np.uint8]]:
    """Records [10000, 3073] of each file, in the archive's order; one file is in memory at a time."""
    found = 0
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            if Path(member.name).name in names and member.isfile():
                stream = tar.extractfile(member)
                assert stream is not None
                data = np.frombuffer(stream.read(), np.uint8)
                if len(data) % RECORD:
                    raise DataError(f"{archive}: {member.name} is no whole number of records of {RECORD} B.")
                found += 1
                yield data.reshape(-1, RECORD)
    if found != len(names):
        raise DataError(f"{archive} holds {found} of the files {', '.join(names)}.")
