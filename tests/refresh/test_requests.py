"""A request is a file; what it means is a rung to begin at, or a workspace to run."""

import copy
import time
from pathlib import Path
from typing import Any

import pytest

from limbeck.errors import ParamsError
from limbeck.params import Params, Unused, checked
from limbeck.refresh import requests
from limbeck.refresh.requests import AddTarget, ChangeBudget, RequestRules
from tests.refresh.conftest import CHAMPION, values_in

RULES = RequestRules.model_validate(values_in(RequestRules.__doc__, "requests"))


@pytest.fixture
def base(tiny: Params) -> dict[str, Any]:
    return tiny.model_dump(mode="json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"is no request:\n  Input should be a valid dictionary"),
        ("{}", r"asks for nothing; expected one of new_classes, add_target, change_budget in a file"),
        ("{new_classes: [a], change_budget: {target: s, clauses: {max_drop: 0.1}}}", r"asks for new_classes and change_budget"),
        ("new_class: [a]", r"new_class: unknown key; did you mean 'new_classes'\?"),
        ("change_budget: {target: s, clauses: {max_size: 1}}", r"change_budget: no clause 'max_size'; did you mean 'max_size_kb'"),
        ("new_classes: []", r"new_classes: Tuple should have at least 1 item"),
        ("{", r"is no YAML"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_request_is_told_what_one_is(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ParamsError, match=message):
        requests.read(tmp_path / "r.yaml")


def test_a_request_may_be_json(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"new_classes": ["truck"]}')
    assert requests.read(tmp_path / "r.json").new_classes == ("truck",)
    with pytest.raises(ParamsError, match=r"absent.yaml is missing; expected a request"):
        requests.read(tmp_path / "absent.yaml")


def test_new_classes_begin_at_the_teacher_unless_labels_alone_teach(base: dict[str, Any]) -> None:
    base["targets"]["sensor"]["distill"] = {"use": "none"}
    meaning = requests.for_classes(("truck",), base, known=("car",), labelled={"truck": 50}, rules=RULES)
    assert meaning.start == {"phone": "teacher", "sensor": "distil"}
    assert meaning.new_classes == ("truck",)
    assert "the teacher gives them no answer until it learns them" in meaning.why


@pytest.mark.parametrize(
    ("new", "labelled", "message"),
    [
        (("car",), {}, r"car is known already; the champion answers car, bus"),
        (("truck", "truck"), {"truck": 99}, r"a name stands twice"),
        (("truck", "tram"), {"truck": 99, "tram": 3}, r"too few samples that people labelled: tram \(3\); expected 50 of each"),
    ],
)  # fmt: skip
def test_classes_that_cannot_be_learned_are_refused(
    base: dict[str, Any], new: tuple[str, ...], labelled: dict[str, int], message: str
) -> None:
    with pytest.raises(ParamsError, match=message):
        requests.for_classes(new, base, known=("car", "bus"), labelled=labelled, rules=RULES)


def test_a_target_that_is_added_takes_the_labels_that_are_there(base: dict[str, Any]) -> None:
    section = copy.deepcopy(base["targets"]["sensor"])
    known = (*base["targets"], "clock")
    meaning = requests.for_target(AddTarget(name="watch", params=section), base, known)
    made = meaning.params["watch"]
    assert {key: made[key] for key in made if key != "targets"} == {key: base[key] for key in base if key != "targets"}
    assert made["targets"] == {"watch": section}
    for name in ("sensor", "clock"):
        with pytest.raises(ParamsError, match=f"{name} is there already; choose another name, or ask to change_budget"):
            requests.for_target(AddTarget(name=name, params=section), base, known)
    del section["contract"]
    with pytest.raises(ParamsError, match=r"add_target cannot be used:\n  targets.watch.contract: missing"):
        requests.for_target(AddTarget(name="watch", params=section), base, known)


def latency(size: float) -> dict[str, Any]:
    """An int8 file of so many kB that ships, four times smaller than its fp32, which the cut halved."""
    figures = {"p95_ms": {"value": 0.1}, "peak_memory_mb": 1.0}
    sizes = {"student": 8 * size, "model.fp32": 4 * size, "model.int8": size}
    return {"variants": {name: {**figures, "bytes": 1000 * kilobytes} for name, kilobytes in sizes.items()}}


def budget(base: dict[str, Any], **clauses: Any) -> tuple[requests.Meaning, Any]:
    asked = ChangeBudget(target="sensor", clauses=clauses)
    meaning = requests.for_budget(asked, base, CHAMPION, variant="model.int8", latency=latency(16), rules=RULES)
    return meaning, checked(meaning.params["sensor"], "").targets["sensor"]


def test_a_tighter_budget_cuts_the_champion_further_by_the_square_root(base: dict[str, Any]) -> None:
    meaning, target = budget(base, max_size_kb=9)
    assert target.prune.ratio == pytest.approx(1 - (0.95 * 9 / 16) ** 0.5, abs=1e-3)
    assert target.student.warm.sha256 == CHAMPION.student.sha256
    assert target.student.warm.tune == "nothing"
    assert target.contract.max_size_kb == 9
    assert meaning.why == "max_size_kb 9.0: the champion's max_size_kb is 16; cut further by 0.269"


def test_of_blocks_a_tighter_budget_takes_as_large_a_share_as_has_to_go(base: dict[str, Any]) -> None:
    base["targets"]["sensor"]["prune"] |= {"use": "loss", "num_batches": 1, "scope": "block"}
    _, target = budget(base, max_size_kb=9)
    assert target.prune.ratio == pytest.approx(1 - 0.95 * 9 / 16, abs=1e-3)
    with pytest.raises(ParamsError, match=r"of the blocks, .* allows 90% of them"):
        budget(base, max_size_kb=0.06)


def test_a_wider_budget_takes_the_student_before_its_cut(base: dict[str, Any]) -> None:
    meaning, target = budget(base, max_size_kb=33)
    assert target.student.warm.sha256 == CHAMPION.unpruned.sha256
    assert isinstance(target.prune, Unused)
    assert "room for the student before its cut" in meaning.why


def test_another_quality_is_sought_by_quantizing_again(base: dict[str, Any]) -> None:
    meaning, target = budget(base, max_size_kb=20, max_drop=0.001)
    assert target.student.warm.sha256 == CHAMPION.student.sha256
    assert isinstance(target.prune, Unused)
    assert target.quantize.qat is not None
    assert "quantized again" in meaning.why


def test_a_budget_that_no_cut_keeps_is_refused(base: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=r"max_size_kb asks to cut 94% of the channels, .* allows 90% of a layer"):
        budget(base, max_size_kb=0.06)
    base["targets"]["sensor"]["prune"] = {"use": "none"}
    with pytest.raises(ParamsError, match=r"asks for a cut, and targets.sensor.prune is \{use: none\}"):
        budget(base, max_size_kb=9)
    with pytest.raises(ParamsError, match=r"change_budget: no target 'sensr'; did you mean 'sensor'\?"):
        requests.for_budget(
            ChangeBudget(target="sensr", clauses={"max_drop": 1}), base, CHAMPION, variant="model.int8",
            latency=latency(16), rules=RULES,
        )  # fmt: skip


def test_a_dropped_request_stands_until_it_is_put_away(tmp_path: Path) -> None:
    for name in ("b.request.yaml", "a.request.yaml", "c.request.yaml.partial", ".d.request.yaml", "noon.npz"):
        (tmp_path / name).write_text("new_classes: [truck]")
    names = [path.name for path in requests.dropped(tmp_path, time.time() + 1)]
    assert names == ["a.request.yaml", "b.request.yaml"]
    assert requests.dropped(tmp_path, time.time() - 60) == [], "it may not be whole yet"
    requests.take(tmp_path / "a.request.yaml")
    assert [path.name for path in requests.dropped(tmp_path, time.time() + 1)] == ["b.request.yaml"]
    assert requests.dropped(tmp_path / "absent", time.time()) == []


def test_a_standing_request_is_ready_for_the_classes_that_people_labelled_often_enough() -> None:
    labelled = {"truck": RULES.min_class_samples, "tram": RULES.min_class_samples - 1}
    found = requests.ready(("truck", "tram", "bike"), labelled, RULES)
    assert found is not None
    assert found.new_classes == ("truck",)
    assert requests.ready(("tram",), labelled, RULES) is None
