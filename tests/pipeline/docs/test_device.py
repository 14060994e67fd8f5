"""docs/device.md: its settings are those of the code, its table of faults is what was measured."""

import json
import re
from dataclasses import fields

from benchmarks import faults
from limbeck.edge.home import Settings
from tests.conftest import ROOT
from tests.pipeline.docs.pages import text_of


def test_the_table_names_every_setting() -> None:
    section = text_of("device").partition("## Settings")[2].partition("\n## ")[0]
    named = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.+?) \|", section, re.MULTILINE)))
    assert named == [field.name for field in fields(Settings)]


def test_the_table_of_faults_is_what_the_drill_found() -> None:
    found = json.loads((ROOT / "benchmarks/results/faults.json").read_text())
    assert faults.table(found) in text_of("device")
    assert found["ratios"]["survived"] == 1
