"""docs/quantization.md: its sections are valid, its tables are those of the code and of the results."""

import json
import re
from typing import get_args

import pytest
import yaml

from benchmarks import int4, int8, pixels
from limbeck.params import Instructions, Params
from limbeck.quantization.arithmetic import BEST_FOR
from limbeck.quantization.observers import OBSERVERS
from stages.__main__ import check_components
from tests.conftest import ROOT, TINY
from tests.pipeline.docs.pages import blocks_of, into, text_of

BLOCKS = [text for kind, _, text in blocks_of("quantization") if kind == "yaml"]


@pytest.mark.parametrize("text", BLOCKS)
def test_every_section_on_the_page_is_one_that_params_take(text: str) -> None:
    found = Params.model_validate(into(yaml.safe_load(TINY.read_text()), yaml.safe_load(text)))
    check_components(found, lambda _: None)


def test_the_page_shows_every_observer_and_what_follows_from_every_instruction_set() -> None:
    shown = yaml.safe_load(BLOCKS[0])["targets"]["phone"]["quantize"]["observers"]
    rows = re.findall(r"^\| `(\w+)` \|", text_of("quantization"), re.MULTILINE)
    assert {observer["use"] for observer in shown} == set(OBSERVERS) == set(rows) & set(OBSERVERS)
    told = re.findall(r"^\| `(\w+)` \|.*\| `(\w+)` \|$", text_of("quantization"), re.MULTILINE)
    assert dict(told) == BEST_FOR
    assert set(BEST_FOR) == set(get_args(Instructions))


def test_what_the_page_says_of_four_bits_was_measured() -> None:
    assert int4.table(json.loads((ROOT / "benchmarks/results/int4.json").read_text())) in text_of("quantization")
    assert int8.table(json.loads((ROOT / "benchmarks/results/int8.json").read_text())) in text_of("quantization")


def test_what_the_page_says_of_pixels_was_measured() -> None:
    assert pixels.table(json.loads((ROOT / "benchmarks/results/pixels.json").read_text())) in text_of("quantization")
