"""docs/teachers.md: its sections are valid, and its commands run in the order in which they stand there."""

from pathlib import Path

import pytest
import yaml

from limbeck import params
from limbeck.params import Params
from stages.__main__ import check_components
from tests.conftest import TINY
from tests.pipeline.clones import Clone, clone, make_origin
from tests.pipeline.docs.pages import blocks_of, into

BLOCKS = blocks_of("teachers")


@pytest.mark.parametrize("text", [text for kind, _, text in BLOCKS if kind == "yaml"])
def test_every_section_on_the_page_is_one_that_params_take(text: str) -> None:
    found = Params.model_validate(into(yaml.safe_load(TINY.read_text()), yaml.safe_load(text)))
    if "timm" not in text:
        check_components(found, lambda _: None)


def test_the_page_shows_every_kind_of_teacher() -> None:
    shown = {yaml.safe_load(text)["teacher"]["use"] for kind, _, text in BLOCKS if kind == "yaml"}
    assert shown | {"train", "checkpoint", "encoder"} == {tag.removeprefix("use=") for tag in params.TEACHERS}


@pytest.fixture
def fresh(tmp_path: Path) -> Clone:
    return clone(make_origin(tmp_path / "origin"), tmp_path / "limbeck")


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_a_fresh_workspace(fresh: Clone) -> None:
    for kind, is_example, text in BLOCKS:
        if is_example:
            continue
        if kind == "yaml":
            raw = into(yaml.safe_load((fresh / "params.yaml").read_text()), yaml.safe_load(text))
            (fresh / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
        elif kind == "python":
            fresh.run("python", "-c", text)
        else:
            fresh.run("bash", "-euc", text, PYTHONPATH=str(fresh.folder))  # `limbeck` is of this clone
    assert fresh.status("distill@sensor")["outcome"] == "done"
