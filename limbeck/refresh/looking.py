"""What is known of a champion before a rung is chosen: whether its world moved, and how it does in the new one."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from limbeck import models
from limbeck.data.prepared import read, read_meta
from limbeck.data.window import UNLABELLED, read_window
from limbeck.drift import Report, Signals, detect, picture, signals_of
from limbeck.drift.signals import joined
from limbeck.drift.two_samples import subsample
from limbeck.edge.usage import softmax
from limbeck.evaluation import Scores, predict
from limbeck.models.renormed import renormed
from limbeck.params import ContractParams
from limbeck.pictures import png
from limbeck.refresh.gate import answered, staleness
from limbeck.refresh.rules import Rules
from limbeck.refresh.rungs import Champion, Feedback, room_of, unpruned_fits
from limbeck.windows.agreement import Answers, LabelFree, label_free


@dataclass(frozen=True)
class Look:
    """What a look at new windows brought.

    Attributes:
        report: whether and what moved.
        reference: the champion's validation split, as it was compared.
        window: the new samples.
        feedback: what follows for the rungs.
        estimate: the champion's accuracy on the new samples without their labels, and its error where there are some.
        labelled: how many samples of each class people labelled.
        new_classes: of these the champion does not know.
        classes: that it knows.

    """

    report: Report
    reference: Signals
    window: Signals
    feedback: Feedback
    estimate: LabelFree
    labelled: dict[str, int]
    new_classes: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def is_judged(self) -> bool:
        """Whether there were samples enough for a verdict that neither time nor a person changes."""
        return bool(self.report.tests) and not self.report.cools_down and not self.asks_a_person

    @property
    def asks_a_person(self) -> bool:
        """Whether labels alone contradict what was learned: somebody has to say who is right."""
        return self.report.sources == ("labels",)

    def picture(self) -> bytes | None:
        """What moved, as a PNG; None where nothing did."""
        drawn = picture(self.report, self.reference, self.window, self.classes)
        return None if drawn is None else png(drawn)


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

    Raises:
        DataError: the data or a window are not what they should be.
        CheckpointError: likewise a checkpoint.

    """
    torch.set_num_threads(rules.threads)
    _, student = models.load(champion.student.folder)
    _, teacher = models.load(champion.teacher.folder)
    meta = read_meta(champion.data)

    file = workspace / "export" / target / f"{variant}.onnx"

    def signals(x: NDArray[Any], labels: NDArray[np.int64]) -> Signals:
        return signals_of(
            student, x, teacher=teacher, labels_N=labels, max_samples=rules.drift.max_samples,
            batch_size=rules.batch_size, seed=rules.seed,
        )  # fmt: skip

    def answers(x: NDArray[Any], labels: NDArray[np.int64]) -> Answers:
        rows = subsample(len(x), rules.drift.max_samples, rules.seed)
        student_NK, teacher_NK = (predict(network, x[rows], rules.batch_size) for network in (student, teacher))
        return Answers(student_NK.argmax(1), softmax(teacher_NK), np.asarray(labels[rows]))

    validation = read(champion.data, "validation")
    reference = signals(*validation)
    parts, told, labelled, shipped = [], [], Counter[str](), []
    drawn = list[NDArray[Any]]()
    for folder in windows:
        found = read_window(folder)
        labels = np.where(found.is_by_people, found.y, UNLABELLED)
        labelled.update(found.about.classes[label] for label in labels[labels != UNLABELLED].tolist())
        parts.append(signals(found.x, labels))
        told.append(answers(found.x, labels))
        rows = subsample(len(found.x), rules.drift.max_samples, rules.seed)
        drawn.append(found.x[rows])
        shipped += [logits_BK.argmax(1) for logits_BK in answered(file, drawn[-1], threads=rules.threads)]
    window, said, before = joined(parts), together(told), answers(*validation)
    num_new, split = sum(read_window(folder).about.counts.labelled for folder in windows), rules.ladder.split
    mixes = [
        (meta.counts[name], num_new * (share or 0.0))
        for name, share in (("validation", split.validation), ("test", split.test))
    ]
    report = detect(
        reference, window, rules.drift, seed=rules.seed, now=now, last_action=last_action, classes=meta.classes
    )
    return Look(
        report,
        reference,
        window,
        _feedback(
            workspace / "metrics" / target,
            before,
            said,
            np.concatenate(shipped),
            _with_new_norms(student, drawn, rules),
            mixes,
            rules,
            variant,
            contract,
        ),
        label_free(before, said, rules.gate.bootstrap, rules.gate.seed),
        dict(labelled),
        tuple(name for name in labelled if name not in meta.classes),
        meta.classes,
    )


def together(told: Sequence[Answers]) -> Answers:
    """Answers to several sets of samples as one."""
    return Answers(*(np.concatenate([getattr(each, field.name) for each in told]) for field in fields(Answers)))


def _feedback(
    metrics: Path, before: Answers, said: Answers, shipped: NDArray[np.int64], normed: NDArray[np.int64] | None, mixes: Sequence[tuple[float, float]],
    rules: Rules, variant: str, contract: ContractParams,
) -> Feedback:  # fmt: skip
    """How far quality fell and how good the teacher is, where people labelled; what the contract leaves.

    Args:
        metrics: the champion's.
        before: to old samples.
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
    if not len(known.truth):
        return Feedback(quality_room=room, unpruned_fits=fits)
    (old_student, old_teacher), (student, teacher) = _rights(before), _rights(known)
    stale = staleness(teacher, student, rules.gate)

    def mixed(old: Scores, new: Scores) -> list[float]:
        return [
            (num_old * float(old.mean()) + num_new * float(new.mean())) / (num_old + num_new)
            for num_old, num_new in mixes
        ]

    return Feedback(
        fell=float(old_student.mean() - student.mean()),
        teacher_lead=stale.lead["value"],
        quality_room=room,
        unpruned_fits=fits,
        stale=stale.why,
        float_lead=float(student.mean() - (shipped[said.is_known] == known.truth).mean()),
        norms_lead=None if normed is None else float((normed[said.is_known] == known.truth).mean() - student.mean()),
        stands=min(mixed(old_student, student)),
        behind=max(mixed(old_teacher - old_student, teacher - student)),
    )


def _with_new_norms(student: nn.Module, drawn: Sequence[NDArray[Any]], rules: Rules) -> NDArray[np.int64] | None:
    """What the student says [N] once its norms have seen the new samples, window after window as they are; None without."""
    x = np.concatenate(drawn)
    mixed = np.random.default_rng(rules.seed).permutation(len(x))  # a batch of one window alone is of no world
    normed = renormed(student, x[mixed], rules.batch_size)
    return None if normed is None else np.asarray(predict(normed, x, rules.batch_size).argmax(1))


def _rights(said: Answers) -> tuple[Scores, Scores]:
    """[N] each: 1 where student and where teacher are right."""
    return tuple(np.asarray(answer == said.truth, np.float64) for answer in (said.student, said.teacher_NK.argmax(1)))  # type: ignore[return-value]
