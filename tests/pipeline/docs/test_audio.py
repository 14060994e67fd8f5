"""docs/audio.md: its sections are valid, its commands run, and its figures were measured."""

from pathlib import Path

import pytest
import yaml

from limbeck.params import Params
from stages.__main__ import check_components
from tests.conftest import TINY
from tests.pipeline.clones import Clone, clone, make_origin
from tests.pipeline.docs.pages import blocks_of, into

BLOCKS = blocks_of("audio")


def test_the_sections_of_the_page_are_valid_together() -> None:
    values = yaml.safe_load(TINY.read_text())
    for kind, _, text in BLOCKS:
        if kind == "yaml":
            values = into(values, yaml.safe_load(text))
    check_components(Params.model_validate(values), lambda _: None)


@pytest.fixture
def fresh(tmp_path: Path) -> Clone:
    return clone(make_origin(tmp_path / "origin"), tmp_path / "limbeck")


@pytest.mark.slow
def test_the_commands_of_the_page_end_in_an_answer(fresh: Clone) -> None:
    said = ""
    for kind, _, text in BLOCKS:
        if kind == "yaml":
            raw = into(yaml.safe_load((fresh / "params.yaml").read_text()), yaml.safe_load(text))
            (fresh / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
        elif kind == "python":
            said = fresh.run("python", "-c", text).stdout
        else:
            fresh.run("bash", "-euc", text)
    assert said.strip() in ("up", "down")
