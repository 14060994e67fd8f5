"""The ladder: what each rung is, as params of a workspace with one target, and what it costs.

    recalibrate   nothing is trained; int8 takes its ranges from the calibration split, in which the new samples are
    norms         norms and biases follow the new data, taught by the champion's teacher where it is right; calibrated
    distil        a short training of every weight from the champion, with replay; the feedback decides on cuts and rates
    teacher       the teacher goes on learning from old and new; then the whole chain, from the champion before its cut

Every rung starts from stored checkpoints that params name by digest, reads the same windows and the same share of old
samples, and ends in exported files. Each is a pure function of a `Situation`; nothing here reads data or trains.
"""

import copy
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, TypeAlias, get_args

import yaml
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from limbeck.checkpoint import SPEC, Spec, digest_of
from limbeck.components import NONE, Component
from limbeck.data.splits import read_meta
from limbeck.errors import CheckpointError, DataError, ParamsError
from limbeck.params import AIMS, ContractParams, Params, Section, Share, SplitParams, Tune, checked

Rung: TypeAlias = Literal["recalibrate", "norms", "distil", "teacher"]
RUNGS: tuple[Rung, ...] = get_args(Rung)
"""From the cheapest."""

WEIGHS_THE_TEACHER = ("kd", "adaptive", "momentum")
"""Losses whose `alpha` takes from the labels what it gives the teacher. All others leave the labels their whole weight."""
ON_LOGITS = ("kd", "dkd", "dist", "standardized", "adaptive", "sum")
"""Losses on logits: of the old world, which the teacher knows, they need not say what they say of the new. Sums, where all parts are."""


class TrainingRules(Section):
    """A short training of the student: epochs, learning rate before the feedback, views of each sample (`label.num_views`)."""

    epochs: PositiveInt
    lr: PositiveFloat
    views: PositiveInt


class TeacherRules(Section):
    """How the teacher goes on learning, and its student after it."""

    epochs: PositiveInt
    lr: PositiveFloat
    student: TrainingRules


class FeedbackRules(Section):
    """From which figures on what changes. All are differences of quality, from 0 to 1, but `ratio` and `least`.

    grow_back: a fall of this much on the new windows starts from the student before its cut, which is not cut again.
    room: quality that the contract leaves to lose, after the fall; from here on more is cut.
    ratio: the share of channels that goes then.
    ranges: how far the float student has to lead the file that ships, on the new windows, for ranges to be taken anew, and
        for one more layer to stay in float where that was not enough.
    norms: the share of the fall that statistics of the new samples alone have to bring back for norms to be trained.
    full_lead: the teacher's lead over the champion at which its answers keep their whole weight.
    full_fall: the fall at which the learning rate is whole.
    least: what is left at least of an alpha, of a temperature above 1, and of a learning rate.
    """

    grow_back: Share
    room: Share
    ratio: Share
    ranges: Share
    norms: Share
    full_lead: Share
    full_fall: Share
    least: Share


class LadderRules(Section):
    """The values of the ladder, as they stand in refresh.yaml:

        ladder:
          order: [recalibrate, norms, distil, teacher]   # from the cheapest
          enough: 0.9                                    # of the fall: who passes the gate and regains it, ends the climb
          replay: 0.25                                   # of the old training samples, beside the new ones
          weight: 1.0                                    # of a new sample beside an old one, in norms and distil
          split: {test: 0.3, validation: 0.3, calibration: 0.05}   # of the new samples; the rest trains
          norms: {epochs: 2, lr: 0.02, views: 2}
          distil: {epochs: 6, lr: 0.02, views: 6}
          teacher:
            epochs: 6
            lr: 0.01
            student: {epochs: 12, lr: 0.05, views: 6}
          feedback: {grow_back: 0.1, room: 0.02, ratio: 0.15, ranges: 0.01, norms: 0.1, full_lead: 0.1, full_fall: 0.1, least: 0.2}

    A challenger that passes the gate and regains less than `enough` is kept, and the next rung is tried; the best of them
    ships. The teacher goes on learning only where nothing passed: that costs more than all before it.
    replay and split are the same for all rungs, so that DVC prepares the data once.
    """  # fmt: skip

    order: Annotated[tuple[Rung, ...], Field(min_length=1)]
    enough: Share
    replay: Annotated[float, Field(gt=0, le=1)]
    weight: PositiveFloat
    split: SplitParams
    norms: TrainingRules
    distil: TrainingRules
    teacher: TeacherRules
    feedback: FeedbackRules

    @field_validator("order")
    @classmethod
    def _climbs(cls, order: tuple[Rung, ...]) -> tuple[Rung, ...]:
        if list(order) != sorted(set(order), key=RUNGS.index):
            raise ValueError(f"expected each rung once, from the cheapest: {', '.join(RUNGS)}")
        return order

    @field_validator("split")
    @classmethod
    def _examines(cls, split: SplitParams) -> SplitParams:
        if split.test is None:
            raise ValueError("test is null; new windows bring no test split of their own, give it a share")
        return split


