"""What is to be told to the server: files on disk, bounded, sent when it answers, removed when it has acknowledged."""

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from limbeck.edge import EdgeError, durable
from limbeck.edge.home import Home

if TYPE_CHECKING:
    from limbeck.edge.fetch import Server

FORMAT = 1
OPEN = ".open"
"""Still being written to; complete again after every write."""
STALE_S = 120.0
"""An open file that nobody touched for so long belongs to a dead process."""


def new_name(key: str) -> str:
    """A name that sorts by time and that no two processes share."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{key}-{os.urandom(4).hex()}"


def header(home: Home, kind: str, key: str) -> dict[str, Any]:
    """What every report begins with."""
    serial = int(key.partition("-")[0])
    device = home.device
    return {"format": FORMAT, "kind": kind, "device": device.id, "model": device.model, "serial": serial, "bundle": key}


def tell(home: Home, event: str, key: str, why: str, **facts: Any) -> None:
    """Spool an event of a bundle's life here: committed, reverted, refused, rolled back.

    A disk that does not take it costs the report: what it tells of goes on.
    """
    report = {**header(home, "event", key), "time": time.time(), "event": event, "why": why, **facts}
    with contextlib.suppress(OSError):
        durable.write_json(home.spool / f"{new_name(key)}.json", report, indent=None)
        bound(home)


def bound(home: Home) -> int:
    """Remove the oldest files until the rest keeps the limit; how many went since this device was provisioned."""
    sizes = {}
    for path in sorted(path for path in home.spool.glob("*") if path.suffix in (".json", ".npz")):
        with contextlib.suppress(FileNotFoundError):  # sent meanwhile
            sizes[path] = path.stat().st_size
    total, gone = sum(sizes.values()), 0
    for path, size in sizes.items():
        if total <= home.device.settings.max_spool_bytes:
            break
        total -= size
        path.unlink(missing_ok=True)
        gone += 1
    counter = home.path / "dropped.json"
    before = int(durable.read_json(counter)) if counter.is_file() else 0
    if gone:
        durable.write_json(counter, before + gone)
    return before + gone


def close_stale(home: Home, *, older_than_s: float = STALE_S) -> None:
    """Make what dead processes left open ready to be sent.

    A process that was only asleep writes its file again under the same name, and the server's copy is replaced. What
    one that was killed had not written to its end goes.
    """
    for path in home.spool.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process was first
            if path.suffix not in (OPEN, durable.PARTIAL) or time.time() - path.stat().st_mtime <= older_than_s:
                continue
            if path.suffix == OPEN:
                path.replace(path.with_suffix(".json"))
            else:
                path.unlink()


def upload(home: Home, server: "Server") -> int:
    """Send what is spooled, oldest first; how many files were acknowledged and removed.

    Sending one twice is harmless: it has the same name there.

    Raises:
        EdgeError: the server does not take it; what was not acknowledged stays.

    """
    from limbeck.edge.fetch import Absent

    if home.device.reports is None:
        return 0
    close_stale(home)
    sent = 0
    for path in sorted(home.spool.glob("*")):
        if path.suffix not in (".json", ".npz"):
            continue
        with contextlib.suppress(FileNotFoundError):  # it gave way to newer ones meanwhile
            before = path.stat().st_mtime_ns
            try:
                server.put(f"{home.device.reports}/{home.device.id}/{path.name}", path.read_bytes())
            except Absent as error:
                raise EdgeError(f"{error} (reports; nothing is lost, {path.name} waits)") from None
            sent += 1
            if path.stat().st_mtime_ns == before:
                path.unlink()
    return sent


def keep_sample(home: Home, key: str, confidence: float, sample: NDArray[Any]) -> None:
    """Spool a raw sample [1, ...] for the operator, who switched that on."""
    import io

    stream = io.BytesIO()
    np.savez(stream, input=sample, confidence=confidence)  # numpy 2.1 takes any other keyword for an array
    durable.write_bytes(home.spool / f"{new_name(key)}.npz", stream.getvalue())
    bound(home)
