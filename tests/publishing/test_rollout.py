"""The decision on a canary, by what it has to hold for whatever devices tell."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from limbeck.publishing.reports import Evidence, Word
from limbeck.publishing.rollout import Decision, Rules, at_least, decide, shift

RULES = Rules(min_devices=10, dwell_hours=24)
GOOD = Word(None, 1000, 0.0, 1.0, 0.9)
BACK = Word("refused: too slow")
BOLDNESS = {"take back": 0, "wait": 1, "widen": 2, "promote": 2}


def judged(evidence: Evidence, *, share: float = 0.05, hours: float = 48.0, rules: Rules = RULES) -> Decision:
    return decide(evidence, share=share, hours=hours, max_p95_ms=1.0, rules=rules)


def fleet(*ours: Word, theirs: int = 30, active: int | None = None) -> Evidence:
    return Evidence(ours, (GOOD,) * theirs, len(ours) if active is None else active)


WORDS = st.builds(
    Word,
    st.sampled_from([None, None, None, "reverted: it raised"]),
    st.sampled_from([0, 99, 100, 5000]),
    st.sampled_from([0.0, 0.0, 0.005, 0.02, 1.0]),
    st.one_of(st.none(), st.floats(0.1, 10)),
    st.one_of(st.none(), st.floats(0, 1)),
)
FLEETS = st.builds(
    Evidence,
    st.lists(WORDS, max_size=25).map(tuple),
    st.lists(WORDS, max_size=25).map(tuple),
    st.integers(0, 40),
)


def test_a_canary_that_does_well_climbs_the_ladder_and_becomes_champion() -> None:
    steps = [judged(fleet(*[GOOD] * 20), share=share) for share in (0.01, 0.05, 0.1, 0.2, 0.5, 1.0)]
    assert [(step.action, step.share) for step in steps] == [
        ("widen", 0.05),
        ("widen", 0.2),
        ("widen", 0.2),
        ("widen", 0.5),
        ("promote", None),
        ("promote", None),
    ]


@pytest.mark.parametrize(
    ("evidence", "hours", "why"),
    [
        (fleet(*[GOOD] * 9), 48, "9 devices use it, 10 are asked for"),
        (fleet(*[GOOD] * 20), 23, "23.0 hours at this share, 24 are asked for"),
        (fleet(*[replace(GOOD, answers=99)] * 20), 48, "0 devices use it, 10 are asked for"),
        (fleet(*[GOOD] * 20, active=50), 48, "20 of 50 devices whose turn it is use it, 25 are asked for"),
        (fleet(*[GOOD] * 20, BACK, BACK), 48, r"share that went back 0.0909.*unclear"),
        (Evidence(), 1e6, "0 devices use it"),
    ],
)
def test_too_few_devices_answers_or_hours_wait(evidence: Evidence, hours: float, why: str) -> None:
    found = judged(evidence, hours=hours)
    assert found.action == "wait"
    assert re.search(why, found.why)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([BACK] * 4, "share that went back"),
        ([replace(GOOD, error_rate=0.02)] * 8, "share with errors above 0.01"),
        ([replace(GOOD, p95_ms=3.1)] * 8, "share with p95 above 3 ms"),
        ([replace(GOOD, p95_ms=1.5)] * 16, "p95 over the champion's"),
        ([replace(GOOD, confidence=0.7)] * 16, "confidence below the champion's"),
    ],
)
def test_what_enough_devices_agree_on_takes_a_canary_back_at_any_time(words: list[Word], name: str) -> None:
    found = judged(fleet(*words, *[GOOD] * 4), hours=0.0)
    assert found.action == "take back"
    assert found.why.startswith(name)
    assert {criterion.name: criterion.verdict for criterion in found.criteria}[name] == "broken"


def test_why_devices_went_back_is_told() -> None:
    words = [Word("refused: too slow")] * 3 + [Word("reverted: it raised")]
    assert "; 3x refused: too slow; 1x reverted: it raised" in judged(fleet(*words)).why


def test_a_little_worse_than_allowed_is_not_taken_back_and_not_widened() -> None:
    words = [replace(GOOD, p95_ms=float(p95)) for p95 in np.linspace(0.6, 2.2, 12)]
    theirs = tuple(replace(GOOD, p95_ms=float(p95)) for p95 in np.linspace(0.5, 1.6, 12))
    found = judged(Evidence(tuple(words), theirs, 12))
    assert found.action == "wait"
    assert "p95 over the champion's" in found.why


def test_what_the_champions_devices_suffer_too_is_not_held_against_a_canary() -> None:
    erring = replace(GOOD, error_rate=0.5)
    ours = (erring,) * 6 + (GOOD,) * 14
    assert judged(Evidence(ours, (GOOD,) * 100, 20)).action == "take back"
    assert judged(Evidence(ours, (erring,) * 40 + (GOOD,) * 60, 20)).action == "widen"


def test_without_a_champion_to_compare_with_the_contract_and_the_counts_decide() -> None:
    found = judged(fleet(*[GOOD] * 20, theirs=0))
    assert found.action == "widen"
    assert [criterion.verdict for criterion in found.criteria] == ["kept", "kept", "kept", "not judged", "not judged"]


@given(
    evidence=FLEETS,
    index=st.integers(0, 100),
    worse=st.sampled_from(["gone_back", "error_rate", "p95_ms", "confidence"]),
    share=st.sampled_from([0.01, 0.2, 0.5]),
    hours=st.sampled_from([0.0, 100.0]),
)
def test_worse_evidence_never_makes_it_bolder(
    evidence: Evidence, index: int, worse: str, share: float, hours: float
) -> None:
    rules = RULES.model_copy(update={"min_devices": 3, "min_witnesses": 1, "max_failing": 0.2})
    if not evidence.canary:
        return
    index %= len(evidence.canary)
    word = evidence.canary[index]
    changed = {
        "gone_back": replace(word, gone_back="reverted: now"),
        "error_rate": replace(word, error_rate=min(1.0, word.error_rate + 0.5)),
        "p95_ms": replace(word, p95_ms=None if word.p95_ms is None else 3 * word.p95_ms),
        "confidence": replace(word, confidence=None if word.confidence is None else word.confidence / 2),
    }[worse]
    words = [*evidence.canary[:index], changed, *evidence.canary[index + 1 :]]
    before = judged(evidence, share=share, hours=hours, rules=rules)
    after = judged(replace(evidence, canary=tuple(words)), share=share, hours=hours, rules=rules)
    assert BOLDNESS[after.action] <= BOLDNESS[before.action]


@given(lies=st.lists(WORDS, min_size=2, max_size=2), honest=st.integers(3, 30), theirs=st.integers(0, 30))
def test_two_devices_that_lie_take_nothing_back(lies: list[Word], honest: int, theirs: int) -> None:
    assert judged(fleet(*lies, *[GOOD] * honest, theirs=theirs)).action != "take back"


@given(evidence=FLEETS, hours=st.floats(0, 1000), more=st.floats(0, 1000))
def test_time_alone_takes_nothing_back_and_makes_it_no_more_careful(
    evidence: Evidence, hours: float, more: float
) -> None:
    before, after = judged(evidence, hours=hours), judged(evidence, hours=hours + more)
    assert BOLDNESS[after.action] >= BOLDNESS[before.action]
    assert (before.action == "take back") == (after.action == "take back")


@pytest.mark.parametrize(("faults", "num", "expected"), [(1, 1, 0.01), (2, 2, 0.1), (0, 9, 0.0)])
def test_the_bound_of_a_share_is_clopper_and_pearsons(faults: int, num: int, expected: float) -> None:
    assert at_least(faults, num, 0.99) == pytest.approx(expected)


@given(faults=st.integers(1, 40), more=st.integers(0, 40))
def test_behind_that_bound_so_many_faults_would_be_a_rare_chance(faults: int, more: int) -> None:
    num = faults + more
    p = at_least(faults, num, 0.99)
    chance = sum(math.comb(num, k) * p**k * (1 - p) ** (num - k) for k in range(faults, num + 1))
    assert chance == pytest.approx(0.01)


def test_the_bound_of_a_shift_is_too_high_no_more_often_than_it_says() -> None:
    generator = np.random.default_rng(0)
    tries = [shift(generator.exponential(size=12), generator.exponential(size=15), 0.95)[1] for _ in range(2000)]
    assert sum(bound is not None and bound > 0 for bound in tries) / 2000 < 0.06
    found, bound = shift(generator.normal(1, 1, 300), generator.normal(0, 1, 300), 0.99)
    assert bound is not None
    assert 0.7 < bound < found < 1.3


def test_a_handful_gives_no_bound_on_a_shift() -> None:
    assert shift([5.0, 6.0], [1.0, 2.0, 3.0], 0.99) == (3.5, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ladder": [0.5, 0.1]}, "a ladder goes up"),
        ({"ladder": [0.0]}, "greater than 0"),
        ({"certainty": 0.3}, "greater than 0.5"),
        ({"min_device": 3}, "Extra inputs are not permitted"),
    ],
)
def test_rules_that_are_none_are_said(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Rules.model_validate(values)
