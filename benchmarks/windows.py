"""What an intake can tell without labels and what it mistakes: corrupted digits, a teacher, and its distilled student.

The test split, which neither has seen, is corrupted by five severities of noise, fading and shifting. Of each: the student's
accuracy as estimated from agreement and as it is; how much the teacher labels and how often rightly; how often windows of
WINDOW samples with honest labels, and with poisoned ones, are set aside.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import places
from limbeck.data.prepared import read
from limbeck.windows import checks
from limbeck.windows.agreement import Answers, label_free
from limbeck.windows.labelling import Teacher, fill
from limbeck.windows.rules import PoisonRules

WINDOW, NUM_WINDOWS, RESAMPLES = 200, 200, 2000
MIN_CONFIDENCE = 0.8
POISON = PoisonRules(confident_above=0.9, significance=0.001, max_excess=0.15, max_class_excess=0.4)
LIMITS: dict[str, float] = {}

Pictures = NDArray[np.float64]


def noisy(x: Pictures, severity: int, chance: np.random.Generator) -> Pictures:
    """Gaussian noise, 20 of 255 more each time."""
    return x + chance.normal(0, 20 * severity, x.shape)


def faded(x: Pictures, severity: int, _: np.random.Generator) -> Pictures:
    """Contrast lost toward white, 5 % more each time."""
    return x + (255 - x) * 0.05 * severity


def shifted(x: Pictures, severity: int, chance: np.random.Generator) -> Pictures:
    """By a pixel to some side, of a fifth more of the pictures each time."""
    moved = np.stack([np.roll(each, chance.choice((-1, 1)), axis=chance.integers(2)) for each in x])
    return np.where((chance.random(len(x)) < 0.2 * severity)[:, None, None, None], moved, x)


CORRUPTIONS: dict[str, Callable[[Pictures, int, np.random.Generator], Pictures]] = {
    "noise": noisy, "fading": faded, "shift": shifted,
}  # fmt: skip


def wrong(share: float) -> Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.int64]]:
    """A share of the labels turned into others."""

    def change(y: NDArray[np.int64], chance: np.random.Generator) -> NDArray[np.int64]:
        return np.where(chance.random(len(y)) < share, (y + chance.integers(1, 10, len(y))) % 10, y)

    return change


def one_class(y: NDArray[np.int64], _: np.random.Generator) -> NDArray[np.int64]:
    """Every 3 called an 8."""
    return np.where(y == 3, 8, y)


LABELS: dict[str, Callable[[NDArray[np.int64], np.random.Generator], NDArray[np.int64]]] = {
    "honest": lambda y, _: y, "10 % wrong": wrong(0.1), "30 % wrong": wrong(0.3), "every 3 an 8": one_class,
}  # fmt: skip


def aside_rates(
    probabilities: NDArray[np.float64],
    truth: NDArray[np.int64],
    validation: tuple[Any, Any],
    chance: np.random.Generator,
) -> dict[str, float]:
    """Share of windows that are set aside, by what was done to their labels."""
    found = dict.fromkeys(LABELS, 0)
    for _ in range(NUM_WINDOWS):
        drawn = chance.choice(len(truth), WINDOW, replace=False)
        for name, change in LABELS.items():
            said = change(truth[drawn], chance)
            found[name] += bool(checks.of_labels(probabilities[drawn], said, validation, tuple("0123456789"), POISON))
    return {name: count / NUM_WINDOWS for name, count in found.items()}


def look(teacher: Teacher, student: Teacher, data: Path) -> dict[str, dict[str, float]]:
    """All figures, by corruption and severity."""
    validation = tuple(read(data, "validation"))
    old_x, old_y = validation
    old = teacher.probabilities(old_x, 10)
    old_answers = Answers(student.answers(old_x).argmax(1), old, np.asarray(old_y))
    x, truth = read(data, "test")
    rows = {}
    for name, corrupt in CORRUPTIONS.items():
        for severity in range(0 if name == "noise" else 1, 6):
            chance = np.random.default_rng(severity)
            new = corrupt(x.astype(np.float64), severity, chance).clip(0, 255).round().astype(np.uint8)
            probabilities = teacher.probabilities(new, 10)
            answers = Answers(student.answers(new).argmax(1), probabilities, np.asarray(truth))
            told = label_free(old_answers, answers, RESAMPLES, 0)
            labels, _ = fill(np.full(len(truth), -1), probabilities, MIN_CONFIDENCE)
            labelled = labels >= 0
            assert told.true is not None
            assert told.error is not None
            rows[f"{name} {severity}" if severity else "clean"] = {
                "estimate": told.accuracy["value"], "low": told.accuracy["low"], "high": told.accuracy["high"],
                "student": told.true["value"], "error": told.error, "agreement": told.agreement,
                "labelled": float(labelled.mean()),
                "labelled right": float((labels == truth)[labelled].mean()) if labelled.any() else 0.0,
                **aside_rates(probabilities, truth, (old, np.asarray(old_y)), chance),
            }  # fmt: skip
    return rows


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Train teacher and student by the pipeline of a params file, then look."""
    folder = places.copy(place / "windows", params)
    seconds = places.timed(folder, "dvc", "repro", "--quiet", "distill@sensor")
    teacher, student = (Teacher.of(folder / "models" / name) for name in ("teacher", "sensor/distill"))
    rows = look(teacher, student, folder / "data")
    return {
        "window": WINDOW, "num_windows": NUM_WINDOWS, "poison": POISON.model_dump(), "min_confidence": MIN_CONFIDENCE,
        "rows": rows, "seconds": {"teacher and student": seconds}, "ratios": {}, "limits": LIMITS,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """The figures as docs/windows.md shows them."""
    head = "| corruption | student | estimated | error | teacher labels | rightly | " + " | ".join(LABELS) + " |"
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for name, row in result["rows"].items():
        cells = [
            f"{100 * row['student']:.1f}", f"{100 * row['estimate']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
            f"{100 * row['error']:+.1f}", f"{100 * row['labelled']:.0f}", f"{100 * row['labelled right']:.1f}",
            *(f"{100 * row[each]:.0f}" for each in LABELS),
        ]  # fmt: skip
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
