"""What a sample, and a file of samples, is known by: its bytes."""

import hashlib
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.atomic import sha256
from limbeck.errors import DataError


def fingerprint(raw: bytes) -> int:
    """64 bits of BLAKE2b over a sample's bytes: of a million samples two differing ones share it once in 40 million."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def fingerprints(samples: Iterable[NDArray[Any]]) -> NDArray[np.uint64]:
    """[N] of N samples, read one by one."""
    found = array("Q", (fingerprint(sample.tobytes()) for sample in samples))
    return np.array(found, np.uint64)


def intact(path: Path, expected: str | None, *, since: str, restore: str, other: str = "") -> Path:
    """The path of an array whose bytes are those that were told.

    Args:
        path: the file.
        expected: its sha256.
        since: what happened to it then, as "it arrived".
        restore: what `dvc checkout` takes.
        other: what else helps where it is missing.

    Raises:
        DataError: it is missing, or its bytes are others.

    """
    if not path.exists():
        raise DataError(f"{path} is missing; `dvc checkout {restore}` restores it{other}.")
    if (found := sha256(path)) != expected:
        raise DataError(
            f"{path} has changed since {since}: expected sha256 {str(expected)[:16]}..., found {found[:16]}.... "
            f"`dvc checkout --force {restore}` restores it."
        )
    return path
