"""The loop for real: a quiet morning, a camera that was turned, a kill in the middle, a better champion, and it stays turned."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from limbeck.refresh import story as story_file
from limbeck.tracking import registry
from tests.pipeline.clones import Clone, clone, wait_for
from tests.pipeline.newcomers import rotated, samples

pytestmark = pytest.mark.slow

REFRESH = ("python", "-m", "flows.refresh", "phone")
PLACE = "work/refresh/tiny-phone"


@pytest.fixture
def made(origin: Path, tmp_path: Path) -> Clone:
    """A champion of 1,100 of the digits; the others are what the world will bring. Hasty rules."""
    made = clone(origin, tmp_path / "limbeck")
    x, y = samples(slice(1100))
    np.savez(made / "old.npz", x=x, y=y)
    made.set_params({
        "data.source": {"use": "arrays", "path": str(made / "old.npz")}, "data.split.validation": 0.25, "teacher.train.epochs": 12,
        "targets.phone.student.train.epochs": 8,
    })  # fmt: skip
    rules = yaml.safe_load((made / "refresh.yaml").read_text())
    rules["windows"]["settle_s"] = 0
    rules["gate"] |= {"max_loss": 0.05}
    rules["drift"]["cool_down_hours"] = 0
    (made / "refresh.yaml").write_text(yaml.safe_dump(rules))
    made.flow("--target", "phone")
    (made / "drop").mkdir()
    return made


def told(made: Clone) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made / f"{PLACE}/0001/story.json").read_text())
    return found


def test_nothing_is_done_while_nothing_moves_and_a_killed_refresh_ends_in_a_better_champion(made: Clone) -> None:
    x, y = samples(slice(1100, 1797))
    np.savez(made / "drop/morning.npz", x=x, y=y)
    said = made.run(*REFRESH).stdout
    assert "tiny-phone: no action: nothing moved" in said
    assert (made / "windows/morning.dvc").is_file()
    assert not (made / f"{PLACE}/0001").exists()
    assert "no new window: nothing to do" in made.run(*REFRESH).stdout

    rotated(made / "drop/noon.npz", 900, seed=1)
    uri = f"sqlite:///{made.folder}/mlflow.db"
    with made.running(*REFRESH) as process:
        rungs = made / f"{PLACE}/0001"
        wait_for(lambda: any(rungs.glob("*/.limbeck/status/export@phone.json")), "the first rung runs")
        process.kill()
    assert told(made)["outcome"] is None
    champion = registry.champion_of("tiny-phone", uri=uri)

    said = made.run(*REFRESH).stdout
    assert "refresh 1 of tiny-phone goes on" in said
    story = told(made)
    assert story["outcome"] == "champion", said
    new = next(row for row in story["exam"]["rows"] if row["name"] == "new")
    assert new["challenger"] > new["champion"]
    now = registry.champion_of("tiny-phone", uri=uri)
    assert now != champion
    assert now is not None
    assert now[0] == story["version"]
    picked = story_file.read(made / f"{PLACE}/0001").picked
    assert picked is not None
    ledger = [json.loads(line) for line in (made / "ledger.jsonl").read_text().splitlines()]
    assert ledger[-1]["why"].startswith(f"refresh 1, {picked.rung}: passes on test")
    assert "tiny-phone: refresh 1" in (made / f"{PLACE}/0001/report.html").read_text()
    assert "no new window: nothing to do" in made.run(*REFRESH).stdout, "it has learned from that one"

    rotated(made / "drop/evening.npz", 600, seed=2, first=900)
    assert "tiny-phone: no action: nothing moved since noon, which was learned" in made.run(*REFRESH).stdout


def test_a_tighter_budget_and_a_new_target_are_files_that_stand_until_they_are_fulfilled(made: Clone) -> None:
    uri = f"sqlite:///{made.folder}/mlflow.db"
    size = json.loads((made / "export/phone/manifest.json").read_text())["files"]["model.int8.onnx"]["bytes"]
    tight = {"change_budget": {"target": "phone", "clauses": {"max_size_kb": round(0.8 * size / 1000, 3)}}}
    (made / "drop/less.request.yaml").write_text(yaml.safe_dump(tight))
    told = made.run(*REFRESH, "--dry-run").stdout
    assert "tiny-phone: would run its whole chain" in told
    said = made.run(*REFRESH).stdout
    assert "tiny-phone: champion: version 2" in said
    (place,) = (made / "work/refresh/tiny-phone/requests").glob("*/registry/phone.json")
    kept = json.loads((place.parents[1] / "export/phone/manifest.json").read_text())["files"]["model.int8.onnx"]
    assert kept["bytes"] <= 0.8 * size
    assert registry.champion_of("tiny-phone", uri=uri)[0] == "2"  # type: ignore[index]
    assert (made / "drop/.taken/less.request.yaml").is_file()

    section = yaml.safe_load((made / "params.yaml").read_text())["targets"]["phone"]
    (made / "drop/watch.request.yaml").write_text(yaml.safe_dump({"add_target": {"name": "watch", "params": section}}))
    assert "tiny-watch: champion: version 1" in made.run(*REFRESH).stdout
    assert registry.champion_of("tiny-watch", uri=uri) is not None
    assert (made / "drop/.taken/watch.request.yaml").is_file()
    assert "tiny-watch: no new window: nothing to do" in made.run(*REFRESH[:-1], "watch").stdout, "it is refreshed, too"
