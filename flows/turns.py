"""One at a time: locks that end with the process that holds them, however that ends."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from limbeck.atomic import replace
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


def forget_zombies(workspace: Path) -> None:
    """Take what zombies held out of DVC's list of files in use.

    DVC itself forgets processes that are gone. One that was killed still has its number until its parent has asked after it,
    which in containers may be never: its files would be in use for ever.
    """
    held = workspace / ".dvc/tmp/rwlock"
    if not _zombies(_read(held)):
        return
    from dvc.lock import make_lock

    with make_lock(str(held.with_name("rwlock.lock")), tmp_dir=str(held.parent), wait=True):
        found = _read(held)
        dead = _zombies(found)
        left = {
            "read": {path: [one for one in infos if one["pid"] not in dead] for path, infos in found["read"].items()},
            "write": {path: info for path, info in found["write"].items() if info["pid"] not in dead},
        }
        left["read"] = {path: infos for path, infos in left["read"].items() if infos}
        with replace(held) as partial:
            partial.write_text(json.dumps(left), encoding="utf-8")


def _read(held: Path) -> dict[str, dict[str, Any]]:
    try:
        return {"read": {}, "write": {}, **json.loads(held.read_text(encoding="utf-8"))}
    except (FileNotFoundError, json.JSONDecodeError):  # the second is for DVC to say
        return {"read": {}, "write": {}}


def _zombies(found: dict[str, dict[str, Any]]) -> set[int]:
    infos = [*found["write"].values(), *(one for several in found["read"].values() for one in several)]
    return {pid for pid in {info["pid"] for info in infos} if _is_zombie(pid)}


def _is_zombie(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
