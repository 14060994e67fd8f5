"""What a sample is known by: its bytes."""

import hashlib
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def fingerprint(raw: bytes) -> int:
    """64 bits of BLAKE2b over a sample's bytes: of a million samples two differing ones share it once in 40 million."""
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def fingerprints(samples: Iterable[NDArray[Any]]) -> NDArray[np.uint64]:
    """[N] of N samples, read one by one."""
    found = array("Q", (fingerprint(sample.tobytes()) for sample in samples))
    return np.array(found, np.uint64)
