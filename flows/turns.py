"""One at a time: a lock that ends with the process that holds it, however that ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from limbeck.errors import LimbeckError


class Busy(LimbeckError):
    """Somebody else does this already."""


@contextmanager
def alone(folder: Path, otherwise: str) -> Iterator[None]:
    """Alone in a folder, which is made.

    Raises:
        Busy: somebody is in there; the message is `otherwise`.

    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Busy(otherwise) from None
        yield
