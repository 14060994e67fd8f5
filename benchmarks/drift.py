"""False alarms and detection delay of `limbeck.drift`, beside River's detectors alone and a fixed accuracy threshold.

scikit-learn's digits through a small network and its larger teacher, both trained here, once per seed. The reference is the
validation split, by which their best epoch was chosen: as it is in use. Streams are made of the test split, every sample once
before any comes again, except where the class prior moves. Windows are judged one after another, without overlap.

Where nothing moves: windows of such streams (`kept`: one reference for all windows of a seed), windows and references drawn from
test together (`drawn`), and, with $LIMBECK_DATA, CIFAR-10's raw images, their labels as a network without fault would predict
them (`cifar10`). Intervals are those of Clopper and Pearson (1934), 95 %.

Where something moves: corruptions and class priors at five severities, all at once or over `RAMP` samples, beginning anywhere
within a window. Delay is from the first moved sample to the end of the window that fires, or to the sample at which a detector
of streams speaks. Detectors of error and the threshold are told the label at once, which real life does not do.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import TypeAdapter
from scipy.stats import binomtest

from benchmarks.arm import Told
from benchmarks.corruptions import CORRUPTIONS, SEVERITIES, corrupt, shifted_prior
from benchmarks.loops.ours import no_registry
from benchmarks.places import ROOT
from limbeck.components import Component
from limbeck.data import splits
from limbeck.data.sources import open_source
from limbeck.data.sources.digits import digits
from limbeck.drift import DriftRules, Signals, detect, signals_of
from limbeck.drift.moved import Tested
from limbeck.drift.signals import coarse, joined, statistics
from limbeck.drift.trigger import compare, corrected, sources_of
from limbeck.params import SplitParams, TeacherParams
from limbeck.teachers.making import Making

RULES = DriftRules.model_validate(
    {
        "level": 0.01, "min_samples": 100, "min_kinds": 2, "cool_down_hours": 12, "max_samples": 2000, "max_pairs": 300,
        "permutations": 1999, "bins": 10,
        "streams": {
            "adwin_delta": 0.002, "adwin_every": 32, "page_hinkley_delta": 0.005, "page_hinkley_threshold": 25,
            "page_hinkley_forgetting": 0.9999, "min_samples": 30,
        },
    }
)  # fmt: skip
SPLIT = SplitParams(test=0.45, validation=0.2, calibration=0.01)
NETWORKS = {
    "teacher": {"use": "resnet", "width": 16, "depth": 8},
    "student": {"use": "convnet", "width": 8, "depth": 2},
}
TRAIN = {
    "epochs": 12, "batch_size": 64, "optimizer": {"use": "sgd", "momentum": 0.9}, "lr": 0.1, "weight_decay": 0.0005,
    "warmup_epochs": 1, "clip_norm": 1.0, "ema_decay": 0.0, "precision": "fp32", "device": "cpu", "compile": "never",
    "threads": 1,
}  # fmt: skip
NUM_SEEDS = 8
WINDOW = 200
STREAMS, WINDOWS = 15, 10
"""Stationary ones, per seed and stream."""
CIFAR_REFERENCE, CIFAR_WINDOW, CIFAR_WINDOWS = 2000, 500, 1000
BEFORE, AFTER, RAMP = 400, 2000, 1000
"""Samples before the first that may move, after it, and until all have."""
MAX_DROP = 0.05
"""What the fixed threshold lets accuracy fall."""
PRIOR = "class prior"
SHIFTS = (*CORRUPTIONS, PRIOR)
LIMITS = {"false alarms, upper bound: kept": 0.01, "false alarms, upper bound: drawn": 0.01}

OURS: dict[str, tuple[str, ...]] = {
    "Limbeck": ("inputs", "embeddings", "confidence", "prior", "agreement"),
    "Limbeck without a teacher": ("inputs", "embeddings", "confidence", "prior"),
    "Limbeck with labels": ("inputs", "embeddings", "confidence", "prior", "agreement", "accuracy"),
}
THRESHOLD = f"accuracy {100 * MAX_DROP:.0f} points down"


class World(NamedTuple):
    """One seed's networks, seen through what they answer: of the reference, and of test as it is and as it moved."""

    seed: int
    reference: Signals
    clean: Signals
    moved: Mapping[tuple[str, int], Signals]
    labels: NDArray[np.int64]


