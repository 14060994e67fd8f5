from pathlib import Path

import pytest
import yaml

from flows import graph
from flows.graph import Stage
from limbeck.errors import LimbeckError, ParamsError
from tests.flows.conftest import ROOT, Project

CHAIN = {
    "a": {"retries": 2, "timeout_s": 60},
    "b@phone": {"after": ["a"]},
    "b@sensor": {"after": ["a"]},
    "c@phone": {"after": ["b@"], "exclusive": True},
    "c@sensor": {"after": ["b@"], "exclusive": True},
}


def stages(*edges: tuple[str, tuple[str, ...]]) -> tuple[Stage, ...]:
    return tuple(Stage(name, upstream=upstream) for name, upstream in edges)


def test_names_edges_and_meta_come_from_dvc_yaml(project: Project) -> None:
    a, b_phone, b_sensor, c_phone, c_sensor = graph.load(project(CHAIN))
    assert (a.name, a.upstream, a.retries, a.timeout_s, a.exclusive) == ("a", (), 2, 60, False)
    assert (b_phone.name, b_phone.target, b_phone.upstream) == ("b@phone", "phone", ("a",))
    assert c_sensor.upstream == ("b@sensor",)
    assert (c_sensor.exclusive, c_phone.exclusive, b_sensor.exclusive) == (True, True, False)


def test_a_target_brings_what_it_needs_and_nothing_else(project: Project) -> None:
    assert [stage.name for stage in graph.load(project(CHAIN), ["sensor"])] == ["a", "b@sensor", "c@sensor"]


def test_a_run_up_to_a_stage_leaves_out_what_stands_behind_it(project: Project) -> None:
    folder = project(CHAIN)
    assert [stage.name for stage in graph.load(folder, until="b")] == ["a", "b@phone", "b@sensor"]
    assert [stage.name for stage in graph.load(folder, ["phone"], until="b")] == ["a", "b@phone"]
    with pytest.raises(ParamsError, match="no stage 'd'"):
        graph.load(folder, until="d")


def test_an_unknown_target_names_the_nearest(project: Project) -> None:
    with pytest.raises(ParamsError, match="no target 'senzor'; did you mean 'sensor'"):
        graph.load(project(CHAIN), ["senzor"])


def test_a_folder_without_dvc_says_so(tmp_path: Path) -> None:
    with pytest.raises(LimbeckError, match="no DVC project"):
        graph.load(tmp_path)


def test_a_broken_dvc_yaml_is_told_in_dvcs_words(project: Project) -> None:
    folder = project(CHAIN)
    (folder / "dvc.yaml").write_text("stages: {a: {comand: x}}\n")
    with pytest.raises(LimbeckError, match="DVC cannot read .*dvc.yaml"):
        graph.load(folder)


def test_the_real_pipeline_is_a_chain_for_each_target() -> None:
    loaded = {stage.name: stage for stage in graph.load(ROOT)}
    assert [stage.name for stage in graph.load(ROOT, ["phone"])] == [
        "prepare",
        "teacher",
        "label",
        *(f"{stage}@phone" for stage in ("distill", "prune", "quantize", "export", "benchmark", "register")),
    ]
    assert loaded["label"].upstream == ("prepare", "teacher")
    assert "benchmark@sensor" in loaded["register@sensor"].upstream
    assert [name for name, stage in loaded.items() if stage.exclusive] == ["benchmark@phone", "benchmark@sensor"]


def test_a_stage_is_alone_where_its_target_has_the_value_that_asks_for_it(project: Project) -> None:
    folder = project({"c@phone": {"exclusive_when": "prune.latency"}, "c@sensor": {}, "c@other": {}, "c@none": {}})
    sections = {
        "phone": {"prune": {"use": "magnitude", "latency": {"max_p95_ms": 1}}},
        "sensor": {"prune": {"use": "magnitude", "latency": None}},
        "other": {"prune": {"use": "none", "latency": {"max_p95_ms": 1}}},
        "none": {},
    }
    (folder / "params.yaml").write_text(yaml.safe_dump({"targets": sections}))
    assert [stage.name for stage in graph.load(folder) if stage.exclusive] == ["c@phone"]


def test_a_stage_that_never_ran_is_stale_and_says_so(project: Project) -> None:
    assert graph.changed(project(CHAIN))["c@sensor"] == ("never run",)


def test_upstream_comes_first_whatever_the_file_says() -> None:
    ordered = graph.order(stages(("c", ("b",)), ("b", ("a",)), ("a", ())))
    assert [stage.name for stage in ordered] == ["a", "b", "c"]


def test_a_change_runs_its_stage_and_perhaps_what_follows() -> None:
    chain = stages(("a", ()), ("b", ("a",)), ("c", ("b",)), ("d", ("a",)))
    steps = graph.plan(chain, {"b": ("code modified",)})
    assert [(step.stage.name, step.verdict, step.why) for step in steps] == [
        ("a", "fresh", ()),
        ("b", "run", ("code modified",)),
        ("c", "may run", ("after b",)),
        ("d", "fresh", ()),
    ]
