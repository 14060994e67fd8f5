"""docs/audio.md: its sections are valid, its commands run, and its figures were measured."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from limbeck.params import Params
from stages.__main__ import check_components
from tests.conftest import ROOT, TINY
from tests.pipeline.clones import Clone, clone, make_origin
from tests.pipeline.docs.pages import blocks_of, into, text_of

BLOCKS = blocks_of("audio")


def test_the_sections_of_the_page_are_valid_together() -> None:
    values = yaml.safe_load(TINY.read_text())
    for kind, _, text in BLOCKS:
        if kind == "yaml":
            values = into(values, yaml.safe_load(text))
    check_components(Params.model_validate(values), lambda _: None)


def figures(seed: int) -> Any:
    return json.loads((ROOT / f"benchmarks/results/figures/keywords-speaker-{seed}.json").read_text())


def test_the_files_of_the_table_were_measured() -> None:
    rows = re.findall(r"^\| (\D.+) \| ([\d,]+) \| ([\d.]+|-) \| ([\d.]+) \|$", text_of("audio"), re.MULTILINE)
    measured = figures(0)["by_turns"]
    assert len(rows) == len(measured)
    for (name, *told), found in zip(rows, measured.values(), strict=True):
        quality = "-" if found["accuracy"] is None else f"{100 * found['accuracy']:.2f}"
        assert told == [f"{found['bytes']:,}", quality, f"{found['p50_us'] / 1000:.2f}"], name


def test_every_seed_of_the_table_was_run() -> None:
    rows = re.findall(r"^\| (\d) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d,]+) \|$", text_of("audio"), re.MULTILINE)
    assert rows
    for seed, *told in rows:
        found = figures(int(seed))
        qualities = {name: found["quality"][name]["test"]["value"] for name in ("teacher", "student", "model.int8")}
        control = qualities["student"] - found["gain_of_distillation"]["value"]
        shown = [f"{100 * value:.2f}" for value in (qualities["teacher"], control, qualities["model.int8"])]
        assert told == [*shown, f"{found['bytes']['model.int8']:,}"]


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
