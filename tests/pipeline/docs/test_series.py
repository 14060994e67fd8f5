"""docs/series.md: its section is valid, its tables those of the code and of the results, its commands run."""

import json
import re
from pathlib import Path

import pytest
import yaml

from benchmarks import series
from limbeck.data.augment.series import jitter, scaling, tempo
from limbeck.params import Params
from stages.__main__ import check_components
from tests.conftest import ROOT, TINY
from tests.pipeline.clones import Clone
from tests.pipeline.docs.pages import blocks_of, into, text_of


def test_the_section_of_the_page_and_the_recipe_are_ones_that_the_pipeline_takes() -> None:
    (text,) = [text for kind, _, text in blocks_of("series") if kind == "yaml"]
    recipe = yaml.safe_load((ROOT / "recipes/gestures.yaml").read_text())
    for values in (into(yaml.safe_load(TINY.read_text()), yaml.safe_load(text)), recipe):
        warnings: list[str] = []
        check_components(Params.model_validate(values), warnings.append)
        assert not warnings
    assert recipe["targets"]["watch"]["contract"]["max_size_kb"] == 32
    assert recipe["targets"]["watch"]["contract"]["max_drop"] == 0.01


def test_the_table_names_every_augmentation_of_series() -> None:
    named = re.findall(r"^\| `(\w+)` \| [^|]+ \|$", text_of("series"), re.MULTILINE)
    assert named == [each.__name__ for each in (tempo, scaling, jitter)]


def test_what_the_page_says_of_the_exercises_was_measured() -> None:
    assert series.table(json.loads((ROOT / "benchmarks/results/series.json").read_text())) in text_of("series")


def points(of: dict[str, float]) -> str:
    return f"{100 * of['value']:.1f} [{100 * of['low']:.1f}, {100 * of['high']:.1f}]"


@pytest.mark.parametrize("seed", [1, 2])
def test_what_the_page_says_of_other_people_was_measured(seed: int) -> None:
    found = json.loads((ROOT / f"benchmarks/results/figures/gestures-watch-{seed}.json").read_text())
    teacher, ships = (found["quality"][name]["test"] for name in ("teacher", "model.int8"))
    told = [f"{100 * teacher['value']:.1f}", f"{100 * ships['value']:.1f}", points(ships["drop"])]
    cells = [str(seed), *told, points(found["gain_of_distillation"]), f"{found['bytes']['model.int8']:,}"]
    assert f"| {' | '.join(cells)} |" in text_of("series")


@pytest.mark.slow
def test_the_example_of_the_page_runs(workspace: Clone) -> None:
    path = Path(workspace / "params.yaml")
    for kind, _, text in blocks_of("series"):
        if kind == "sh":
            said = workspace.run("bash", "-euxc", text).stdout
        else:
            path.write_text(
                yaml.safe_dump(into(yaml.safe_load(path.read_text()), yaml.safe_load(text)), sort_keys=False)
            )
    assert "model.int8" in said
    assert json.loads((workspace / "metrics/prepare.json").read_text())["samples"]["test"] > 0
