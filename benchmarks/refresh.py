"""What the ladder regains when the world moves, what it forgets and what it costs, beside training everything anew.

A champion meets a stream of windows, made of images that it has never seen: a part of its test split, which is taken out of
it first. Five windows bring corruptions of rising severity, drawn sample by sample (`benchmarks.corruptions`), one rotations,
one other shares of classes. Of each, one part lands, labelled; the rest is the exam. The rungs run as in a refresh, by
`dvc repro` in workspaces of their own, by the feedback and the gate of refresh.yaml; the whole chain then runs on the same
windows beside *all* old samples, student and teacher as the champion's params.yaml makes them: the teacher learns the new
samples with as many epochs as the ladder's last rung gives it.

Costs are CPU seconds of `dvc repro` (user and system, all processes), which other work on the machine changes little; wall
seconds stand beside them. The champion is that of `params`, made here, or of the workspace $LIMBECK_CHAMPION (and its target
$LIMBECK_TARGET). With $LIMBECK_PLACE everything is made there, kept, and gone on with when the same command comes again;
with $LIMBECK_EVERY_RUNG the rungs that the climb had no use for run, too, and tell their costs.
"""

import copy
import json
import os
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread
from typing import Any, TypeAlias

import numpy as np
import psutil
import yaml
from numpy.typing import NDArray

from benchmarks.corruptions import CORRUPTIONS, SEVERITIES, corrupt, shifted_prior
from benchmarks.places import ROOT, timed
from benchmarks.places import copy as clone
from flows import workspace
from limbeck import params as params_file
from limbeck.atomic import write_json
from limbeck.components import NONE
from limbeck.data import splits
from limbeck.data.prepared import NAMES, read, read_meta
from limbeck.data.sources.source import Part, Source
from limbeck.edge import manifest as manifest_file
from limbeck.errors import ContractBroken
from limbeck.params import SplitParams
from limbeck.refresh import gate, rungs
from limbeck.refresh.looking import look
from limbeck.refresh.rules import Rules
from limbeck.refresh.rules import load as load_rules
from limbeck.refresh.rungs import Champion, Situation
from limbeck.selection import FP32, INT8, choose
from limbeck.windows.intake import take_in

Samples: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.int64]]

FUTURE = 0.7
"""Of the test split: what the world will bring."""
LANDS = 0.7
"""Of the future: what lands; the rest examines."""
PRIOR = "class prior"
ROTATION = "rotation"
WINDOWS = (*(f"corruptions {severity}" for severity in SEVERITIES), f"{ROTATION} 3", f"{PRIOR} 5")
SEEDS = (0, 1, 2)
"""Of the stream, for the ladder; the full rerun has the first."""
GOALS = {"share regained": 0.95, "ladder over a full rerun": 0.2, "points forgotten": 0.5}


class World:
    """New samples, window by window: what lands, and what examines."""

    def __init__(self, x: NDArray[np.uint8], y: NDArray[np.int64], seed: int) -> None:
        shares = np.array_split(np.random.default_rng(seed).permutation(len(y)), len(WINDOWS))
        self.lands, self.exam = dict[str, Samples](), dict[str, Samples]()
        for number, (name, rows) in enumerate(zip(WINDOWS, shares, strict=True)):
            cut = round(LANDS * len(rows))
            for part, (side, own) in enumerate(((self.lands, rows[:cut]), (self.exam, rows[cut:]))):
                side[name] = moved(x[own], y[own], name, 1000 * seed + 10 * number + part)


def moved(x: NDArray[np.uint8], y: NDArray[np.int64], window: str, seed: int) -> Samples:
    """The samples as they are in a window."""
    name, severity = window.rsplit(" ", 1)
    if name == PRIOR:
        rows = np.unique(shifted_prior(y, len(y), int(severity), seed))
        return x[rows], y[rows]
    if name == ROTATION:
        return corrupt(x, ROTATION, int(severity), seed), y
    names = [each for each in CORRUPTIONS if each != ROTATION]
    drawn, found = np.random.default_rng(seed).integers(0, len(names), len(y)), x.copy()
    for index, each in enumerate(names):
        found[drawn == index] = corrupt(x[drawn == index], each, int(severity), seed)
    return found, y


