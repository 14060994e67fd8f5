"""docs/refresh.md: its requests are some, its commands run."""

import json
from pathlib import Path

import pytest
import yaml

from flows.refreshing.approval import Answer
from limbeck.refresh.requests import TaskRequest
from limbeck.refresh.rungs import RUNGS
from tests.pipeline.clones import Clone, copy_of
from tests.pipeline.docs.pages import blocks_of, text_of
from tests.pipeline.newcomers import rotated


def test_the_requests_on_the_page_are_some() -> None:
    shown = [yaml.safe_load(block.text) for block in blocks_of("refresh") if block.kind == "yaml"]
    assert [[*each] for each in shown] == [["new_classes"], ["change_budget"], ["add_target"]]
    assert all(TaskRequest.model_validate(each) for each in shown)


def test_the_answer_on_the_page_is_one_that_the_form_takes() -> None:
    (shown,) = [block.text for block in blocks_of("refresh") if block.is_example]
    said = json.loads(shown.split("-d '")[1].rstrip("'\n"))
    assert Answer(**said["run_input"]).ship


def test_the_table_names_every_rung() -> None:
    assert all(f"| `{rung}` |" in text_of("refresh") for rung in RUNGS)


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
