"""Every technique can be chosen away: all eight combinations, from prepare to a registered version."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.edge import manifest
from tests.pipeline.clones import Clone, clone

TECHNIQUES = ("distill", "prune", "quantize")
CHAIN = (*TECHNIQUES, "export", "benchmark", "register")
COMBINATIONS = list(itertools.product((True, False), repeat=3))


def name_of(used: tuple[bool, ...]) -> str:
    return "-".join(name for name, on in zip(TECHNIQUES, used, strict=True) if on) or "nothing"


@pytest.fixture(scope="session")
def combined(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone with a target for each combination, every stage run once (in one process: imports cost more than work)."""
    made = clone(origin, tmp_path_factory.mktemp("combined") / "limbeck")
    params = yaml.safe_load((made / "params.yaml").read_text())
    sensor = params["targets"]["sensor"]
    sensor["student"]["train"]["epochs"] = 2
    params["teacher"]["model"] = {"use": "convnet", "width": 8, "depth": 2}
    params["targets"] = {
        name_of(used): {
            **sensor,
            **{name: {"use": "none"} for name, on in zip(TECHNIQUES, used, strict=True) if not on},
        }
        for used in COMBINATIONS
    }
    (made / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    targets = [name_of(used) for used in COMBINATIONS]
    made.stages("prepare", "teacher", "label", *(f"{stage}@{target}" for target in targets for stage in CHAIN))
    return made


def figures(made: Clone, target: str, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made / f"metrics/{target}/{stage}.json").read_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("used", COMBINATIONS, ids=name_of)
def test_every_combination_of_techniques_ends_in_a_registered_version(combined: Clone, used: tuple[bool, ...]) -> None:
    target = name_of(used)
    distilled, pruned, quantized = used
    described = manifest.read(combined / f"export/{target}")
    assert ("model.int8.onnx" in described["files"]) == quantized
    assert set(figures(combined, target, "quality")["variants"]) == {"teacher", "student", "model.fp32"} | (
        {"model.int8"} if quantized else set()
    )
    assert figures(combined, target, "distill")["objective"] == ("kd" if distilled else "none")
    assert ("gain" in figures(combined, target, "distill")) == distilled
    assert (described["macs"]["model.fp32"] < described["macs"]["student"]) == pruned
    choice = json.loads((combined / f"registry/{target}.json").read_text())
    assert choice["name"] == f"tiny-{target}"
    assert choice["variant"] in ({"model.fp32", "model.int8"} if quantized else {"model.fp32"})
    assert combined.versions()[choice["name"]] == ["1"]


@pytest.mark.slow
def test_a_malformed_tracking_uri_is_refused_and_registers_nothing(combined: Clone) -> None:
    decision = combined / "registry/nothing.json"
    before = decision.read_bytes()
    done = combined.stage("register@nothing", expect=2, MLFLOW_TRACKING_URI="htp:/nowhere")
    assert "register@nothing: 'htp:/nowhere' is no tracking URI" in done.stderr
    assert "Traceback" not in done.stderr
    assert decision.read_bytes() == before
