"""When a window asks for an action, and what its report says."""

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from pydantic import ValidationError

from benchmarks.drift import RULES
from limbeck.drift import DriftRules, Signals, detect, picture
from limbeck.drift.signals import Kind, as_told
from tests.drift.conftest import CLASSES, NOW, Judge, world


def test_nothing_moved_and_nothing_fires(judge: Judge) -> None:
    for seed in range(10):
        report = judge(seed=100 * seed)
        assert not report.fires
        assert (report.reason, report.moved) == ("nothing moved", ())


@pytest.mark.parametrize(
    ("moved", "sources"),
    [
        (("inputs", "confidence"), ("samples", "student")),
        (("prior", "agreement"), ("student", "teacher")),
        (("inputs", "accuracy"), ("samples", "labels")),
    ],
)
def test_two_independent_sources_fire(judge: Judge, moved: tuple[Kind, ...], sources: tuple[str, ...]) -> None:
    report = judge(*moved)
    assert report.fires
    assert report.sources == sources
    assert {test.kind for thing in report.moved for test in thing.tests} == set(moved)


@pytest.mark.parametrize("moved", [("inputs",), ("agreement",), ("embeddings", "confidence", "prior")], ids=str)
def test_one_source_does_not_fire_however_many_kinds_it_has(judge: Judge, moved: tuple[Kind, ...]) -> None:
    report = judge(*moved)
    assert not report.fires
    assert len(report.moved) == len(moved)
    assert f"only {report.sources[0]} of 2 independent sources say so" in report.reason


@pytest.mark.parametrize("min_kinds", [1, 2])
def test_labels_that_contradict_are_called_a_concept_and_left_to_a_person(
    judge: Judge, rules: DriftRules, min_kinds: int
) -> None:
    """Whatever number of sources is asked for: figures cannot tell a changed concept from wrong labels."""
    report = judge("accuracy", of=rules.model_copy(update={"min_kinds": min_kinds}))
    assert [moved.what for moved in report.moved] == ["concept"]
    assert not report.fires
    assert "a person has to say whose mistake that is" in report.reason
    assert "the labels contradict what was learned" in report.lines()[1]
    assert [moved.what for moved in judge("inputs", "accuracy").moved] == ["input statistics", "accuracy"]


def test_a_small_window_is_not_judged(judge: Judge) -> None:
    report = judge("inputs", "confidence", num=99)
    assert not report.fires
    assert report.reason == "no judgement: the window has 99 samples, min_samples asks for 100"
    assert not report.tests


def test_after_an_action_there_is_quiet(judge: Judge) -> None:
    soon, later = (NOW - timedelta(hours=hours) for hours in (11.9, 12))
    report = judge("inputs", "confidence", last_action=soon)
    assert not report.fires
    assert report.reason.endswith("but something was done 11.9 h ago; cool_down_hours is 12")
    assert report.moved
    assert judge("inputs", "confidence", last_action=later).fires


def test_more_sources_can_be_asked_for(judge: Judge, rules: DriftRules) -> None:
    strict = rules.model_copy(update={"min_kinds": 3})
    assert not judge("inputs", "confidence", of=strict).fires
    assert judge("inputs", "confidence", "agreement", of=strict).fires


def test_one_source_is_never_enough(rules: DriftRules) -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        DriftRules.model_validate(rules.model_dump() | {"min_kinds": 1})


def sensors(seed: int, moved: float = 0.0) -> Signals:
    """Mean and spread of six channels, which a drift moves together: 31 tests with what `world` has else."""
    generator = np.random.default_rng(1000 + seed)
    inputs = {
        f"{name} {channel}": generator.normal(moved, 1, 400) for name in ("mean", "spread") for channel in range(6)
    }
    return replace(world(400, seed, ("prior",) if moved else ()), inputs=inputs)


def test_many_tests_draw_as_many_permutations_as_it_takes_to_fire() -> None:
    """With the shipped rules: 1,999 permutations of 31 tests show no p-value below 31 / 2000."""
    reports = [
        detect(sensors(0), sensors(1, moved), RULES, seed=0, now=NOW, last_action=None, classes=CLASSES)
        for moved in (0.0, 0.8)
    ]
    assert [(report.fires, len(report.tests)) for report in reports] == [(False, 31), (True, 31)]
    permuted = [test for test in reports[1].tests if test.method in ("psi", "chi-squared")]
    assert 0 < min(test.corrected for test in permuted) < RULES.level


@pytest.mark.parametrize(("permutations", "least"), [(1499, 1 / 1500), (900, 1 / 901), (899, 1 / 1800), (99, 1 / 1800)])
def test_permutations_are_those_of_the_rules_unless_nine_tests_could_show_nothing(
    judge: Judge, rules: DriftRules, permutations: int, least: float
) -> None:
    report = judge("prior", of=rules.model_copy(update={"permutations": permutations}))
    assert (len(report.tests), min(test.p for test in report.tests if test.method == "chi-squared")) == (9, least)


def test_what_devices_tell_is_judged_as_samples_are(rules: DriftRules) -> None:
    reference, still, moved = (
        as_told(world(500, seed, kinds)) for seed, kinds in enumerate(((), (), ("inputs", "prior")))
    )
    reports = [
        detect(reference, window, rules, seed=0, now=NOW, last_action=None, classes=CLASSES)
        for window in (still, moved)
    ]
    assert [report.fires for report in reports] == [False, True]


def test_a_report_says_what_moved_in_words_and_figures(judge: Judge) -> None:
    report = judge("inputs", "embeddings", "confidence", "prior", "agreement")
    words = dict(line.split(": ", 1) for line in report.lines()[1:6])
    assert words["class prior"].startswith("4")
    assert "cat 2" in words["class prior"]
    assert words["input statistics"].startswith("mean 0 (ks 0.")
    assert words["agreement"].startswith("fell by 3")
    assert report.lines()[0].endswith("samples, student, teacher say so independently")
    assert {"confidence", "agreement"} <= set(report.changes)
    assert all(test.corrected >= test.p for test in report.tests)
    assert json.loads(json.dumps(report.to_json()))["moved"][0]["what"] == "input statistics"


def test_the_same_window_has_the_same_report(judge: Judge) -> None:
    assert judge("inputs").to_json() == judge("inputs").to_json()


def test_a_picture_has_a_panel_for_each_thing_that_moved(judge: Judge) -> None:
    kinds: tuple[Kind, ...] = ("inputs", "embeddings", "confidence", "prior", "agreement")
    reference, window = world(500, 0), world(300, 1, kinds)
    figure = picture(judge(*kinds), reference, window, CLASSES)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == [
        "input: mean 0", "embedding", "confidence", "class prior, %", "agreement, %",
    ]  # fmt: skip
    heights = [bar.get_height() for bar in figure.axes[3].patches]
    assert sum(heights[:4]) == pytest.approx(100)
    assert [text.get_text() for text in figure.axes[3].get_xticklabels()] == list(CLASSES)
    assert picture(judge(), reference, window, CLASSES) is None


def test_a_window_of_millions_costs_what_the_rules_allow(rules: DriftRules) -> None:
    limited = rules.model_copy(update={"max_samples": 150})
    report = detect(
        world(3000, 0), world(2000, 1), limited, seed=0, now=NOW, last_action=None, classes=np.array(CLASSES).tolist()
    )
    assert (report.num_reference, report.num_window) == (150, 150)
