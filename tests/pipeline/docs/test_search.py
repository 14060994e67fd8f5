"""docs/search.md: its space is one, and its commands run."""

import inspect
import re
from pathlib import Path

import pytest
import yaml

from flows.searching import search
from flows.space import Space, with_values
from tests.conftest import TINY
from tests.pipeline.clones import Clone, copy_of
from tests.pipeline.docs.pages import blocks_of

BLOCKS = {block.kind: block.text for block in blocks_of("search") if not block.is_example}


def test_the_space_on_the_page_is_one_of_places_that_params_have() -> None:
    space = Space.model_validate(yaml.safe_load(BLOCKS["yaml"]))
    with_values(yaml.safe_load(TINY.read_text()), "sensor", dict.fromkeys(space.choose) | space.fix)


def test_the_parameters_of_the_deployment_on_the_page_are_the_flows() -> None:
    (shown,) = [block.text for block in blocks_of("search") if block.is_example]
    named = re.findall(r"--param (\w+)=", shown)
    assert named
    assert {*named, "knobs"} <= inspect.signature(search.fn).parameters.keys()


@pytest.mark.slow
def test_the_commands_of_the_page_run(prepared: Clone, tmp_path: Path) -> None:
    made = copy_of(prepared, tmp_path / "limbeck")
    said = made.run("bash", "-euxc", BLOCKS["sh"]).stdout
    assert "The front of 2 trials" in said
    assert (made / "work/search/tiny-sensor-tpe/front.png").stat().st_size > 1000
    assert (made / "work/search/tiny-sensor-tpe/001/export/sensor/model.int8.onnx").exists()
