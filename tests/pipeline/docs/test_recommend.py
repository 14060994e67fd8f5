"""docs/recommend.md: its table is that of the result, its sections are valid, its commands run."""

import json
from typing import Any

import pytest
import yaml

from benchmarks.recommend import table
from limbeck.params import Params
from stages.__main__ import check_components
from tests.conftest import ROOT, TINY
from tests.pipeline.clones import Clone
from tests.pipeline.docs.pages import blocks_of, into, text_of

BLOCKS = [yaml.safe_load(text) for kind, _, text in blocks_of("recommend") if kind == "yaml"]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_section_on_the_page_is_one_that_the_pipeline_takes(block: dict[str, Any]) -> None:
    warnings: list[str] = []
    check_components(Params.model_validate(into(yaml.safe_load(TINY.read_text()), block)), warnings.append)
    assert not warnings


def test_the_table_of_rivals_was_measured() -> None:
    result = json.loads((ROOT / "benchmarks/results/recommend.json").read_text())
    assert table(result) in text_of("recommend")
    assert "made" in result["data"]


@pytest.mark.slow
def test_the_commands_of_the_page_run(workspace: Clone) -> None:
    for kind, _, text in blocks_of("recommend"):
        if kind == "sh":
            workspace.run("bash", "-euxc", text)
        elif kind == "yaml" and "data" in (block := yaml.safe_load(text)):
            values = into(yaml.safe_load((workspace / "params.yaml").read_text()), block)
            (workspace / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert json.loads((workspace / "metrics/prepare.json").read_text())["classes"] == 8
