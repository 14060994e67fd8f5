"""README.md: what it says of the agent and of the larger task was measured."""

import json
import re

from limbeck import models, params
from limbeck.selection import FP32
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


def test_the_larger_tasks_figures_are_those_of_the_results() -> None:
    section = (ROOT / "README.md").read_text().partition("## A larger task")[2].partition("`fashion` trains")[0]
    rows = re.findall(r"^\| `(\w+)`, int8 \| (.+) \|$", section, re.MULTILINE)
    assert [name for name, _ in rows] == ["watch", "sensor"]
    recipe = params.load(ROOT / "recipes/cifar10.yaml")
    for name, row in rows:
        measured = json.loads((ROOT / f"benchmarks/results/figures/cifar10-{name}-0.json").read_text())
        network = models.builder(recipe.targets[name].student.model)((3, 32, 32), 10)
        assert measured["parameters"][FP32] == models.num_params(network), "the recipe has another network now"
        teacher, int8 = (measured["by_turns"][file] for file in ("teacher", "model.int8"))
        quality = {
            key: f"{100 * measured['quality']['model.int8']['test'][key]:.1f}" for key in ("value", "low", "high")
        }
        assert row == (
            f"{quality['value']} [{quality['low']}, {quality['high']}] | {int8['bytes']:,} | {int8['p50_us'] / 1000:.3f} "
            f"| {teacher['bytes'] / int8['bytes']:.1f}x | {teacher['p50_us'] / int8['p50_us']:.1f}x"
        )
    beside = measured["by_turns"]["MLPerf Tiny, LiteRT"]
    told = f"{100 * beside['accuracy']:.1f} %, {beside['bytes']:,} bytes, {beside['p50_us'] / 1000:.3f} ms."
    assert f"MLPerf Tiny under LiteRT: {told}" in section
