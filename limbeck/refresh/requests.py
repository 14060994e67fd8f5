"""A task request is an input, too: a small file that says what is wanted of a model from now on.

Exactly one of:

    new_classes: [truck, tram]             # the windows bring classes that the champion does not know
    add_target: {name: watch, params: {device: ..., student: ..., ...}}    # a section as those below `targets`
    change_budget: {target: sensor, clauses: {max_size_kb: 10}}            # other values in its contract

A file NAME.request.yaml in the drop folder stands until it is fulfilled. What it means is pure: a rung at which each target's ladder begins, or params of a workspace that is run as it is.
"""

import copy
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveInt, model_validator

from limbeck.components import NONE, nearest
from limbeck.errors import ParamsError
from limbeck.params import AIMS, ContractParams, Name, Section, Share, checked, section
from limbeck.refresh.rungs import Champion, Rung, unpruned_fits
from limbeck.windows import entries
from limbeck.windows.intake import TAKEN


class AddTarget(Section):
    """A kind of device that is new: its name, and its section of params.yaml."""

    name: Name
    params: dict[str, Any]


class ChangeBudget(Section):
    """Other values of some clauses of a target's contract."""

    target: Name
    clauses: Annotated[dict[str, float | str | None], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_clauses(self) -> "ChangeBudget":
        known = list(ContractParams.model_fields)
        if unknown := [name for name in self.clauses if name not in known]:
            raise ValueError(f"no clause {unknown[0]!r}; {nearest(unknown[0], known)}")
        return self


class TaskRequest(Section):
    """The file: one of the three, the others left out."""

    new_classes: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    add_target: AddTarget | None = None
    change_budget: ChangeBudget | None = None

    @model_validator(mode="after")
    def _asks_for_one_thing(self) -> "TaskRequest":
        asked = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(asked) != 1:
            found = " and ".join(asked) or "nothing"
            raise ValueError(f"asks for {found}; expected one of {', '.join(type(self).model_fields)} in a file")
        return self


class RequestRules(Section):
    """The values for requests, as they stand in refresh.yaml:

        requests: {min_class_samples: 50, margin: 0.05}

    min_class_samples: of each new class, labelled by people. margin: how far below a budget a cut aims.
    """  # fmt: skip

    min_class_samples: PositiveInt
    margin: Share


@dataclass(frozen=True)
class Meaning:
    """What a request asks to be done.

    Attributes:
        why: in a sentence.
        start: the rung at which the ladder of each target begins.
        params: of a workspace that is run as it is, by target, where there is no ladder.
        new_classes: classes that the champion does not know.

    """

    why: str
    start: dict[str, Rung] = field(default_factory=dict)
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    new_classes: tuple[str, ...] = ()


def read(path: Path) -> TaskRequest:
    """A request from a file, YAML or JSON.

    Raises:
        ParamsError: it is missing, or is no request.

    """
    return section(path, TaskRequest, missing="expected a request, such as new_classes: [truck]", fault="is no request")


def dropped(drop: Path, settled_before: float) -> list[Path]:
    """Requests that lie in a drop folder, by name; one that changed after `settled_before` (Unix time) may not be whole yet."""
    found = sorted(filter(entries.is_request, drop.iterdir())) if drop.is_dir() else []
    return [path for path in found if path.lstat().st_ctime <= settled_before]


def take(path: Path) -> None:
    """Put a request that was fulfilled away, into `.taken` of its drop folder."""
    place = path.parent / TAKEN / path.name
    place.parent.mkdir(exist_ok=True)
    os.replace(path, place)


def ready(standing: tuple[str, ...], labelled: Mapping[str, int], rules: RequestRules) -> "TaskRequest | None":
    """A request for those of the classes which people labelled often enough by now; None: for none of them."""
    names = tuple(name for name in standing if labelled.get(name, 0) >= rules.min_class_samples)
    return TaskRequest(new_classes=names) if names else None


def for_classes(
    new: tuple[str, ...], base: Mapping[str, Any], *, known: tuple[str, ...], labelled: Mapping[str, int],
    rules: RequestRules,
) -> Meaning:  # fmt: skip
    """New classes: every target's ladder begins at `teacher`, or at `distil` where labels alone teach its student.

    A teacher that does not know a class answers its samples with other ones, and gives it no logit at all: what it taught
    would be that nothing is ever of that class. A target without distillation learns from labels, so that its teacher needs
    a head for the new rows, no more.

    Args:
        new: names of the classes, in the order of their rows.
        base: params.yaml, parsed.
        known: the champion's classes.
        labelled: how many samples of each class people labelled in the windows.
        rules: how many there must be.

    Raises:
        ParamsError: one is known already, named twice, or has too few samples.

    """
    if again := [name for name in new if name in known]:
        raise ParamsError(f"new_classes: {again[0]} is known already; the champion answers {', '.join(known)}.")
    if len(set(new)) < len(new):
        raise ParamsError(f"new_classes: a name stands twice in {', '.join(new)}; each class has one row.")
    few = [f"{name} ({labelled.get(name, 0)})" for name in new if labelled.get(name, 0) < rules.min_class_samples]
    if few:
        raise ParamsError(
            f"new_classes: too few samples that people labelled: {', '.join(few)}; expected {rules.min_class_samples} of each. "
            "A teacher cannot label a class that it does not know: label more, and drop them as a window."
        )
    start: dict[str, Rung] = {}
    for name, target in base["targets"].items():
        start[name] = "distil" if target["distill"]["use"] == NONE else "teacher"
    begins = ", ".join(f"{name} at {rung}" for name, rung in start.items())
    why = f"new classes {', '.join(new)}: the teacher gives them no answer until it learns them; begins: {begins}"
    return Meaning(why, start=start, new_classes=new)


def for_target(added: AddTarget, base: Mapping[str, Any], known: Collection[str]) -> Meaning:
    """A new target: the whole chain for it alone, from the data, teacher and soft labels that are there.

    Args:
        added: its name and section.
        base: params.yaml, parsed.
        known: targets that are there, those that other requests added among them.

    Raises:
        ParamsError: there is one of that name, or the section cannot be used.

    """
    if added.name in known:
        raise ParamsError(
            f"add_target: {added.name} is there already; choose another name, or ask to change_budget of {added.name}."
        )
    made = {**copy.deepcopy(dict(base)), "targets": {added.name: copy.deepcopy(added.params)}}
    checked(made, "add_target")
    why = f"target {added.name} added: its whole chain, taught by the soft labels that are there"
    return Meaning(why, params={added.name: made})


COSTS = {"max_size_kb": ("bytes", 1000.0), "max_p95_ms": ("p95_ms", 1.0), "max_peak_memory_mb": ("peak_memory_mb", 1.0)}
"""Clauses that a cut helps: their figure in `latency.json`, and what it is divided by."""


def for_budget(
    asked: ChangeBudget, base: Mapping[str, Any], champion: Champion, *, variant: str, latency: Mapping[str, Any],
    rules: RequestRules,
) -> Meaning:  # fmt: skip
    """Another budget: the champion's student is cut and quantized again, without learning anything but its recovery.

    Where its file keeps the new clauses and the student before the cut would, too, that one is taken, uncut. Where it is too
    large or too slow, it is cut further by 1 - sqrt(allowed / measured), less the margin: what a convolution weighs and
    multiplies goes with the square of its widths. Of blocks 1 - allowed / measured have to go. Whether that was right is for
    the contract to say, on the file that ships.

    Args:
        asked: target and clauses.
        base: params.yaml, parsed.
        champion: of that target.
        variant: the file of it that ships, such as `model.int8`.
        latency: its `latency.json`.
        rules: the margin.

    Raises:
        ParamsError: there is no such target, the contract cannot be used, or no cut of this student is enough.

    """
    if asked.target not in base["targets"]:
        raise ParamsError(f"change_budget: no target {asked.target!r}; {nearest(asked.target, list(base['targets']))}")
    made = copy.deepcopy(dict(base))
    target = made["targets"][asked.target]
    made["targets"] = {asked.target: target}
    target["contract"] |= asked.clauses
    contract = checked(made, "change_budget").targets[asked.target].contract
    left = {
        clause: getattr(contract, clause) / measured
        for clause in COSTS if (measured := _figure(latency, variant, clause)) > 0
    }  # fmt: skip
    told = ", ".join(f"{clause} {value}" for clause, value in asked.clauses.items())
    start = champion.student
    if over := {clause: share for clause, share in left.items() if share < 1}:
        clause = min(over, key=lambda clause: over[clause])
        share = over[clause] * (1 - rules.margin)
        ratio = round(1 - (share if target["prune"].get("scope") == "block" else math.sqrt(share)), 3)
        target["prune"] = _cut(target["prune"], ratio, asked.target, clause)
        why = f"{told}: the champion's {clause} is {_figure(latency, variant, clause):.4g}; cut further by {ratio:g}"
    else:
        target["prune"] = {"use": NONE}
        why = f"{told}: the champion keeps it; its student is quantized again"
        if unpruned_fits(latency, variant, contract) and champion.unpruned.sha256 != champion.student.sha256:
            start = champion.unpruned
            why = f"{told}: there is room for the student before its cut, which is quantized as it is"
    model = {"use": "checkpoint", "folder": str(start.folder), "sha256": start.sha256, "tune": "nothing"}
    target["student"] = {**target["student"], "model": model}
    checked(made, "change_budget")
    return Meaning(why, params={asked.target: made})


def _figure(latency: Mapping[str, Any], variant: str, clause: str) -> float:
    key, unit = COSTS[clause]
    value = latency["variants"][variant][key]
    return float(value["value"] if isinstance(value, Mapping) else value) / unit


def _cut(prune: Mapping[str, Any], ratio: float, target: str, clause: str) -> dict[str, Any]:
    """A `prune` section that cuts by this ratio."""
    if prune["use"] == NONE:
        raise ParamsError(
            f"change_budget: {clause} asks for a cut, and targets.{target}.prune is {{use: none}}; choose an importance there, "
            "or a smaller student.model."
        )
    if ratio > prune["max_ratio"]:
        what, whole = ("blocks", "them") if prune["scope"] == "block" else ("channels", "a layer")
        raise ParamsError(
            f"change_budget: {clause} asks to cut {ratio:.0%} of the {what}, targets.{target}.prune.max_ratio allows "
            f"{prune['max_ratio']:.0%} of {whole}; choose a smaller student.model, or a wider budget."
        )
    return {**prune, **dict.fromkeys(AIMS), "ratio": ratio}