@dataclass(frozen=True)
class Stored:
    """A checkpoint's folder and digest."""

    folder: Path
    sha256: str

    @classmethod
    def of(cls, folder: Path) -> "Stored":
        """The one in a folder.

        Raises:
            CheckpointError: there is none.

        """
        if not (folder / SPEC).is_file():
            raise CheckpointError(
                f"{folder} holds no {SPEC}; expected a Limbeck checkpoint of the champion's workspace."
            )
        return cls(folder.resolve(), digest_of(folder))


@dataclass(frozen=True)
class Champion:
    """What a refresh starts from.

    Attributes:
        student: after the cut, before quantization: a quantized network cannot go on learning.
        unpruned: before the cut.
        teacher: of both.
        trust: import paths that the teacher's model names.
        is_ensemble: whether the teacher is several, which are taken as they are.
        observer: that took the ranges of its int8 file; None where that is not known.
        data: its prepared data.
        data_digest: of their content.
        root: the prepared data of the first champion, where this one has learned from windows since; None: `data`.
        root_digest: of their content.
        lost_root: where they are no more, or others; what was replayed last is replayed again then.

    """

    student: Stored
    unpruned: Stored
    teacher: Stored
    data: Path
    data_digest: str
    root: Path | None = None
    root_digest: str | None = None
    lost_root: Path | None = None
    trust: tuple[str, ...] = ()
    is_ensemble: bool = False
    observer: Component | None = None

    @classmethod
    def of(cls, workspace: Path, target: str) -> "Champion":
        """The champion that a workspace holds for a target.

        Raises:
            CheckpointError: one of its checkpoints is missing.
            DataError: its data are.

        """
        places = workspace / "models" / target
        teacher = Stored.of(workspace / "models/teacher")
        model = _spec_in(teacher.folder).model
        root, digest = _root(workspace)
        is_there = root is not None and _is_there(root, digest)
        quantized = _spec_in(places / "quantize").quantization if (places / "quantize" / SPEC).is_file() else None
        return cls(
            Stored.of(places / "prune"),
            Stored.of(places / "distill"),
            teacher,
            (workspace / "data").resolve(),
            read_meta(workspace / "data").digest,
            root=root if is_there else None,
            root_digest=digest if is_there else None,
            lost_root=None if is_there else root,
            trust=tuple(sorted({use for use in _names(model.model_dump()) if ":" in use})),
            is_ensemble=model.use == "ensemble",
            observer=quantized.observer if quantized else None,
        )


def _root(workspace: Path) -> tuple[Path | None, str | None]:
    """Folder and digest of the data that a workspace's windows, and those before them, were put beside; None without windows."""
    source = yaml.safe_load((workspace / "params.yaml").read_text(encoding="utf-8"))["data"]["source"]
    if source["use"] != "windows":
        return None, None
    first, digest = ("root", "root_digest") if source.get("root") else ("base", "digest")
    return workspace / source[first], source.get(digest)


