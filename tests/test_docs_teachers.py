"""docs/teachers.md: its sections are valid, and its commands run in the order in which they stand there."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck import params
from limbeck.params import Params
from stages.__main__ import check_components
from tests.conftest import ROOT, TINY
from tests.pipeline.clones import Clone, clone, make_origin

PAGE = ROOT / "docs" / "teachers.md"
BLOCK = re.compile(r"^```(\w+)( example)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(kind, bool(example), text) for kind, example, text in BLOCK.findall(PAGE.read_text())]


def merged(raw: dict[str, Any], text: str) -> dict[str, Any]:
    """Values with a page's section in its place: `teacher` is replaced, others are changed where the page says."""

    def into(place: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
        both = {
            key: into(place[key], value)
            for key, value in changes.items()
            if key in place and key in ("targets", "sensor", "label")
        }
        return {**place, **changes, **both}  # fmt: skip

    return into(raw, yaml.safe_load(text))


@pytest.mark.parametrize("text", [text for kind, _, text in BLOCKS if kind == "yaml"])
def test_every_section_on_the_page_is_one_that_params_take(text: str) -> None:
    found = Params.model_validate(merged(yaml.safe_load(TINY.read_text()), text))
    if "timm" not in text:
        check_components(found, lambda _: None)


def test_the_page_shows_every_kind_of_teacher() -> None:
    shown = {yaml.safe_load(text)["teacher"]["use"] for kind, _, text in BLOCKS if kind == "yaml"}
    assert shown | {"train", "checkpoint"} == {tag.removeprefix("use=") for tag in params.TEACHERS}


@pytest.fixture
def fresh(tmp_path: Path) -> Clone:
    return clone(make_origin(tmp_path / "origin"), tmp_path / "limbeck")


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_a_fresh_workspace(fresh: Clone) -> None:
    for kind, is_example, text in BLOCKS:
        if is_example:
            continue
        if kind == "yaml":
            raw = merged(yaml.safe_load((fresh / "params.yaml").read_text()), text)
            (fresh / "params.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
        elif kind == "python":
            fresh.run("python", "-c", text)
        else:
            fresh.run("bash", "-euc", text, PYTHONPATH=str(fresh.folder))  # `limbeck` is of this clone
    assert fresh.status("distill@sensor")["outcome"] == "done"
