"""Whether a window asks for an action: several independent sources of evidence, enough samples, and time since the last.

                        source     made of
    inputs              samples    the raw samples alone: no network has seen them
    embeddings          student    one forward pass of the student; confidence is a function of the logits, which are one
    confidence          student    of the features, and so is the class: three views of the same numbers, one source
    prior               student
    agreement           teacher    the answers of a second network, other weights, trained before
    accuracy            labels     what people said; never what the teacher said, that would be agreement once more

A kind moved where one of its tests is below the level after Holm's correction over *all* tests of the window: the chance that
anything at all is reported of a window in which nothing moved is at most the level, however the tests depend on each other.
That alone bounds false alarms. A second source is asked for besides because chance is not the only thing that can be wrong.

Sources are no independent draws: all see the same samples, and an unlucky choice of hard ones shows in several. They are
independent *witnesses*: each brings numbers that no other has. So these do not fire:

- Inputs alone: a camera is exposed otherwise, and neither network minds. Nothing needs repair.
- The student's views alone: it finds the samples odd, but they look as before and the teacher still agrees.
- Labels alone: mistakes of those who labelled, or a concept that changed. Figures cannot tell which, so a person must: the
  report says `concept`.

What two sources do not guard against is a student that is not the one the reference was made with: agreement and accuracy
look at its answers, too. Digests of checkpoints and golden vectors are for that.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from limbeck.drift.moved import Report, Tested, moved_of
from limbeck.drift.rules import DriftRules
from limbeck.drift.signals import Kind, Signals, both, class_counts
from limbeck.drift.streams import Change, changes_within
from limbeck.drift.two_samples import Result, Values, class_priors, holm, ks, mmd, proportions, psi, subsample

Source: TypeAlias = Literal["samples", "student", "teacher", "labels"]
SOURCES: dict[Kind, Source] = {
    "inputs": "samples",
    "embeddings": "student",
    "confidence": "student",
    "prior": "student",
    "agreement": "teacher",
    "accuracy": "labels",
}


def detect(
    reference: Signals,
    window: Signals,
    rules: DriftRules,
    *,
    seed: int,
    now: datetime,
    last_action: datetime | None,
    classes: Sequence[str],
) -> Report:
    """Compare a window with the reference, kind by kind, and decide.

    Args:
        reference: of samples no network was trained on, such as the old validation split.
        window: of the new ones; kinds that either lacks are not compared.
        rules: the values.
        seed: of subsamples and permutations.
        now: when this is asked.
        last_action: when something was last done about drift; None: never.
        classes: names, for words.

    """
    reference, window = (signals.at_most(rules.max_samples, seed) for signals in (reference, window))
    few = [(name, signals.count) for name, signals in (("window", window), ("reference", reference))]
    few = [(name, count) for name, count in few if count < rules.min_samples]
    if few:
        told = " and ".join(f"the {name} has {count} samples" for name, count in few)
        reason = f"no judgement: {told}, min_samples asks for {rules.min_samples}"
        return Report(False, False, reason, (), (), {}, (), rules.level, reference.count, window.count)
    tests = compare(reference, window, rules, seed)
    moved = moved_of(tests, rules.level, classes, reference, window)
    sources = sources_of(tests, rules.level)
    fires, reason = _decide(sources, [thing.what for thing in moved], rules)
    cools_down = False
    if fires and last_action is not None and now - last_action < timedelta(hours=rules.cool_down_hours):
        fires, cools_down = False, True
        hours = (now - last_action).total_seconds() / 3600
        reason += f", but something was done {hours:.1f} h ago; cool_down_hours is {rules.cool_down_hours:g}"
    changes = _changes(reference, window, rules) if moved else {}
    return Report(
        fires,
        cools_down,
        reason,
        sources,
        tuple(moved),
        changes,
        tuple(tests),
        rules.level,
        reference.count,
        window.count,
    )


def compare(reference: Signals, window: Signals, rules: DriftRules, seed: int) -> list[Tested]:
    """All tests of the kinds that both have, their p-values corrected for being so many."""
    tests: list[tuple[Kind, str, str, Callable[[int], Result]]] = []  # each takes the number of permutations

    def of_values(kind: Kind, of: str, before: Values, after: Values) -> None:
        tests.append((kind, "ks", of, lambda _: ks(before, after)))
        tests.append((kind, "psi", of, lambda num: psi(before, after, bins=rules.bins, permutations=num, seed=seed)))

    def of_vectors(kind: Kind, of: str, before: NDArray[Any], after: NDArray[Any]) -> None:
        fewer = [matrix[subsample(len(matrix), rules.max_pairs, seed)] for matrix in (before, after)]
        tests.append((kind, "mmd", of, lambda num: mmd(*fewer, permutations=num, seed=seed)))

    def of_shares(kind: Kind, before: NDArray[Any], after: NDArray[Any]) -> None:
        tests.append((kind, "fisher", kind, lambda _: proportions(before, after)))

    for name, values in reference.inputs.items():
        if name in window.inputs:
            of_values("inputs", name, values, window.inputs[name])
    if pair := both("inputs", reference, window):
        of_vectors("inputs", "coarse samples", *pair)
    if pair := both("embeddings", reference, window):
        of_vectors("embeddings", "features", *pair)
    if pair := both("confidence", reference, window):
        of_values("confidence", "confidence", *pair)
    if pair := both("prior", reference, window):
        counts = class_counts(*pair)
        tests.append(
            ("prior", "chi-squared", "classes", lambda num: class_priors(*counts, permutations=num, seed=seed))
        )
    if pair := both("agreement", reference, window):
        of_shares("agreement", *pair)
    if pair := both("accuracy", reference, window):
        of_shares("accuracy", *pair)
    if not tests:
        return []
    permutations = _enough_permutations(len(tests), rules)
    found = [(kind, method, of, test(permutations)) for kind, method, of, test in tests]
    return corrected(
        [
            Tested(kind, method, of, result.statistic, result.effect, result.p, result.p)  # type: ignore[arg-type]
            for kind, method, of, result in found
        ]
    )


def _enough_permutations(num_tests: int, rules: DriftRules) -> int:
    """How many each test may draw: more than the rules say where no p-value of so many tests could be below the level.

    The smallest one is half of the level then, corrected.
    """
    if num_tests / (rules.permutations + 1) < rules.level:
        return rules.permutations
    return math.ceil(2 * num_tests / rules.level) - 1


def corrected(tests: Sequence[Tested]) -> list[Tested]:
    """The same tests with p-values corrected for being just these."""
    values = holm(np.array([test.p for test in tests]))
    return [replace(test, corrected=float(value)) for test, value in zip(tests, values, strict=True)]


def sources_of(tests: Sequence[Tested], level: float) -> tuple[Source, ...]:
    """The independent sources of evidence that have a test below the level."""
    return tuple(dict.fromkeys(SOURCES[test.kind] for test in tests if test.corrected < level))


def _decide(
    sources: tuple[Source, ...],
    whats: list[str],
    rules: DriftRules,
) -> tuple[bool, str]:
    if not sources:
        return False, "nothing moved"
    told = f"{', '.join(whats)} moved"
    if len(sources) < rules.min_kinds or sources == ("labels",):
        asked = "a person has to say whose mistake that is" if sources == ("labels",) else "not enough to act upon"
        asked_for = f" of {rules.min_kinds}" if rules.min_kinds > 1 else ""
        return False, f"{told}: only {' and '.join(sources)}{asked_for} independent sources say so; {asked}"
    return True, f"{told}: {', '.join(sources)} say so independently"


def _changes(reference: Signals, window: Signals, rules: DriftRules) -> dict[str, tuple[Change, ...]]:
    """Where confidence, agreement and accuracy (which is 1 - error) changed within the window."""
    kinds: tuple[Kind, ...] = ("confidence", "agreement", "accuracy")
    found = {}
    for kind in kinds:
        if pair := both(kind, reference, window):
            found[kind] = tuple(changes_within(*pair, rules.streams))
    return {kind: changes for kind, changes in found.items() if changes}
