"""Files that are there whole or not at all: written beside their place, synced, then renamed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def fsync_tree(path: Path) -> None:
    """Flush a file, or every file below a folder and the folders themselves, to the disk."""
    for place in [path, *path.rglob("*")] if path.is_dir() else [path]:
        handle = os.open(place, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def replace(path: Path) -> Iterator[Path]:
    """Hand out `path.partial` to write; on success it takes the place of `path`, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        fsync_tree(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON: two spaces, keys in the order given, NaN refused."""
    with replace(path) as partial:
        partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
