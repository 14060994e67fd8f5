"""The gate: a challenger has to be better where the champion was bad, and no worse elsewhere."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data.splits import read, read_meta
from limbeck.edge.session import open_session
from limbeck.errors import ContractBroken, DataError
from limbeck.evaluation import accuracy
from limbeck.refresh import gate
from limbeck.refresh.gate import GateRules, Scored, Verdict, examine, judge, staleness
from limbeck.selection import Clause, hold
from tests.tracking.conftest import write_export

CLASSES = ("a", "b")
KEPT = hold("max_size_kb", 10, 9.0)


def scored(
    *, old: tuple[int, int, int] = (1000, 0, 0), new: tuple[int, int, int] = (1000, 100, 0), of_class: int = 0
) -> Scored:
    """Samples, wins and losses of the challenger on either side; the champion is right on the first half of the rest."""
    parts = []
    for origin, (num, wins, losses) in enumerate((old, new)):
        champion = (np.arange(num) % 2).astype(float)
        champion[: wins + losses] = [0.0] * wins + [1.0] * losses
        challenger = champion.copy()
        challenger[: wins + losses] = [1.0] * wins + [0.0] * losses
        parts.append((champion, challenger, np.full(num, of_class), np.full(num, origin)))
    return Scored(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)), classes=CLASSES)  # type: ignore[misc, arg-type]


def verdict(scores: Scored, rules: GateRules, **changes: Any) -> Verdict:
    return judge(scores, rules.model_copy(update=changes), [KEPT])


def refusals(found: Verdict) -> list[tuple[str, str | None]]:
    return [(clause.clause, clause.split) for clause in found.broken]


def test_better_on_the_new_windows_and_equal_elsewhere_passes(gate_rules: GateRules) -> None:
    found = verdict(scored(), gate_rules)
    assert found.passed
    assert str(found).startswith(
        "passes on validation: min_gain on validation, new windows: asked for 0.01, measured 0.1 ["
    )
    assert [row.name for row in found.rows] == ["old", "new", "window 1", "old, a", "new, a"]
    assert found.rows[1].challenger - found.rows[1].champion == pytest.approx(0.1)


def test_a_gain_inside_the_noise_is_none(gate_rules: GateRules) -> None:
    close = scored(new=(1000, 15, 4))
    assert refusals(verdict(close, gate_rules)) == [("min_gain", "validation, new windows")]
    assert verdict(close, gate_rules, gain="kept").passed


def test_what_is_lost_on_old_samples_refuses(gate_rules: GateRules) -> None:
    found = verdict(scored(old=(1000, 0, 6)), gate_rules)
    assert refusals(found) == [("max_loss", "validation, old"), ("max_loss", "validation, old, a")]
    assert "max_loss on validation, old: allowed 0.005, measured 0.006 [" in str(found)
    assert verdict(scored(old=(1000, 0, 5)), gate_rules).passed, "half a point is allowed"
    proven = verdict(scored(old=(1000, 0, 5)), gate_rules, loss="proven")
    assert ("max_loss", "validation, old") in refusals(proven)


def test_a_small_class_speaks_against_it_only_where_its_whole_interval_does(gate_rules: GateRules) -> None:
    few = gate_rules.model_copy(update={"min_class_samples": 101})
    one_of_each = [scored(old=(100, 0, losses), of_class=1) for losses in (1, 3, 30)]
    by_class = [
        next(clause for clause in verdict(scores, few).clauses if clause.split == "validation, old, b").kept
        for scores in one_of_each
    ]
    assert by_class == [True, True, False]
    large = gate_rules.model_copy(update={"min_class_samples": 100})
    assert ("max_loss", "validation, old, b") in refusals(verdict(one_of_each[0], large)), "by its estimate"


def test_among_many_small_classes_chance_alone_refuses_one_challenger_in_twenty_at_most(gate_rules: GateRules) -> None:
    """Who answers as well as the champion, but not the same: a tenth of the samples goes either way."""
    generator, names = np.random.default_rng(0), tuple("abcdefghij")
    labels, origins = np.tile(np.repeat(np.arange(10), 100), 2), np.repeat([0, 1], 1000)
    rules = gate_rules.model_copy(update={"max_loss": 0.0})
    refused = 0
    for _ in range(500):
        champion, challenger = (generator.random(2000) < np.where(generator.random(2000) < 0.2, 0.5, 1.0) for _ in "ab")
        scores = Scored(champion.astype(float), challenger.astype(float), labels, origins, classes=names)
        found = refusals(judge(scores, rules, []))
        refused += any(str(split).rpartition(", ")[2] in names for _, split in found)
    assert 0 < refused / 500 < 0.05


def test_a_class_that_is_lost_among_the_new_ones_refuses_though_the_rest_gains(gate_rules: GateRules) -> None:
    gained, lost = scored(new=(1000, 400, 0)), scored(old=(0, 0, 0), new=(1000, 0, 100), of_class=1)
    both = Scored(
        *(np.concatenate([getattr(gained, name), getattr(lost, name)])
          for name in ("champion", "challenger", "labels", "origins")), classes=CLASSES,
    )  # type: ignore[misc, arg-type]  # fmt: skip
    assert refusals(verdict(both, gate_rules)) == [("max_loss", "validation, new, b")]


def test_a_contract_that_breaks_refuses(gate_rules: GateRules) -> None:
    broken: Clause = hold("max_size_kb", 10, 11.0)
    found = judge(scored(), gate_rules, [broken])
    assert refusals(found) == [("max_size_kb", None)]
    unsure = hold("max_p95_ms", 10, {"value": 9.0, "low": 8.0, "high": 11.0})
    assert judge(scored(), gate_rules, [unsure]).passed
    assert not judge(scored(), gate_rules, [unsure], require="proven").passed


def test_without_a_new_labelled_sample_nothing_is_better(gate_rules: GateRules) -> None:
    found = verdict(scored(new=(0, 0, 0)), gate_rules, gain="kept")
    assert refusals(found) == [("min_gain", "validation, new windows")]
    assert str(found) == "is refused on validation: no new sample is among those of validation; wait for more"


def test_every_window_has_a_row_of_its_own(gate_rules: GateRules) -> None:
    scores = scored()
    origins = scores.origins.copy()
    origins[-300:] = 2
    rows = verdict(replace(scores, origins=origins), gate_rules).rows
    assert [(row.name, row.samples) for row in rows if row.name.startswith("window")] == [
        ("window 1", 700),
        ("window 2", 300),
    ]


COUNTS = st.tuples(st.integers(1, 400), st.integers(0, 100), st.integers(0, 100)).filter(lambda c: c[1] + c[2] <= c[0])


@given(old=COUNTS, new=COUNTS)
def test_who_passes_would_not_pass_the_other_way_round(
    gate_rules: GateRules, old: tuple[int, int, int], new: tuple[int, int, int]
) -> None:
    there = scored(old=old, new=new)
    back = replace(there, champion=there.challenger, challenger=there.champion)
    assert not (verdict(there, gate_rules, gain="kept").passed and verdict(back, gate_rules, gain="kept").passed)
    assert not verdict(replace(there, challenger=there.champion), gate_rules, gain="kept").passed, "equal is not better"


@given(old=COUNTS, new=COUNTS)
def test_what_is_proven_is_kept_and_more_samples_of_the_same_kind_refuse_no_less(
    gate_rules: GateRules, old: tuple[int, int, int], new: tuple[int, int, int]
) -> None:
    scores = scored(old=old, new=new)
    for strict, lax in (({"gain": "proven"}, {"gain": "kept"}), ({"loss": "proven"}, {"loss": "kept"})):
        if verdict(scores, gate_rules, **strict).passed:
            assert verdict(scores, gate_rules, **lax).passed
    found = verdict(scores, gate_rules)
    assert found.passed == (not found.broken)
    assert all(clause in found.clauses for clause in found.broken)


@given(seed=st.integers(0, 1000))
def test_the_order_of_samples_decides_nothing(gate_rules: GateRules, seed: int) -> None:
    scores = scored(old=(50, 3, 4), new=(60, 20, 5))
    order = np.random.default_rng(seed).permutation(len(scores.labels))
    shuffled = Scored(
        scores.champion[order], scores.challenger[order], scores.labels[order], scores.origins[order], CLASSES
    )
    assert verdict(shuffled, gate_rules).clauses == verdict(scores, gate_rules).clauses


def test_a_window_that_was_learned_before_is_not_forgotten_behind_the_others(gate_rules: GateRules) -> None:
    size = 1500
    champion, challenger = np.ones(3 * size), np.ones(3 * size)
    origins = np.repeat([0, -1, 1], size)
    champion[origins == 1] = 0.0
    challenger[np.flatnonzero(origins == -1)[:12]] = 0.0  # 0.4 points of all that is old
    labels = np.arange(3 * size) % 2
    found = judge(Scored(champion, challenger, labels, origins, ("a", "b")), gate_rules, [])
    assert [f"{clause.clause}, {clause.split}" for clause in found.broken] == ["max_loss, validation, learned 1"]
    assert [row.name for row in found.rows][:4] == ["old", "new", "window 1", "learned 1"]


def test_of_two_new_windows_none_may_lose(gate_rules: GateRules) -> None:
    size = 1500
    origins = np.repeat([0, 1, 2], size)
    champion = np.where(origins == 1, 0.0, 1.0)
    challenger = np.ones(3 * size)
    challenger[np.flatnonzero(origins == 2)[:30]] = 0.0
    found = judge(Scored(champion, challenger, np.zeros(3 * size, np.int64), origins, ("a",)), gate_rules, [])
    assert [clause.split for clause in found.broken] == ["validation, window 2"]


def test_the_exam_is_sat_once_and_nobody_else_is_tried_after_a_failure(gate_rules: GateRules) -> None:
    told = {"require": "kept", "digest": "d" * 64}
    assert examine(scored(), gate_rules, [KEPT], sat=(), **told).split == "test"  # type: ignore[arg-type]
    failed = examine(scored(old=(1000, 0, 50)), gate_rules, [KEPT], sat=(), **told)  # type: ignore[arg-type]
    assert str(failed).startswith("is refused on test: max_loss on test, old")
    with pytest.raises(ContractBroken, match=r"refused on this test set before .data dddd.*Wait for a new window"):
        examine(scored(), gate_rules, [KEPT], sat={"d" * 64}, **told)  # type: ignore[arg-type]


def test_a_teacher_no_better_than_the_champion_is_out_of_date(gate_rules: GateRules) -> None:
    champion = np.repeat([1.0, 0.0], [600, 400])
    better, equal = np.repeat([1.0, 0.0], [700, 300]), champion
    assert staleness(better, champion, gate_rules).why == ""
    found = staleness(equal, champion, gate_rules)
    assert found.why.startswith(
        "the teacher is out of date: on 1,000 new samples that people labelled it has 60.0%, the champion 60.0% (+0.0 points ["
    )
    assert staleness(equal[550:650], champion[550:650], gate_rules).why == "", "of few samples a tie proves nothing"
    with pytest.raises(DataError, match="no new sample was labelled by people"):
        staleness(champion[:0], champion[:0], gate_rules)


def test_a_file_is_scored_sample_by_sample_and_knows_nothing_of_classes_added_since(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PREDICT_BATCH", 50)
    x, y = read(data, "validation")
    origins = (np.arange(len(y)) % 3).astype(np.int16)
    monkeypatch.setattr(gate, "read_origin", lambda *_: origins)
    write_export(tmp_path, 1.0, classes=8, height=8, width=8)
    file = tmp_path / "model.fp32.onnx"
    found = gate.score(file, file, data, "validation", "accuracy", threads=1)
    (logits,) = open_session(file, 1).run(None, {"input": np.asarray(x)})
    assert logits.shape == (len(y), 8)
    expected = np.where(y < 8, accuracy(logits, np.asarray(y)), 0.0)
    assert 0 < expected.sum() < len(y)
    assert np.array_equal(found.champion, expected)
    assert np.array_equal(found.challenger, expected)
    assert np.array_equal(found.origins, origins)
    assert found.classes == read_meta(data).classes
