"""What tests of drift share: the page's rules, and figures of samples that never were."""

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pytest

from benchmarks.drift import RULES
from limbeck.drift import DriftRules, Report, Signals, detect
from limbeck.drift.signals import Kind

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
CLASSES = ("cat", "dog", "newt", "owl")


@pytest.fixture
def rules() -> DriftRules:
    """With fewer permutations than in use: enough for the tests there are."""
    return RULES.model_copy(update={"permutations": 1499, "max_pairs": 100})


def world(num: int, seed: int, moved: tuple[Kind, ...] = ()) -> Signals:
    """Six kinds that know nothing of each other, some of which moved."""
    generator = np.random.default_rng(seed)

    def by(kind: Kind, amount: float) -> float:
        return amount if kind in moved else 0.0

    return Signals(
        inputs={"mean 0": generator.normal(by("inputs", 1.0), 1, num)},
        coarse_ND=generator.normal(by("inputs", 0.5), 1, (num, 6)).astype(np.float32),
        embeddings_ND=generator.normal(by("embeddings", 1.0), 1, (num, 4)).astype(np.float32),
        confidence_N=generator.beta(9 - by("confidence", 6), 2, num),
        predicted_N=generator.choice(4, num, p=(0.7, 0.1, 0.1, 0.1) if "prior" in moved else (0.25,) * 4),
        agreement_N=(generator.random(num) < 0.95 - by("agreement", 0.3)).astype(np.float64),
        correct_N=(generator.random(num) < 0.9 - by("accuracy", 0.3)).astype(np.float64),
    )


Judge = Callable[..., Report]


@pytest.fixture
def judge(rules: DriftRules) -> Judge:
    """A window of 300 against a reference of 500, at noon."""

    def judged(
        *moved: Kind, last_action: datetime | None = None, seed: int = 0, of: DriftRules = rules, num: int = 300
    ) -> Report:
        reference, window = world(500, seed), world(num, seed + 1, moved)
        return detect(reference, window, of, seed=seed, now=NOW, last_action=last_action, classes=CLASSES)

    return judged