def _is_there(data: Path, digest: str | None) -> bool:
    """Whether prepared data are still what they were."""
    try:
        return digest in (None, read_meta(data).digest)
    except DataError:
        return False


def _spec_in(folder: Path) -> Spec:
    return Spec.model_validate(json.loads((folder / SPEC).read_text(encoding="utf-8")))


def _names(model: Any) -> Iterable[str]:
    """Whatever stands after a `use`, at any depth: members of an ensemble are specs with models in them."""
    if isinstance(model, Mapping):
        if isinstance(use := model.get("use"), str):
            yield use
        for value in model.values():
            yield from _names(value)
    elif isinstance(model, list | tuple):
        for value in model:
            yield from _names(value)


@dataclass(frozen=True)
class Feedback:
    """What is known of the champion; from what is None nothing follows.

    Attributes:
        fell: its quality on old validation, less that on the new windows.
        teacher_lead: the teacher's quality on the new samples that people labelled, less the champion's.
        quality_room: what the contract leaves it to lose, on the validation it was chosen by.
        unpruned_fits: whether the student before its cut would keep the clauses about bytes, time and memory.
        stale: why the teacher is out of date; empty where it is not (see `gate.staleness`).
        float_lead: the float student's quality on the new samples that people labelled, less that of the file that ships.
        norms_lead: what the float student gains there by norms that take their statistics from the new samples.
        stands: its quality on the samples of a rung, old and new, validation or test, whichever is less.
        behind: how much better its teacher is on these, whichever is more.

    """

    fell: float | None = None
    teacher_lead: float | None = None
    quality_room: float | None = None
    unpruned_fits: bool | None = None
    stale: str = ""
    float_lead: float | None = None
    norms_lead: float | None = None
    stands: float | None = None
    behind: float | None = None

    @property
    def norms_regain(self) -> float | None:
        """The share of the fall that norms bring back without learning; None where one of the two is not known, or no fall."""
        if self.norms_lead is None or self.fell is None or self.fell <= 0:
            return None
        return self.norms_lead / self.fell


def room_of(quality: Mapping[str, Any], variant: str, contract: ContractParams) -> float:
    """The quality that a variant of `quality.json` could lose on validation before its contract is broken."""
    measured = quality["variants"][variant]["validation"]
    rooms = []
    if contract.max_drop is not None:
        rooms.append(contract.max_drop - measured["drop"]["value"])
    if contract.min_quality is not None:
        rooms.append(measured["value"] - contract.min_quality)
    return float(min(rooms))


def unpruned_fits(latency: Mapping[str, Any], variant: str, contract: ContractParams) -> bool:
    """Whether the student before its cut would keep the clauses about costs, as a file of the variant's kind.

    Estimated: the variant's figures of `latency.json` times what the uncut student's are to the cut one's in fp32.
    """
    of = latency["variants"]

    def figure(name: str, key: str) -> float:
        value = of[name][key]
        return float(value["value"] if isinstance(value, Mapping) else value)

    def grown(key: str) -> float:
        cut = figure("model.fp32", key)
        return figure(variant, key) * (figure("student", key) / cut if cut > 0 else 1.0)

    return (
        grown("bytes") / 1000 <= contract.max_size_kb
        and grown("p95_ms") <= contract.max_p95_ms
        and grown("peak_memory_mb") <= contract.max_peak_memory_mb
    )


