"""What the ladder regains when the world moves, what it forgets and what it costs, beside training everything anew.

A champion meets worlds (`benchmarks.corruptions`) made of images that it has never seen: a part of its test split, which
is taken out of it first. Of each world one part lands as a window, labelled; the rest is the exam. The rungs run as in a
refresh, by `dvc repro` in workspaces of their own and by the gate of refresh.yaml; the whole chain then runs on the same
window beside *all* old samples, student and teacher as the champion's params.yaml makes them. Seconds are those of `dvc repro`.

The champion is that of `params`, made here, or of the workspace $LIMBECK_CHAMPION (and its target $LIMBECK_TARGET).
"""

import copy
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.corruptions import SEVERITIES, corrupt, shifted_prior
from benchmarks.places import ROOT, timed
from benchmarks.places import copy as clone
from flows import workspace
from limbeck import params as params_file
from limbeck.components import NONE
from limbeck.data import splits
from limbeck.data.prepared import NAMES, read, read_meta
from limbeck.data.sources.source import Part, Source
from limbeck.edge import manifest as manifest_file
from limbeck.edge.measure import predict
from limbeck.errors import ContractBroken
from limbeck.params import SplitParams
from limbeck.refresh import gate, rungs
from limbeck.refresh.rules import load as load_rules
from limbeck.refresh.rungs import Champion, Feedback, Situation
from limbeck.selection import FP32, INT8, choose
from limbeck.windows.intake import take_in

FUTURE = 0.5
"""Of the test split: what the world will bring."""
LANDS = 0.6
"""Of the future: the window; the rest examines."""
PRIOR = "class prior"
WORLDS = (
    *(("gaussian noise", severity) for severity in SEVERITIES),
    ("rotation", 3),
    (PRIOR, 5),
)
SEEDS = (0, 1, 2)
"""Of window and exam, for the ladder; the full rerun has the first."""
LEAST = 0.01
"""A world in which a full rerun regains less than this has nothing to share."""
LIMITS = {"ladder over a full rerun": 0.2}


class World:
    """New samples: what lands, and what examines."""

    def __init__(self, x: NDArray[np.uint8], y: NDArray[np.int64], name: str, severity: int, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(y))
        lands, exam = order[: round(LANDS * len(y))], order[round(LANDS * len(y)) :]
        if name == PRIOR:
            self.window, self.exam = (
                (x[chosen], y[chosen])
                for chosen in (
                    rows[np.unique(shifted_prior(y[rows], len(rows), severity, seed + part))]
                    for part, rows in enumerate((lands, exam))
                )
            )
        else:
            self.window, self.exam = (
                (corrupt(x[rows], name, severity, seed + part), y[rows]) for part, rows in enumerate((lands, exam))
            )


def champion_of(place: Path, params: Path) -> tuple[Path, str]:
    """The workspace of the champion, and its target."""
    if "LIMBECK_CHAMPION" in os.environ:
        folder = Path(os.environ["LIMBECK_CHAMPION"]).resolve()
        known = list(params_file.load(folder / "params.yaml").targets)
        return folder, os.environ.get("LIMBECK_TARGET", known[-1])
    folder = clone(place / "champion", params)
    target = list(params_file.load(params).targets)[-1]
    timed(folder, "dvc", "repro", f"benchmark@{target}")
    return folder, target


