"""What is known of a champion before a rung is chosen: whether its world moved, and how it does in the new one."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from limbeck import models
from limbeck.data.prepared import read, read_meta, read_origin
from limbeck.data.window import UNLABELLED, read_window
from limbeck.drift import Report, Signals, picture, signals_of
from limbeck.drift.two_samples import subsample
from limbeck.edge.usage import softmax
from limbeck.evaluation import Scores, predict
from limbeck.models.renormed import renormed
from limbeck.params import ContractParams
from limbeck.pictures import png
from limbeck.refresh.gate import answered, staleness
from limbeck.refresh.rules import Rules
from limbeck.refresh.rungs import Champion, Feedback, room_of, unpruned_fits
from limbeck.refresh.worlds import Arrived, Group, decisive, judged
from limbeck.windows.agreement import Answers, LabelFree, label_free

Act: TypeAlias = Literal["moved", "wanted", "all"]


@dataclass(frozen=True)
class Look:
    """What a look at new windows brought.

    Attributes:
        groups: of the windows, each judged.
        acts: the windows that something is to be learned from.
        feedback: what follows from these for the rungs; from all where there are none.
        estimate: the champion's accuracy on the same without their labels, and its error where there are some.
        num_known: how many samples of them people labelled.
        new_classes: in any window, which the champion does not know.
        classes: that it knows.

    """

    groups: tuple[Group, ...]
    acts: tuple[Path, ...]
    feedback: Feedback
    estimate: LabelFree
    num_known: int
    new_classes: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def report(self) -> Report:
        """Of the windows that call for most."""
        return decisive(self.groups).report

    @property
    def calls_for_nothing(self) -> str | None:
        """What to say behind the reason where nothing is to be done about these windows; None where something is."""
        group, fell = decisive(self.groups), self.feedback.fell
        if group.asks_a_person:
            return ". Where the labels are right and the model is not: --anyway"
        if group.report.cools_down:
            return ". To act at once: --anyway"
        if not group.report.fires:
            return ""
        if fell is None or fell > 0:
            return None
        return f", but the champion is as good there, on {self.num_known} samples that people labelled"

    @property
    def settled(self) -> list[Path]:
        """Windows that call for nothing and need no second look."""
        return [folder for group in self.groups if group.is_settled for folder in group.folders]

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


def labelled_in(windows: Sequence[Path]) -> dict[str, int]:
    """How many samples of each class people labelled.

    Raises:
        DataError: a window is not what it should be.

    """
    counts = Counter[str]()
    for folder in windows:
        found = read_window(folder)
        counts.update(found.about.classes[label] for label in found.y[found.is_by_people].tolist())
    return dict(counts)


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
) -> Look:
    """Compare new windows with what the champion was validated on.

    Args:
        workspace: the champion's.
        target: whose champion.
        champion: its checkpoints and data.
        windows: folders, in the order of arrival.
        rules: of windows, drift and gate.
        variant: the file of it that ships.
        contract: that it keeps.
        now: when this is asked.
        last_action: when something was last done about drift.
        act: on windows that ask for it; on all whose labels do not contradict, for something is wanted of them; or on all,
            for a person has looked.

    Raises:
        DataError: the data or a window are not what they should be.
        CheckpointError: likewise a checkpoint.

    """
    torch.set_num_threads(rules.threads)
    _, student = models.load(champion.student.folder)
    _, teacher = models.load(champion.teacher.folder)
    meta = read_meta(champion.data)
    file = workspace / "export" / target / f"{variant}.onnx"
    seen = _Eyes(student, teacher, file, rules)

    x, y = read(champion.data, "validation")
    reference, before = seen.signals(x, y), seen.answers(x, y)
    parts, names = dict[Path, _Part](), list[str]()
    for folder in windows:
        found = read_window(folder)
        index_of = np.array([_index(name, meta.classes, names) for name in found.about.classes], np.int64)
        labels = np.where(found.is_by_people, index_of[found.y], UNLABELLED)
        is_known = labels < len(meta.classes)  # of a class that it never met, it is wrong in any world
        parts[folder] = _Part(
            Arrived(
                folder, seen.signals(found.x, np.where(is_known, labels, UNLABELLED)), found.about.origin == "feedback"
            ),
            seen.answers(found.x, labels),
            seen.drawn(found.x),
            seen.shipped(found.x),
            found.about.counts.labelled,
        )
    groups = judged(
        worlds_of(reference, champion.data, rules), [part.arrived for part in parts.values()], rules.drift,
        seed=rules.seed, now=now, last_action=last_action, classes=meta.classes,
    )  # fmt: skip
    asked = [
        group for group in groups if act == "all" or group.report.fires or (act == "wanted" and not group.asks_a_person)
    ]
    acts = [folder for folder in windows if any(folder in group.folders for group in asked)]
    chosen = [parts[folder] for folder in acts or windows]
    said, is_unsure = together([part.said for part in chosen]), all(part.arrived.is_unsure for part in chosen)
    old = before
    if is_unsure:  # held against those of which it was not sure either
        old = before.where(_unsure(reference, decisive(asked or groups)))
    elif any(part.arrived.is_unsure for part in chosen):  # these were not chosen by chance
        chosen = [part for part in chosen if not part.arrived.is_unsure]
        said = together([part.said for part in chosen])
    num_new, split = sum(part.num_labelled for part in chosen), rules.ladder.split
    mixes = [
        (meta.counts[name], num_new * (share or 0.0))
        for name, share in (("validation", split.validation), ("test", split.test))
    ]
    feedback = _feedback(
        workspace / "metrics" / target, before, old, said, np.concatenate([part.shipped for part in chosen]),
        seen.with_new_norms([part.drawn for part in chosen]), mixes, rules, variant, contract,
    )  # fmt: skip
    return Look(
        groups,
        tuple(acts),
        feedback,
        label_free(old, said, rules.gate.bootstrap, rules.gate.seed),
        int(said.is_known.sum()),
        tuple(names),
        meta.classes,
    )


def _index(name: str, known: Sequence[str], new: list[str]) -> int:
    """Which class a name is: the champion's, or behind these a new one."""
    if name in known:
        return known.index(name)
    if name not in new:
        new.append(name)
    return len(known) + new.index(name)