@dataclass(frozen=True)
class Situation:
    """All that decides what the rungs are.

    Attributes:
        base: the champion's params.yaml, parsed.
        target: whose ladder it is.
        windows: folders of new samples, in their order.
        new_classes: classes of the windows that the champion does not know and is to learn.
        unready: such as are left out, for there are too few samples of them.

    """

    base: Mapping[str, Any]
    target: str
    champion: Champion
    windows: tuple[Path, ...]
    rules: LadderRules
    feedback: Feedback = Feedback()
    new_classes: tuple[str, ...] = ()
    unready: tuple[str, ...] = ()

    @property
    def section(self) -> Mapping[str, Any]:
        """The target's own values."""
        targets: Mapping[str, Mapping[str, Any]] = self.base["targets"]
        if self.target not in targets:
            raise ParamsError(f"no target {self.target!r}; there are {', '.join(targets)}.")
        return targets[self.target]

    def is_used(self, technique: str) -> bool:
        """Whether the target uses distill, prune or quantize at all."""
        return bool(self.section[technique]["use"] != NONE)

    @property
    def grows_back(self) -> bool:
        """Whether the fall is so deep, and the contract so wide, that the uncut student is taken."""
        known = self.feedback
        return known.fell is not None and known.fell >= self.rules.feedback.grow_back and bool(known.unpruned_fits)

    @property
    def cuts_more(self) -> bool:
        """Whether quality is left over after the fall, and the target prunes at all."""
        known = self.feedback
        if known.quality_room is None or self.grows_back or not self.is_used("prune"):
            return False
        return known.quality_room - max(0.0, known.fell or 0.0) >= self.rules.feedback.room

    @property
    def rounds_too_much(self) -> bool:
        """Whether the file that ships loses to the float student on the new samples."""
        lead = self.feedback.float_lead
        return self.is_used("quantize") and lead is not None and lead >= self.rules.feedback.ranges

    @property
    def teachers_share(self) -> float:
        """How much of its weight a teacher's answers keep: all from `full_lead` on, less in proportion, `least` at least."""
        lead, rules = self.feedback.teacher_lead, self.rules.feedback
        return 1.0 if lead is None else min(1.0, max(rules.least, lead / rules.full_lead))

    @property
    def rates_share(self) -> float:
        """How much of its learning rate a training keeps: all from `full_fall` on, less in proportion, `least` at least."""
        fell, rules = self.feedback.fell, self.rules.feedback
        return 1.0 if fell is None else min(1.0, max(rules.least, fell / rules.full_fall))


@dataclass(frozen=True)
class Step:
    """One rung: its params, or why it is passed over; `changes` says what the feedback made of it."""

    rung: Rung
    params: dict[str, Any] | None
    changes: tuple[str, ...] = ()
    skipped: str = ""


def ladder(situation: Situation, start: Rung | None = None, why: str = "") -> list[Step]:
    """Every rung of the order, from the cheapest; those before `start` are passed over (`why` says so).

    Raises:
        ParamsError: the params that come out cannot be used.

    """
    steps = []
    for rung in situation.rules.order:
        is_before = start is not None and RUNGS.index(rung) < RUNGS.index(start)
        if skipped := (why or f"begins at {start}") if is_before else why_not(rung, situation):
            steps.append(Step(rung, None, skipped=skipped))
        else:
            steps.append(Step(rung, params_of(rung, situation), tuple(_changes(rung, situation))))
    return steps


def why_not(rung: Rung, situation: Situation) -> str:
    """Why a rung cannot help; empty where it may."""
    is_taught, added = situation.is_used("distill"), ", ".join(situation.new_classes)
    if rung == "recalibrate" and not situation.is_used("quantize"):
        return "the student ships in float: there are no ranges to take anew"
    lead = situation.feedback.float_lead
    if rung == "recalibrate" and lead is not None and lead < situation.rules.feedback.ranges:
        return f"in float the student is no better on the new samples ({100 * lead:+.1f} points): it is not its ranges that fail"
    regains = situation.feedback.norms_regain
    if rung == "norms" and regains is not None and regains < situation.rules.feedback.norms:
        return f"with statistics of the new samples the student regains {regains:.0%} of its fall: it is not its norms that fail"
    if added and rung in ("recalibrate", "norms"):
        return f"{added}: a class that is new takes rows of the head, which {rung} does not train"
    if rung in ("norms", "distil") and is_taught and situation.feedback.stale:
        return situation.feedback.stale
    if added and rung == "distil" and is_taught:
        return f"{added}: the teacher has no answer for a class that is new, and would teach that it is never one"
    if rung == "teacher" and situation.champion.is_ensemble:
        return "the teacher is an ensemble, which is taken as it is; train its members, or another teacher"
    return ""


