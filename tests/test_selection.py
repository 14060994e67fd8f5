from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.errors import ContractBroken
from limbeck.params import ContractParams
from limbeck.selection import FLOORS, Decision, clauses_of, eligible, hold, judge

CONTRACT = ContractParams(
    max_drop=0.03,
    min_quality=None,
    max_size_kb=12,
    max_p95_ms=1.0,
    max_peak_memory_mb=32,
    max_slowdown=1.0,
    require="kept",
)
BOUNDS = ("max_drop", "min_quality", "max_size_kb", "max_p95_ms", "max_peak_memory_mb", "max_slowdown")


def estimate(value: float, spread: float = 0.0) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def figures(**changed: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Manifest, quality and latency of an int8 that keeps CONTRACT and a larger fp32 that does too."""
    values = {
        "fp32_bytes": 11_000,
        "int8_bytes": 6_000,
        "fp32_quality": 0.95,
        "int8_quality": 0.95,
        "fp32_drop": 0.0,
        "int8_drop": 0.01,
        "fp32_test_drop": 0.0,
        "int8_test_drop": 0.01,
        "p95_ms": 0.5,
        "memory_mb": 10.0,
        "slowdown": 0.8,
        "spread": 0.0,
        "has_int8": True,
    } | changed
    variants = ["model.fp32", "model.int8"] if values["has_int8"] else ["model.fp32"]
    key = {"model.fp32": "fp32", "model.int8": "int8"}
    spread = values["spread"]
    files = {f"{v}.onnx": {"bytes": values[f"{key[v]}_bytes"], "sha256": "0" * 64} for v in variants}
    quality = {
        v: {
            "validation": {
                **estimate(values[f"{key[v]}_quality"], spread),
                "drop": estimate(values[f"{key[v]}_drop"], spread),
            },
            "test": {
                **estimate(values.get(f"{key[v]}_test_quality", values[f"{key[v]}_quality"]), spread),
                "drop": estimate(values[f"{key[v]}_test_drop"], spread),
            },
        }
        for v in variants
    }
    latency = {
        v: {
            "bytes": values[f"{key[v]}_bytes"],
            "p95_ms": estimate(values["p95_ms"], spread),
            "peak_memory_mb": values["memory_mb"],
        }
        for v in variants
    }
    ratios = {"model.int8/model.fp32": estimate(values["slowdown"], spread)}
    manifest = {"name": "digits", "target": "sensor", "files": files}
    return manifest, {"metric": "accuracy", "variants": quality}, {"variants": latency, "ratios": ratios}


def decide(contract: ContractParams = CONTRACT, **changed: Any) -> Decision:
    return judge(*figures(**changed), contract, identity="abc")


def test_the_smallest_variant_that_keeps_every_clause_ships() -> None:
    decision = decide()
    assert (decision.variant, decision.name, decision.identity) == ("model.int8", "digits-sensor", "abc")
    assert decide(int8_bytes=11_500).variant == "model.fp32"


def test_an_int8_slower_than_its_fp32_version_loses_and_its_note_says_why() -> None:
    decision = decide(slowdown=1.2)
    assert decision.variant == "model.fp32"
    assert any("model.int8 does not ship: max_slowdown: allowed 1x, measured 1.2x" in note for note in decision.notes)
    lost = next(clause for clause in decision.clauses["model.int8"] if clause.clause == "max_slowdown")
    assert not lost.kept


def test_without_an_int8_file_fp32_is_judged_alone() -> None:
    decision = decide(has_int8=False)
    assert decision.variant == "model.fp32"
    assert list(decision.clauses) == ["model.fp32"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"int8_drop": 0.05, "fp32_drop": 0.04}, r"model.int8: max_drop on validation: allowed 0.03, measured 0.05; "),
        ({"int8_bytes": 13_000, "fp32_bytes": 40_000}, r"model.fp32: max_size_kb: allowed 12 kB, measured 40 kB; cut"),
        ({"p95_ms": 2.0}, r"max_p95_ms: allowed 1 ms, measured 2 ms; "),
        ({"memory_mb": 64.0}, r"max_peak_memory_mb: allowed 32 MB, measured 64 MB; "),
        ({"p95_ms": float("nan")}, r"max_p95_ms: allowed 1 ms, measured nan"),
    ],
)
def test_a_broken_contract_names_variant_clause_allowed_measured_and_a_way_out(
    changed: dict[str, float], message: str
) -> None:
    with pytest.raises(ContractBroken, match=message) as refused:
        decide(**changed)
    assert refused.value.exit_code == 3
    assert "nothing was registered" in str(refused.value)


def test_a_floor_asks_for_quality_itself_beside_a_drop_or_in_its_place() -> None:
    floor = CONTRACT.model_copy(update={"max_drop": None, "min_quality": 0.9})
    assert decide(floor, int8_drop=0.5, int8_test_drop=0.5).variant == "model.int8"
    assert decide(floor, int8_quality=0.85).variant == "model.fp32"
    with pytest.raises(ContractBroken, match=r"min_quality on test: asked for 0.9, measured 0.85"):
        decide(floor, int8_test_quality=0.85)
    both = CONTRACT.model_copy(update={"min_quality": 0.9})
    assert [c.clause for c in decide(both).clauses["model.int8"]][:2] == ["max_drop", "min_quality"]
    assert decide(both, int8_drop=0.5).variant == "model.fp32"


def test_test_samples_examine_the_choice_and_never_make_another() -> None:
    with pytest.raises(
        ContractBroken, match=r"model.int8 of digits-sensor was chosen on validation and fails the exam"
    ):
        decide(int8_test_drop=0.05)  # fp32 would pass; choosing it now would be choosing on test


def test_the_exam_stands_beside_the_clauses_that_chose() -> None:
    splits = [clause.split for clause in decide().clauses["model.int8"] if clause.clause == "max_drop"]
    assert splits == ["validation", "test"]


def test_require_proven_asks_the_bound_and_kept_the_estimate() -> None:
    assert decide(spread=0.1).verdict == "kept"
    assert decide().verdict == "proven"
    with pytest.raises(ContractBroken, match="require: proven"):
        decide(CONTRACT.model_copy(update={"require": "proven"}), spread=0.1)


def test_a_figure_exactly_at_the_limit_is_kept() -> None:
    assert hold("max_size_kb", 12.0, 12.0).kept
    assert hold("max_drop", 0.03, estimate(0.03)).proven


def test_the_choice_holds_no_measured_time_and_is_the_same_for_other_times() -> None:
    choice = decide().choice()
    assert choice == {
        "target": "sensor",
        "name": "digits-sensor",
        "variant": "model.int8",
        "identity": choice["identity"],
    }
    assert decide(p95_ms=0.6).choice() == choice


share = st.floats(0.001, 1.0)
made = st.fixed_dictionaries(
    {
        "fp32_bytes": st.integers(1_000, 30_000),
        "int8_bytes": st.integers(1_000, 30_000),
        "fp32_quality": share,
        "int8_quality": share,
        "fp32_drop": share,
        "int8_drop": share,
        "p95_ms": st.floats(0.01, 3.0),
        "memory_mb": st.floats(1.0, 60.0),
        "slowdown": st.floats(0.3, 3.0),
        "spread": st.floats(0.0, 0.2),
    }
)
contracts = st.builds(
    ContractParams,
    max_drop=share,
    min_quality=share,
    max_size_kb=st.floats(1.0, 30.0),
    max_p95_ms=st.floats(0.01, 3.0),
    max_peak_memory_mb=st.floats(1.0, 60.0),
    max_slowdown=st.floats(0.3, 3.0),
    require=st.sampled_from(["kept", "proven"]),
)


def loosened(contract: ContractParams, bound: str, factor: float) -> ContractParams:
    limit = getattr(contract, bound)
    return contract.model_copy(update={bound: limit / factor if bound in FLOORS else limit * factor})


def allowed(contract: ContractParams, made: dict[str, Any]) -> set[str]:
    _, quality, latency = figures(**made)
    held = {v: clauses_of(v, quality, latency, contract) for v in ("model.fp32", "model.int8")}
    return set(eligible(held, contract.require))


@given(made, contracts, st.sampled_from(BOUNDS), st.floats(1.0, 10.0))
def test_a_looser_contract_admits_every_variant_that_a_tighter_one_does(
    made: dict[str, Any], contract: ContractParams, bound: str, factor: float
) -> None:
    looser = loosened(contract, bound, factor)
    assert allowed(contract, made) <= allowed(looser, made)


@given(made, contracts, st.sampled_from(BOUNDS), st.floats(1.0, 10.0))
def test_a_looser_contract_never_refuses_what_a_tighter_one_ships_when_the_exam_repeats_validation(
    made: dict[str, Any], contract: ContractParams, bound: str, factor: float
) -> None:
    made |= {"fp32_test_drop": made["fp32_drop"], "int8_test_drop": made["int8_drop"]}
    looser = loosened(contract, bound, factor)
    manifest, quality, latency = figures(**made)
    try:
        tight = judge(manifest, quality, latency, contract, identity="")
    except ContractBroken:
        return
    loose = judge(manifest, quality, latency, looser, identity="")
    assert manifest["files"][f"{loose.variant}.onnx"]["bytes"] <= manifest["files"][f"{tight.variant}.onnx"]["bytes"]


@given(made, contracts)
def test_what_is_proven_is_kept(made: dict[str, Any], contract: ContractParams) -> None:
    proven = contract.model_copy(update={"require": "proven"})
    kept = contract.model_copy(update={"require": "kept"})
    assert allowed(proven, made) <= allowed(kept, made)


@given(share, share, share)
def test_a_clause_that_is_proven_is_kept(value: float, spread: float, limit: float) -> None:
    clause = hold("max_drop", limit, estimate(value, spread))
    assert clause.kept or not clause.proven