def without_future(base: Path, out: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Write the champion's data less the future into `out`; the future: x [N, ...] and y [N]."""
    x, y = read(base, "test")
    is_future = np.zeros(len(y), bool)
    is_future[np.random.default_rng(0).permutation(len(y))[: round(FUTURE * len(y))]] = True
    kept = [(name, ~is_future if name == "test" else slice(None)) for name in NAMES]
    parts = [tuple(array[rows] for array in read(base, name)) for name, rows in kept]
    owners = np.concatenate(
        [np.full(len(labels), NAMES.index(name), np.int8) for (name, _), (_, labels) in zip(kept, parts, strict=True)]
    )
    meta = read_meta(base)
    part = Part(
        np.concatenate([labels for _, labels in parts]),
        lambda: (sample for images, _ in parts for sample in images),
        owners,
    )
    shares = SplitParams(test=0.1, validation=0.1, calibration=0.1)  # nothing is left to be divided
    splits.write(out, Source(meta.name, meta.classes, part), shares, 0, max_overlap=1)
    return np.asarray(x[is_future]), np.asarray(y[is_future])


def window_of(place: Path, world: World, data: Path, rules: Any) -> Path:
    """The window of a world, taken in as everything is that lands."""
    drop = place / "drop"
    drop.mkdir(parents=True)
    np.savez(drop / "world.npz", x=world.window[0], y=world.window[1])
    (arrived,) = take_in(
        drop, place / "windows", data, rules.windows.model_copy(update={"settle_s": 0.0}), now=time.time() + 1
    ).arrived
    assert not arrived.reasons, arrived.reasons
    return arrived.folder


class Arena:
    """Where challengers of one world are made and held against the champion."""

    def __init__(self, place: Path, base: Path, target: str, champion: Champion, world: World, rules: Any) -> None:
        self.place, self.base, self.target, self.rules = place, base, target, rules
        self.exam = place / "exam.npy"
        folder = window_of(place, world, champion.data, rules)
        np.save(self.exam, world.exam[0])
        self.labels = world.exam[1]
        self.old, self.old_labels = champion.data / "test/x.npy", read(champion.data, "test")[1]
        self.params = yaml.safe_load((base / "params.yaml").read_text(encoding="utf-8"))
        self.variant = choose(*self.measured(base), self.contract(base))[0]
        self.champion = base / "export" / target / f"{self.variant}.onnx"
        now = self.quality(self.champion)
        fell = (
            self.on(self.champion, champion.data / "validation/x.npy", read(champion.data, "validation")[1])
            - now["new"]
        )
        situation = Situation(
            base=self.params,
            target=target,
            champion=champion,
            windows=(folder,),
            rules=rules.ladder,
            feedback=Feedback(fell=fell),
        )
        self.before, self.steps = now, rungs.ladder(situation)

    def contract(self, folder: Path) -> Any:
        """What a workspace's target has to keep."""
        return params_file.load(folder / "params.yaml").targets[self.target].contract

    def measured(self, folder: Path) -> tuple[Any, Any, Any]:
        """Manifest, quality.json and latency.json."""
        metrics = folder / "metrics" / self.target
        figures = [
            json.loads((metrics / f"{name}.json").read_text(encoding="utf-8")) for name in ("quality", "latency")
        ]
        return manifest_file.read(folder / "export" / self.target), figures[0], figures[1]

    def on(self, file: Path, x: Path, labels: NDArray[np.int64]) -> float:
        """Accuracy of a file."""
        return float((predict(file, x, threads=2, batch_size=256).argmax(1) == labels).mean())

    def quality(self, file: Path) -> dict[str, float]:
        """Accuracy on the new exam and on old test samples; neither is in any training, nor decides anything."""
        return {"new": self.on(file, self.exam, self.labels), "old": self.on(file, self.old, self.old_labels)}

    def run(self, name: str, values: dict[str, Any]) -> tuple[Path, float]:
        """A workspace with these params, brought up to date; and its seconds."""
        source = self.place / f"{name}.yaml"
        source.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        folder = workspace.create(self.place / name, source, links=True)
        return folder, timed(folder, "dvc", "repro", f"benchmark@{self.target}")

    def climb(self) -> dict[str, Any]:
        """The rungs up to the one that passes the gate; what each gave and cost."""
        tried = []
        for step in self.steps:
            if step.params is None:
                continue
            folder, seconds = self.run(step.rung, step.params)
            row: dict[str, Any] = {"rung": step.rung, "seconds": seconds, "passed": False}
            try:
                contract = self.contract(folder)
                variant, clauses = choose(*self.measured(folder), contract)
                file = folder / "export" / self.target / f"{variant}.onnx"
                metric = self.params["metric"]
                scored = gate.score(self.champion, file, folder / "data", "validation", metric, threads=2)
                verdict = gate.judge(scored, self.rules.gate, clauses[variant], require=contract.require)
                row |= {"passed": verdict.passed, "said": str(verdict), **self.quality(file)}
            except ContractBroken as error:
                row["said"] = str(error)
            tried.append(row)
            if row["passed"]:
                break
        return {"before": self.before, "tried": tried, "seconds": sum(row["seconds"] for row in tried)}

    def anew(self) -> dict[str, Any]:
        """The whole chain from nothing, on all that there is."""
        last = next(step.params for step in reversed(self.steps) if step.params is not None)
        values = copy.deepcopy(last)
        values["data"]["source"]["replay"] = 1.0
        for key in ("teacher", "label"):
            values[key] = copy.deepcopy(self.params[key])
        if values["teacher"]["use"] != "train":  # one from elsewhere learns the new samples, too
            values["teacher"] = copy.deepcopy(last["teacher"])
        values["targets"] = {self.target: copy.deepcopy(self.params["targets"][self.target])}
        if values["targets"][self.target]["distill"]["use"] != NONE:
            values["targets"][self.target]["distill"]["control"] = False
        folder, seconds = self.run("anew", values)
        variant = INT8 if (folder / "export" / self.target / f"{INT8}.onnx").exists() else FP32
        return {
            "seconds": seconds,
            "variant": variant,
            **self.quality(folder / "export" / self.target / f"{variant}.onnx"),
        }


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Let every world come, once per seed."""
    quick = params != ROOT / "params.yaml"
    place = place / "refresh"
    base, target = champion_of(place, params)
    rules = load_rules(ROOT / "refresh.yaml")
    x, y = without_future(base / "data", place / "data")
    champion = replace(Champion.of(base, target), data=place / "data", data_digest=read_meta(place / "data").digest)
    found: dict[str, Any] = {}
    for name, severity in WORLDS[2:3] if quick else WORLDS:
        for seed in SEEDS[: 1 if quick else None]:
            world = World(x, y, name, severity, seed)
            label = f"{name} {severity}, seed {seed}"
            arena = Arena(place / label.replace(" ", "-").replace(",", ""), base, target, champion, world, rules)
            found[label] = arena.climb()
            if seed == SEEDS[0]:
                found[label]["anew"] = arena.anew()
            print(label, json.dumps(found[label]), flush=True)
    return {
        "champion": params_file.load(base / "params.yaml").name,
        "target": target,
        "worlds": found,
        **summary(found),
    }


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Over the worlds in which the champion had lost something that a rerun regains: shares of accuracy and of time."""
    pairs = [each for each in found.values() if "anew" in each and each["anew"]["new"] - each["before"]["new"] > LEAST]
    regained = [
        (after(each)["new"] - each["before"]["new"]) / (each["anew"]["new"] - each["before"]["new"]) for each in pairs
    ]
    forgotten = [each["before"]["old"] - after(each)["old"] for each in found.values()]
    seconds = [each["seconds"] / each["anew"]["seconds"] for each in pairs]
    return {
        "seconds": {"ladder, mean": float(np.mean([each["seconds"] for each in found.values()]))}
        | ({"anew, mean": float(np.mean([each["anew"]["seconds"] for each in pairs]))} if pairs else {}),
        "ratios": {
            "share regained, mean": float(np.mean(regained)) if pairs else float("nan"),
            "ladder over a full rerun": float(np.mean(seconds)) if pairs else float("nan"),
            "points forgotten, most": 100 * max(forgotten),
        },
        "limits": LIMITS,
    }


def after(each: dict[str, Any]) -> dict[str, float]:
    """What serves after the refresh: what passed, else the champion."""
    return next((row for row in each["tried"] if row["passed"]), each["before"])
