"""A search that is killed in a trial goes on with it, and proposes what an undisturbed one would have."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.pipeline.clones import Clone, clone, wait_for

pytestmark = pytest.mark.slow

SPACE = {
    "fix": {"student.train.epochs": 2, "distill.control": False},
    "choose": {"student.model.width": [4, 8], "prune.ratio": {"low": 0.2, "high": 0.6}},
}
PLACE = "work/search/tiny-sensor-tpe"
COMMAND = ("python", "-m", "flows.search", "sensor", "--space", "space.yaml", "--trials", "2")


def values_of(made: Clone) -> list[dict[str, Any]]:
    return [trial["values"] for trial in json.loads((made / f"{PLACE}/front.json").read_text())["trials"]]


def test_a_killed_search_goes_on_with_its_trial_and_ends_as_an_undisturbed_one(origin: Path, tmp_path: Path) -> None:
    killed, straight = (clone(origin, tmp_path / name / "limbeck") for name in ("killed", "straight"))
    for made in (killed, straight):
        (made / "space.yaml").write_text(yaml.safe_dump(SPACE))
    with killed.running(*COMMAND) as process:
        wait_for((killed / f"{PLACE}/000/.limbeck/status/teacher.json").exists, "trial 0 begins")
        process.kill()
    assert not (killed / f"{PLACE}/front.json").exists()
    assert "trial 0 was cut short; it goes on" in killed.run(*COMMAND).stdout
    straight.run(*COMMAND)
    assert len(values_of(killed)) == 2
    assert values_of(killed)[0] == values_of(straight)[0], "later proposals also look at latencies, which differ"
    said = killed.run(*COMMAND).stdout
    assert "The front of 2 trials" in said
    assert "trial 2" not in said, "what was asked for is done"


def test_a_trial_that_fails_is_told_and_the_search_goes_on(origin: Path, tmp_path: Path) -> None:
    made = clone(origin, tmp_path / "limbeck")
    space = {"choose": {"student.model.width": [-1, 8]}, "fix": SPACE["fix"]}
    (made / "space.yaml").write_text(yaml.safe_dump(space))
    done = made.run(*COMMAND, "--sampler", "random", "--trials", "4")
    assert "failed: " in done.stdout
    assert "width" in done.stdout
    assert "The front of 4 trials" in done.stdout
