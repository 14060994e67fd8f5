"""docs/decisions.md: its sections are valid, its table is what was measured, its example trains a policy in a clone."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import policy
from limbeck.params import Params
from stages.__main__ import check_components
from tests.conftest import ROOT, TINY
from tests.pipeline.clones import clone, make_origin
from tests.pipeline.docs.pages import blocks_of, into, text_of

BLOCKS = blocks_of("decisions")
(CODE,) = [text for kind, _, text in BLOCKS if kind == "python"]
(VALUES,) = [yaml.safe_load(text) for kind, is_example, text in BLOCKS if kind == "yaml" and not is_example]
(COMMANDS,) = [text for kind, _, text in BLOCKS if kind == "sh"]


def values() -> dict[str, Any]:
    """tests/tiny.yaml with the page's sections; a teacher that is trained keeps tiny's training."""
    tiny = yaml.safe_load(TINY.read_text())
    training = tiny["teacher"]["train"]
    made = into(tiny, VALUES)
    for student in (made["targets"][name]["student"] for name in made["targets"]):
        student["train"] |= {"lr": 0.05}
    return made | {"teacher": {**made["teacher"], "train": {**training, "lr": 0.05}}}


def test_what_the_page_says_was_measured() -> None:
    result = json.loads((ROOT / "benchmarks/results/policy.json").read_text())
    assert policy.table(result) in text_of("decisions")
    assert all(result["ratios"][name] <= limit for name, limit in result["limits"].items())


def test_the_recipe_and_the_page_use_the_same_metric() -> None:
    recipe = yaml.safe_load((ROOT / "recipes/policy.yaml").read_text())
    assert recipe["metric"] == VALUES["metric"] == "episode_return"
    (shown,) = [yaml.safe_load(text) for kind, is_example, text in BLOCKS if kind == "yaml" and is_example]
    assert shown["teacher"] == recipe["teacher"]


@pytest.mark.slow
def test_the_example_of_the_page_trains_a_policy(tmp_path: Path) -> None:
    made = clone(make_origin(tmp_path / "origin"), tmp_path / "limbeck")
    (made / re.match(r"# (\S+)", CODE)[1]).write_text(CODE)  # type: ignore[index]
    (made / "params.yaml").write_text(yaml.safe_dump(values(), sort_keys=False))
    made.run("bash", "-euxc", COMMANDS)
    assert json.loads((made / "data/meta.json").read_text())["world"]["environment"] == "CartPole-v1"
    figures = json.loads((made / "metrics/sensor/distill.json").read_text())
    assert 0.5 < figures["validation"] < 1.1


def test_the_values_of_the_page_are_ones_that_the_pipeline_takes() -> None:
    warnings: list[str] = []
    check_components(Params.model_validate(values()), warnings.append)
    assert not warnings
