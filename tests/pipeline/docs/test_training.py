"""docs/training.md: its section is valid, its table names every optimizer, its figures are those of the results."""

import json
import re

import yaml

from benchmarks import loops, memory, parts, training
from limbeck.optimizers import OPTIMIZERS
from limbeck.params import Params
from stages.__main__ import check_components
from tests.conftest import ROOT, TINY
from tests.pipeline.docs.pages import blocks_of, into, text_of


def test_the_section_on_the_page_is_one_that_the_pipeline_takes() -> None:
    (section,) = [yaml.safe_load(block.text) for block in blocks_of("training") if block.kind == "yaml"]
    warnings: list[str] = []
    check_components(Params.model_validate(into(yaml.safe_load(TINY.read_text()), section)), warnings.append)
    assert not warnings


def test_the_table_names_every_optimizer() -> None:
    assert re.findall(r"^\| `\{use: (\w+).*\}` \|", text_of("training"), re.MULTILINE) == list(OPTIMIZERS)


def test_what_the_page_says_of_the_loop_was_measured() -> None:
    assert training.table(json.loads((ROOT / "benchmarks/results/training.json").read_text())) in text_of("training")


def test_what_the_page_says_of_other_loops_was_measured() -> None:
    measured = json.loads((ROOT / "benchmarks/results/loops.json").read_text())
    assert loops.table(measured) in text_of("training")
    points, low, high = loops.lead(measured["accuracy"])
    assert f"before the textbook's by\n{points:.1f} points [{low:.1f}, {high:.1f}]" in text_of("training")


def test_what_the_page_says_of_threads_and_memory_was_measured() -> None:
    for benchmark in (parts, memory):
        name = benchmark.__name__.rpartition(".")[2]
        assert benchmark.table(json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())) in text_of(
            "training"
        )
