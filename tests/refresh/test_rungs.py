"""The ladder: what each rung is as params, when one is passed over, what the feedback changes, what it costs."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from limbeck.checkpoint import SPEC, Quantization, Spec
from limbeck.components import Component, check
from limbeck.data.sources import SOURCES
from limbeck.data.splits import read_meta
from limbeck.errors import CheckpointError, ParamsError
from limbeck.params import ContractParams, Params, Unused, checked
from limbeck.refresh import rungs
from limbeck.refresh.rungs import (
    RUNGS,
    Champion,
    Feedback,
    LadderRules,
    Rates,
    Situation,
    Spent,
    Step,
    Work,
    is_enough,
    ladder,
)
from tests.refresh.conftest import CHAMPION, values_in

RATES = Rates.model_validate(values_in(Rates.__doc__, "rates"))


def made(rung: rungs.Rung, situation: Situation) -> Any:
    """The section of the one target, checked, and the whole."""
    params = checked(rungs.params_of(rung, situation), rung)
    (target,) = params.targets.values()
    return params, target


def altered(situation: Situation, **sections: Any) -> Situation:
    """The same with other sections in its target."""
    base = copy.deepcopy(dict(situation.base))
    base["targets"]["sensor"] |= sections
    return replace(situation, base=base)


def test_every_rung_reads_the_same_data_and_has_one_target(situation: Situation) -> None:
    steps = ladder(situation)
    assert [step.rung for step in steps] == list(RUNGS)
    source = {
        "use": "windows", "base": "/champion/data", "folders": ["/w/1", "/w/2"], "replay": 0.25, "classes": None,
        "seed": 0, "digest": "d" * 64,
    }  # fmt: skip
    check(Component.model_validate(source), SOURCES, "data source")
    for step in steps:
        assert step.params is not None
        assert step.params["data"]["source"] == source, "prepared once for all of them"
        assert list(step.params["targets"]) == ["sensor"]
        assert step.params["name"] == situation.base["name"]
        assert step.params["targets"]["sensor"]["contract"] == situation.section["contract"]
        assert json.dumps(step.params)


def test_the_base_is_left_as_it_was(situation: Situation) -> None:
    before = json.dumps(situation.base)
    ladder(replace(situation, feedback=Feedback(fell=0.01, teacher_lead=0.02, quality_room=0.5)))
    assert json.dumps(situation.base) == before


def test_recalibrating_trains_nothing_and_ends_with_calibration(situation: Situation) -> None:
    params, target = made("recalibrate", situation)
    assert target.student.warm.tune == "nothing"
    assert target.student.warm.sha256 == CHAMPION.student.sha256
    assert isinstance(target.distill, Unused)
    assert isinstance(target.prune, Unused)
    assert (target.quantize.max_float_layers, target.quantize.qat) == (0, None)
    assert params.label.num_views == 1
    assert Work.of(params, "sensor", 1000) == Work(label=1000, teacher=0, student=0)


def test_norms_are_tuned_for_a_few_epochs_of_the_champions_soft_labels(situation: Situation) -> None:
    params, target = made("norms", situation)
    assert target.student.warm.tune == "norms"
    assert (target.student.train.epochs, target.student.train.lr, target.student.train.warmup_epochs) == (2, 0.02, 0)
    assert params.teacher.folder == CHAMPION.teacher.folder
    assert isinstance(params.teacher.adapt, Unused)
    assert target.distill.use == "by_origin"
    assert [target.distill.keywords[each]["use"] for each in ("old", "new")] == ["kd", "corrected"]
    assert not target.distill.control, "a refresh is held against the champion, not a twin"
    assert target.quantize.qat is None


def test_a_short_distillation_starts_from_the_cut_champion_and_may_train_quantized(situation: Situation) -> None:
    params, target = made("distil", situation)
    assert (target.student.warm.tune, target.student.warm.sha256) == ("all", CHAMPION.student.sha256)
    assert isinstance(target.prune, Unused), "what is cut stays cut"
    assert target.quantize.qat is not None
    assert Work.of(params, "sensor", 1000) == Work(label=6000, teacher=0, student=6000 + 1000)


def test_the_teacher_goes_on_learning_and_then_the_whole_chain_follows(situation: Situation) -> None:
    params, target = made("teacher", situation)
    assert params.teacher.adapt.use == "all"
    assert params.teacher.adapt.train.epochs == 6
    assert params.teacher.adapt.train.optimizer == checked(dict(situation.base), "").teacher.train.optimizer  # type: ignore[union-attr]
    assert target.student.warm.sha256 == CHAMPION.unpruned.sha256
    assert target.prune.ratio == situation.section["prune"]["ratio"], "cut anew"
    assert Work.of(params, "sensor", 1000) == Work(label=6000, teacher=6000, student=12_000 + 1000 + 1000)


def test_a_teacher_from_elsewhere_goes_on_as_its_student_does_where_it_was_taken_as_it_is(situation: Situation) -> None:
    teacher = {
        "use": "registry",
        "model": "models:/t/1",
        "uri": "sqlite:///m.db",
        "trust": [],
        "adapt": {"use": "none"},
    }
    params, target = made("teacher", replace(situation, base={**situation.base, "teacher": teacher}))
    assert params.teacher.adapt.augment == params.label.augment
    assert params.teacher.adapt.train.batch_size == target.student.train.batch_size


def skipped(situation: Situation, **more: Any) -> dict[str, str]:
    return {step.rung: step.skipped for step in ladder(situation, **more) if step.params is None}


def test_a_student_that_ships_in_float_has_no_ranges_to_take_anew(situation: Situation) -> None:
    in_float = altered(situation, quantize={"use": "none"})
    assert skipped(in_float) == {"recalibrate": "the student ships in float: there are no ranges to take anew"}
    assert isinstance(made("norms", in_float)[1].quantize, Unused)


def test_in_a_world_that_became_harder_nothing_is_held_to_more_than_the_champion_keeps(situation: Situation) -> None:
    asked = {"min_quality": 0.85, "max_drop": 0.02}
    base = copy.deepcopy(dict(situation.base))
    base["targets"]["sensor"]["contract"] |= asked
    harder = Feedback(fell=0.3, stands=0.8216, behind=0.1001)
    for step in ladder(replace(situation, base=base, feedback=harder)):
        assert step.params is not None
        held = step.params["targets"]["sensor"]["contract"]
        assert (held["min_quality"], held["max_drop"]) == (0.821, 0.101)
        assert "held to min_quality 0.821, not 0.85: the champion does no better here" in step.changes
    for known in (Feedback(), Feedback(stands=0.9, behind=0.01)):
        for step in ladder(replace(situation, base=base, feedback=known)):
            assert step.params is not None
            assert step.params["targets"]["sensor"]["contract"].items() >= asked.items()
    assert base["targets"]["sensor"]["contract"].items() >= asked.items()


@pytest.mark.parametrize(("lead", "skipped"), [(None, ""), (0.02, ""), (0.004, "it is not its ranges that fail")])
def test_ranges_are_taken_anew_only_where_the_float_student_knows_better(
    situation: Situation, lead: float | None, skipped: str
) -> None:
    step = ladder(replace(situation, feedback=Feedback(fell=0.1, float_lead=lead)))[0]
    assert (step.rung, step.skipped.split(": ")[-1]) == ("recalibrate", skipped)


@pytest.mark.parametrize(
    ("known", "tried"),
    [
        (Feedback(fell=0.3, norms_lead=0.003), False), (Feedback(fell=0.3, norms_lead=0.1), True),
        (Feedback(fell=0.3, norms_lead=-0.2), False), (Feedback(fell=0.3), True), (Feedback(fell=-0.1, norms_lead=0.0), True),
    ],
)  # fmt: skip
def test_norms_are_trained_only_where_new_statistics_alone_bring_something_back(
    situation: Situation, known: Feedback, tried: bool
) -> None:
    step = next(step for step in ladder(replace(situation, feedback=known)) if step.rung == "norms")
    assert (step.skipped == "") == tried
    assert tried or step.skipped.endswith("of its fall: it is not its norms that fail")


def test_a_teacher_that_is_out_of_date_is_named_and_only_its_own_rung_goes_on_with_it(situation: Situation) -> None:
    stale = replace(situation, feedback=Feedback(stale="the teacher is out of date: 40 %"))
    assert skipped(stale) == dict.fromkeys(("norms", "distil"), "the teacher is out of date: 40 %")
    untaught = altered(stale, distill={"use": "none"})
    assert skipped(untaught) == {}, "where labels alone teach, nobody asks it"


def test_ranges_are_taken_by_the_champions_observer_where_weights_are_trained(situation: Situation) -> None:
    known = Component.model_validate({"use": "percentile", "share": 0.999})
    best = replace(situation, champion=replace(CHAMPION, observer=known))
    for rung in ("norms", "distil", "teacher"):
        assert made(rung, best)[1].quantize.observers == (known,)
    assert made("recalibrate", best)[1].quantize.observers != (known,), "all are tried"


def test_new_classes_begin_with_the_teacher_or_with_labels_alone(situation: Situation) -> None:
    new = replace(situation, new_classes=("truck",))
    assert set(skipped(new)) == {"recalibrate", "norms", "distil"}
    assert "would teach that it is never one" in skipped(new)["distil"]
    untaught = altered(new, distill={"use": "none"})
    assert set(skipped(untaught)) == {"recalibrate", "norms"}
    assert made("distil", untaught)[0].teacher.adapt.use == "head"


def test_an_ensemble_teaches_on_but_does_not_learn(situation: Situation) -> None:
    joined = replace(situation, champion=replace(CHAMPION, is_ensemble=True))
    assert "is an ensemble, which is taken as it is" in skipped(joined)["teacher"]


def test_a_request_says_where_the_ladder_begins(situation: Situation) -> None:
    told = skipped(situation, start="distil", why="asked for")
    assert told == {"recalibrate": "asked for", "norms": "asked for"}


def test_where_quality_fell_the_uncut_student_is_taken_if_the_contract_has_room_for_it(situation: Situation) -> None:
    fallen = replace(situation, feedback=Feedback(fell=0.2, unpruned_fits=True, quality_room=0.5))
    _, target = made("distil", fallen)
    assert target.student.warm.sha256 == CHAMPION.unpruned.sha256
    assert isinstance(target.prune, Unused)
    assert isinstance(made("teacher", fallen)[1].prune, Unused)
    assert any("not cut: quality fell by 0.200" in said for step in ladder(fallen) for said in step.changes)
    for fits in (False, None):
        narrow = replace(situation, feedback=Feedback(fell=0.2, unpruned_fits=fits))
        assert made("distil", narrow)[1].student.warm.sha256 == CHAMPION.student.sha256


def test_where_quality_is_to_spare_more_is_cut(situation: Situation) -> None:
    spare = replace(situation, feedback=Feedback(fell=0.03, quality_room=0.06))
    _, target = made("distil", spare)
    assert (target.student.warm.sha256, target.prune.ratio) == (CHAMPION.student.sha256, 0.15)
    spent = replace(situation, feedback=Feedback(fell=0.05, quality_room=0.06))
    assert isinstance(made("distil", spent)[1].prune, Unused), "the fall took it"
    never = altered(spare, prune={"use": "none"})
    assert isinstance(made("distil", never)[1].prune, Unused), "who does not prune is not cut"


@given(lead=st.floats(-1, 1), fell=st.floats(-1, 1))
def test_a_weak_teacher_weighs_less_and_a_small_fall_takes_small_steps(
    situation: Situation, lead: float, fell: float
) -> None:
    least, rules = situation.rules.feedback.least, situation.rules
    known = replace(situation, feedback=Feedback(teacher_lead=lead, fell=fell))
    _, target = made("distil", known)
    loss, old = target.distill.keywords["new"]["loss"], target.distill.keywords["old"]
    assert (old["alpha"], old["temperature"]) == (0.5, 2.0), "of the old world it knows as much as ever"
    weighs = loss["alpha"] / 0.5
    assert least - 1e-9 <= weighs <= 1
    assert (loss["temperature"] - 1) == pytest.approx(weighs)
    assert weighs == pytest.approx(min(1, max(least, lead / 0.1)))
    assert target.student.train.lr == pytest.approx(rules.distil.lr * min(1, max(least, fell / 0.1)))


def test_only_an_alpha_that_takes_from_the_labels_is_turned_down(situation: Situation) -> None:
    weak = replace(situation, feedback=Feedback(teacher_lead=0.0))
    schedule = {"schedule": "linear", "from": 0.0, "to": 0.5}
    parts = [
        {"use": "kd", "alpha": 0.5, "temperature": 3.0},
        {"use": "dkd", "alpha": 1.0, "beta": 2.0, "temperature": 2},
    ]
    for before, after in [
        ({"use": "dkd", "alpha": 1.0, "beta": 8.0, "temperature": 4.0}, None),
        ({"use": "kd", "alpha": schedule, "temperature": 1.0}, None),
        ({"use": "sum", "parts": parts}, {"use": "sum", "parts": [{"use": "kd", "alpha": 0.1, "temperature": 1.4}, parts[1]]}),
    ]:  # fmt: skip
        changed = altered(weak, distill={**before, "control": True})
        found = rungs.params_of("distil", changed)["targets"]["sensor"]["distill"]
        assert found["old"] == before
        assert found["new"] == {"use": "corrected", "loss": after or before}
        assert (found["use"], found["control"]) == ("by_origin", False)


@pytest.mark.parametrize(
    "distill",
    [
        {"use": "momentum", "of": "student", "decay": 0.9, "alpha": 0.5, "temperature": 2.0},
        {"use": "cross_entropy"},
        {
            "use": "sum",
            "parts": [{"use": "dkd", "alpha": 1.0, "beta": 8.0, "temperature": 4.0}, {"use": "hint", "gamma": 1.0}],
        },
    ],
)
def test_a_teacher_at_work_and_labels_alone_teach_old_and_new_alike(
    situation: Situation, distill: dict[str, Any]
) -> None:
    changed = altered(situation, distill={**distill, "control": True})
    for rung in ("norms", "distil"):
        assert rungs.params_of(rung, changed)["targets"]["sensor"]["distill"] == {**distill, "control": False}


@pytest.mark.parametrize(
    ("gain", "fell", "expected"),
    [(0.19, 0.2, True), (0.17, 0.2, False), (0.01, None, True), (0.01, 0.0, True), (0.01, -0.1, True)],
)
def test_nine_tenths_of_what_was_lost_are_enough_and_of_nothing_anything_is(
    ladder_rules: LadderRules, gain: float, fell: float | None, expected: bool
) -> None:
    assert is_enough(gain, fell, ladder_rules) is expected


def test_the_rules_say_what_is_wrong_with_them(ladder_rules: LadderRules) -> None:
    raw = ladder_rules.model_dump()
    with pytest.raises(ValidationError, match="expected each rung once, from the cheapest: recalibrate, norms"):
        LadderRules.model_validate({**raw, "order": ["distil", "norms"]})
    with pytest.raises(ValidationError, match="bring no test split of their own, give it a share"):
        LadderRules.model_validate({**raw, "split": {**raw["split"], "test": None}})


def test_a_rung_that_cannot_be_used_is_named(situation: Situation) -> None:
    with pytest.raises(ParamsError, match=r"no target 'watch'; there are phone, sensor"):
        ladder(replace(situation, target="watch"))
    broken = altered(situation, threads=0)
    with pytest.raises(
        ParamsError, match=r"rung recalibrate of sensor cannot be used:\n  targets.sensor.threads: Input"
    ):
        ladder(broken)


@pytest.mark.parametrize("rung", ["norms", "distil", "teacher"])
def test_where_rounding_costs_most_in_the_new_world_one_more_layer_may_stay_in_float(
    rung: rungs.Rung, situation: Situation
) -> None:
    def layers(lead: float) -> int:
        known = replace(situation, feedback=Feedback(float_lead=lead))
        return int(rungs.params_of(rung, known)["targets"]["sensor"]["quantize"]["max_float_layers"])

    ranges = situation.rules.feedback.ranges
    assert (layers(ranges) - layers(0.9 * ranges), layers(0.0)) == (1, layers(0.9 * ranges))
    (step,) = [each for each in ladder(replace(situation, feedback=Feedback(float_lead=ranges))) if each.rung == rung]
    assert "one more layer may stay in float: int8 loses 0.010 on the new samples" in step.changes


def test_after_a_refresh_the_first_data_are_replayed_and_classes_that_wait_are_left_out(situation: Situation) -> None:
    assert not {"root", "root_digest", "leave_out"} & rungs.params_of("distil", situation)["data"]["source"].keys()
    later = replace(
        situation, unready=("tram",),
        champion=replace(situation.champion, root=Path("/first/data"), root_digest="e" * 64),
    )  # fmt: skip
    source = rungs.params_of("distil", later)["data"]["source"]
    assert (source["base"], source["root"], source["root_digest"]) == ("/champion/data", "/first/data", "e" * 64)
    assert source["leave_out"] == ["tram"]


def test_a_champion_is_found_in_its_workspace(tmp_path: Path, data: Path) -> None:
    (tmp_path / "data").symlink_to(data)
    member = {"model": {"use": "timm.models:resnet"}, "mean": [0.0]}
    spec = Spec(
        model=Component.model_validate({"use": "ensemble", "members": [member], "weights": [1.0]}), shape=(2,),
        dtype="float32", classes=("a",), mean=(0.0,), std=(1.0,),
    )  # fmt: skip
    with pytest.raises(
        CheckpointError, match=r"models/teacher holds no model.json; expected a Limbeck checkpoint of the"
    ):
        Champion.of(tmp_path, "sensor")
    for place in ("teacher", "sensor/distill", "sensor/prune"):
        (tmp_path / "models" / place).mkdir(parents=True)
        (tmp_path / "models" / place / SPEC).write_text(spec.model_dump_json())
    source: dict[str, Any] = {"use": "digits"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"data": {"source": source}}))
    champion = Champion.of(tmp_path, "sensor")
    assert (champion.root, champion.root_digest) == (None, None)
    assert champion.trust == ("timm.models:resnet",)
    assert champion.is_ensemble
    assert champion.data_digest == read_meta(data).digest
    assert champion.student.folder == tmp_path / "models/sensor/prune"
    assert champion.observer is None

    digest = read_meta(data).digest
    for more in ({}, {"base": "/later/data", "digest": "2", "root": str(data), "root_digest": digest}):
        source = {"use": "windows", "base": str(data), "digest": digest, **more}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump({"data": {"source": source}}))
        again = Champion.of(tmp_path, "sensor")
        assert (again.root, again.root_digest, again.lost_root) == (data, digest, None), (
            "the replay is of what was first"
        )
    for gone in ({"base": "/nowhere"}, {"digest": "of other data"}):
        (tmp_path / "params.yaml").write_text(
            yaml.safe_dump({"data": {"source": {"use": "windows", "base": str(data), "digest": digest} | gone}})
        )
        again = Champion.of(tmp_path, "sensor")
        assert (again.root, again.lost_root) == (None, Path(gone.get("base", str(data)))), "it goes on without"

    how = Quantization(
        use="static", arithmetic="u8s7", observer=Component(use="mse"), float_layers=(), trained=False, versions={}
    )
    (tmp_path / "models/sensor/quantize").mkdir()
    quantized = spec.model_copy(update={"quantization": how})
    (tmp_path / "models/sensor/quantize" / SPEC).write_text(quantized.model_dump_json())
    assert Champion.of(tmp_path, "sensor").observer == Component(use="mse")


def test_room_is_what_the_contract_leaves(tiny: Params) -> None:
    contract = tiny.targets["sensor"].contract
    quality = {"variants": {"model.int8": {"validation": {"value": 0.9, "drop": {"value": 0.02}}}}}

    def room(**clauses: float | None) -> float:
        return rungs.room_of(quality, "model.int8", contract.model_copy(update=clauses))

    assert room(max_drop=0.03, min_quality=None) == pytest.approx(0.01)
    assert room(max_drop=0.03, min_quality=0.89) == pytest.approx(0.01)
    assert room(max_drop=None, min_quality=0.85) == pytest.approx(0.05)


@pytest.mark.parametrize(("size", "fits"), [(21, True), (19, False)])
def test_the_uncut_student_is_estimated_as_a_file_of_the_kind_that_ships(tiny: Params, size: float, fits: bool) -> None:
    def of(kilobytes: float) -> dict[str, Any]:
        return {"bytes": 1000 * kilobytes, "p95_ms": {"value": 0.1}, "peak_memory_mb": 0.0}

    latency = {"variants": {"student": of(80), "model.fp32": of(40), "model.int8": of(10)}}
    contract: ContractParams = tiny.targets["sensor"].contract.model_copy(update={"max_size_kb": size})
    assert rungs.unpruned_fits(latency, "model.int8", contract) == fits


def test_costs_are_work_at_the_machines_rates_until_the_rung_has_run(situation: Situation) -> None:
    step = next(step for step in ladder(situation) if step.rung == "distil")
    by_rates = rungs.cost(step, "sensor", 9000, RATES)
    assert by_rates.seconds == pytest.approx(25 + 9000 * 6 / 9000 + 9000 * 7 / 4000)
    assert by_rates.known_from == "9,000 samples at the rates of refresh.yaml"
    work = Work.of(checked(step.params or {}, ""), "sensor", 4500)
    past = [Spent("distil", work, 2 * work.seconds(RATES)), Spent("teacher", work, 1e6)]
    measured = rungs.cost(step, "sensor", 9000, RATES, past)
    assert measured.seconds == pytest.approx(2 * by_rates.seconds)
    assert measured.known_from == "1 run of this rung"


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_samples_cost_more_and_each_rung_more_than_the_one_before(
    situation: Situation, few: int, many: int
) -> None:
    steps: list[Step] = ladder(situation)
    few, many = sorted((few, many))
    seconds = [rungs.cost(step, "sensor", many, RATES).seconds for step in steps]
    assert seconds == sorted(seconds)
    assert rungs.cost(steps[-1], "sensor", few, RATES).seconds <= seconds[-1]
