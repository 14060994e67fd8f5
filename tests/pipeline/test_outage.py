"""The tracking server is away while the pipeline runs."""

from pathlib import Path

import pytest

from tests.pipeline.clones import Clone, clone

pytestmark = pytest.mark.slow

REGISTER = {"register@phone", "register@sensor"}


def test_without_a_server_only_registering_fails_and_the_same_command_does_it_later(
    origin: Path, closed_server: str, tmp_path: Path
) -> None:
    made = clone(origin, tmp_path / "limbeck")
    command = ("python", "-m", "flows.compress")
    done = made.run(*command, expect=2, MLFLOW_TRACKING_URI=closed_server)
    assert "13 ran, 0 reused, 2 failed" in done.stdout
    assert f"the tracking server at {closed_server} does not answer. What was computed is kept" in done.stderr
    assert set(made.locked()).isdisjoint(REGISTER)
    results = made.results()
    spooled = spool_of(made)
    assert len(spooled) == 15, "what every stage recorded waits"

    done = made.run(*command)
    assert "2 ran, 13 reused, 0 failed" in done.stdout
    assert made.results() == results
    assert made.versions() == {"tiny-phone": ["1"], "tiny-sensor": ["1"]}
    assert not spool_of(made), "what had waited was sent"


def spool_of(made: Clone) -> list[Path]:
    return list((made / ".limbeck/spool").glob("*.jsonl"))