def world(place: Path, seed: int, severities: Sequence[int]) -> World:
    """Train both networks and look at everything once."""
    place.mkdir(parents=True)
    splits.write(place / "data", digits(), SPLIT, seed, max_overlap=1)
    networks = {}
    for name, model in NETWORKS.items():
        section: Any = TypeAdapter(TeacherParams).validate_python(
            {"use": "train", "model": model, "augment": {"use": "none"}, "train": TRAIN}
        )
        _, networks[name], _ = Making(place / "data", "accuracy", seed, Told(place), no_registry).make(
            section, arm=name
        )

    def seen(x: NDArray[Any], y: NDArray[np.int64]) -> Signals:
        return signals_of(
            networks["student"], x, teacher=networks["teacher"], labels_N=y, max_samples=10**6, batch_size=512, seed=0
        )

    x, y = (np.array(array) for array in splits.read(place / "data", "test"))
    moved = {
        (name, severity): seen(corrupt(x, name, severity, seed), y) for name in CORRUPTIONS for severity in severities
    }
    reference, labels = splits.read(place / "data", "validation")
    return World(seed, seen(reference, labels), seen(x, y), moved, y)


def passes(num: int, length: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Rows [length]: every one of `num` once, in random order, then all of them again."""
    return np.concatenate([generator.permutation(num) for _ in range(-(-length // num))])[:length]


@dataclass(frozen=True)
class Stream:
    """Samples one after the other.

    Attributes:
        signals: of all of them.
        onset: the first that may have moved, None where none does.
        tests: by the last index of a window; the variants of ours read the same ones.

    """

    signals: Signals
    onset: int | None
    tests: dict[int, list[Tested]] = field(default_factory=dict)


def stationary(found: World, index: int) -> Stream:
    """Of clean samples alone."""
    rows = passes(found.clean.count, WINDOWS * WINDOW, np.random.default_rng([found.seed, index]))
    return Stream(found.clean.take(rows), None)


def moving(found: World, shift: str, severity: int, *, gradually: bool) -> Stream:
    """Clean samples, then moved ones: all of them, or more and more."""
    generator = np.random.default_rng([found.seed, SHIFTS.index(shift), severity, gradually])
    onset = BEFORE + int(generator.integers(WINDOW))
    length = BEFORE + WINDOW + AFTER
    rows = passes(found.clean.count, length, generator)
    share = np.clip((np.arange(length) - onset + 1) / (RAMP if gradually else 1), 0, 1)
    is_moved = generator.random(length) < share
    if shift == PRIOR:
        drawn = shifted_prior(found.labels, length, severity, seed=found.seed)
        return Stream(found.clean.take(np.where(is_moved, drawn, rows)), onset)
    both = joined([found.clean, found.moved[shift, severity]])
    return Stream(both.take(rows + np.where(is_moved, found.clean.count, 0)), onset)


Alarms = Iterator[int]
"""Indices of a stream up to and with which an alarm is raised, ascending."""


def windows_of(stream: Stream) -> Iterator[tuple[int, Signals]]:
    """Whole windows, with the index of their last sample."""
    for start in range(0, stream.signals.count - WINDOW + 1, WINDOW):
        yield start + WINDOW - 1, stream.signals.take(np.arange(start, start + WINDOW))


def limbeck(kinds: tuple[str, ...], found: World, stream: Stream) -> Alarms:
    """Ours: two independent sources below the corrected level."""
    for last, window in windows_of(stream):
        if last not in stream.tests:
            stream.tests[last] = compare(found.reference, window, RULES, seed=last)
        tests = corrected([test for test in stream.tests[last] if test.kind in kinds])
        if len(sources_of(tests, RULES.level)) >= RULES.min_kinds:
            yield last


def threshold(found: World, stream: Stream) -> Alarms:
    """Accuracy of a window so many points below that of the reference."""
    assert found.reference.correct_N is not None
    least = found.reference.correct_N.mean() - MAX_DROP
    for last, window in windows_of(stream):
        assert window.correct_N is not None
        if window.correct_N.mean() < least:
            yield last


def river(detector: Callable[[], Any], of: str, found: World, stream: Stream) -> Alarms:
    """One of River's, as it comes, over one stream of numbers, begun on the reference."""
    detecting = detector()

    def values(signals: Signals) -> list[float]:
        picked = signals.confidence_N if of == "confidence" else signals.correct_N
        assert picked is not None
        return [*map(float, picked if of == "confidence" else 1 - picked)]

    for value in values(found.reference):
        detecting.update(value)
    for index, value in enumerate(values(stream.signals)):
        detecting.update(value)
        if detecting.drift_detected:
            yield index


def detectors() -> dict[str, Callable[[World, Stream], Alarms]]:
    """All that are compared. Page-Hinkley's own threshold, 50, is for larger numbers than shares: both it and ours are tried."""
    from river.drift import ADWIN, PageHinkley

    rules = RULES.streams
    found: dict[str, Callable[[World, Stream], Alarms]] = {
        name: partial(limbeck, kinds) for name, kinds in OURS.items()
    }
    for of in ("confidence", "error"):
        found[f"ADWIN, {of}"] = partial(river, ADWIN, of)
        found[f"Page-Hinkley, {of}"] = partial(river, PageHinkley, of)
        found[f"Page-Hinkley at {rules.page_hinkley_threshold:g}, {of}"] = partial(
            river, partial(PageHinkley, threshold=rules.page_hinkley_threshold), of
        )
    found[THRESHOLD] = threshold
    return found


def share_of(alarms: int, num: int) -> dict[str, Any]:
    """A count with the share and its exact interval."""
    interval = binomtest(alarms, num).proportion_ci(0.95, method="exact")
    return {"alarms": alarms, "windows": num, "share": alarms / num, "low": interval.low, "high": interval.high}


def false_alarms(worlds: Sequence[World], num_streams: int) -> dict[str, Any]:
    """Windows of stationary streams in which each detector alarms, and those in which anything of ours is below the level."""
    counts = dict.fromkeys(detectors(), 0)
    anything, num = 0, 0
    for found in worlds:
        for index in range(num_streams):
            stream = stationary(found, index)
            for name, alarms in detectors().items():
                counts[name] += len({alarm // WINDOW for alarm in alarms(found, stream)})
            for tests in stream.tests.values():
                anything += any(test.corrected < RULES.level for test in tests)
            num += WINDOWS
    return {
        "anything": share_of(anything, num),
        "by detector": {name: share_of(count, num) for name, count in counts.items()},
    }


def drawn(worlds: Sequence[World], num_windows: int) -> dict[str, Any]:
    """Reference and window from one pool, anew each time, through the whole of `detect`."""
    fired = anything = 0
    for found in worlds:
        for index in range(num_windows):
            rows = np.random.default_rng([found.seed, 1, index]).permutation(found.clean.count)
            report = detect(
                found.clean.take(rows[WINDOW:]), found.clean.take(rows[:WINDOW]), RULES, seed=index,
                now=datetime(2026, 1, 1, tzinfo=UTC), last_action=None, classes="0123456789",
            )  # fmt: skip
            fired, anything = fired + report.fires, anything + bool(report.moved)
    num = num_windows * len(worlds)
    return {"fires": share_of(fired, num), "anything": share_of(anything, num)}


def cifar10(num_windows: int) -> dict[str, Any]:
    """Raw statistics of CIFAR-10's test images, drawn anew each time."""
    recipe = yaml.safe_load((ROOT / "recipes/cifar10.yaml").read_text(encoding="utf-8"))
    test = open_source(Component.model_validate(recipe["data"]["source"])).test
    assert test is not None
    x = np.stack([np.asarray(sample) for sample in test.samples()])
    pool = Signals(inputs=statistics(x), coarse_ND=coarse(x), predicted_N=test.labels)
    fired = anything = 0
    for index in range(num_windows):
        rows = np.random.default_rng([2, index]).choice(len(x), CIFAR_REFERENCE + CIFAR_WINDOW, replace=False)
        tests = compare(pool.take(rows[CIFAR_WINDOW:]), pool.take(rows[:CIFAR_WINDOW]), RULES, seed=index)
        sources = sources_of(tests, RULES.level)
        fired, anything = fired + (len(sources) >= RULES.min_kinds), anything + bool(sources)
    return {"fires": share_of(fired, num_windows), "anything": share_of(anything, num_windows)}


class Delay(NamedTuple):
    """What a detector made of a stream: None where it found nothing. `accuracy` is the student's once all has moved."""

    detector: str
    shift: str
    severity: int
    gradually: bool
    samples: int | None
    accuracy: float


def delays(worlds: Sequence[World], severities: Sequence[int]) -> Iterator[Delay]:
    """Every detector on every stream in which something moves; alarms before it does are not counted here."""
    for found, shift, severity, gradually in itertools.product(worlds, SHIFTS, severities, (False, True)):
        stream = moving(found, shift, severity, gradually=gradually)
        assert stream.onset is not None
        assert stream.signals.correct_N is not None
        accuracy = float(stream.signals.correct_N[stream.onset + (RAMP if gradually else 0) :].mean())
        for name, alarms in detectors().items():
            first = next((alarm for alarm in alarms(found, stream) if alarm >= stream.onset), None)
            delay = None if first is None else first - stream.onset + 1
            yield Delay(name, shift, severity, gradually, delay, accuracy)


def measure(place: Path, params: Path) -> dict[str, Any]:
    """All of it; `params` other than the default's means one seed, few windows and one severity."""
    quick = params != ROOT / "params.yaml"
    severities = SEVERITIES[-1:] if quick else SEVERITIES
    begun = time.perf_counter()
    worlds = [world(place / f"drift {seed}", seed, severities) for seed in range(1 if quick else NUM_SEEDS)]
    trained = time.perf_counter()
    kept = false_alarms(worlds, 1 if quick else STREAMS)
    still: dict[str, Any] = {"kept": {"fires": kept["by detector"]["Limbeck"], **kept}}
    still["drawn"] = drawn(worlds, 5 if quick else STREAMS * WINDOWS)
    if "LIMBECK_DATA" in os.environ:
        still["cifar10"] = cifar10(5 if quick else CIFAR_WINDOWS)
    judged = time.perf_counter()
    moved = list(delays(worlds, severities))
    accuracies = [found.clean.correct_N.mean() for found in worlds if found.clean.correct_N is not None]
    return {
        "seconds": {
            "training and looking": trained - begun,
            "stationary windows": judged - trained,
            "moving streams": time.perf_counter() - judged,
        },
        "rules": RULES.model_dump(mode="json"),
        "window": WINDOW,
        "reference": worlds[0].reference.count,
        "accuracy": float(np.mean(accuracies)),
        "stationary": still,
        "ratios": {
            **{f"false alarms: {name}": each["fires"]["share"] for name, each in still.items()},
            **{f"false alarms, upper bound: {name}": each["fires"]["high"] for name, each in still.items()},
            **{f"anything below the level: {name}": each["anything"]["share"] for name, each in still.items()},
        },
        "limits": LIMITS,
        "all": {name: summed(moved, detector=name) for name in detectors()},
        "by shift": {shift: summed(moved, detector="Limbeck", shift=shift) for shift in SHIFTS},
    }


PACES = {"all at once": False, f"over {RAMP:,} samples": True}


def summed(moved: Sequence[Delay], *, detector: str, shift: str | None = None) -> dict[str, Any]:
    """By pace and severity: the share of streams in which a detector found something, and the median delay of all.

    A stream in which nothing was found counts as later than any; the median is null where it is one of those.
    """
    of_it = [each for each in moved if each.detector == detector and shift in (None, each.shift)]
    result: dict[str, Any] = {}
    for pace, gradually in PACES.items():
        result[pace] = {}
        for severity in sorted({each.severity for each in of_it}):
            members = [each for each in of_it if (each.severity, each.gradually) == (severity, gradually)]
            late = sorted(np.inf if each.samples is None else each.samples for each in members)
            middle = late[(len(late) - 1) // 2]
            result[pace][str(severity)] = {
                "streams": len(members),
                "found": float(np.isfinite(late).mean()),
                "median_delay": None if np.isinf(middle) else int(middle),
                "accuracy": float(np.mean([each.accuracy for each in members])),
            }
    return result


def percent(share: float) -> str:
    """With as many digits as say something."""
    return f"{100 * share:.2f} %" if share < 0.1 else f"{100 * share:.0f} %"


def false_alarm_table(result: Mapping[str, Any]) -> str:
    """The first table of docs/drift.md."""
    kept = result["stationary"]["kept"]
    named = {
        "digits, one reference": kept["fires"],
        "digits, drawn anew": result["stationary"]["drawn"]["fires"],
        **({"CIFAR-10, raw": result["stationary"]["cifar10"]["fires"]} if "cifar10" in result["stationary"] else {}),
    }
    rows = [("Limbeck", name, each) for name, each in named.items()]
    rows += [(name, "digits, one reference", each) for name, each in kept["by detector"].items() if name != "Limbeck"]
    head = "| detector | windows of | windows | false alarms | share | 95 % interval |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {name} | {of} | {each['windows']:,} | {each['alarms']:,} | {percent(each['share'])} "
        f"| {percent(each['low'])} to {percent(each['high'])} |"
        for name, of, each in rows
    )


def _cell(each: Mapping[str, Any]) -> str:
    delay = "-" if each["median_delay"] is None else f"{each['median_delay']:,}"
    return f"{delay} ({100 * each['found']:.0f} %)"


def _table(head: str, rows: Mapping[str, Mapping[str, Any]], cell: Callable[[Mapping[str, Any]], str]) -> str:
    severities = list(next(iter(rows.values())))
    lines = [f"| {name} | {' | '.join(cell(row[each]) for each in severities)} |" for name, row in rows.items()]
    return "\n".join([f"| {head} | {' | '.join(severities)} |", "|---" * (len(severities) + 1) + "|", *lines])


def delay_table(result: Mapping[str, Any], pace: str) -> str:
    """Detectors by severity, over all shifts."""
    return _table(pace, {name: each[pace] for name, each in result["all"].items()}, _cell)


def shift_table(result: Mapping[str, Any]) -> str:
    """What moved all at once, by severity: ours, beside what the student's accuracy became."""
    rows = {shift: each["all at once"] for shift, each in result["by shift"].items()}
    return _table("what moves", rows, lambda each: f"{_cell(each)}, {100 * each['accuracy']:.0f} %")


def table(result: Mapping[str, Any]) -> str:
    """All tables of docs/drift.md."""
    return "\n\n".join([false_alarm_table(result), *(delay_table(result, pace) for pace in PACES), shift_table(result)])
