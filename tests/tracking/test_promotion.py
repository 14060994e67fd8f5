import shutil
from pathlib import Path

import pytest

from limbeck import ledger
from limbeck.errors import TrackingError
from limbeck.tracking import registry
from limbeck.tracking.server import open_client
from tests.tracking.conftest import MODEL, aliases, promote, register, write_export


def test_a_challenger_within_the_margin_takes_over_and_a_worse_one_does_not(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "a", 0.0)
    promote(uri, register(uri, workspace / "a", manifest), workspace / "a", manifest)
    worse = write_export(workspace / "b", 5.0)
    second = register(uri, workspace / "b", worse)
    refused = promote(uri, second, workspace / "b", worse)
    assert not refused.moved
    assert "so the champion stays" in refused.why
    assert aliases(uri) == {"candidate": "2", "champion": "1"}
    taken = promote(uri, second, workspace / "b", worse, margin=1.0)
    assert taken.moved
    assert aliases(uri) == {"candidate": "2", "champion": "2", "previous": "1"}
    entries = ledger.read(Path("ledger.jsonl"))
    assert [(entry.previous, entry.version) for entry in entries] == [(None, "1"), ("1", "2")]
    assert "version 2 scores" in entries[1].why


def test_a_champion_of_another_task_is_not_compared(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "a", 0.0)
    promote(uri, register(uri, workspace / "a", manifest), workspace / "a", manifest)
    other = write_export(workspace / "b", 0.0, classes=5)
    kept = promote(uri, register(uri, workspace / "b", other), workspace / "b", other)
    assert not kept.moved
    assert "champion 1 has other classes than version 2" in kept.why


def test_a_move_that_the_ledger_missed_is_recorded_by_the_next_call(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "a", 0.0)
    version = register(uri, workspace / "a", manifest)
    open_client(uri).set_registered_model_alias(MODEL, "champion", "1")  # and killed here
    assert not promote(uri, version, workspace / "a", manifest).moved
    assert not promote(uri, version, workspace / "a", manifest).moved
    (entry,) = ledger.read(Path("ledger.jsonl"))
    assert (entry.version, entry.why.split(":")[0]) == ("1", "found in place")


def test_a_champion_whose_file_was_damaged_is_named(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "a", 0.0)
    promote(uri, register(uri, workspace / "a", manifest), workspace / "a", manifest)
    for file in (workspace / "mlruns").rglob("model.int8.onnx"):
        file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(TrackingError, match="version 1 of digits-phone came back with sha256"):
        registry.fetch(MODEL, "champion", workspace / "back", uri=uri)
    assert_stays(uri, workspace)


def test_a_champion_whose_files_are_lost_or_that_is_not_ours_stays_until_a_person_moves_it(
    uri: str, workspace: Path
) -> None:
    manifest = write_export(workspace / "a", 0.0)
    promote(uri, register(uri, workspace / "a", manifest), workspace / "a", manifest)
    open_client(uri).delete_model_version_tag(MODEL, "1", "limbeck.variant")
    assert_stays(uri, workspace)
    for bundle in (workspace / "mlruns").rglob("extra_files"):
        shutil.rmtree(bundle)
    assert_stays(uri, workspace)


def assert_stays(uri: str, workspace: Path) -> None:
    manifest = write_export(workspace / "b", 0.1)
    answer = promote(uri, register(uri, workspace / "b", manifest), workspace / "b", manifest)
    assert not answer.moved
    assert answer.why.startswith("champion 1 cannot be compared (")
    assert answer.why.endswith("move the alias `champion` by hand if the new one is meant to replace it")
