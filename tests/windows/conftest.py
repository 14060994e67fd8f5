"""Small pictures of three classes, a teacher that knows them, and a drop folder."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from limbeck.data import splits
from limbeck.data.sources.source import Source, in_memory
from limbeck.params import SplitParams
from limbeck.windows.intake import Intake, take_in
from limbeck.windows.labelling import Teacher
from limbeck.windows.rules import PoisonRules, WindowRules

CLASSES = ("dark", "middle", "light")
SHADES = np.array([60, 128, 196])

RULES = WindowRules(
    settle_s=0,
    max_mb=10,
    max_samples=5000,
    min_samples=20,
    max_per_device=30,
    max_repeated=0.5,
    max_unusable=0.1,
    range_margin=0.5,
    min_spread=0.1,
    min_confidence=0.8,
    poison=PoisonRules(confident_above=0.9, significance=0.001, max_excess=0.15, max_class_excess=0.4),
    bootstrap=500,
    seed=0,
)


def drawn(num: int, seed: int, classes: int = 3) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures [N, 4, 4, 1] of a shade each, with noise, and their classes."""
    chance = np.random.default_rng(seed)
    y = np.arange(num) % classes
    x = chance.normal(SHADES[y % 3][:, None, None, None], 12, (num, 4, 4, 1)).clip(0, 255).astype(np.uint8)
    return x, y


def logits(x: NDArray[Any]) -> NDArray[np.float32]:
    """What a teacher says that compares the mean shade."""
    means = np.asarray(x, np.float32).mean(axis=(1, 2, 3))
    return (-((means[:, None] - SHADES) ** 2) / 200).astype(np.float32)


TEACHER = Teacher(logits, "t" * 64)


def prepared(folder: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    """300 pictures of these classes, divided."""
    source = Source("shades", classes, in_memory(*drawn(300, 0, len(classes))))
    splits.write(folder, source, SplitParams(test=0.3, validation=0.3, calibration=0.1), 0)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared data; never written to."""
    return prepared(tmp_path_factory.mktemp("base") / "data")


@dataclass
class Yard:
    """A drop folder and what becomes of it."""

    place: Path
    data: Path
    ahead_s: float = field(default=10.0)

    @property
    def drop(self) -> Path:
        return self.place / "drop"

    @property
    def windows(self) -> Path:
        return self.place / "windows"

    def put(self, name: str, **arrays: Any) -> Path:
        self.drop.mkdir(parents=True, exist_ok=True)
        np.savez(self.drop / name, **arrays)
        return self.drop / name

    def take(self, rules: WindowRules = RULES, teacher: Teacher | None = TEACHER, **more: Any) -> Intake:
        now = float(os.stat(self.place).st_ctime) + self.ahead_s + 1000
        return take_in(self.drop, self.windows, self.data, rules, now=now, teacher=teacher, **more)


@pytest.fixture
def yard(tmp_path: Path, base: Path) -> Yard:
    return Yard(tmp_path, base)


@pytest.fixture
def asked() -> Callable[..., WindowRules]:
    """The rules with some changed."""

    def changed(**values: Any) -> WindowRules:
        return RULES.model_copy(update=values)

    return changed
