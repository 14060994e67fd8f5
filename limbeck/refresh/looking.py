"""What is known of a champion before a rung is chosen: whether its world moved, and how it does in the new one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from limbeck import models
from limbeck.data.content import fingerprints
from limbeck.data.prepared import NAMES, read, read_meta, read_origin
from limbeck.data.sources.arrays import streamed
from limbeck.data.window import UNLABELLED, read_window
from limbeck.drift import DriftRules, Report, Signals, picture, signals_of
from limbeck.drift.signals import joined
from limbeck.drift.two_samples import subsample
from limbeck.edge.usage import softmax
from limbeck.evaluation import Scores
from limbeck.models.renormed import renormed
from limbeck.params import ContractParams
from limbeck.pictures import png
from limbeck.prediction import predict
from limbeck.refresh.gate import answered, staleness
from limbeck.refresh.rules import Rules
from limbeck.refresh.rungs import Champion, Feedback, room_of, unpruned_fits
from limbeck.refresh.worlds import Arrived, Group, decisive, judged
from limbeck.windows.agreement import Answers, LabelFree, label_free

Act: TypeAlias = Literal["moved", "wanted", "all"]
MANY = 10
"""Times `drift.max_samples`: old samples among which such are looked for of which the champion is not sure."""


@dataclass(frozen=True)
class Look:
    """What a look at new windows brought.

    Attributes:
        groups: of the windows, each judged.
        acts: the windows that something is to be learned from.
        harmless: groups that moved, and on whose samples, labelled by people, the champion is as good as before.
        waiting: windows with samples of a class that the champion does not know and is not to learn yet.
        unready: these classes, of `acts`.
        feedback: what follows from `acts` for the rungs; from all windows where there are none.
        estimate: the champion's accuracy on the same without their labels, and its error where there are some.
        num_known: how many samples of them people labelled.
        num_labelled: how many samples of `acts` have a label, whoever gave it.
        classes: that the champion knows.

    """

    groups: tuple[Group, ...]
    acts: tuple[Path, ...]
    harmless: tuple[Group, ...]
    waiting: tuple[Path, ...]
    unready: tuple[str, ...]
    feedback: Feedback
    estimate: LabelFree
    num_known: int
    num_labelled: int
    classes: tuple[str, ...]

    @property
    def report(self) -> Report:
        """Of the windows that call for most."""
        return decisive(self.groups).report

    @property
    def calls_for_nothing(self) -> str | None:
        """What to say behind the reason where nothing is to be done about these windows; None where something is."""
        group = decisive(self.groups)
        if self.acts:
            return None
        if group in self.harmless:
            return f", but where people labelled enough to tell ({self.num_known} samples) the champion is as good as before"
        if group.asks_a_person:
            return ". Where the labels are right and the model is not: --anyway"
        return ". To act at once: --anyway" if group.report.cools_down else ""

    @property
    def settled(self) -> list[Path]:
        """Windows that call for nothing and need no second look."""
        still = [group for group in self.groups if group.is_settled or group in self.harmless]
        return [folder for group in still for folder in group.folders if folder not in (*self.acts, *self.waiting)]

    def lines(self) -> list[str]:
        """What was found, for the terminal."""
        if len(self.groups) == 1:
            return self.report.lines()
        named = [(", ".join(folder.name for folder in group.folders), group.report) for group in self.groups]
        return [f"{names}: {line}" for names, report in named for line in report.lines()]

    def picture(self) -> bytes | None:
        """What moved, as a PNG; None where nothing did."""
        group = decisive(self.groups)
        drawn = picture(group.report, group.reference, group.signals, self.classes)
        return None if drawn is None else png(drawn)


def unknown_rows(folder: Path, data: Path) -> NDArray[np.int64]:
    """The samples of a window that the champion was not made of.

    The intake has left known ones out. But late labels come for a window that was learned, perhaps, and samples of a class that
    had too few wait in one.

    Raises:
        DataError: window or data are not what they should be.

    """
    found, meta = read_window(folder), read_meta(data)
    if found.about.replaces is None and found.about.digest not in {
        each.digest for each in (*meta.learned, *meta.windows)
    }:
        return np.arange(len(found.y))
    known = np.concatenate([fingerprints(streamed(data / split, "x")) for split in NAMES])
    return np.flatnonzero(~np.isin(fingerprints(streamed(folder, "x")), known))


def look(
    workspace: Path,
    target: str,
    champion: Champion,
    windows: Sequence[Path],
    rules: Rules,
    *,
    variant: str,
    contract: ContractParams,
    now: datetime,
    last_action: datetime | None,
    act: Act = "moved",
    new_classes: Sequence[str] = (),
) -> Look:
    """Compare new windows with what the champion was validated on.

    Args:
        workspace: the champion's.
        target: whose champion.
        champion: its checkpoints and data.
        windows: folders, in the order of arrival, each with samples that are new (`unknown_rows`).
        rules: of windows, drift and gate.
        variant: the file of it that ships.
        contract: that it keeps.
        now: when this is asked.
        last_action: when something was last done about drift.
        act: on windows that ask for it; on all whose labels do not contradict, for something is wanted of them; or on all,
            for a person has looked.
        new_classes: that it is to learn. Samples of others that it does not know say nothing of it.

    Raises:
        DataError: the data or a window are not what they should be.
        CheckpointError: likewise a checkpoint.

    """
    torch.set_num_threads(rules.threads)
    _, student = models.load(champion.student.folder)
    _, teacher = models.load(champion.teacher.folder)
    meta = read_meta(champion.data)
    seen = _Eyes(student, teacher, workspace / "export" / target / f"{variant}.onnx", rules)
    old = _Old(seen, champion.data)
    parts = {folder: seen.part(folder, champion.data, meta.classes, new_classes) for folder in windows}
    groups = judged(
        old.worlds, [part.arrived for part in parts.values()], rules.drift, unsure=old.unsure_worlds,
        seed=rules.seed, now=now, last_action=last_action, classes=meta.classes,
    )  # fmt: skip

    def beside(group: Group) -> tuple[Answers, _Part]:
        """What was said to old samples and to those of a group that are held against each other."""
        whole = _joined([parts[folder] for folder in group.folders])
        if not whole.arrived.is_unsure:
            return old.answers, whole
        assert group.signals.confidence_N is not None
        limit = group.signals.confidence_N.max()
        return old.unsure(float(limit)), whole.where(np.asarray(whole.arrived.signals.confidence_N <= limit))

    def is_harmless(group: Group) -> bool:
        before, part = beside(group)
        known = part.said.where(part.said.is_known)
        if not group.report.fires or len(known.truth) < rules.drift.min_samples:
            return False
        return bool(_rights(before)[0].mean() <= _rights(known)[0].mean())

    harmless = tuple(group for group in groups if is_harmless(group))
    asked = [
        group
        for group in groups
        if act == "all"
        or (group.report.fires and group not in harmless)
        or (act == "wanted" and not group.asks_a_person)
    ]
    acts = [folder for folder in windows if any(folder in group.folders for group in asked)]
    figured = asked or list(groups)
    chosen = [group for group in figured if not parts[group.folders[0]].arrived.is_unsure] or [decisive(figured)]
    before, part = beside(chosen[0])[0], _joined([beside(group)[1] for group in chosen])
    num_labelled, split = sum(parts[folder].num_labelled for folder in acts), rules.ladder.split
    mixes = [
        (meta.counts[name], num_labelled * (share or 0.0))
        for name, share in (("validation", split.validation), ("test", split.test))
    ]
    feedback = _feedback(
        workspace / "metrics" / target, old.answers, before, part.said, part.shipped, seen.with_new_norms(part.drawn),
        mixes, rules, variant, contract,
    )  # fmt: skip
    return Look(
        groups,
        tuple(acts),
        () if act == "all" else harmless,
        tuple(folder for folder in windows if parts[folder].foreign),
        tuple(dict.fromkeys(name for folder in acts for name in parts[folder].foreign)),
        feedback,
        label_free(before, part.said, rules.gate.bootstrap, rules.gate.seed),
        int(part.said.is_known.sum()),
        num_labelled,
        meta.classes,
    )


def rows_of_worlds(data: Path, rules: DriftRules, seed: int, most: int | None = None) -> dict[str, NDArray[np.int64]]:
    """Rows of the validation split, a seeded choice of at most so many: of all of it, called "", and of each world in it.

    Worlds are the first champion's data and each window that was learned since; windows too small for a verdict are one.

    Args:
        data: what the champion was made of.
        rules: how many samples a verdict takes.
        seed: of the choice.
        most: None: `max_samples`.

    """
    meta, origins = read_meta(data), read_origin(data, "validation")
    found = {"": np.arange(len(origins))}
    if meta.windows:
        found["the first data"] = np.flatnonzero(origins == 0)
    small = list[NDArray[np.int64]]()
    for origin, each in [
        *((-number, each) for number, each in enumerate(meta.learned, 1)),
        *enumerate(meta.windows, 1),
    ]:
        rows = np.flatnonzero(origins == origin)
        if len(rows) < rules.min_samples:
            small.append(rows)
        else:
            found[each.name] = rows
    found["small windows"] = np.sort(np.concatenate(small)) if small else np.zeros(0, np.int64)
    return {
        name: rows[subsample(len(rows), most or rules.max_samples, seed)]
        for name, rows in found.items()
        if len(rows) or not name
    }


@dataclass(frozen=True)
class _Part:
    """Samples of windows as they were seen.

    Attributes:
        arrived: their figures; people's labels of classes that the champion knows.
        said: answers; people's labels of classes that it knows or is to learn.
        drawn: the samples [N, ...].
        shipped: [N] what the file that ships says.
        num_labelled: how many of the windows' samples have a label, whoever gave it.
        foreign: classes that it neither knows nor is to learn.

    """

    arrived: Arrived
    said: Answers
    drawn: NDArray[Any]
    shipped: NDArray[np.int64]
    num_labelled: int
    foreign: tuple[str, ...]

    def where(self, mask: NDArray[np.bool_]) -> "_Part":
        """Some of the samples that were drawn."""
        signals = self.arrived.signals.take(np.flatnonzero(mask))
        return replace(
            self, arrived=replace(self.arrived, signals=signals), said=self.said.where(mask), drawn=self.drawn[mask],
            shipped=self.shipped[mask],
        )  # fmt: skip


def _joined(parts: Sequence[_Part]) -> _Part:
    return replace(
        parts[0],
        arrived=replace(parts[0].arrived, signals=joined([part.arrived.signals for part in parts])),
        said=together([part.said for part in parts]),
        drawn=np.concatenate([part.drawn for part in parts]),
        shipped=np.concatenate([part.shipped for part in parts]),
    )


@dataclass(frozen=True)
class _Eyes:
    """What is seen of samples, by student, teacher and the file that ships."""

    student: nn.Module
    teacher: nn.Module
    file: Path
    rules: Rules

    def signals(self, x: NDArray[Any], labels: NDArray[np.int64]) -> Signals:
        """As they are compared."""
        return signals_of(
            self.student, x, teacher=self.teacher, labels_N=labels, max_samples=self.rules.drift.max_samples,
            batch_size=self.rules.batch_size, seed=self.rules.seed,
        )  # fmt: skip

    def answers(self, x: NDArray[Any], labels: NDArray[np.int64]) -> Answers:
        """Of student and teacher to all of them."""
        student_NK, teacher_NK = (
            predict(network, x, self.rules.batch_size) for network in (self.student, self.teacher)
        )
        return Answers(student_NK.argmax(1), softmax(teacher_NK), np.asarray(labels))

    def part(self, folder: Path, data: Path, known: tuple[str, ...], new: Sequence[str]) -> _Part:
        """A window."""
        found, names = read_window(folder), (*known, *new)
        rows = unknown_rows(folder, data)
        index_of = np.array(
            [names.index(name) if name in names else UNLABELLED for name in found.about.classes], np.int64
        )
        y = np.where(found.y == UNLABELLED, UNLABELLED, index_of[found.y])
        foreign = np.unique(found.y[rows][(y[rows] == UNLABELLED) & (found.y[rows] != UNLABELLED)])
        drawn = rows[subsample(len(rows), self.rules.drift.max_samples, self.rules.seed)]
        x, labels = np.asarray(found.x[drawn]), np.where(found.is_by_people, y, UNLABELLED)[drawn]
        is_known = labels < len(known)  # of a class that it never met, it is wrong in any world
        return _Part(
            Arrived(folder, self.signals(x, np.where(is_known, labels, UNLABELLED)), found.about.origin == "feedback"),
            self.answers(x, labels),
            x,
            np.concatenate([logits_BK.argmax(1) for logits_BK in answered(self.file, x, threads=self.rules.threads)]),
            int((y[rows] != UNLABELLED).sum()),
            tuple(found.about.classes[label] for label in foreign.tolist()),
        )

    def with_new_norms(self, x: NDArray[Any]) -> NDArray[np.int64] | None:
        """What the student says [N] once its norms have seen the samples, windows together; None without norms."""
        mixed = np.random.default_rng(self.rules.seed).permutation(len(x))  # a batch of one window alone is of no world
        normed = renormed(self.student, x[mixed], self.rules.batch_size)
        return None if normed is None else np.asarray(predict(normed, x, self.rules.batch_size).argmax(1))


class _Old:
    """The champion's validation split, seen when first asked."""

    def __init__(self, seen: _Eyes, data: Path) -> None:
        self.seen, self.data = seen, data
        self.x, self.y = read(data, "validation")

    @cached_property
    def rows(self) -> dict[str, NDArray[np.int64]]:
        """Of each world, more than are compared: of few is the champion unsure."""
        rules = self.seen.rules.drift
        return rows_of_worlds(self.data, rules, self.seen.rules.seed, MANY * rules.max_samples)

    def signals(self, rows: NDArray[np.int64]) -> Signals:
        """Of a seeded choice of these."""
        chosen = rows[subsample(len(rows), self.seen.rules.drift.max_samples, self.seen.rules.seed)]
        return self.seen.signals(np.asarray(self.x[chosen]), self.y[chosen])

    @cached_property
    def worlds(self) -> dict[str, Signals]:
        """As windows are compared with them."""
        worlds = rows_of_worlds(self.data, self.seen.rules.drift, self.seen.rules.seed)
        return {name: self.signals(rows) for name, rows in worlds.items()}

    @cached_property
    def confidence(self) -> NDArray[np.float64]:
        """[N] of the student's answers, infinite where it was not asked."""
        found, step = np.full(len(self.y), np.inf), self.seen.rules.batch_size
        rows = np.unique(np.concatenate(list(self.rows.values())))
        for batch in np.array_split(rows, range(step, len(rows), step)):
            found[batch] = softmax(predict(self.seen.student, np.asarray(self.x[batch]), step)).max(1)
        return found

    def unsure_worlds(self, limit: float) -> dict[str, Signals]:
        """As uploads are compared with them: samples of which the champion is no surer than this."""
        unsure = {name: rows[self.confidence[rows] <= limit] for name, rows in self.rows.items()}
        nothing = self.worlds[""].take(np.zeros(0, np.int64))
        return {"": nothing} | {name: self.signals(rows) for name, rows in unsure.items() if len(rows)}

    @cached_property
    def answers(self) -> Answers:
        """To a seeded choice of them."""
        rows = subsample(len(self.y), self.seen.rules.drift.max_samples, self.seen.rules.seed)
        return self.seen.answers(np.asarray(self.x[rows]), self.y[rows])

    def unsure(self, limit: float) -> Answers:
        """To those of which the champion is no surer; to all where there are none."""
        rows = self.rows[""][self.confidence[self.rows[""]] <= limit]
        rows = rows[subsample(len(rows), self.seen.rules.drift.max_samples, self.seen.rules.seed)]
        return self.seen.answers(np.asarray(self.x[rows]), self.y[rows]) if len(rows) else self.answers