def params_of(rung: Rung, situation: Situation) -> dict[str, Any]:
    """The params.yaml of a rung's workspace: the champion's, with one target and what the rung changes.

    `control` is off: a refresh is held against the champion, not against a twin. Nothing warms up: the weights are
    warm. Ranges are taken by the observer that was best for the champion, but where they are all that changes. `norms` ends
    before quantized training, which would cost more than it does; where the champion needed that, the
    contract says so and the next rung follows.

    Raises:
        ParamsError: what comes out cannot be used.

    """
    made = copy.deepcopy(dict(situation.base))
    target = copy.deepcopy(dict(situation.section))
    rules, champion = situation.rules, situation.champion
    made["targets"] = {situation.target: target}
    target["contract"] |= dict(_held_to(target["contract"], situation.feedback))
    made["data"] = {
        "source": {
            "use": "windows", "base": str(champion.data), "folders": [str(window) for window in situation.windows],
            "replay": rules.replay, "classes": None, "seed": made["seed"], "digest": champion.data_digest,
            **({"leave_out": list(situation.unready)} if situation.unready else {}),
            **({"root": str(champion.root), "root_digest": champion.root_digest} if champion.root else {}),
        },
        "split": rules.split.model_dump(),
        "max_overlap": made["data"]["max_overlap"],
    }  # fmt: skip
    made["teacher"] = _teacher(situation, {"use": NONE})
    label = made["label"] = dict(made["label"])
    if rung == "recalibrate":
        _start(target, champion.student, "nothing")
        label |= {"num_views": 1, "features": False}
        target["distill"] = {"use": NONE}
        target["prune"] = {"use": NONE}
        target["quantize"] |= {"max_float_layers": 0, "qat": None}
    elif rung == "norms":
        _start(target, champion.student, "norms", rules.norms, situation.rates_share)
        label["num_views"] = rules.norms.views
        target["distill"] = _by_origin(target["distill"], situation.teachers_share, rules.weight)
        target["prune"] = {"use": NONE}
        if situation.is_used("quantize"):
            target["quantize"]["qat"] = None
    elif rung == "distil":
        start = champion.unpruned if situation.grows_back else champion.student
        _start(target, start, "all", rules.distil, situation.rates_share)
        label["num_views"] = rules.distil.views
        target["distill"] = _by_origin(target["distill"], situation.teachers_share, rules.weight)
        if situation.cuts_more:
            aim = dict.fromkeys(AIMS) | {"ratio": rules.feedback.ratio}
            target["prune"] |= {**aim, "max_ratio": max(target["prune"]["max_ratio"], rules.feedback.ratio)}
        else:
            target["prune"] = {"use": NONE}
        if situation.new_classes:  # labels alone teach the student; contract and report still ask the teacher
            made["teacher"] = _teacher(situation, _adapt(situation, "head"))
    else:
        # not the feedback's alpha: the teacher that it tells of has learned since
        _start(target, champion.unpruned, "all", rules.teacher.student, situation.rates_share)
        label["num_views"] = rules.teacher.student.views
        made["teacher"] = _teacher(situation, _adapt(situation, "all"))
        if situation.grows_back:
            target["prune"] = {"use": NONE}
    if rung != "recalibrate" and champion.observer is not None and situation.is_used("quantize"):
        target["quantize"]["observers"] = [champion.observer.model_dump()]
    if rung != "recalibrate" and situation.rounds_too_much:
        target["quantize"]["max_float_layers"] += 1
    if target["distill"]["use"] != NONE:
        target["distill"]["control"] = False
    checked(made, f"rung {rung} of {situation.target}")
    return made


def is_enough(gain: float, fell: float | None, rules: LadderRules) -> bool:
    """Whether a challenger that passed the gate ends the climb.

    Args:
        gain: its quality on the new samples less the champion's.
        fell: the champion's on old samples less that on the new; where it is not known, or none, to pass is enough.
        rules: say which share of it has to come back.

    """
    return fell is None or fell <= 0 or gain >= rules.enough * fell


