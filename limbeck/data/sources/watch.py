"""Shoulder exercises under a smartwatch, as the package seglearn embeds them."""

import hashlib
import io
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import PositiveInt

from limbeck.data.sources.recordings import Recording, Step, part_of, step_of
from limbeck.data.sources.source import Source, located
from limbeck.errors import DataError

MEMBER = "seglearn/data/watch_dataset.npy"
SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
HOW = (
    "`pip download --no-deps seglearn==1.2.5` brings the wheel (11 MB, BSD-3-Clause); put it there. Nothing of it is "
    "installed or run."
)


def watch(
    *,
    path: str,
    window: PositiveInt,
    hop: PositiveInt,
    group: Literal["subject", "recording"] = "subject",
    sha256: str = SHA256,
) -> Source:
    """140 recordings of 7 exercises by 10 people, both arms: acceleration and rotation in 6 channels, 50 Hz, 81 minutes.

    D. Burns et al. (2018), Shoulder physiotherapy exercise recognition, arXiv:1802.01489. Windows [T, C] float32.

    Args:
        path: seglearn's wheel, or the file `watch_dataset.npy` out of it; below $LIMBECK_DATA when it is relative.
        window: T, steps of a sample.
        hop: steps from a window to the next.
        group: what never stands in two splits: all of a person, as a device meets people it has not seen; or a recording.
        sha256: of `watch_dataset.npy`.

    Raises:
        DataError: it is missing, or not the file expected.

    """
    found = _read(located(path, HOW), sha256)
    channels, classes = tuple(found["X_labels"]), tuple(found["y_labels"])
    owners = found["subject"] if group == "subject" else range(len(found["X"]))
    recordings = [
        Recording(f"recording {number} of {path}", int(label), int(owner), len(steps))
        for number, (steps, label, owner) in enumerate(zip(found["X"], found["y"], owners, strict=True))
    ]

    def passes() -> Iterator[Iterator[Step]]:
        for recording in found["X"]:
            yield (step_of(values, channels, f"step {number}") for number, values in enumerate(recording))

    return Source("watch", classes, part_of(recordings, passes, window, hop))


def _read(place: Path, sha256: str) -> dict[str, Any]:
    """What the file holds, once its bytes are those expected."""
    try:
        if place.suffix == ".whl":
            with zipfile.ZipFile(place) as wheel:
                content = wheel.read(MEMBER)
        else:
            content = place.read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{place} cannot be read: {error}. {HOW}") from None
    if (digest := hashlib.sha256(content).hexdigest()) != sha256:
        raise DataError(
            f"{place} does not hold the data expected: sha256 {sha256[:16]}..., found {digest[:16]}.... {HOW}"
        )
    stream = io.BytesIO(content)
    np.lib.format.read_magic(stream)
    np.lib.format.read_array_header_1_0(stream)
    found: dict[str, Any] = _Unpickler(stream).load().item()
    return found


class _Unpickler(pickle.Unpickler):
    """Builds arrays and nothing else. numpy pickled this file in 2018; its bytes are known, this is the second lock."""

    def find_class(self, module: str, name: str) -> Any:
        return {
            ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, code: np.ndarray.__new__(kind, shape, code),
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
        }[module, name]