def together(told: Sequence[Answers]) -> Answers:
    """Answers to several sets of samples as one."""
    return Answers(*(np.concatenate([getattr(each, field.name) for each in told]) for field in fields(Answers)))


def _feedback(
    metrics: Path, before: Answers, old: Answers, said: Answers, shipped: NDArray[np.int64], normed: NDArray[np.int64] | None, mixes: Sequence[tuple[float, float]],
    rules: Rules, variant: str, contract: ContractParams,
) -> Feedback:  # fmt: skip
    """How far quality fell and how good the teacher is, where people labelled enough; what the contract leaves.

    Args:
        metrics: the champion's.
        before: to old samples.
        old: to those of them that the new ones are held against.
        said: to new ones.
        shipped: what the file that ships said to these.
        normed: what the student said to these with norms of their statistics; None without norms.
        mixes: how many old and new samples each split of a rung will have.
        rules: of the gate.
        variant: that ships.
        contract: as its user wrote it.

    """
    quality, latency = (
        json.loads((metrics / f"{name}.json").read_text(encoding="utf-8")) for name in ("quality", "latency")
    )
    room, fits = room_of(quality, variant, contract), unpruned_fits(latency, variant, contract)
    known = said.where(said.is_known)
    if len(known.truth) < rules.drift.min_samples:  # a handful would decide which rung is passed over
        return Feedback(quality_room=room, unpruned_fits=fits)
    (old_student, old_teacher), (student, teacher) = _rights(before), _rights(known)
    stale = staleness(teacher, student, rules.gate)

    def mixed(old: Scores, new: Scores) -> list[float]:
        return [
            (num_old * float(old.mean()) + num_new * float(new.mean())) / (num_old + num_new)
            for num_old, num_new in mixes
        ]

    return Feedback(
        fell=float(_rights(old)[0].mean() - student.mean()),
        teacher_lead=stale.lead["value"],
        quality_room=room,
        unpruned_fits=fits,
        stale=stale.why,
        float_lead=float(student.mean() - (shipped[said.is_known] == known.truth).mean()),
        norms_lead=None if normed is None else float((normed[said.is_known] == known.truth).mean() - student.mean()),
        stands=min(mixed(old_student, student)),
        behind=max(mixed(old_teacher - old_student, teacher - student)),
    )


def _rights(said: Answers) -> tuple[Scores, Scores]:
    """[N] each: 1 where student and where teacher are right."""
    return tuple(np.asarray(answer == said.truth, np.float64) for answer in (said.student, said.teacher_NK.argmax(1)))  # type: ignore[return-value]
