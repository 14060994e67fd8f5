"""Files from the net: resumed after an interruption, checked before they take their place."""

import fcntl
import http.client
import os
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path
from typing import IO

from limbeck.atomic import fsync_tree, sha256
from limbeck.data.sources.telling import Telling
from limbeck.errors import DataError

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0


def fetch(url: str, path: Path, *, num_bytes: int, digest: str) -> Path:
    """Bring a file to `path` unless it is there; half a download waits as `path.partial` for the next call.

    Raises:
        DataError: the server cannot be reached, or what came is not the file expected.

    """
    if path.exists():
        _check(path, num_bytes, digest)
        return path
    partial = path.with_name(path.name + ".partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"another process is fetching {path}; repeat the command when it is done.") from None
        have = stream.tell()
        if have < num_bytes:
            print(
                f"fetching {url}: {num_bytes / 1e6:,.0f} MB{f', {have / 1e6:,.0f} are here' if have else ''}",
                flush=True,
            )
            try:
                _append(stream, url, Telling(f"fetching {path.name}"), num_bytes)
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                if (
                    isinstance(error, urllib.error.HTTPError)
                    and error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
                ):
                    stream.truncate(0)  # more is here than the server has
                raise DataError(
                    f"{url} cannot be fetched ({error}). The same command goes on where it stopped; "
                    f"or put the file at {path}."
                ) from None
    if partial.stat().st_size < num_bytes:
        raise DataError(f"{url} stopped after {partial.stat().st_size:,} of {num_bytes:,} B. Repeat the command.")
    try:
        _check(partial, num_bytes, digest)
    except DataError:
        partial.unlink()  # nothing of it is worth going on from
        raise
    fsync_tree(partial)
    os.replace(partial, path)
    return path


def _append(stream: IO[bytes], url: str, telling: Telling, num_bytes: int) -> None:
    """Ask for what comes after the bytes that are here."""
    have = stream.tell()
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        if answer.status != HTTPStatus.PARTIAL_CONTENT:  # the server begins at the beginning
            stream.truncate(0)
        while chunk := answer.read(CHUNK_BYTES):
            stream.write(chunk)
            telling.progress(stream.tell(), num_bytes)


def _check(path: Path, num_bytes: int, digest: str) -> None:
    size = path.stat().st_size
    if size != num_bytes or sha256(path) != digest:
        raise DataError(
            f"{path} is not the file expected: {num_bytes:,} B with sha256 {digest[:16]}..., found {size:,} B with "
            f"{sha256(path)[:16]}.... Remove it and repeat the command."
        )
