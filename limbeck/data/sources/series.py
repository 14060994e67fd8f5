"""Multi-channel series, as sensors give them: `.csv` files with a header, or an `.npz`. Legend: T steps, C channels."""

import csv
import io
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveInt

from limbeck.components import nearest
from limbeck.data.sources.arrays import header_of, names_in, streamed, whole
from limbeck.data.sources.packed import Packed, listed
from limbeck.data.sources.recordings import Recording, Step, part_of, step_of
from limbeck.data.sources.source import Broken, OnError, Part, Source, located
from limbeck.errors import DataError

OWN = ("train", "test")
ENCODING = "utf-8-sig"
"""With or without the mark that Windows writes in front."""
HOW = (
    "Expected a .csv with a label column, a folder, .tar.gz or .zip of CLASS/*.csv (or of train/CLASS/* and test/CLASS/*), "
    "or an .npz of `x` and `y`."
)
HOW_NPZ = (
    "Expected `x` [N, T, C] with `y` [N] of integers, or `x` [all steps, C] with `lengths` [N] and `y` [N]; perhaps `group` "
    "[N], `channels` [C], `classes`; if it brings its own test split, the same with `_test`."
)


def series(
    *,
    path: str,
    window: PositiveInt,
    hop: PositiveInt,
    channels: list[str] | None = None,
    label: str | None = None,
    group: str | None = None,
    on_error: OnError = "fail",
    get: str | None = None,
) -> Source:
    """Windows [T, C] float32 over recordings of several channels.

    A csv file is a recording; where its label or its group changes a new one begins, and rows without a label are left
    out. No window reaches over the end of a recording, and those of one group never stand in two splits: windows that
    overlap would tell the exam's answers. Memory holds a window of a single file, one whole file of a folder.

    Args:
        path: a .csv, .npz, folder, .tar, .tar.gz, .tgz or .zip; below $LIMBECK_DATA when it is relative.
        window: T, steps of a sample.
        hop: steps from a window to the next; as many as `window`: they do not overlap.
        channels: names of the columns that are fed, in this order. None: all of the first file but label and group.
        label: the column with the class. None: the folder that a file lies in.
        group: the column with what must not stand in two splits: a person, a device, a day. None: each file, or each
            recording of an .npz that tells no groups.
        on_error: what windows with unreadable steps, and recordings shorter than one, do.
        get: how to get the files, told when they are absent.

    Raises:
        DataError: nothing there, another layout, a column that is missing, or arrays of other shapes.

    """
    place = located(path, get or HOW)
    if place.suffix.lower() == ".npz":
        return _arrays(place, window, hop, on_error)
    tables = _Tables(place, channels, label, group)
    recordings, classes = tables.recordings()
    if not recordings[False]:
        raise DataError(f"{place} holds no row with a label to train on. {HOW}")

    def part(own: bool) -> Part:
        return part_of(recordings[own], lambda: tables.steps(own), window, hop)

    return Source(place.name.split(".")[0], classes, part(False), part(True) if recordings[True] else None, on_error)


@dataclass(frozen=True)
class _Row:
    """One line of a table.

    Attributes:
        number: of the line, the header's is 1.
        label: "" where there is none.
        group: of what must not stand in two splits.
        step: values, or why there are none.

    """

    number: int
    label: str
    group: str
    step: Step


