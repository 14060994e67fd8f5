"""docs/search.md: its space is one, and its commands run."""

import inspect
import json
import re
from pathlib import Path

import pytest
import yaml

from benchmarks import search as search_benchmark
from flows.searching import search
from flows.space import Space, with_values
from tests.conftest import ROOT, TINY
from tests.pipeline.clones import Clone, copy_of
from tests.pipeline.docs.pages import blocks_of, text_of

BLOCKS = {block.kind: block.text for block in blocks_of("search") if not block.is_example}


def test_the_space_on_the_page_is_one_of_places_that_params_have() -> None:
    space = Space.model_validate(yaml.safe_load(BLOCKS["yaml"]))
    with_values(yaml.safe_load(TINY.read_text()), "sensor", dict.fromkeys(space.choose) | space.fix)


def test_the_parameters_of_the_deployment_on_the_page_are_the_flows() -> None:
    (shown,) = [block.text for block in blocks_of("search") if block.is_example]
    named = re.findall(r"--param (\w+)=", shown)
    assert named
    assert {*named, "knobs"} <= inspect.signature(search.fn).parameters.keys()


def test_what_the_page_says_of_both_samplers_was_measured() -> None:
    measured = json.loads((ROOT / "benchmarks/results/search.json").read_text())
    assert all(part in text_of("search") for part in search_benchmark.table(measured).split("\n\n"))
    minutes = " minutes and ".join(f"{seconds / 60:.0f}" for seconds in measured["seconds"].values())
    assert f"{measured['trials']} trials each: {minutes}" in text_of("search")


@pytest.mark.slow
def test_the_commands_of_the_page_run(prepared: Clone, tmp_path: Path) -> None:
    made = copy_of(prepared, tmp_path / "limbeck")
    said = made.run("bash", "-euxc", BLOCKS["sh"]).stdout
    assert "The front of 2 trials" in said
    assert (made / "work/search/tiny-sensor-tpe/front.png").stat().st_size > 1000
    assert (made / "work/search/tiny-sensor-tpe/001/export/sensor/model.int8.onnx").exists()
