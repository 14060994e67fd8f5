"""Who moved which alias, when, from what, to what and why: an append-only file of JSON lines."""

import getpass
import json
import os
import socket
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NAME = "ledger.jsonl"


@dataclass(frozen=True)
class Entry:
    """One promotion. `previous` is the version that stood there before, None for the first."""

    when: str
    who: str
    model: str
    alias: str
    previous: str | None
    version: str
    why: str


def now(*, model: str, alias: str, previous: str | None, version: str, why: str) -> Entry:
    """An entry of this moment by this user on this machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's bare user id has no name
        user = f"uid {os.getuid()}"
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    return Entry(moment, f"{user}@{socket.gethostname()}", model, alias, previous, version, why)


def append(path: Path, entry: Entry) -> None:
    """Add one line and flush it to the disk. A line that a crash tore is left as it is, on a line of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n"
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, b"\n" + line if torn else line)  # one write: lines of two processes never mix
        os.fsync(handle)
    finally:
        os.close(handle)


def read(path: Path) -> list[Entry]:
    """Every whole line, oldest first; a torn one is passed over. No file: no entries."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_bytes().splitlines():
        try:
            found: dict[str, Any] = json.loads(line)
            entries.append(Entry(**found))
        except (ValueError, TypeError):
            continue
    return entries