class _Tables:
    """All csv files of a place, in order; each is read when its turn comes."""

    def __init__(self, place: Path, channels: list[str] | None, label: str | None, group: str | None) -> None:
        self.place, self.channels, self.label, self.group = place, channels, label, group
        self._files: Packed | None = None
        self._own = False
        if place.suffix.lower() == ".csv":
            if label is None:
                raise DataError(f"{place} is a single table; give data.source.label the column that names the class.")
            return
        self._files = listed(place, {".csv"})
        names = [self._files.names[number] for number in range(len(self._files.names))]
        if not names:
            raise DataError(f"{place} holds no .csv. {HOW}")
        depth = 2 if label is None else 1
        tops = {PurePosixPath(name).parts[-depth - 1] if _depth(name) > depth else "" for name in names}
        self._own = set(OWN) == tops
        for name in names:
            if label is None and _depth(name) < 2:
                raise DataError(f"{place}: {name} lies in no class folder; give data.source.label a column. {HOW}")
        if not self._own and tops & set(OWN):
            raise DataError(f"{place} has files in {', '.join(sorted(tops)) or place.name} and elsewhere. {HOW}")

    def is_test(self, name: str) -> bool:
        """Whether a file belongs to the place's own test split."""
        return self._own and PurePosixPath(name).parts[-3 if self.label is None else -2] == "test"

    def recordings(self) -> tuple[dict[bool, list[Recording]], tuple[str, ...]]:
        """Where recordings begin and end, found in a first pass, by `is_test`; and the sorted names of their classes."""
        found = []
        for name, rows in self._read():
            for (label, group), part in groupby(rows, _key):
                numbers = array("Q", (row.number for row in part))
                if label:
                    where = f"{name}, lines {numbers[0]} to {numbers[-1]}"
                    found.append((self.is_test(name), where, label, group, len(numbers)))
        classes = sorted({label for _, _, label, _, _ in found})
        groups: dict[str, int] = {}
        made: dict[bool, list[Recording]] = {False: [], True: []}
        for is_test, where, label, group, num in found:
            made[is_test].append(Recording(where, classes.index(label), groups.setdefault(group, len(groups)), num))
        return made, tuple(classes)

    def steps(self, is_test: bool) -> Iterator[Iterator[Step]]:
        """The steps of every recording of a split, in the same order."""
        for name, rows in self._read():
            if self.is_test(name) == is_test:
                for (label, _), part in groupby(rows, _key):
                    if label:
                        yield (row.step for row in part)

    def _read(self) -> Iterator[tuple[str, Iterator[_Row]]]:
        if self._files is None:
            with self.place.open(encoding=ENCODING, newline="") as stream:
                yield self.place.name, self._rows(self.place.name, stream)
            return
        every = np.ones(len(self._files.names), bool)
        for name, content in self._files.contents(every):
            if isinstance(content, Broken):
                raise DataError(f"{self.place}: {name} cannot be read: {content.reason}. Get or pack it again.")
            yield name, self._rows(name, io.TextIOWrapper(io.BytesIO(content), encoding=ENCODING, newline=""))

    def _rows(self, name: str, stream: IO[str]) -> Iterator[_Row]:
        lines = csv.reader(stream)
        try:
            header = [cell.strip() for cell in next(lines, [])]
            own = "" if self.label else PurePosixPath(name).parts[-2]
            before = ("", "")
            table = self._columns(name, header)
            for cells in lines:
                if not cells:
                    continue
                if len(cells) == len(header):
                    label = cells[table.label].strip() if table.label is not None else own
                    before = (label, cells[table.group].strip() if table.group is not None else name)
                    step = _step(lines.line_num, cells, header, table.channels)
                else:  # where it belongs cannot be read: to what it stands in
                    before = before if any(before) else (own, name)
                    step = f"line {lines.line_num}: {len(cells)} cells, the header names {len(header)}"
                yield _Row(lines.line_num, *before, step)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"{self.place}: {name} is no csv of UTF-8 text behind line {lines.line_num}: {error}. Save it as one."
            ) from None

    def _columns(self, name: str, header: list[str]) -> "_Columns":
        taken = [each for each in (self.label, self.group) if each is not None]
        if not header or all(_is_number(cell) for cell in header):
            raise DataError(f"{self.place}: {name} begins with {header}; expected a header that names the columns.")
        if twice := sorted({each for each in header if header.count(each) > 1}):
            raise DataError(f"{self.place}: {name} has {', '.join(twice)} twice in its header; expected each once.")
        if self.channels is None:
            self.channels = [each for each in header if each not in taken]
        if not self.channels:
            raise DataError(f"{self.place}: {name} has no column beside {', '.join(taken)}; expected channels.")
        for each in (*taken, *self.channels):
            if each not in header:
                raise DataError(
                    f"{self.place}: {name} has no column {each!r}; {nearest(each, header)} Mend its header, or name columns "
                    "that every file has (data.source.channels, label, group)."
                )
        label, group = (None if each is None else header.index(each) for each in (self.label, self.group))
        return _Columns([header.index(each) for each in self.channels], label, group)


@dataclass(frozen=True)
class _Columns:
    channels: list[int]
    label: int | None
    group: int | None


def _key(row: _Row) -> tuple[str, str]:
    return row.label, row.group


def _depth(name: str) -> int:
    return len(PurePosixPath(name).parts)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _step(line: int, cells: list[str], header: list[str], columns: list[int]) -> Step:
    values = []
    for column in columns:
        try:
            values.append(float(cells[column]))
        except ValueError:
            found = repr(cells[column]) if cells[column].strip() else "an empty cell"
            return f"line {line}, channel {header[column]}: {found} is no number"
    return step_of(values, [header[column] for column in columns], f"line {line}")


