"""What lands in a workspace's drop folder, whoever put it there and whether or not anybody watched.

    drop/2026-11-21/      an entry: a file, or a folder with files. Names with a dot in front and `*.partial` are no
    drop/night.npz        entries: write under such a name and rename, and the entry lands in one moment.

An entry has landed when nothing in it has changed between looks for `quiet_s`. The folder is read again and again rather
than watched by the kernel's notices: these do not cross a network file system, and know nothing of what came before.
What was announced stands in `.limbeck/landed.json`, so that the next process does not announce it again.
"""

import contextlib
import json
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import NAMESPACE_URL, UUID, uuid5

from flows.environment import DROP
from limbeck.atomic import replace

ANNOUNCED = Path(".limbeck/landed.json")


@dataclass(frozen=True)
class Landed:
    """An entry that has landed in the workspace at `folder`; `mark` changes when another takes its name."""

    folder: Path
    name: str
    mark: str

    @property
    def id(self) -> UUID:
        """The same for the same entry, whoever looks."""
        return uuid5(NAMESPACE_URL, f"{self.folder}/{DROP}/{self.name}#{self.mark}")


class Drop:
    """The drop folder of one workspace.

    Args:
        folder: the workspace.
        quiet_s: how long an entry must not have changed.

    """

    def __init__(self, folder: Path, quiet_s: float) -> None:
        self.folder = folder.resolve()
        self.quiet_s = quiet_s
        self._seen: dict[str, tuple[tuple[int, ...], float]] = {}
        self._announced = self._read()

    def look(self, now: float | None = None) -> list[Landed]:
        """Entries that have landed and were not announced; `now` in seconds of a clock that only goes forward."""
        now = time.monotonic() if now is None else now
        marks = self._marks()
        if marks is None:
            return []
        if gone := self._announced.keys() - marks.keys():
            self._announced = {name: mark for name, mark in self._announced.items() if name not in gone}
            self._write()
        self._seen = {name: seen for name, seen in self._seen.items() if name in marks}
        landed = []
        for name, mark in sorted(marks.items()):
            if self._announced.get(name) == mark:
                continue
            content = _content(self.folder / DROP / name)
            before = self._seen.get(name)
            if content is None or before is None or before[0] != content:
                self._seen[name] = (content or (), now)
            elif now - before[1] >= self.quiet_s:
                landed.append(Landed(self.folder, name, mark))
        return landed

    def announced(self, landed: Landed) -> None:
        """Note that somebody was told of it."""
        self._announced[landed.name] = landed.mark
        self._seen.pop(landed.name, None)
        self._write()

    def _marks(self) -> dict[str, str] | None:
        """Every entry with what tells it from another of its name; None while the folder is not there to be read."""
        marks = {}
        try:
            with os.scandir(self.folder / DROP) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and not entry.name.endswith(".partial"):
                        with contextlib.suppress(FileNotFoundError):  # it left while we looked
                            found = entry.stat()
                            marks[entry.name] = f"{found.st_mtime_ns}:{found.st_size}"
        except OSError:
            return None
        return marks

    def _read(self) -> dict[str, str]:
        try:
            return dict(json.loads((self.folder / ANNOUNCED).read_text()))
        except (OSError, ValueError):  # made anew: to announce something twice costs a refresh that finds nothing to do
            return {}

    def _write(self) -> None:
        file = self.folder / ANNOUNCED
        file.parent.mkdir(parents=True, exist_ok=True)
        with replace(file) as partial:
            partial.write_text(json.dumps(self._announced, indent=1, sort_keys=True))


def _content(entry: Path) -> tuple[int, ...] | None:
    """Number of files, bytes and the newest time of an entry; None while it holds no file or cannot be read."""
    num = size = newest = 0
    try:
        for path in _files(entry):
            found = path.stat()
            num, size, newest = num + 1, size + found.st_size, max(newest, found.st_mtime_ns)
    except OSError:
        return None
    return (num, size, newest) if num else None


def _files(entry: Path) -> list[Path]:
    if stat.S_ISDIR(entry.stat().st_mode):
        return [Path(at) / name for at, _, names in os.walk(entry) for name in names]
    return [entry]
