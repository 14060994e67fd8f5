"""Files that are there whole or not at all: written beside their place, synced, then renamed."""

import errno
import hashlib
import json
import os
import tempfile
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


def is_full(folder: Path) -> bool:
    """Whether the disk takes no more: some libraries say only that a write was short."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(bytes(64 * 1024))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def reserve(path: Path) -> None:
    """Have the disk set aside a sparse file's whole size: writing to a memory map of a full disk is a bus error.

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None


@contextmanager
def replace(path: Path) -> Iterator[Path]:
    """Hand out `path.partial` to write; on success it takes the place of `path`, else it is removed.

    Raises:
        OSError: ENOSPC where the disk is full, however the writing library put it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        fsync_tree(partial)
        os.replace(partial, path)
    except Exception as error:
        if is_full(path.parent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON: two spaces, keys in the order given, NaN refused."""
    with replace(path) as partial:
        partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """Digest of a file's content, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
