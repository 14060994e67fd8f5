"""docs/pruning.md: its sections are valid, its tables those of the code and of the results, its commands run."""

import json
import re
from typing import Any

import pytest
import yaml

from benchmarks import depth
from benchmarks.figures.rows import gain
from limbeck.params import AIMS, Params
from limbeck.pruning import IMPORTANCES, JUDGES
from limbeck.selection import FP32, INT8
from stages.__main__ import check_components
from tests.conftest import ROOT, TINY
from tests.pipeline.clones import Clone
from tests.pipeline.docs.pages import blocks_of, into, text_of

BLOCKS = [yaml.safe_load(text) for kind, _, text in blocks_of("pruning") if kind == "yaml"]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_section_on_the_page_is_one_that_the_pipeline_takes(block: dict[str, Any]) -> None:
    warnings: list[str] = []
    check_components(Params.model_validate(into(yaml.safe_load(TINY.read_text()), block)), warnings.append)
    assert not warnings


def test_the_sections_show_each_aim() -> None:
    sections = [block["targets"]["phone"]["prune"] for block in BLOCKS if "prune" in block["targets"]["phone"]]
    aims = [next(aim for aim in AIMS if section.get(aim)) for section in sections]
    assert aims == ["ratio", "ratio", "max_macs", "latency"]


def test_the_tables_name_every_importance_and_every_judge_of_blocks() -> None:
    head, *rows = re.findall(r"^\| `(\w+)` \|", text_of("pruning"), re.MULTILINE)
    assert (head, rows) == ("use", [*IMPORTANCES, "use", *JUDGES])


def test_what_the_page_says_of_zeros_was_measured() -> None:
    measured = json.loads((ROOT / "benchmarks/results/sparsity.json").read_text())["ratios"]
    rows = re.findall(r"^\| (\w+), (fp32|int8) \| (.+) \|$", text_of("pruning"), re.MULTILINE)
    assert len(rows) == 4
    for network, kind, cells in rows:
        for name, cell in zip(("2:4", "nine in ten", "half the channels"), cells.split(" | "), strict=True):
            assert cell == f"{measured[f'{network}, {kind}, {name}: faster']:.2f}x"


def test_what_the_page_says_of_narrower_and_shallower_was_measured() -> None:
    assert depth.table(json.loads((ROOT / "benchmarks/results/depth.json").read_text())) in text_of("pruning")


def result_of(run: str) -> Any:
    name = run.replace(" --control", "-0-control") if "--control" in run else f"{run}-0"
    return json.loads((ROOT / f"benchmarks/results/figures/quartet-{name}.json").read_text())


def faster(result: Any, file: str) -> float:
    """Than the published network."""
    files = result["by_turns"]
    return float(files["student"]["p50_us"] / files[file]["p50_us"])


def test_what_the_page_says_of_half_a_resnet_was_measured() -> None:
    rows = re.findall(r"^\| (?:blocks|channels), .*? \| [^|]+ \| (.+) \| `(.+)` \|$", text_of("pruning"), re.MULTILINE)
    assert [run for _, run in rows] == ["early", "early --control", "pocket", "half", "narrower --control"]
    for cells, run in rows:
        result = result_of(run)
        files = result["by_turns"]
        times = (f"{faster(result, file):.2f}x" for file in (FP32, INT8))
        correct = (f"{100 * files[file]['accuracy']:.2f}" for file in (FP32, INT8))
        assert cells == " | ".join([*correct, f"{files[INT8]['bytes']:,}", *times])
    ours, without, *_, narrower = (result_of(run) for _, run in rows)
    assert f"distillation is {gain({0: ours}, {0: without}).replace(' [', ' points [')}." in text_of("pruning")
    ahead = gain({0: ours}, {0: narrower}).replace(" [", " points [")
    assert f"It is {ahead} ahead of torch-pruning" in text_of("pruning")
    fp32, int8 = (faster(ours, file) / faster(narrower, file) for file in (FP32, INT8))
    assert f"\n{fp32:.1f} and {int8:.1f} times ahead in time" in text_of("pruning")


@pytest.mark.slow
def test_the_commands_of_the_page_run(workspace: Clone) -> None:
    for kind, _, text in blocks_of("pruning"):
        if kind == "sh":
            said = workspace.run("bash", "-euxc", text).stdout
            assert "before pruning, fp32" in said
