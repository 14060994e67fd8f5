"""Who took what, and when: a table of interactions becomes histories and the items that came next.

Leave-last-out (Kang and McAuley 2018, Self-Attentive Sequential Recommendation, section IV-A): of each user the last
interaction is the test sample, the one before it the validation sample, the earlier ones are left to train and
calibration. A sample is the history before an interaction, its label the item. Legend: N interactions, L length.
"""

import csv
import gzip
import io
import math
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from limbeck.data.prepared import NAMES
from limbeck.data.sources.source import Part, Source, located
from limbeck.errors import DataError

HOW = "Expected a table (.csv, or .csv.gz, UTF-8) with a line of column names and one line for each interaction."
TRAIN_OR_CALIBRATION = -1
HELD_OUT = 2
"""Interactions of a user that test and validation take."""


@dataclass(frozen=True)
class Taken:
    """Interactions, user after user, each user's in the order of time.

    users: [U + 1] int64, where each user's begin. items: [N] int32, places in `names`.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int32]
    names: tuple[str, ...]


def interactions(
    *,
    path: str,
    length: PositiveInt,
    user: str = "user",
    item: str = "item",
    time: str = "time",
    repeats: Literal["keep", "first"] = "keep",
    min_per_item: PositiveInt = 1,
    min_per_user: Annotated[int, Field(ge=HELD_OUT + 1)] = HELD_OUT + 1,
    max_per_user: PositiveInt | None = None,
    get: str | None = None,
) -> Source:
    """A csv of users, items and times as codes [L] int32 (0: padding in front, item i: i + 1) and the next item.

    The table may be in any order. What one user did at one time has no order of its own; it gets one from a digest of
    user, time and item, so that the order of lines says nothing. Memory holds two numbers and a time for each line,
    and the names of users and items; no sample.

    Args:
        path: `.csv` or `.csv.gz`; below $LIMBECK_DATA when it is relative.
        length: L, the most items of a history that a sample keeps, the newest ones.
        user: name of a column.
        item: name of a column; its values become the classes, in the order of the alphabet.
        time: name of a column: numbers (seconds, days, ...), or dates and times as ISO 8601 writes them.
        repeats: `first` counts a user's first interaction with each item alone.
        min_per_item: items with fewer interactions are left out.
        min_per_user: users with fewer interactions, once rare items are gone, are left out.
        max_per_user: so many of a user's newest samples train; None: all.
        get: how to get the file, told when it is absent.

    Raises:
        DataError: the file is missing or damaged, a column is missing, a line is short or has no user or item, a time is
            none, or too few users or items are left.

    """
    place = located(path, get or HOW)
    taken = _sorted(*_read(place, user, item, time), repeats, min_per_item, min_per_user, place)
    return leave_last_out(place.name.partition(".")[0], taken, length, max_per_user)


def leave_last_out(name: str, taken: Taken, length: int, max_per_user: int | None) -> Source:
    """Test and validation samples fixed, of each user the last and the last but one; the others train or calibrate."""
    ends, assigned = [], []
    for start, end in zip(taken.users[:-1].tolist(), taken.users[1:].tolist(), strict=True):
        first = start if max_per_user is None else max(start, end - HELD_OUT - max_per_user)
        ends.append(np.arange(first, end - 1))  # the sample of each interaction; the last one is test's
        owners = np.full(end - 1 - first, TRAIN_OR_CALIBRATION, np.int8)
        owners[-1] = NAMES.index("validation")
        assigned.append(owners)
    owner = np.repeat(np.arange(len(taken.users) - 1), np.diff(taken.users))
    return Source(
        name,
        taken.names,
        _part(taken, np.concatenate(ends), owner, length, np.concatenate(assigned)),
        _part(taken, taken.users[1:] - 1, owner, length, None),
    )


def _part(
    taken: Taken, positions: NDArray[np.int64], owner: NDArray[np.int64], length: int, assigned: NDArray[np.int8] | None
) -> Part:
    """The samples of the interactions at `positions` [S]; `owner` [N] says whose each interaction is."""

    def samples() -> Iterator[NDArray[Any]]:
        for position in positions.tolist():
            history = taken.items[max(taken.users[owner[position]], position - length) : position]
            codes = np.zeros(length, np.int32)
            codes[length - len(history) :] = history + 1
            yield codes

    return Part(taken.items[positions].astype(np.int64), samples, assigned)


def _read(
    place: Path, user: str, item: str, time: str
) -> tuple[list[str], list[str], NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Names of users and items, and of each line the place of its user [N], of its item [N], and its time [N]."""
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    of_user, of_item, times = array("i"), array("i"), array("d")
    with _opened(place) as stream:
        lines = csv.reader(stream, strict=True)
        try:
            columns = next(lines, [])
            missing = [name for name in (user, item, time) if name not in columns]
            if missing:
                raise DataError(
                    f"{place} has no column {', '.join(missing)}; it has {', '.join(columns) or 'no line at all'}. Name its "
                    "columns in data.source (user, item, time)."
                )
            places = [columns.index(name) for name in (user, item, time)]
            for line in lines:
                if not line:
                    continue
                if len(line) != len(columns):
                    raise DataError(
                        f"{place}, line {lines.line_num}: {len(line)} values, expected {len(columns)}, as many as columns."
                    )
                who, what, when = (line[index].strip() for index in places)
                if not who or not what:
                    raise DataError(
                        f"{place}, line {lines.line_num}: no {user if not who else item}; expected a name. Remove the line, or "
                        "name it."
                    )
                of_user.append(users.setdefault(who, len(users)))
                of_item.append(items.setdefault(what, len(items)))
                times.append(_time_of(when, place, lines.line_num, time))
        except csv.Error as error:
            raise DataError(f"{place}, line {lines.line_num}: {error}. {HOW}") from None
    if not of_user:
        raise DataError(f"{place} holds no interaction. {HOW}")
    return (
        list(users), list(items),
        np.array(of_user, np.int32), np.array(of_item, np.int32), np.array(times, np.float64),
    )  # fmt: skip