def _changes(rung: Rung, situation: Situation) -> Iterable[str]:
    """What the feedback made of a rung, in words."""
    known, rules = situation.feedback, situation.rules.feedback
    for clause, value in _held_to(situation.section["contract"], known):
        yield f"held to {clause} {value:g}, not {situation.section['contract'][clause]:g}: the champion does no better here"
    if rung == "recalibrate":
        return
    if situation.rounds_too_much:
        yield f"one more layer may stay in float: int8 loses {known.float_lead:.3f} on the new samples"
    if situation.rates_share < 1:
        yield f"learning rate x {situation.rates_share:.2g}: quality fell by {known.fell:.3f}, {rules.full_fall:g} takes it whole"
    if rung != "teacher" and situation.teachers_share < 1 and situation.section["distill"]["use"] in WEIGHS_THE_TEACHER:
        yield f"alpha and temperature x {situation.teachers_share:.2g}: the teacher leads by {known.teacher_lead:.3f} alone"
    if rung in ("distil", "teacher") and situation.grows_back:
        yield f"not cut: quality fell by {known.fell:.3f}, and the contract has room for the uncut student"
    if rung == "distil" and situation.cuts_more:
        yield f"cut by {rules.ratio:g} more: {known.quality_room:.3f} of quality to spare"


def _held_to(contract: Mapping[str, Any], known: Feedback) -> Iterable[tuple[str, float]]:
    """Clauses about quality that the champion itself would break on a rung's samples, as it would keep them.

    A world that became harder would otherwise leave it in its place, as the only one that nobody holds to anything.
    """
    if known.stands is not None and contract["min_quality"] is not None and known.stands < contract["min_quality"]:
        yield "min_quality", math.floor(1000 * max(0.0, known.stands)) / 1000
    if known.behind is not None and contract["max_drop"] is not None and known.behind > contract["max_drop"]:
        yield "max_drop", math.ceil(1000 * known.behind) / 1000


def _start(
    target: dict[str, Any], stored: Stored, tune: Tune, rules: TrainingRules | None = None, share: float = 1.0
) -> None:
    """Let a target's student start from a checkpoint, in place."""
    model = {"use": "checkpoint", "folder": str(stored.folder), "sha256": stored.sha256, "tune": tune}
    train = {**target["student"]["train"], "warmup_epochs": 0.0}
    if rules is not None:
        train |= {"epochs": rules.epochs, "lr": rules.lr * share}
    target["student"] = {"model": model, "train": train}


def _weighed(distill: Mapping[str, Any], share: float) -> dict[str, Any]:
    """A loss in which the teacher weighs less: alpha times `share`, and a temperature that much nearer to 1.

    A teacher that leads by little is seldom righter than the labels, and its second thoughts, which a high temperature
    brings out, are those of a network that has not seen this world. Where `alpha` means something else, and where a
    schedule moves it, everything stays; within a sum each part is seen to.
    """
    made = dict(distill)
    if made["use"] in WEIGHS_THE_TEACHER:
        if _is_number(made.get("alpha")):
            made["alpha"] *= share
        if _is_number(made.get("temperature")) and made["temperature"] > 1:
            made["temperature"] = 1 + (made["temperature"] - 1) * share
    if isinstance(parts := made.get("parts"), list):
        made["parts"] = [_weighed(part, share) for part in parts]
    return made


def _by_origin(distill: Mapping[str, Any], share: float, weight: float) -> dict[str, Any]:
    """The champion's loss on old samples; on new ones its teacher weighs less, and is put right where people know better.

    New samples are few, and each counts `weight` times. Losses on more than logits are the same on all samples, the teacher
    weighs less.
    """
    if not _is_on_logits(distill):
        return _weighed(distill, share)
    old = {key: value for key, value in distill.items() if key != "control"}
    new = {"use": "corrected", "loss": _weighed(old, share)}
    return {"use": "by_origin", "old": old, "new": new, "weight": weight, "control": distill.get("control", False)}


