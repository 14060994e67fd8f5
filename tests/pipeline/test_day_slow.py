"""The scripted day for real: servers, a worker that is killed at noon, and a story that ends as if nothing had been."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.clones import Clone, clone, wait_for

pytestmark = pytest.mark.slow

REFRESHES = "work/refresh/day-phone"
LOST_S = "60"


def test_a_worker_follows_a_day_and_loses_nothing_when_it_is_killed_at_noon(origin: Path, tmp_path: Path) -> None:
    made = clone(origin, tmp_path / "limbeck")
    with made.running("python", "-m", "examples.day", "--lost-s", LOST_S) as day:
        # In a rung after the first: the next try must not take the first one's flow for this one's.
        wait_for(lambda: [each["rung"] for each in begun(made) if each["state"] == "refused"], "a rung", limit_s=900)
        wait_for(lambda: status(made, "distil/.limbeck/status/distill@phone.json"), "the next rung learns", limit_s=300)
        champion = registered(made)
        assert kill(made) >= 2, "a worker, and what ran the flow"
        assert day.wait(1200) == 0, (made / ".limbeck/output").read_text()
    assert "The worker ended (code -9), again in" in (made / "work/day/up.log").read_text()
    wait_for(lambda: not made.processes(), "all that it started to end", limit_s=30)
    assert tries(made) == 2, "the run that was killed is the one that went on"

    (look,) = (made / f"{REFRESHES}/looks").glob("*.json")
    assert not json.loads(look.read_text())["report"]["fires"]
    noon, evening = (json.loads((made / f"{REFRESHES}/000{n}/story.json").read_text()) for n in (1, 2))

    assert (noon["outcome"], noon["champion"]) == ("champion", champion)
    assert [(each["rung"], each["state"]) for each in noon["tries"]] == [
        ("recalibrate", "skipped"), ("norms", "refused"), ("distil", "passed"), ("teacher", "waiting"),
    ]  # fmt: skip
    assert noon["tries"][0]["why"].startswith("in float the student is no better on the new samples")
    assert evening["asked"].startswith("new classes 9: the teacher gives them no answer until it learns them")
    assert [(each["rung"], each["state"]) for each in evening["tries"]] == [
        ("recalibrate", "skipped"), ("norms", "skipped"), ("distil", "skipped"), ("teacher", "passed"),
    ]  # fmt: skip
    assert (evening["outcome"], evening["champion"]) == ("champion", noon["version"])
    assert registered(made) == evening["version"]
    assert (made / "work/day/drop/.taken/evening.request.yaml").is_file()

    known, glaring, new = table(made)
    assert known[0] == known[1], "nothing was done in the morning"
    assert glaring[2] > glaring[1] + 5, "noon was repaired"
    assert new[2] == 0
    assert new[3] > 80, "the new class is answered"
    assert known[3] > known[0] - 5
    assert glaring[3] > glaring[2] - 5
    told = (made / "work/day/day.md").read_text()
    assert re.search(r"Morning: 220 digits landed as ever\. Nothing moved: nothing was done\.", told)
    assert (made / "work/day/day.html").read_text().count("<img") >= 2


def begun(made: Clone) -> list[dict[str, Any]]:
    file = made / f"{REFRESHES}/0001/story.json"
    return list(json.loads(file.read_text())["tries"]) if file.exists() else []


def status(made: Clone, name: str) -> bool:
    return (made / f"{REFRESHES}/0001/{name}").exists()


def registered(made: Clone) -> str:
    """Version of the champion, from the ledger."""
    lines = [json.loads(line) for line in (made / "ledger.jsonl").read_text().splitlines()]
    return str([line for line in lines if line["alias"] == "champion"][-1]["version"])


def kill(made: Clone) -> int:
    """End the worker and the processes of its flows, as a kernel short of memory does; how many there were."""
    words = (("worker", "start"), ("prefect.engine",), ("prefect.flow_engine",))
    found = [process for process in made.processes() if any(set(some) <= set(process.cmdline()) for some in words)]
    for process in found:
        process.kill()
    return len(found)


def tries(made: Clone) -> int:
    """How often the run that was begun most often was begun."""
    with closing(sqlite3.connect(f"file:{made / 'work/day/.prefect/prefect.db'}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT max(run_count) FROM flow_run").fetchone()[0])


def table(made: Clone) -> list[list[float]]:
    """The champion's accuracy on each kind of digits, in %: before, after morning, noon and evening."""
    rows = [line.split("|") for line in (made / "work/day/day.md").read_text().splitlines() if line.startswith("| ")]
    return [[float(cell) for cell in row[3:7]] for row in rows[1:]]
