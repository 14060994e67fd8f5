"""The folder of windows: which there are, which were set aside, and how one gets in, whole or not at all."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from limbeck.atomic import fsync_tree, write_json
from limbeck.components import nearest
from limbeck.data.window import ABOUT, About, read_about, write_about
from limbeck.errors import DataError
from limbeck.windows.checks import Reason

ASIDE, WHY, PARTIAL = "aside", "why.json", ".partial"


class Why(BaseModel):
    """What `why.json` says of a window that was set aside.

    Attributes:
        name: of the window.
        entry: what was dropped.
        source: sha256 of it.
        at: when it arrived (UTC).
        reasons: one for each check that it did not pass.
        releasable: its samples are here: a person may decide otherwise.

    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    entry: str
    source: str
    at: datetime
    reasons: tuple[Reason, ...]
    releasable: bool


@contextmanager
def turn(windows: Path) -> Iterator[None]:
    """Wait until nobody else changes the folder, and clear away what a killed process left half-made."""
    windows.mkdir(parents=True, exist_ok=True)
    with (windows / ".lock").open("w") as lock:  # it ends with the process that holds it, however that ends
        fcntl.flock(lock, fcntl.LOCK_EX)
        for place in (windows, windows / ASIDE):
            for left in place.glob(f"*{PARTIAL}"):
                shutil.rmtree(left)
        yield


def folders(windows: Path) -> list[Path]:
    """Every window, in the order of arrival."""
    found = [path for path in windows.glob("*") if (path / ABOUT).is_file() and not path.name.endswith(PARTIAL)]
    return sorted(found, key=lambda path: (read_about(path).arrived, path.name))


def current(windows: Path) -> list[Path]:
    """The windows that no later one replaces, in the order of arrival: what a refresh trains on."""
    every = folders(windows)
    replaced = {read_about(path).replaces for path in every}
    return [path for path in every if read_about(path).digest not in replaced]


def latest(windows: Path, name: str) -> Path | None:
    """The window of a name, or what replaced it last; None: there is none."""
    if not (windows / name / ABOUT).is_file():
        return None
    replacing = {read_about(path).replaces: path for path in folders(windows)}
    found = windows / name
    while (after := replacing.get(read_about(found).digest)) is not None:
        found = after
    return found


def set_aside(windows: Path) -> list[Path]:
    """Every folder that was set aside, by name."""
    return sorted(path.parent for path in (windows / ASIDE).glob(f"*/{WHY}") if path.parent.suffix != PARTIAL)


def find(windows: Path, name: str) -> Path:
    """A window's folder, aside or not.

    Raises:
        DataError: there is none; the message names the nearest.

    """
    found = {path.name: path for path in (*set_aside(windows), *folders(windows))}
    if name not in found:
        hint = nearest(name, list(found)) if found else f"{windows} holds none."
        raise DataError(f"no window {name!r}; {hint}")
    return found[name]


def read_why(folder: Path) -> Why:
    """Read `why.json`.

    Raises:
        DataError: it is missing or not what the intake writes.

    """
    try:
        raw: Any = json.loads((folder / WHY).read_text(encoding="utf-8"))
        return Why.model_validate(raw)
    except FileNotFoundError:
        raise DataError(f"{folder} was not set aside: it has no {WHY}. `limbeck windows list` names them.") from None
    except (ValueError, ValidationError) as error:
        raise DataError(f"{folder / WHY} is not what the intake writes: {error}. Drop the entry again.") from None


def place_for(windows: Path, name: str, source: str) -> tuple[str, Path | None]:
    """The name that an entry's window gets, and its folder when it is there already, aside or not."""
    candidates = (name, f"{name}-{source[:8]}")
    for candidate in candidates:
        for folder in (windows / candidate, windows / ASIDE / candidate):
            if folder.exists() and _source_of(folder) == source:
                return candidate, folder
    free = [each for each in candidates if not (windows / each).exists() and not (windows / ASIDE / each).exists()]
    if not free:
        raise DataError(
            f"{windows} has other windows called {' and '.join(candidates)}; drop the entry under another name."
        )
    return free[0], None


def _source_of(folder: Path) -> str:
    return read_why(folder).source if (folder / WHY).exists() else read_about(folder).source


def put(partial: Path, folder: Path) -> None:
    """Give a finished folder its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    fsync_tree(partial)
    os.replace(partial, folder)
    fsync_folder(folder.parent)


def fsync_folder(folder: Path) -> None:
    """Flush a folder's list of names."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_why(folder: Path, why: Why) -> None:
    """Write `why.json`; its next steps name the window."""
    written = why.model_dump(mode="json")
    for reason in written["reasons"]:
        reason["next_step"] = reason["next_step"].replace("{name}", why.name)
    write_json(folder / WHY, written)


def release(windows: Path, name: str, *, by: str) -> Path:
    """Let a window that was set aside count after all; its folder. Twice is once.

    Raises:
        DataError: none of that name was set aside, or nothing of it could be read.

    """
    with turn(windows):
        aside, folder = windows / ASIDE / name, windows / name
        if not aside.exists():
            if (folder / ABOUT).exists():
                return folder
            known = [path.name for path in set_aside(windows)]
            hint = nearest(name, known) if known else "nothing is."
            raise DataError(f"no window {name!r} is set aside; {hint}")
        why = read_why(aside)
        if not why.releasable:
            raise DataError(
                f"{name} holds nothing to release: {why.reasons[0].found}, expected {why.reasons[0].expected}. "
                f"Next: {why.reasons[0].next_step}."
            )
        if not folder.exists():
            partial = windows / f"{name}{PARTIAL}"
            shutil.copytree(aside, partial)
            (partial / WHY).unlink()
            said = tuple(f"released by {by} in spite of: {each.check}: {each.found}" for each in why.reasons)
            about: About = read_about(partial)
            write_about(partial, about.model_copy(update={"notes": (*about.notes, *said)}))
            put(partial, folder)
        shutil.rmtree(aside)
        return folder