def champion_of(place: Path, params: Path) -> tuple[Path, str]:
    """The workspace of the champion, and its target."""
    if "LIMBECK_CHAMPION" in os.environ:
        folder = Path(os.environ["LIMBECK_CHAMPION"]).resolve()
        known = list(params_file.load(folder / "params.yaml").targets)
        return folder, os.environ.get("LIMBECK_TARGET", known[-1])
    folder = place / "champion"
    if not folder.exists():
        clone(folder, params)
    target = list(params_file.load(params).targets)[-1]
    timed(folder, "dvc", "repro", f"benchmark@{target}")
    return folder, target


def without_future(base: Path, out: Path, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Write the champion's data less the future into `out`; the future: x [N, ...] and y [N]."""
    x, y = read(base, "test")
    is_future = np.zeros(len(y), bool)
    is_future[np.random.default_rng(seed).permutation(len(y))[: round(FUTURE * len(y))]] = True
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


def windows_of(place: Path, world: World, champion: Champion, rules: Rules) -> tuple[Path, ...]:
    """The windows of a world, taken in as everything is that lands."""
    drop, taken = place / "drop", place / "windows"
    if not taken.exists():
        drop.mkdir(parents=True, exist_ok=True)
        for number, (name, (x, y)) in enumerate(world.lands.items()):
            np.savez(drop / f"{number}-{name.replace(' ', '-')}.npz", x=x, y=y)
        any_size = rules.windows.model_copy(update={"settle_s": 0.0, "min_samples": 1})
        for arrived in take_in(drop, taken, champion.data, any_size, now=time.time() + 1).arrived:
            assert not arrived.reasons, arrived.reasons
    return tuple(sorted(taken.glob("[0-9]*")))


class Arena:
    """Where challengers of one world are made and held against the champion."""

    def __init__(self, place: Path, base: Path, target: str, champion: Champion, world: World, rules: Rules) -> None:
        self.place, self.base, self.target, self.rules, self.world = place, base, target, rules, world
        self.data = champion.data
        windows = windows_of(place, world, champion, rules)
        self.params = yaml.safe_load((base / "params.yaml").read_text(encoding="utf-8"))
        contract = self.contract(base)
        self.variant = choose(*self.measured(base), contract)[0]
        self.champion = base / "export" / target / f"{self.variant}.onnx"
        looked = look(
            base, target, champion, windows, rules,
            variant=self.variant, contract=contract, now=datetime.now(UTC), last_action=None, act="all",
        )  # fmt: skip
        self.feedback = looked.feedback
        self.situation = Situation(self.params, target, champion, windows, rules.ladder, feedback=looked.feedback)
        self.steps = rungs.ladder(self.situation)

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

    def quality(self, file: Path) -> dict[str, Any]:
        """Accuracy on the exam of each window, on all of them, and on old test samples: no training has them, no choice."""

        def right(x: NDArray[Any], y: NDArray[np.int64]) -> NDArray[np.bool_]:
            return np.concatenate([logits_BK.argmax(1) for logits_BK in gate.answered(file, x, threads=2)]) == y

        by_window = {name: right(*samples) for name, samples in self.world.exam.items()}
        return {
            "new": float(np.concatenate(list(by_window.values())).mean()),
            "old": float(right(*read(self.data, "test")).mean()),
            "windows": {name: float(each.mean()) for name, each in by_window.items()},
        }

    def run(self, name: str, values: dict[str, Any]) -> tuple[Path, dict[str, float]]:
        """A workspace with these params, brought up to date; and what that cost, all attempts together."""
        source, told = self.place / f"{name}.yaml", self.place / f"{name}.json"
        source.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        folder = workspace.create(self.place / name, source, links=True)
        return folder, spent(folder, told, "dvc", "repro", f"benchmark@{self.target}")

    def climb(self) -> dict[str, Any]:
        """Rung after rung as a refresh tries them; what each gave and cost."""
        tried, passed = list[dict[str, Any]](), list[tuple[float, dict[str, Any]]]()
        for step in self.steps:
            if step.params is None or (passed and step.rung == "teacher"):
                continue
            row = self.attempt(step.rung, step.params)
            tried.append(row)
            if row["passed"]:
                passed.append((row["gain"], row))
                if rungs.is_enough(row["gain"], self.feedback.fell, self.rules.ladder):
                    break
        before = self.quality(self.champion)
        after = max(passed, key=lambda pair: pair[0])[1] if passed else {"rung": "none", **before}
        return {
            "before": before,
            "feedback": vars(self.feedback),
            "skipped": {step.rung: step.skipped for step in self.steps if step.params is None},
            "tried": tried,
            "after": {key: after[key] for key in ("rung", "new", "old", "windows")},
            "cpu_s": sum(row["cpu_s"] for row in tried),
            "wall_s": sum(row["wall_s"] for row in tried),
        }

    def attempt(self, rung: rungs.Rung, params: dict[str, Any]) -> dict[str, Any]:
        """A rung's challenger before contract and gate: what it costs, what they say, how good it is in the exam."""
        folder, cost = self.run(rung, params)
        contract = self.contract(folder)
        try:
            variant, clauses = choose(*self.measured(folder), contract)
        except ContractBroken as error:
            return {"rung": rung, **cost, "passed": False, "said": str(error)}
        file, metric = folder / "export" / self.target / f"{variant}.onnx", self.params["metric"]
        scored = gate.score(self.champion, file, folder / "data", "validation", metric, threads=2)
        verdict = gate.judge(scored, self.rules.gate, clauses[variant], require=contract.require)
        told = {"passed": verdict.passed, "gain": verdict.gain, "said": str(verdict)}
        if verdict.passed:
            sits = gate.score(self.champion, file, folder / "data", "test", metric, threads=2)
            told["exam"] = str(gate.judge(sits, self.rules.gate, [], split="test"))
        return {"rung": rung, **cost, **told, **self.quality(file)}

    def others(self, tried: Collection[str]) -> list[dict[str, Any]]:
        """The rungs of the order that the climb had no use for: what they would have given and cost."""
        left = [rung for rung in self.rules.ladder.order if rung not in tried]
        return [self.attempt(rung, rungs.params_of(rung, self.situation)) for rung in left]

    def anew(self) -> dict[str, Any]:
        """The whole chain from nothing, on all that there is."""
        last = next(step.params for step in reversed(self.steps) if step.params is not None)
        values = copy.deepcopy(last)
        values["data"]["source"]["replay"] = 1.0
        for key in ("teacher", "label"):
            values[key] = copy.deepcopy(self.params[key])
        if values["teacher"]["use"] != "train":  # one from elsewhere learns the new samples, too
            values["teacher"] = copy.deepcopy(last["teacher"])
        # held to what the rungs are: else the harder world alone would call for quantized training
        contract = last["targets"][self.target]["contract"]
        values["targets"] = {self.target: copy.deepcopy(self.params["targets"][self.target]) | {"contract": contract}}
        if values["targets"][self.target]["distill"]["use"] != NONE:
            values["targets"][self.target]["distill"]["control"] = False
        folder, cost = self.run("anew", values)
        exported = folder / "export" / self.target
        variant = INT8 if (exported / f"{INT8}.onnx").exists() else FP32
        return {**cost, "variant": variant, **self.quality(exported / f"{variant}.onnx")}


def spent(folder: Path, told: Path, *command: str) -> dict[str, float]:
    """Wall and CPU seconds of a command that has to succeed. `told` keeps them, those of attempts that were killed, too."""
    known = (
        json.loads(told.read_text(encoding="utf-8")) if told.exists() else {"wall_s": 0.0, "cpu_s": 0.0, "ended": False}
    )
    if not known["ended"]:
        cpu_s, started, over = used(), time.perf_counter(), Event()

        def tell(*, ended: bool) -> None:
            wall_s = known["wall_s"] + time.perf_counter() - started
            write_json(told, {"wall_s": wall_s, "cpu_s": known["cpu_s"] + used() - cpu_s, "ended": ended})

        def keep_telling() -> None:
            while not over.wait(10):
                tell(ended=False)

        teller = Thread(target=keep_telling)
        teller.start()
        try:
            timed(folder, *command)
        finally:
            over.set()
            teller.join()
        tell(ended=True)
        known = json.loads(told.read_text(encoding="utf-8"))
    return {key: known[key] for key in ("wall_s", "cpu_s")}


def used() -> float:
    """CPU seconds, user and system, of every process that this one started, and those have."""
    own = psutil.Process()
    ended = own.cpu_times()
    total = ended.children_user + ended.children_system
    for child in own.children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile, and its parent knows
            total += sum(child.cpu_times()[:4])
    return float(total)


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Let the stream come, once per seed."""
    quick = params != ROOT / "params.yaml"
    place = Path(os.environ.get("LIMBECK_PLACE", place)).resolve() / "refresh"
    base, target = champion_of(place, params)
    rules = load_rules(ROOT / "refresh.yaml")
    found: dict[str, Any] = {}
    for seed in SEEDS[: 1 if quick else None]:
        data = place / f"data-{seed}"
        x, y = without_future(base / "data", data, seed)
        champion = replace(Champion.of(base, target), data=data, data_digest=read_meta(data).digest)
        arena = Arena(place / f"seed-{seed}", base, target, champion, World(x, y, seed), rules)
        found[str(seed)] = arena.climb()
        print(f"seed {seed}", json.dumps(found[str(seed)]), flush=True)
        if seed == SEEDS[0]:
            found[str(seed)]["anew"] = arena.anew()
            print("anew", json.dumps(found[str(seed)]["anew"]), flush=True)
            tried = [row["rung"] for row in found[str(seed)]["tried"]]
            found[str(seed)]["others"] = arena.others(tried) if "LIMBECK_EVERY_RUNG" in os.environ else []
    return {
        "champion": params_file.load(base / "params.yaml").name,
        "target": target,
        "seeds": found,
        **summary(found),
    }


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """Shares of accuracy and of CPU time, by the first seed's full rerun; what each rung cost."""
    first = found[str(SEEDS[0])]
    by_rung: dict[str, list[float]] = {}
    for each in found.values():
        for row in (*each["tried"], *each.get("others", ())):
            by_rung.setdefault(row["rung"], []).append(row["cpu_s"])
    regains = [each["after"]["new"] - each["before"]["new"] for each in found.values()]
    anew = first["anew"]["new"] - first["before"]["new"]
    return {
        "seconds": {f"{rung}, CPU": float(np.mean(costs)) for rung, costs in by_rung.items()}
        | {"everything anew, CPU": first["anew"]["cpu_s"]},
        "ratios": {
            "share regained": regains[0] / anew,
            "ladder over a full rerun": first["cpu_s"] / first["anew"]["cpu_s"],
            "points regained, mean of seeds": 100 * float(np.mean(regains)),
            "points regained by a full rerun": 100 * anew,
            "points forgotten": 100 * max(each["before"]["old"] - each["after"]["old"] for each in found.values()),
            "points forgotten by a full rerun": 100 * (first["before"]["old"] - first["anew"]["old"]),
        },
        "goals": GOALS,
        "limits": {key: value for key, value in GOALS.items() if key != "share regained"},
    }


def table(result: Any) -> str:
    """Three tables in Markdown: of the first seed rung by rung, those last that were not needed, and window by window; of all seeds."""
    first = result["seeds"][str(SEEDS[0])]
    made = [*first["tried"], *first["others"]]
    rows = [{"rung": "champion", **first["before"]}, *made, {"rung": "everything anew", **first["anew"]}]
    lines = ["| | new windows % | old samples % | CPU s |", "|---|---|---|---|"]
    lines += [
        f"| {'**' + row['rung'] + '**' if row['rung'] == first['after']['rung'] else row['rung']} | {_percent(row.get('new'))} "
        f"| {_percent(row.get('old'))} | {row['cpu_s']:,.0f} |" if "cpu_s" in row
        else f"| {row['rung']} | {_percent(row['new'])} | {_percent(row['old'])} | |"
        for row in rows
    ]  # fmt: skip
    columns = ("before", "after", "anew")
    lines += ["", "| window | champion % | after the refresh % | everything anew % |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {' | '.join(_percent(first[column]['windows'][name]) for column in columns)} |"
        for name in first["before"]["windows"]
    ]
    lines += ["", "| seed | rung | new windows % | old samples % | CPU s |", "|---|---|---|---|---|"]
    lines += [
        f"| {seed} | {each['after']['rung']} | {_moved(each, 'new')} | {_moved(each, 'old')} | {each['cpu_s']:,.0f} |"
        for seed, each in result["seeds"].items()
    ]
    return "\n".join(lines)


def _moved(seed: Any, samples: str) -> str:
    return f"{_percent(seed['before'][samples])} -> {_percent(seed['after'][samples])}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
