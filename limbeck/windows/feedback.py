"""What devices uploaded becomes windows without labels.

    REPORTS/DEVICE/TIME-SERIAL-DIGEST-RANDOM.npz        written by `limbeck.edge.spool.keep_sample`, or by whoever has an account

DIGEST is that of the bundle which was asked: samples of other models that report to the same server are left where they are, for
those. Everything here came from outside: a file counts when it is small, holds exactly `input` [1, ...] of the prepared data's dtype and
shape and one `confidence`, and nothing of it is unpickled. All others are counted as broken, and none of them can raise. No
device fills a window alone (`max_per_device`). What was looked at once is remembered in the window (`heard.json`) and is not
looked at again: a place that devices write to has nothing that we could delete.
"""

import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from limbeck.data.prepared import Meta
from limbeck.data.sources.source import Broken
from limbeck.data.window import UNLABELLED
from limbeck.windows import shelf
from limbeck.windows.entries import READ_ERRORS, Incoming
from limbeck.windows.intake import Arrival, Arrived, Taker
from limbeck.windows.labelling import Teacher
from limbeck.windows.reference import Reference
from limbeck.windows.rules import WindowRules

DEVICE = re.compile(r"[0-9a-f]{16}")
FILE = re.compile(r"\d{8}T\d{6}Z-\d{1,9}-([0-9a-f]{16})-[0-9a-f]{8}\.npz")
HEARD = "heard.json"
HEADER_BYTES = 4096
"""More than numpy's header of an array takes."""


class Told(Protocol):
    """The part of `limbeck.publishing.places.Place` that is needed here."""

    def kept(self, model: str) -> set[str]:
        """Every bundle that was stored for a model, by the first 16 hex digits of its manifest's digest."""

    def reporters(self) -> list[str]:
        """Names of the folders that devices made."""

    def told(self, reporter: str) -> list[str]:
        """Files in such a folder, none larger than a report is."""

    def hear(self, reporter: str, name: str) -> bytes | None:
        """Such a file; None where there is none, or a larger one."""


def take_feedback(
    place: Told,
    windows: Path,
    data: Path,
    rules: WindowRules,
    *,
    model: str,
    now: float,
    teacher: Teacher | None = None,
    root: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Arrived | None:
    """Make one window of the samples that devices of a model uploaded since the last; None: there are too few yet.

    Args:
        place: where devices put what they tell.
        windows: the folder of windows.
        data: what `prepare` wrote.
        rules: see `WindowRules`.
        model: name of the registered model, whose bundles were published at the place.
        now: Unix time; the window is called by it.
        teacher: labels the samples; None: nobody does.
        root: what the first champion was made of, whose samples are known, too; see `Reference`.
        say: told of the window.

    Raises:
        DataError: `data` is not what it should be, or the teacher does not belong to it.
        TrackingError: the server does not answer.

    """
    with shelf.turn(windows):
        chosen = _choose(place, place.kept(model), _heard(windows), rules)
        if len(chosen) < rules.min_samples:
            return None
        taker = Taker(windows, Reference(data, teacher, root), rules, (), say)
        meta = taker.reference.meta

        def samples() -> Iterator[NDArray[Any] | Broken]:
            for key in chosen:
                device, _, name = key.partition("/")
                yield parse(key, place.hear(device, name), meta)

        at = datetime.fromtimestamp(int(now), UTC)
        source = hashlib.sha256(json.dumps(chosen).encode()).hexdigest()
        name, _ = shelf.place_for(windows, f"{at:%Y%m%dT%H%M%SZ}-feedback", source)
        incoming = Incoming(meta.classes, np.full(len(chosen), UNLABELLED, np.int64), chosen, samples)
        arrival = Arrival(name, "feedback", f"{len(chosen)} uploads", source, at)
        folder = taker.take(arrival, lambda: incoming, lambda: True, {HEARD: chosen})
        assert folder is not None
        return taker.told(folder)


def _heard(windows: Path) -> set[str]:
    """The uploads that windows were made of, aside or not."""
    found: set[str] = set()
    for place in (windows, windows / shelf.ASIDE):
        for path in place.glob(f"*/{HEARD}"):
            found |= set(json.loads(path.read_text(encoding="utf-8")))
    return found


def _choose(place: Told, bundles: set[str], heard: set[str], rules: WindowRules) -> list[str]:
    """DEVICE/FILE of the uploads for the next window: the newest of each device, devices in an order that is not theirs."""
    if not bundles:
        return []
    devices = sorted(
        (device for device in place.reporters() if DEVICE.fullmatch(device)),
        key=lambda device: hashlib.sha256(device.encode()).digest(),
    )
    chosen: list[str] = []
    for device in devices:
        told = [match for match in map(FILE.fullmatch, place.told(device)) if match is not None]
        names = sorted((match[0] for match in told if match[1] in bundles), reverse=True)
        new = [f"{device}/{name}" for name in names if f"{device}/{name}" not in heard]
        chosen += new[: rules.max_per_device]
        if len(chosen) >= rules.max_samples:
            break
    return sorted(chosen[: rules.max_samples])


def parse(key: str, content: bytes | None, meta: Meta) -> NDArray[Any] | Broken:
    """The sample of an upload, or why it is none. Memory holds no more than a sample is allowed to take."""
    size = math.prod(meta.shape) * np.dtype(meta.dtype).itemsize
    try:
        with zipfile.ZipFile(io.BytesIO(content or b"")) as archive:
            sizes = {member.filename: member.file_size for member in archive.infolist()}
            if sizes.keys() != {"input.npy", "confidence.npy"} or max(sizes.values()) > size + HEADER_BYTES:
                return Broken(key, "it is not what a device's spool writes")
            raw = archive.read("input.npy")
        if len(raw) > size + HEADER_BYTES:
            return Broken(key, "it is larger than it says")
        stream = io.BytesIO(raw)
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            return Broken(key, "it is not what numpy writes")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        if is_fortran or dtype.hasobject or shape != (1, *meta.shape) or str(dtype) != meta.dtype:
            return Broken(key, "it is of another shape or dtype")
        values = stream.read()
        if len(values) != size:
            return Broken(key, "it is cut short, or longer than it says")
        return np.frombuffer(values, dtype).reshape(meta.shape)
    except (*READ_ERRORS, OSError) as error:
        return Broken(key, str(error) or type(error).__name__)
