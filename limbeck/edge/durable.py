"""Files of a device that survive a power cut: written beside their place, synced, renamed, the folder synced.

(`limbeck.atomic` has the pipeline's own: a device has this room alone.)
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
"""What the name of a file ends in until it is whole."""


def fsync(path: Path) -> None:
    """Flush a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Flush everything below a folder, the entries last."""
    for place in sorted(folder.rglob("*"), reverse=True):
        if not place.is_symlink():
            fsync(place)
    fsync(folder)


def move(source: Path, place: Path) -> None:
    """Rename a synced file or folder into its place, for good."""
    os.replace(source, place)
    fsync(place.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file whole or not at all."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        move(partial, path)
    except OSError:
        with contextlib.suppress(OSError):  # on a full disk it would keep the little room there is
            partial.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, *, indent: int | None = 1) -> None:
    """Replace a JSON file whole or not at all; NaN is refused. Without `indent` it is as short as can be."""
    separators = (",", ":") if indent is None else None
    write_bytes(path, json.dumps(value, indent=indent, separators=separators, allow_nan=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no JSON.
    """
    return json.loads(path.read_bytes())
