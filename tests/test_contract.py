"""dvc.yaml, the stages' signatures, params.yaml and the files on disk say the same thing."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.components import OWN
from limbeck.params import dotted, load
from stages.__main__ import STAGES, Signature
from tests.conftest import ROOT

PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

NOT_WATCHED = {
    "atomic": "how a file gets to its place does not change what is in it",
    "components": "looks names up; what is found is watched",
    "errors": "messages",
    "pictures": "draws, decides nothing",
    "params": "types and ranges; the values are DVC params",
    "quiet": "what is printed",
    "recording": "tells, decides nothing",
    "tracking": "tells, decides nothing",
    "watch": "ends processes",
}
"""Modules of limbeck that no stage lists, with the reason."""


TAKES: dict[str, set[str]] = {
    "prepare": {"sources"},
    "teacher": {"augmentations", "metrics", "models", "optimizers", "teachers"},
    "label": {"augmentations", "metrics", "models"},
    "distill": {"augmentations", "losses", "metrics", "models", "optimizers"},
    "prune": {"augmentations", "devices", "importances", "losses", "metrics", "models", "optimizers"},
    "quantize": {"augmentations", "losses", "metrics", "models", "optimizers", "quantizations"},
    "export": {"models", "quantizations"},
    "benchmark": {"devices", "metrics"},
    "register": {"metrics"},
}
"""The kinds of components that a stage takes: folders of custom/."""


def body(stage: str) -> dict[str, Any]:
    """A stage's declaration with `${key}` left standing where it is a foreach."""
    declared: dict[str, Any] = PIPELINE[stage]
    return declared.get("do", declared)  # type: ignore[no-any-return]


def modules_of(path: Path) -> set[str]:
    """The modules of limbeck that a file imports, at the top or inside a function, as `limbeck/...` paths."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    places = set()
    for name in found:
        if name.split(".")[0] != "limbeck":
            continue
        place = name.replace(".", "/")
        if (ROOT / f"{place}.py").exists():
            places.add(f"{place}.py")
        elif (ROOT / place / "__init__.py").exists() and place != "limbeck":
            places.add(f"{place}/__init__.py")
    return places


def closure(path: str) -> set[str]:
    """All files of limbeck that a file reaches by imports, less the ones that are not watched."""
    seen: set[str] = set()
    waiting = [path]
    while waiting:
        for place in modules_of(ROOT / waiting.pop()):
            if place not in seen and Path(place).parts[1].removesuffix(".py") not in NOT_WATCHED:
                seen.add(place)
                waiting.append(place)
    return seen


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_command_has_exactly_the_flags_its_signature_asks_for(stage: str) -> None:
    signature = Signature.of(importlib.import_module(f"stages.{stage}").run)
    declared = body(stage)
    flags = set(re.findall(r"--(\w+)", declared["cmd"]))
    expected = {*signature.inputs, *signature.outputs, "metrics"} - ({"metrics"} if stage == "register" else set())
    expected |= {"target"} if "foreach" in PIPELINE[stage] else set()
    assert flags - {"curves"} == expected
    assert declared["cmd"].split()[:4] == ["python", "-m", "stages", stage]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_params_are_exactly_the_sections_its_signature_asks_for(stage: str) -> None:
    signature = Signature.of(importlib.import_module(f"stages.{stage}").run)
    target = "${key}" if "foreach" in PIPELINE[stage] else None
    assert body(stage)["params"] == sorted(dotted(path, target) for path in signature.sections.values())


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_deps_are_its_inputs_and_all_the_code_that_can_change_its_result(stage: str) -> None:
    signature = Signature.of(importlib.import_module(f"stages.{stage}").run)
    declared = body(stage)
    flags = dict(re.findall(r"--(\w+) (\S+)", declared["cmd"]))
    deps = set(declared["deps"])
    assert {flags[name] for name in signature.inputs} <= deps
    assert f"stages/{stage}.py" in deps
    assert {dep.removeprefix("custom/") for dep in deps if dep.startswith("custom")} == TAKES[stage]
    code = {dep for dep in deps if dep.startswith("limbeck/")}

    def listed(place: str) -> bool:
        return place in code or any(place.startswith(f"{folder}/") for folder in code)

    reached = closure(f"stages/{stage}.py")
    assert not {place for place in reached if not listed(place)}, "imported, but an edit would not re-run the stage"
    unused = {dep for dep in code if not any(p == dep or p.startswith(f"{dep}/") for p in reached)}
    assert not unused, "an edit would re-run the stage for nothing"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stages_outs_are_the_paths_it_writes(stage: str) -> None:
    signature = Signature.of(importlib.import_module(f"stages.{stage}").run)
    declared = body(stage)
    flags = dict(re.findall(r"--(\w+) (\S+)", declared["cmd"]))
    written = {flags[name] for name in [*signature.outputs, "metrics", "curves"] if name in flags}
    names = [*declared.get("outs", []), *declared.get("metrics", []), *declared.get("plots", [])]
    assert written == {next(iter(name)) if isinstance(name, dict) else name for name in names}


def test_every_stage_of_dvc_yaml_has_its_file_and_the_other_way_round() -> None:
    files = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__", "__main__"}
    assert set(PIPELINE) == set(STAGES) == files


def test_nothing_is_unwatched_without_a_module_behind_it() -> None:
    assert {path.stem for path in (ROOT / "limbeck").iterdir()} >= set(NOT_WATCHED)


def test_there_is_no_room_without_a_subject() -> None:
    names = {"utils", "common", "helpers", "base", "manager", "misc"}
    tree = [path for room in ("limbeck", "stages", "flows", "benchmarks") for path in (ROOT / room).rglob("*.py")]
    assert not {path.name for path in tree if path.stem in names}


def test_every_kind_of_component_has_a_folder_for_the_users_own() -> None:
    folders = {path.name for path in (ROOT / "custom").iterdir() if (path / "__init__.py").exists()}
    kinds = {module.removeprefix("custom.") for module in OWN.values()} | {"teachers"}  # files, no components
    assert folders == kinds == set().union(*TAKES.values())


def test_what_measures_owns_the_machine() -> None:
    assert [stage for stage in STAGES if body(stage).get("meta", {}).get("exclusive")] == ["benchmark"]
    conditions = {stage: body(stage).get("meta", {}).get("exclusive_when") for stage in STAGES}
    assert {stage: keys for stage, keys in conditions.items() if keys} == {"prune": "prune.latency"}


def test_the_default_targets_are_phone_and_sensor() -> None:
    assert list(load(ROOT / "params.yaml").targets) == ["phone", "sensor"]


@pytest.mark.parametrize("stage", STAGES)
def test_work_that_was_done_once_is_taken_from_the_run_cache_but_what_looks_outside_looks_again(stage: str) -> None:
    """DVC keeps no run of a stage of which anything persists (dvc.stage.cache)."""
    kept = [out for kind in ("outs", "metrics", "plots") for out in body(stage).get(kind, [])]
    persists = any(isinstance(out, dict) and any(flags.get("persist") for flags in out.values()) for out in kept)
    assert persists == (stage in ("prepare", "benchmark"))