def _is_on_logits(distill: Mapping[str, Any]) -> bool:
    return distill["use"] in ON_LOGITS and all(_is_on_logits(part) for part in distill.get("parts", ()))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _teacher(situation: Situation, adapt: dict[str, Any]) -> dict[str, Any]:
    stored = situation.champion.teacher
    return {
        "use": "checkpoint", "folder": str(stored.folder), "sha256": stored.sha256,
        "trust": list(situation.champion.trust), "adapt": adapt,
    }  # fmt: skip


def _adapt(situation: Situation, what: Literal["all", "head"]) -> dict[str, Any]:
    """How the teacher goes on: as it was trained or adapted, or else as its student, with the views of `label`."""
    teacher, rules = situation.base["teacher"], situation.rules.teacher
    before = teacher if teacher["use"] == "train" else teacher.get("adapt") or {}
    train = before.get("train") or situation.section["student"]["train"]
    augment = before.get("augment") or situation.base["label"]["augment"]
    return {
        "use": what,
        "augment": augment,
        "train": {**train, "epochs": rules.epochs, "lr": rules.lr, "warmup_epochs": 0.0},
    }


class Rates(Section):
    """What the machine that refreshes does in a second, measured there; in refresh.yaml:

        rates: {label: 9000, teacher: 600, student: 4000, fixed_s: 25}

    label: samples that the teacher answers. teacher, student: samples that each is trained on. fixed_s: what a rung takes
    beside: nine processes, quantizing, exporting, measuring.
    """  # fmt: skip

    label: PositiveFloat
    teacher: PositiveFloat
    student: PositiveFloat
    fixed_s: NonNegativeFloat


@dataclass(frozen=True)
class Work:
    """How often a sample passes through a network."""

    label: int
    teacher: int
    student: int

    @classmethod
    def of(cls, params: Params, target: str, num_train: int) -> "Work":
        """What a rung's params ask for at most: quantized training counts, though the ladder may end before it."""
        section, teacher = params.targets[target], params.teacher
        adapts = getattr(getattr(teacher, "adapt", None), "train", None) or getattr(teacher, "train", None)
        warm = section.student.warm
        epochs = 0 if warm and warm.tune == "nothing" else section.student.train.epochs
        epochs += getattr(getattr(section.prune, "recover", None), "epochs", 0) * getattr(section.prune, "steps", 0)
        epochs += getattr(getattr(section.quantize, "qat", None), "epochs", 0)
        return cls(
            params.label.num_views * num_train, (adapts.epochs if adapts else 0) * num_train, epochs * num_train
        )  # fmt: skip

    def seconds(self, rates: Rates) -> float:
        """What it takes at these rates."""
        return rates.fixed_s + self.label / rates.label + self.teacher / rates.teacher + self.student / rates.student


@dataclass(frozen=True)
class Spent:
    """A rung that ran: its work and what it took."""

    rung: Rung
    work: Work
    seconds: float


@dataclass(frozen=True)
class Cost:
    """A rung's seconds, and what they are known from."""

    seconds: float
    known_from: str


def cost(step: Step, target: str, num_train: int, rates: Rates, past: Sequence[Spent] = ()) -> Cost:
    """What a rung will take: its work at the machine's rates, corrected by how far those were off when it ran before.

    Args:
        step: a rung that is not passed over.
        target: whose.
        num_train: training samples, replayed and new.
        rates: of the machine.
        past: rungs that ran; those of another kind tell nothing.

    """
    assert step.params is not None, "a rung that is passed over costs nothing"
    seconds = Work.of(checked(step.params, f"rung {step.rung}"), target, num_train).seconds(rates)
    factors = [spent.seconds / spent.work.seconds(rates) for spent in past if spent.rung == step.rung]
    if not factors:
        return Cost(seconds, f"{num_train:,} samples at the rates of refresh.yaml")
    runs = f"{len(factors)} runs" if len(factors) > 1 else "1 run"
    return Cost(seconds * median(factors), f"{runs} of this rung")
