"""docs/distillation.md: its sections are valid, and its table is the table of losses."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.objectives import LOSSES, ON_FEATURES
from limbeck.params import Params
from stages.__main__ import check_components
from tests.conftest import TINY
from tests.pipeline.clones import Clone, copy_of
from tests.pipeline.docs.pages import blocks_of, into, text_of

BLOCKS = [yaml.safe_load(text) for kind, _, text in blocks_of("distillation") if kind == "yaml"]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: next(iter(block["targets"].values()))["distill"]["use"])
def test_every_section_on_the_page_is_one_that_the_pipeline_takes(block: dict[str, Any]) -> None:
    warnings: list[str] = []
    check_components(Params.model_validate(into(yaml.safe_load(TINY.read_text()), block)), warnings.append)
    assert not warnings


@pytest.mark.slow
def test_the_commands_of_the_page_run(prepared: Clone, tmp_path: Path) -> None:
    made = copy_of(prepared, tmp_path / "limbeck")
    commands = "".join(block.text for block in blocks_of("distillation") if block.kind == "sh")
    said = made.run("bash", "-euxc", commands.replace("--seeds 3", "--seeds 2")).stdout
    assert "Best on validation: " in said
    assert re.search(r"^kd +\d+\.\d+ +\d+\.\d+ +[+-]\d", said, re.MULTILINE)
    again = made.run("limbeck", "compare", "sensor", "--methods", "searches/losses.yaml", "--seeds", "2")
    assert again.stdout == said[said.index("control, seed 0") :], "what is done is kept"


def test_the_table_names_every_loss_and_which_need_features() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", text_of("distillation"), re.MULTILINE))
    first = {name: needs for name, needs in rows.items() if name in LOSSES}
    assert set(first) == set(LOSSES)
    assert {name for name, needs in first.items() if needs == "features"} == set(ON_FEATURES)


def test_the_page_shows_every_loss_that_is_more_than_a_function() -> None:
    shown = text_of("distillation")
    for name, loss in LOSSES.items():
        assert not isinstance(loss, type) or f"use: {name}" in shown, name
