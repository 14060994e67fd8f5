"""The bundle of a version that MLflow's registry has."""

import json
from pathlib import Path

import pytest

from limbeck.edge import bundle, tokenizer
from limbeck.edge import manifest as manifest_file
from limbeck.edge.manifest import sha256
from limbeck.edge.measure import open_session
from limbeck.edge.tokenizer import Ngrams
from limbeck.errors import PublishingError, TrackingError
from limbeck.publishing.bundle import Registered
from limbeck.tracking.server import open_client
from tests.publishing.conftest import CONTRACT, MEASURED, register_version
from tests.tracking.conftest import MODEL, register, write_export


@pytest.fixture
def registered(uri: str, workspace: Path) -> Registered:
    register_version(uri, workspace / "export", 0.01)
    return Registered(uri)


def test_a_registered_version_becomes_a_bundle_and_what_is_not_as_registered_is_refused(
    registered: Registered, workspace: Path
) -> None:
    client = open_client(registered.uri)
    first, second = workspace / "first", workspace / "second"
    digest = registered.make_bundle(MODEL, 1, first)
    assert digest == sha256(first / "manifest.json")
    assert registered.make_bundle(MODEL, 1, second) == digest, "the same version gives the same bytes"
    told = json.loads((first / "manifest.json").read_text())
    assert {path.name for path in first.iterdir()} == {"manifest.json", *told["files"]}
    assert set(told["files"]) == {"model.int8.onnx", "golden.npz"}
    for name, expected in told["files"].items():
        assert {"bytes": (first / name).stat().st_size, "sha256": sha256(first / name)} == expected
    exported = json.loads((workspace / "export/manifest.json").read_text())
    assert (told["format"], told["name"], told["serial"], told["variant"]) == (2, MODEL, 1, "model.int8")
    assert (told["input"], told["classes"]) == (exported["input"], exported["classes"])
    assert told["identity"] == sha256(workspace / "export/manifest.json")
    assert told["runtime"] == {"onnxruntime": ">=1.31,<1.32"}
    assert (told["instructions"], told["minimum_agent"]) == ("any", "0.1.0")
    assert told["contract"] == CONTRACT
    assert (told["measured"]["p95_ms"]["value"], told["measured"]["machine"]["arch"]) == (0.05, "x86_64")
    assert open_session(first / "model.int8.onnx", 1).get_inputs()[0].name == "input", "onnxruntime alone is enough"

    with pytest.raises(TrackingError, match=r"has no version 9 of 'digits-phone'"):
        registered.make_bundle(MODEL, 9, workspace / "none")
    for tag, message in {
        "limbeck.sha256": r"version 1 of digits-phone came back with sha256 .*, registered was 0000",
        "limbeck.identity": r"files of version 1 of digits-phone are not those that were registered",
    }.items():
        kept = client.get_model_version(MODEL, "1").tags[tag]
        client.set_model_version_tag(MODEL, "1", tag, "0" * 64)
        with pytest.raises(TrackingError, match=message):
            registered.make_bundle(MODEL, 1, workspace / tag)
        client.set_model_version_tag(MODEL, "1", tag, kept)
    client.delete_model_version_tag(MODEL, "1", "limbeck.contract")
    with pytest.raises(PublishingError, match=r"was registered without 'limbeck.contract'.*register@phone"):
        registered.make_bundle(MODEL, 1, workspace / "bare")
    register_version(registered.uri, workspace / "export", 0.01)
    assert registered.make_bundle(MODEL, 1, workspace / "again") == digest, "registering again adds what was missing"


def test_the_registry_shows_what_is_served(registered: Registered) -> None:
    client = open_client(registered.uri)
    with pytest.raises(TrackingError, match=r"has no version with the alias 'champion'"):
        registered.serial_at(MODEL, "champion")
    assert registered.mirror(MODEL, "champion", "1") is None
    assert registered.mirror(MODEL, "champion", "1") == "1"
    assert registered.serial_at(MODEL, "champion") == 1
    assert client.get_registered_model(MODEL).tags["limbeck.served.champion"] == "1"
    assert registered.mirror(MODEL, "champion", None) == "1"
    assert registered.mirror(MODEL, "champion", None) is None
    assert "limbeck.served.champion" not in client.get_registered_model(MODEL).tags


def test_a_version_that_reads_texts_ships_the_tokenizer_that_was_registered(uri: str, workspace: Path) -> None:
    exported = workspace / "export"
    described = write_export(exported, 0.0)
    tokenizer.write(exported / tokenizer.NAME, Ngrams(length=4, buckets=9, words=1, characters=()))
    manifest_file.write(exported, **{key: value for key, value in described.items() if key not in ("format", "files")})
    tags = {"limbeck.contract": json.dumps(CONTRACT), "limbeck.measured": json.dumps(MEASURED)}
    register(uri, exported, manifest_file.read(exported), tags=tags)
    Registered(uri).make_bundle(MODEL, 1, workspace / "made")
    assert (workspace / "made" / tokenizer.NAME).read_bytes() == (exported / tokenizer.NAME).read_bytes()
    assert bundle.parse((workspace / "made" / manifest_file.NAME).read_bytes()).has_tokenizer
    (kept,) = (workspace / "mlruns").rglob(tokenizer.NAME)
    tokenizer.write(kept, Ngrams(length=4, buckets=8, words=1, characters=()))
    with pytest.raises(TrackingError, match=r"files of version 1 of digits-phone are not those that were registered"):
        Registered(uri).make_bundle(MODEL, 1, workspace / "changed")
