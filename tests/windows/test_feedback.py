"""Samples that devices uploaded become windows; what comes from outside cannot raise."""

import io
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from limbeck.data.prepared import read_meta
from limbeck.data.sources.source import Broken
from limbeck.data.window import read_about, read_keys, read_window
from limbeck.edge import spool
from limbeck.edge.bundle import key_of
from limbeck.windows import shelf
from limbeck.windows.feedback import parse, take_feedback
from limbeck.windows.intake import Arrived
from tests.publishing.fleet import Fleet
from tests.tracking.conftest import MODEL
from tests.windows.conftest import RULES, TEACHER, Yard, drawn

NOON = 1_795_000_000.0
OTHER = "birds-phone"
DIGESTS = {MODEL: "a" * 64, OTHER: "b" * 64}


def kept(folder: Path, x: Any, model: str = MODEL) -> dict[str, bytes]:
    """Files as a device's own spool writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    home: Any = SimpleNamespace(
        spool=folder, path=folder, device=SimpleNamespace(settings=SimpleNamespace(max_spool_bytes=10**9))
    )
    for sample in x:
        spool.keep_sample(home, key_of(3, DIGESTS[model]), 0.4, sample[None])
    return {path.name: path.read_bytes() for path in folder.glob("*.npz")}


@pytest.fixture
def uploads(tmp_path: Path) -> Fleet:
    """Two devices with twenty samples each, at a place where a bundle of each of two models was published."""
    made = Fleet(tmp_path / "published")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").touch()
    for model, digest in DIGESTS.items():
        made.keep(model, digest, tmp_path / "bundle")
    for number in range(2):
        device = f"{number:016x}"
        made.files[device] = kept(tmp_path / device, drawn(20, 10 + number)[0])
    return made


def taken(yard: Yard, uploads: Fleet, now: float = NOON, model: str = MODEL, **rules: Any) -> Arrived | None:
    changed = RULES.model_copy(update=rules)
    return take_feedback(uploads, yard.windows, yard.data, changed, model=model, now=now, teacher=TEACHER)


def test_what_a_devices_spool_wrote_becomes_a_window_that_the_teacher_labels(yard: Yard, uploads: Fleet) -> None:
    arrived = taken(yard, uploads)
    assert arrived is not None
    window = read_window(arrived.folder)
    assert window.about.name.endswith("Z-feedback")
    assert (window.about.origin, window.about.labelled_by) == ("feedback", "teacher")
    assert sorted(window.x.tobytes()) == sorted(np.concatenate([drawn(20, 10)[0], drawn(20, 11)[0]]).tobytes())
    assert all(key.split("/")[0] in uploads.files for key in read_keys(arrived.folder))


def test_what_was_looked_at_once_is_not_looked_at_again(yard: Yard, uploads: Fleet, tmp_path: Path) -> None:
    taken(yard, uploads)
    assert taken(yard, uploads, NOON + 60) is None
    uploads.files["2" * 16] = kept(tmp_path / "new", drawn(30, 12)[0])
    arrived = taken(yard, uploads, NOON + 120)
    assert arrived is not None
    assert read_about(arrived.folder).counts.kept == 30


def test_of_two_models_each_takes_what_its_own_bundles_were_asked(yard: Yard, uploads: Fleet, tmp_path: Path) -> None:
    uploads.files["c" * 16] = kept(tmp_path / "same shape", drawn(25, 14)[0], OTHER)
    uploads.files["d" * 16] = kept(tmp_path / "another", np.zeros((25, 9), np.float32), OTHER)
    uploads.files["0" * 16] |= kept(tmp_path / "provisioned anew", drawn(5, 15)[0], OTHER)
    mine = taken(yard, uploads)
    assert mine is not None
    assert (mine.reasons, read_about(mine.folder).counts.kept, read_about(mine.folder).counts.broken) == ((), 40, 0)
    assert not any(key.startswith(("c", "d")) for key in json.loads((mine.folder / "heard.json").read_text()))
    assert taken(yard, uploads, NOON + 60) is None
    theirs = taken(yard, uploads, NOON + 120, OTHER, max_unusable=0.5)
    assert theirs is not None
    assert (read_about(theirs.folder).counts.kept, read_about(theirs.folder).counts.broken) == (30, 25)


def test_what_no_bundle_of_the_model_was_asked_is_not_taken(yard: Yard, uploads: Fleet) -> None:
    assert taken(yard, uploads, model="never-published") is None
    assert not shelf.folders(yard.windows)


def test_what_the_first_champion_learned_from_is_not_new(yard: Yard, uploads: Fleet, tmp_path: Path) -> None:
    (tmp_path / "root/train").mkdir(parents=True)
    np.save(tmp_path / "root/train/x.npy", drawn(20, 10)[0][:5])
    arrived = take_feedback(
        uploads, yard.windows, yard.data, RULES, model=MODEL, now=NOON, teacher=TEACHER, root=tmp_path / "root"
    )
    assert arrived is not None
    assert read_about(arrived.folder).counts.repeated == 5


def test_few_samples_wait_for_more(yard: Yard, uploads: Fleet) -> None:
    assert taken(yard, uploads, min_samples=41) is None
    assert not shelf.folders(yard.windows)


def test_no_device_fills_a_window_alone(yard: Yard, uploads: Fleet, tmp_path: Path) -> None:
    uploads.files["f" * 16] = kept(tmp_path / "flood", drawn(90, 13)[0])
    arrived = taken(yard, uploads)
    assert arrived is not None
    assert read_about(arrived.folder).counts.offered == 20 + 20 + 30


def test_what_is_no_sample_is_counted_and_too_much_of_it_sets_the_window_aside(yard: Yard, uploads: Fleet) -> None:
    name = f"20261121T000000Z-3-{'a' * 16}-"
    uploads.files["e" * 16] = {f"{name}{number:08x}.npz": b"PK nonsense" for number in range(3)}
    uploads.files["../../etc"] = {f"{name}00000000.npz": b""}
    uploads.files["d" * 16] = {"../x.npz": b"", "x.json": b""}
    arrived = taken(yard, uploads)
    assert arrived is not None
    assert (arrived.reasons, read_about(arrived.folder).counts.broken) == ((), 3)
    uploads.files["c" * 16] = {f"{name}{number:08x}.npz": b"PK nonsense" for number in range(25)}
    arrived = taken(yard, uploads, NOON + 60)
    assert arrived is not None
    assert arrived.reasons[0].check == "unusable"
    assert taken(yard, uploads, NOON + 120) is None


def upload(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def bomb() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("input.npy", bytes(20_000_000))
        archive.writestr("confidence.npy", b"")
    return stream.getvalue()


SAMPLE = drawn(1, 0)[0]


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"PK\x03\x04",
        bomb(),
        upload(input=SAMPLE),
        upload(input=SAMPLE, confidence=0.5, more=1),
        upload(input=SAMPLE.astype(np.float32), confidence=0.5),
        upload(input=SAMPLE[:, :2], confidence=0.5),
        upload(input=np.concatenate([SAMPLE, SAMPLE]), confidence=0.5),
        upload(input=np.array([{}], object), confidence=0.5),
        upload(input=np.asfortranarray(np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)), confidence=0.5)[:-30],
    ],
)
def test_what_is_no_upload_is_broken(base: Path, content: bytes | None) -> None:
    assert isinstance(parse("f", content, read_meta(base)), Broken)


@settings(max_examples=100)
@given(st.integers(0, 700), st.binary(min_size=1, max_size=8))
def test_no_bytes_can_raise(base: Path, at: int, other: bytes) -> None:
    content = bytearray(upload(input=SAMPLE, confidence=0.5))
    content[at : at + len(other)] = other
    assert isinstance(parse("f", bytes(content), read_meta(base)), Broken | np.ndarray)


def test_the_list_of_uploads_is_part_of_the_window(yard: Yard, uploads: Fleet) -> None:
    arrived = taken(yard, uploads)
    assert arrived is not None
    heard = json.loads((arrived.folder / "heard.json").read_text())
    assert len(heard) == 40
    assert "heard.json" in read_about(arrived.folder).sha256
