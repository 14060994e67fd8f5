"""Files from the net: resumed after an interruption, checked before they take their place."""

import os
import urllib.error
import urllib.request
from pathlib import Path

from limbeck.atomic import sha256
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
    have = partial.stat().st_size if partial.exists() else 0
    if have < num_bytes:
        print(f"fetching {url}: {num_bytes / 1e6:,.0f} MB" + (f", {have / 1e6:,.0f} are here" if have else ""))
        request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                goes_on = answer.status == 206  # else the server starts from the beginning
                with partial.open("ab" if goes_on else "wb") as stream:
                    while chunk := answer.read(CHUNK_BYTES):
                        stream.write(chunk)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise DataError(
                f"{url} cannot be fetched ({error}). The same command goes on where it stopped; or put the file at {path}."
            ) from None
    if partial.stat().st_size < num_bytes:
        raise DataError(f"{url} stopped after {partial.stat().st_size:,} of {num_bytes:,} B. Repeat the command.")
    try:
        _check(partial, num_bytes, digest)
    except DataError:
        partial.unlink()  # nothing of it is worth going on from
        raise
    os.replace(partial, path)
    return path


def _check(path: Path, num_bytes: int, digest: str) -> None:
    size = path.stat().st_size
    if size != num_bytes or sha256(path) != digest:
        raise DataError(
            f"{path} is not the file expected: {num_bytes:,} B with sha256 {digest[:16]}..., found {size:,} B with "
            f"{sha256(path)[:16]}.... Remove it and repeat the command."
        )