def worlds_of(reference: Signals, data: Path, rules: Rules) -> dict[str, Signals]:
    """All of the validation split, and of each window that was learned from its part of it.

    Args:
        reference: of the split's seeded choice of at most `drift.max_samples`.
        data: what the champion was made of.
        rules: the choice.

    """
    meta = read_meta(data)
    origins = read_origin(data, "validation")
    origins = origins[subsample(len(origins), rules.drift.max_samples, rules.seed)]
    numbered = [*((-number, each) for number, each in enumerate(meta.learned, 1)), *enumerate(meta.windows, 1)]
    return {"": reference} | {each.name: reference.take(np.flatnonzero(origins == origin)) for origin, each in numbered}


def _unsure(reference: Signals, group: Group) -> NDArray[np.bool_]:
    """[N]: which old samples a group of uploads was held against."""
    assert reference.confidence_N is not None
    assert group.signals.confidence_N is not None
    return np.asarray(reference.confidence_N <= group.signals.confidence_N.max())


@dataclass(frozen=True)
class _Part:
    """A window as it was seen: compared, answered, drawn from, answered by the file that ships, and how many are labelled."""

    arrived: Arrived
    said: Answers
    drawn: NDArray[Any]
    shipped: NDArray[np.int64]
    num_labelled: int


@dataclass(frozen=True)
class _Eyes:
    """What is seen of samples x [N, ...]: a seeded choice of at most `drift.max_samples`, the same for each."""

    student: nn.Module
    teacher: nn.Module
    file: Path
    rules: Rules

    def rows(self, x: NDArray[Any]) -> NDArray[np.int64]:
        return subsample(len(x), self.rules.drift.max_samples, self.rules.seed)

    def drawn(self, x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(x[self.rows(x)])

    def signals(self, x: NDArray[Any], labels: NDArray[np.int64]) -> Signals:
        """As they are compared."""
        return signals_of(
            self.student, x, teacher=self.teacher, labels_N=labels, max_samples=self.rules.drift.max_samples,
            batch_size=self.rules.batch_size, seed=self.rules.seed,
        )  # fmt: skip

    def answers(self, x: NDArray[Any], labels: NDArray[np.int64]) -> Answers:
        """Of student and teacher."""
        drawn = self.drawn(x)
        student_NK, teacher_NK = (
            predict(network, drawn, self.rules.batch_size) for network in (self.student, self.teacher)
        )
        return Answers(student_NK.argmax(1), softmax(teacher_NK), np.asarray(labels[self.rows(x)]))

    def shipped(self, x: NDArray[Any]) -> NDArray[np.int64]:
        """[N] what the file that ships says."""
        return np.concatenate(
            [logits_BK.argmax(1) for logits_BK in answered(self.file, self.drawn(x), threads=self.rules.threads)]
        )

    def with_new_norms(self, drawn: Sequence[NDArray[Any]]) -> NDArray[np.int64] | None:
        """What the student says [N] once its norms have seen the samples, windows together; None without norms."""
        x = np.concatenate(drawn)
        mixed = np.random.default_rng(self.rules.seed).permutation(len(x))  # a batch of one window alone is of no world
        normed = renormed(self.student, x[mixed], self.rules.batch_size)
        return None if normed is None else np.asarray(predict(normed, x, self.rules.batch_size).argmax(1))


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