@contextmanager
def _opened(place: Path) -> Iterator[io.TextIOBase]:
    """A table as text, unpacked where it is packed."""
    opened: Any = gzip.open if place.suffix == ".gz" else open
    try:
        with opened(place, "rt", encoding="utf-8-sig", newline="") as stream:
            yield stream
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:  # BadGzipFile is an OSError
        raise DataError(f"{place} cannot be read: {error}. Get or save it again. {HOW}") from None


def _time_of(text: str, place: Path, line: int, column: str) -> float:
    try:
        found = float(text)
    except ValueError:
        try:
            found = datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError):
            found = math.nan
    if not math.isfinite(found):
        raise DataError(
            f"{place}, line {line}: {column} is {text!r}; expected a number, or a date as 2026-11-30T12:00:00."
        )
    return found


def _sorted(
    users: list[str], items: list[str], of_user: NDArray[np.int32], of_item: NDArray[np.int32], times: NDArray[np.float64],
    repeats: str, min_per_item: int, min_per_user: int, place: Path,
) -> Taken:  # fmt: skip
    """Interactions by user and time, doubles, rare items and short histories left out."""
    ranks = np.argsort(np.argsort(np.array(users), kind="stable"))  # by name: the order of lines must not matter
    catalogue = np.argsort(np.array(items), kind="stable")
    of_user = np.asarray(ranks[of_user], np.int32)
    of_item = np.asarray(np.argsort(catalogue)[of_item], np.int32)
    order = np.lexsort((of_item, times, of_user))
    of_user, of_item, times = of_user[order], of_item[order], times[order]
    doubled = np.zeros(len(order), bool)
    doubled[1:] = (np.diff(of_user) == 0) & (np.diff(of_item) == 0) & (np.diff(times) == 0)
    kept = ~doubled
    chance = _mixed(of_user, times.view(np.uint64), of_item)
    order = np.lexsort((chance, times, of_user))
    of_user, of_item, kept = of_user[order], of_item[order], kept[order]
    of_user, of_item = of_user[kept], of_item[kept]
    if repeats == "first":
        firsts = np.unique(of_user.astype(np.int64) * len(items) + of_item, return_index=True)[1]
        of_user, of_item = of_user[np.sort(firsts)], of_item[np.sort(firsts)]
    is_common = np.bincount(of_item, minlength=len(items)) >= min_per_item
    of_user, of_item = of_user[is_common[of_item]], of_item[is_common[of_item]]
    is_active = np.bincount(of_user, minlength=len(users)) >= min_per_user
    of_user, of_item = of_user[is_active[of_user]], of_item[is_active[of_user]]
    left = np.unique(of_item)
    dropped = [
        f"{int(doubled.sum()):,} doubled lines", f"{len(users) - int(is_active.sum()):,} of {len(users):,} users",
        f"{len(items) - len(left):,} of {len(items):,} items",
    ]  # fmt: skip
    print(f"{place.name}: left out {', '.join(dropped)}", flush=True)
    if not len(of_user) or len(left) < 2:
        raise DataError(
            f"{place}: {len(np.unique(of_user)):,} users and {len(left):,} items are left, of {len(users):,} and {len(items):,}, "
            f"where an item needs {min_per_item} interactions and then a user {min_per_user}; expected a user and two items "
            "at least. Lower data.source.min_per_item or min_per_user, or bring more interactions."
        )
    starts = np.flatnonzero(np.r_[True, np.diff(of_user) > 0])
    return Taken(
        np.r_[starts, len(of_user)].astype(np.int64),
        np.searchsorted(left, of_item).astype(np.int32),
        tuple(items[index] for index in catalogue[left]),
    )


def _mixed(*parts: NDArray[Any]) -> NDArray[np.uint64]:
    """A digest [N] of whole numbers [N] each: the same for the same numbers, like chance otherwise (SplitMix64's mixer)."""
    found = np.zeros(len(parts[0]), np.uint64)
    for part in parts:
        found = found * np.uint64(0x9E3779B97F4A7C15) + part.astype(np.uint64)
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found ^= found >> np.uint64(31)
    return found
