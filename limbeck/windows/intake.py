"""A drop folder becomes windows.

    for every entry that is whole:
        read it into windows/NAME.partial        a kill leaves that, and the next call removes it
        rename to windows/NAME, or aside/NAME    from here on the window is there
        move the entry to drop/.taken/NAME/      a kill before that: the next call finds the window by the entry's digest

`drop/.taken` may be emptied at any time; images in there have the size that they came in.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from limbeck.atomic import write_json
from limbeck.data.content import fingerprints
from limbeck.data.sources.arrays import streamed
from limbeck.data.sources.source import Broken
from limbeck.data.window import (
    CONFIDENCE,
    KEYS,
    UNLABELLED,
    About,
    Counts,
    LabelledBy,
    read_about,
    read_keys,
    read_window,
    seal,
    write_about,
)
from limbeck.windows import checks, entries, labelling, shelf
from limbeck.windows.checks import Reason, Sieve, Unfit
from limbeck.windows.entries import Incoming
from limbeck.windows.labelling import Teacher
from limbeck.windows.reference import Reference
from limbeck.windows.rules import WindowRules
from limbeck.windows.shelf import ASIDE, PARTIAL, Why

TAKEN = ".taken"
MAX_REASONS = 6


@dataclass(frozen=True)
class Arrived:
    """What became of an entry.

    Attributes:
        name: of the window.
        folder: of the window, perhaps aside.
        reasons: why it was set aside; none: it was not.

    """

    name: str
    folder: Path
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Intake:
    """What a look at a drop folder brought.

    Attributes:
        arrived: entries that are windows now, or aside.
        waiting: names of entries that are not whole yet, or of labels for one of them.

    """

    arrived: tuple[Arrived, ...]
    waiting: tuple[str, ...]


def take_in(
    drop: Path,
    windows: Path,
    data: Path,
    rules: WindowRules,
    *,
    now: float,
    teacher: Teacher | None = None,
    root: Path | None = None,
    requested: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Intake:
    """Turn every entry of a drop folder that is whole into a window, or set it aside. See `entries` for what can be dropped.

    Args:
        drop: where entries appear; none: nothing arrived.
        windows: the folder of windows.
        data: what `prepare` wrote, and the models in use were made of.
        rules: see `WindowRules`.
        now: Unix time, by the clock of the file system.
        teacher: labels what has no label and is contradicted by what has wrong ones; None: nobody does.
        root: what the first champion was made of, whose samples are known, too; see `Reference`.
        requested: new classes that may appear.
        say: told of every window.

    Raises:
        DataError: `data` is not what it should be, or the teacher does not belong to it.
        OSError: the disk refuses a write.

    """
    if not drop.is_dir():
        return Intake((), ())
    with shelf.turn(windows):
        taker = Taker(windows, Reference(data, teacher, root), rules, requested, say)
        found = sorted(path for path in drop.iterdir() if path.name != TAKEN and not entries.is_request(path))
        offered = [path for path in found if not entries.is_unfinished(path)]
        offered.sort(key=lambda path: entries.kind_of(path) == "labels")  # after the window that they are for
        arrived, waiting = [], [path.name for path in found if entries.is_unfinished(path) and path.name[0] != "."]
        for entry in offered:
            made = _take(taker, entry, now - rules.settle_s, waiting)
            if made is None:
                waiting.append(entry.name)
            else:
                arrived.append(made)
        return Intake(tuple(arrived), tuple(waiting))


def _take(taker: "Taker", entry: Path, settled_before: float, waiting: list[str]) -> Arrived | None:
    """The window of an entry; None: it is not whole yet."""
    try:
        state = entries.state_of(entry)
        changed = max(time for _, _, time in state) / 1e9
        if changed > settled_before:
            return None
        source = entries.digest_of(entry)
    except FileNotFoundError:  # somebody took it away again
        return None
    except PermissionError as error:
        taker.say(f"{entry} waits: {error.filename} may not be read here.")
        return None
    name = entries.name_of(entry)
    is_labels = entries.kind_of(entry) == "labels"
    if is_labels and any(entries.name_of(Path(other)) == name for other in waiting):
        return None
    wanted = f"{name}-labels-{source[:8]}" if is_labels else name
    name_now, folder = shelf.place_for(taker.windows, wanted, source)
    if folder is None:
        arrival = Arrival(name_now, "drop", entry.name, source, datetime.fromtimestamp(int(changed), UTC))
        if is_labels:
            folder = taker.relabel(arrival, entry, name, lambda: _is_same(entry, state))
        else:
            folder = taker.take(
                arrival,
                lambda: entries.open_entry(entry, taker.reference.meta, taker.rules, taker.reference.tokenizer),
                lambda: _is_same(entry, state),
            )
    if folder is None:
        return None
    _consume(entry, name_now)
    return taker.told(folder)


def _is_same(entry: Path, state: entries.State) -> bool:
    try:
        return entries.state_of(entry) == state
    except FileNotFoundError:
        return False


def _consume(entry: Path, name: str) -> None:
    place = entry.parent / TAKEN / name / entry.name
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    place.parent.mkdir(parents=True, exist_ok=True)
    os.replace(entry, place)


@dataclass(frozen=True)
class Arrival:
    """What is known of an entry before it is opened."""

    name: str
    origin: Literal["drop", "feedback"]
    entry: str
    source: str
    at: datetime


class Taker:
    """Makes windows, during a turn.

    Args:
        windows: the folder of windows.
        reference: what they are held against.
        rules: see `WindowRules`.
        requested: new classes that may appear.
        say: told of every window.

    """

    def __init__(
        self, windows: Path, reference: Reference, rules: WindowRules, requested: tuple[str, ...],
        say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.windows, self.reference, self.rules = windows, reference, rules
        self.requested, self.say = requested, say
        self._known: set[int] | None = None

    def told(self, folder: Path) -> Arrived:
        """A word on a window that is in its place."""
        is_aside = folder.parent.name == ASIDE
        reasons = shelf.read_why(folder).reasons if is_aside else ()
        if is_aside:
            shown = "; ".join(f"{each.check}: {each.found}, expected {each.expected}" for each in reasons)
            self.say(f"{folder.name} is set aside: {shown}")
        else:
            counts = read_about(folder).counts
            self.say(f"{folder.name}: {counts.labelled:,} labelled, {counts.unlabelled:,} unlabelled samples")
        return Arrived(folder.name, folder, reasons)

    def known(self) -> set[int]:
        """Fingerprints of all samples in data/, in what the first champion was made of, and in windows."""
        if self._known is None:
            self._known = set(self.reference.fingerprints.tolist())
            for folder in shelf.folders(self.windows):
                self._known |= set(fingerprints(streamed(folder, "x")).tolist())
        return self._known

    def take(
        self,
        arrival: Arrival,
        open_: Callable[[], Incoming],
        is_same: Callable[[], bool],
        beside: dict[str, Any] | None = None,
    ) -> Path | None:
        """Make a window of samples; its folder, perhaps aside. None: what was read has changed meanwhile.

        Args:
            arrival: what it is called.
            open_: how to begin reading.
            is_same: asked at the end.
            beside: JSON files to keep beside the arrays.

        """
        known = self.known()
        partial = self._partial(arrival)
        sieve = Sieve(partial / "x.npy", self.reference, self.rules, known)
        try:
            incoming = open_()
            keys, labels = self._sift(sieve, incoming)
        except entries.READ_ERRORS as error:
            self._known = None
            if is_same():
                return self._refuse(partial, arrival, entries.check_readable(error).reason)
            shutil.rmtree(partial)
            return None
        finally:
            sieve.abandon()
        if not sieve.count:
            empty = np.zeros((0, *self.reference.meta.shape), self.reference.meta.dtype)
            np.save(partial / "x.npy", empty, allow_pickle=False)
        for name, value in (beside or {}).items():
            write_json(partial / name, value)
        if not is_same():
            self._known = None
            shutil.rmtree(partial)
            return None
        dropped = {each: getattr(sieve, each) for each in ("repeated", "broken", "not_finite", "out_of_range")}
        about, reasons = self._finish(partial, arrival, incoming.classes, labels, None, keys, dropped, None, ())
        reasons = [*checks.of_counts(about.counts, self.rules), *reasons]
        if sieve.count > 1:
            reasons += checks.of_spread(sieve.spread, self.rules)
        folder = self._put(partial, arrival, reasons, releasable=sieve.count > 0)
        if folder.parent.name == ASIDE:
            self._known = None  # what nobody trains on is not known
        return folder

    def _partial(self, arrival: Arrival) -> Path:
        partial = self.windows / f"{arrival.name}{PARTIAL}"
        partial.mkdir()
        return partial

    def _refuse(self, partial: Path, arrival: Arrival, reason: Reason) -> Path:
        shutil.rmtree(partial)
        partial.mkdir()
        return self._put(partial, arrival, [reason], releasable=False)

    def _put(self, partial: Path, arrival: Arrival, reasons: list[Reason], *, releasable: bool) -> Path:
        folder = self.windows / arrival.name
        if reasons:
            folder = self.windows / ASIDE / arrival.name
            shelf.write_why(
                partial,
                Why(
                    name=arrival.name, entry=arrival.entry, source=arrival.source, at=arrival.at,
                    reasons=tuple(reasons[:MAX_REASONS]), releasable=releasable,
                ),
            )  # fmt: skip
        shelf.put(partial, folder)
        return folder

    def _sift(self, sieve: Sieve, incoming: Incoming) -> tuple[list[str], NDArray[np.int64]]:
        """Write what passes to `x.npy`; its keys and labels."""
        kept = np.zeros(len(incoming.labels), bool)
        samples = incoming.samples()
        for number in range(len(kept)):
            sample = next(samples, None)
            if sample is None:
                raise Unfit(
                    "unreadable", expected=f"{len(kept):,} samples, as many as labels", found=f"{number:,}",
                    next_step=entries.AGAIN,
                )  # fmt: skip
            if isinstance(sample, Broken):
                sieve.broken += 1
            else:
                kept[number] = sieve.passes(sample)
        sieve.finish()
        return [incoming.keys[number] for number in np.flatnonzero(kept).tolist()], incoming.labels[kept]

    def _finish(
        self, partial: Path, arrival: Arrival, classes: tuple[str, ...], labels: NDArray[np.int64],
        confidence: NDArray[np.float32] | None, keys: list[str], dropped: dict[str, int], replaces: str | None,
        notes: tuple[str, ...],
    ) -> tuple[About, list[Reason]]:  # fmt: skip
        """Have the teacher fill in and contradict, write all files beside `x.npy`; what is wrong with the labels.

        Args:
            partial: holds `x.npy`.
            arrival: what it is called.
            classes: known and new ones.
            labels: [N] of people (and, where `confidence` is given, of the teacher).
            confidence: [N] of the teacher that was asked before; None: it is asked now.
            keys: N names.
            dropped: counts of samples that were left out.
            replaces: digest of an older window.
            notes: lines to keep.

        """
        known, teacher = self.reference.meta.classes, self.reference.teacher
        x = np.load(partial / "x.npy", mmap_mode="r", allow_pickle=False)
        by_people = labels if confidence is None else np.where(np.isnan(confidence), labels, UNLABELLED)
        is_by_people = by_people != UNLABELLED
        used = {*np.unique(by_people).tolist()}
        reasons = checks.of_classes(
            tuple(name for index, name in enumerate(classes) if index >= len(known) and index in used), self.requested
        )
        y = labels
        if teacher is not None:
            probabilities = teacher.probabilities(x, len(known))
            if is_by_people.any():
                reasons += checks.of_labels(
                    probabilities, by_people, self.reference.validation, known, self.rules.poison
                )
            if confidence is None and not is_by_people.all():
                y, confidence = labelling.fill(labels, probabilities, self.rules.min_confidence)
        elif is_by_people.any():
            notes = (*notes, "no teacher looked at the labels")
        np.save(partial / "y.npy", y.astype(np.int64), allow_pickle=False)
        if confidence is not None:
            np.save(partial / CONFIDENCE, confidence, allow_pickle=False)
        write_json(partial / KEYS, keys)
        is_labelled = y != UNLABELLED
        about = About(
            name=arrival.name,
            origin=arrival.origin,
            arrived=arrival.at,
            classes=classes,
            counts=Counts(
                labelled=int(is_labelled.sum()),
                unlabelled=int((~is_labelled).sum()),
                by_people=int(is_by_people.sum()),
                **dropped,
            ),
            labelled_by=_who(bool(is_by_people.any()), bool((is_labelled & ~is_by_people).any())),
            teacher=None if teacher is None else teacher.digest,
            replaces=replaces,
            source=arrival.source,
            notes=notes,
            **seal(partial.iterdir(), classes),
        )
        write_about(partial, about)
        return about, reasons

    def relabel(self, arrival: Arrival, entry: Path, name: str, is_same: Callable[[], bool]) -> Path | None:
        """Make a window of an older one with the labels that a table brings; its folder, perhaps aside.

        Its classes begin with those known now, whatever was known when the older one arrived.

        Args:
            arrival: what it is called.
            entry: the table.
            name: of the older window, or of the one that it replaces in turn.
            is_same: asked at the end.

        """
        partial = self._partial(arrival)
        matched: tuple[Path, dict[str, str], list[str]] | Reason
        try:
            matched = self._matched(entry, name)
        except Unfit as error:
            matched = error.reason
        if not is_same():
            shutil.rmtree(partial)
            return None
        if isinstance(matched, Reason):
            return self._refuse(partial, arrival, matched)
        older, said, called = matched
        window, keys = read_window(older), read_keys(older)
        # The older window's classes are those that were known when it arrived, perhaps fewer, or others of the new ones.
        classes, index_of = entries.with_new(self.reference.meta.classes, window.about.classes)
        classes, labels = entries.with_new(classes, [said.get(each, "") for each in called])
        is_said = labels != UNLABELLED
        y = np.where(is_said, labels, np.where(window.y == UNLABELLED, UNLABELLED, index_of[window.y]))
        confidence = np.where(is_said, np.nan, window.confidence).astype(np.float32)
        shutil.copyfile(older / "x.npy", partial / "x.npy")
        absent = len(said) - sum(each in said for each in called)
        notes = (
            f"{int(is_said.sum())} labels for {older.name}",
            *([f"{absent} labels are of other samples"] if absent else []),
        )
        dropped = {
            each: getattr(window.about.counts, each) for each in ("repeated", "broken", "not_finite", "out_of_range")
        }
        arrival = replace(arrival, origin=window.about.origin)  # uploads stay such as the student was not sure of
        _, reasons = self._finish(
            partial, arrival, classes, y, confidence, keys, dropped, window.about.digest, notes
        )  # fmt: skip
        return self._put(partial, arrival, reasons, releasable=True)

    def _matched(self, entry: Path, name: str) -> tuple[Path, dict[str, str], list[str]]:
        """The window that late labels are for, the labels by sample, and what each of its samples is called there."""
        by, said = entries.late_labels(entry, self.rules)
        older = shelf.latest(self.windows, name)
        if older is None:
            raise Unfit(
                "no window", expected=f"a window called {name}", found="none, or one that was set aside",
                next_step="look at `limbeck windows list`; drop the labels again under the window's name",
            )  # fmt: skip
        called = read_keys(older) if by == "sample" else digests(older)
        if not said.keys() & set(called):
            raise Unfit(
                "no sample", expected=f"samples of {older.name}", found=f"none of {len(said)} is in it",
                next_step=f"look at `limbeck windows show {older.name} --samples`",
            )  # fmt: skip
        return older, said, called


def digests(window: Path) -> list[str]:
    """By what late labels can name each sample of a window: 16 hex digits."""
    return [f"{each:016x}" for each in fingerprints(streamed(window, "x")).tolist()]


def _who(people: bool, teacher: bool) -> LabelledBy:
    if people:
        return "both" if teacher else "people"
    return "teacher" if teacher else "none"
