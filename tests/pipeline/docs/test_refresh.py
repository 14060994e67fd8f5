"""docs/refresh.md: its requests are some, its commands run."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks import refresh
from flows.refreshing.approval import Answer
from limbeck.refresh.requests import TaskRequest
from limbeck.refresh.rungs import RUNGS
from tests.conftest import ROOT
from tests.pipeline.clones import Clone, copy_of
from tests.pipeline.docs.pages import blocks_of, text_of
from tests.pipeline.newcomers import rotated

RESULT = json.loads((ROOT / "benchmarks/results/refresh.json").read_text())


def test_the_requests_on_the_page_are_some() -> None:
    shown = [yaml.safe_load(block.text) for block in blocks_of("refresh") if block.kind == "yaml"]
    assert [[*each] for each in shown] == [["new_classes"], ["change_budget"], ["add_target"]]
    assert all(TaskRequest.model_validate(each) for each in shown)


def test_the_answer_on_the_page_is_one_that_the_form_takes() -> None:
    shown = next(block.text for block in blocks_of("refresh") if "resume" in block.text)
    said = json.loads(shown.split("-d '")[1].rstrip("'\n"))
    assert Answer(**said["run_input"]).ship


def test_the_table_names_every_rung() -> None:
    assert all(f"| `{rung}` |" in text_of("refresh") for rung in RUNGS)


def test_what_the_page_says_was_measured() -> None:
    page, ratios, goals = text_of("refresh"), RESULT["ratios"], RESULT["goals"]
    for table in refresh.table(RESULT).split("\n\n"):
        assert table in page
    said = " ".join(page.split())
    first = RESULT["seeds"]["0"]
    assert f"regains {ratios['share regained']:.1f} times what the full rerun regains" in said
    assert f"at {100 * ratios['ladder over a full rerun']:.0f} % of its CPU time" in said
    lost = [100 * (first["before"]["old"] - first[each]["old"]) for each in ("after", "anew")]
    assert f"forgets {lost[0]:.1f} points of old samples where the rerun forgets {lost[1]:.1f}" in said
    assert f"regains {ratios['points regained, mean of seeds']:.1f} points on average" in said
    assert f"forgets {ratios['points forgotten']:.1f} at most" in said
    assert ratios["share regained"] >= goals["share regained"]
    assert all(ratios[name] <= limit for name, limit in RESULT["limits"].items())
    assert len(RESULT["seeds"]) == 3


@pytest.mark.slow
def test_the_commands_of_the_page_run(repeated: Clone, tmp_path: Path) -> None:
    made = copy_of(repeated, tmp_path / "limbeck")
    rotated(made / "new_images.npz", 600, seed=0)
    (text,) = [block.text for block in blocks_of("refresh") if block.kind == "sh" and not block.is_example]
    said = made.run("bash", "-euxc", text).stdout
    assert "tiny-phone: would refresh: input statistics, " in said
    assert (made / "windows/new_images.dvc").is_file()
    assert (made / "work/refresh/tiny-phone/0001/report.html").is_file()
    told = [line for line in said.splitlines() if line.startswith("tiny-phone: ")]
    assert told[-1].startswith(
        ("tiny-phone: champion: refresh 1, ", "tiny-phone: failed: no rung passed", "tiny-phone: refused: ")
    )
