"""docs/device.md, "A fleet": what it says was measured."""

import json

from benchmarks import fleet
from tests.conftest import ROOT
from tests.pipeline.docs.pages import text_of

RESULT = ROOT / "benchmarks/results/fleet.json"


def test_what_the_page_says_of_a_fleet_was_measured() -> None:
    measured = json.loads(RESULT.read_text())
    assert measured["num_agents"] == fleet.NUM_AGENTS
    assert fleet.table(measured) in text_of("device")
    assert all(measured["ratios"][name] <= limit for name, limit in measured["limits"].items())