# .npz


def _arrays(place: Path, window: int, hop: int, on_error: OnError) -> Source:
    names = names_in(place)
    if not {"x", "y"} <= names:
        raise DataError(f"{place} holds {', '.join(sorted(names)) or 'no arrays'}. {HOW_NPZ}")
    train = _Stored(place, "", names)
    test = _Stored(place, "_test", names) if "x_test" in names else None
    parts = [train] if test is None else [train, test]
    count = 1 + max(int(part.y.max(initial=-1)) for part in parts)
    classes = [str(each) for each in whole(place, "classes")] if "classes" in names else [str(i) for i in range(count)]
    groups = np.concatenate([part.groups for part in parts])  # one numbering for both
    numbers = np.unique(groups, return_inverse=True)[1] if train.tells_groups else np.arange(len(groups))
    made = [
        part.part(numbers[start : start + len(part.y)], window, hop)
        for part, start in zip(parts, (0, len(train.y)), strict=False)
    ]
    return Source(place.stem, tuple(classes), made[0], made[1] if test else None, on_error)


class _Stored:
    """Recordings of an .npz: `x` and what is told of each."""

    def __init__(self, place: Path, suffix: str, names: set[str]) -> None:
        self.place, self.suffix = place, suffix
        shape, dtype = header_of(place, f"x{suffix}")
        if len(shape) not in (2, 3) or dtype.kind not in "iuf":
            raise DataError(f"{place}: x{suffix} is {dtype}{list(shape)}. {HOW_NPZ}")
        self.y = self._told("y", names, shape[0] if len(shape) == 3 else None)
        self.shape = shape
        if len(shape) == 3:
            self.lengths = np.full(shape[0], shape[1], np.int64)
        else:
            self.lengths = self._told("lengths", names, len(self.y))
            if self.lengths.min(initial=0) < 0 or self.lengths.sum() != shape[0]:
                raise DataError(
                    f"{place}: lengths{suffix} add up to {self.lengths.sum()}, x{suffix} has {shape[0]} steps; expected "
                    "equal numbers."
                )
        self.tells_groups = "group" in names
        self.groups = whole(place, f"group{suffix}") if f"group{suffix}" in names else np.arange(len(self.y))
        if self.groups.shape != self.y.shape:
            raise DataError(
                f"{place}: group{suffix} is {list(self.groups.shape)}; expected one for each y, {len(self.y)}."
            )
        given = [str(each) for each in whole(place, "channels")] if "channels" in names else []
        self.channels = given or [str(number) for number in range(shape[-1])]
        if len(self.channels) != shape[-1]:
            raise DataError(
                f"{place}: channels names {len(self.channels)}, x{suffix} has {shape[-1]}; expected as many."
            )

    def _told(self, name: str, names: set[str], count: int | None) -> NDArray[np.int64]:
        if f"{name}{self.suffix}" not in names:
            raise DataError(f"{self.place} has x{self.suffix} without {name}{self.suffix}. {HOW_NPZ}")
        found = whole(self.place, f"{name}{self.suffix}")
        if found.ndim != 1 or found.dtype.kind not in "iu" or count not in (None, len(found)):
            raise DataError(
                f"{self.place}: {name}{self.suffix} is {found.dtype}{list(found.shape)}; expected integers "
                f"[{'N' if count is None else count}]."
            )
        return found.astype(np.int64)

    def part(self, groups: NDArray[np.int64], window: int, hop: int) -> Part:
        recordings = [
            Recording(f"{self.place.name}, recording {number}", label, group, length)
            for number, (label, group, length) in enumerate(
                zip(self.y.tolist(), groups.tolist(), self.lengths.tolist(), strict=True)
            )
        ]
        return part_of(recordings, self._passes, window, hop)

    def _passes(self) -> Iterator[Iterator[Step]]:
        stored = streamed(self.place, f"x{self.suffix}")
        steps: Callable[[int], Iterator[Any]] = (
            (lambda _: iter(next(stored))) if len(self.shape) == 3 else (lambda num: (next(stored) for _ in range(num)))
        )
        for length in self.lengths.tolist():
            yield (step_of(values, self.channels, f"step {number}") for number, values in enumerate(steps(length)))
