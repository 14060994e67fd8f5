"""README.md: what it says the agent costs a device was measured, and stands there alone."""

import json
import re

from tests.conftest import ROOT
from tests.pipeline.docs.pages import text_of


def test_the_agents_start_and_memory_are_those_of_the_results() -> None:
    measured = json.loads((ROOT / "benchmarks/results/agent.json").read_text())
    readme = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| on a device: (\w+) of the agent over .*\| ([\d.]+) \| ([\d.]+) \|$", readme, re.MULTILINE)
    ratios = measured["ratios"]
    assert rows == [
        (name, f"{ratios[f'{name}_over_bare']:.2f}", f"{measured['limits'][f'{name}_over_bare']:.2f}")
        for name in ("start", "memory")
    ]
    (told,) = re.findall(
        r"\(median of (\d+) pairs, ([\d.]+) s and ([\d.]+) s\) \| [\d.]+ \| 1.20 \|$", readme, re.MULTILINE
    )
    seconds = measured["seconds"]
    assert told == (str(len(measured["all"]["bare"])), f"{seconds['agent']:.2f}", f"{seconds['bare']:.2f}")
    assert not re.search(r"\d\.\d\d", text_of("device").partition("## What it costs")[2])
