"""An update: what a device takes, what it refuses, what it survives."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from limbeck.edge import EdgeError, bundle, trial, trust
from limbeck.edge import update as updating
from limbeck.edge.fetch import Folder, Patience, Server, Unavailable
from limbeck.edge.home import Home
from limbeck.edge.update import Outcome
from tests.edge.delivery import (
    MODEL,
    QUICK,
    ArtifactServer,
    Publisher,
    _Handler,
    key_of,
    provisioned,
)

MODEL_FILE = "model.int8.onnx"


def update(home: Home, **options: Any) -> Outcome:
    """From the home's server; proven in this process, which is quicker than in a child."""
    source = Server(home.device.server, home.device.metadata, patience=options.pop("patience", QUICK))
    return updating.update(home, source, **{"prove": trial.examine, **options})


def commit(home: Home) -> None:
    with home.edit() as record:
        record.commit()


def fetched(server: ArtifactServer, name: str) -> list[str | None]:
    """The ranges asked of a file."""
    return [wanted for place, wanted in server.seen if place.endswith(name)]


# What is taken


def test_a_device_takes_the_champion_keeps_the_one_before_and_asks_for_metadata_alone_after(
    publisher: Publisher, server: ArtifactServer, home: Home
) -> None:
    first = publisher.publish(1)
    assert update(home).kind == "switched"
    commit(home)
    second = publisher.publish(2)
    assert update(home).serial == 2
    record = home.read()
    assert (record.current, record.previous, record.on_probation) == (second, first, True)
    assert bundle.read(home.bundle(second)).serial == 2
    server.seen.clear()
    assert update(home).why == "is in use, on probation"
    assert [place for place, _ in server.seen] == ["7/tuf/2.root.json", "7/tuf/timestamp.json"]


def test_a_rollback_is_newer_metadata_that_names_the_older_file_which_is_not_fetched_again(
    publisher: Publisher, server: ArtifactServer, home: Home
) -> None:
    first = publisher.publish(1)
    update(home)
    commit(home)
    publisher.publish(2)
    update(home)
    commit(home)
    server.seen.clear()
    publisher.serve(1)
    assert update(home).kind == "switched"
    assert home.read().current == first
    assert not fetched(server, MODEL_FILE)


def test_what_the_record_does_not_speak_of_is_removed(publisher: Publisher, home: Home) -> None:
    for serial in (1, 2, 3):
        publisher.publish(serial)
        update(home)
        commit(home)
    update(home)
    record = home.read()
    assert {path.name for path in (home.path / "bundles").iterdir()} == {record.current, record.previous}
    assert not list((home.path / "incoming").iterdir())


def test_a_version_that_follows_one_on_probation_keeps_the_last_one_committed(publisher: Publisher, home: Home) -> None:
    proven = publisher.publish(1)
    update(home)
    commit(home)
    for serial in (2, 3):
        publisher.publish(serial)
        update(home)
    assert home.read().previous == proven


def test_a_stick_is_read_with_the_same_checks(publisher: Publisher, home: Home) -> None:
    key = publisher.publish(1)
    stick = Folder(publisher.folder)
    assert updating.update(home, stick, prove=trial.examine).kind == "switched"
    assert home.read().current == key
    publisher.make(2)
    publisher.serve(2)
    flip(publisher.bundles[2] / MODEL_FILE)
    with pytest.raises(EdgeError, match="model.int8.onnx is not the file that was signed"):
        updating.update(home, stick, prove=trial.examine)
    with pytest.raises(EdgeError, match="metadata is missing; expected what `limbeck publish NAME --folder` writes"):
        Folder(home.path)


def test_a_canary_goes_to_a_share_of_the_fleet_by_a_stable_hash(publisher: Publisher, home: Home) -> None:
    shares = [trust.share_of("salt", f"device{index}") for index in range(2000)]
    assert 0.08 < sum(share < 0.1 for share in shares) / 2000 < 0.12
    own = trust.share_of("salt", home.device.id)
    publisher.publish(1)
    update(home)
    commit(home)
    publisher.make(2)
    publisher.serve(2, "canary", share_ppm=int(own * 1e6), salt="salt")
    assert update(home).kind == "current"
    publisher.serve(2, "canary", share_ppm=int(own * 1e6) + 1, salt="salt")
    assert update(home).serial == 2


def test_a_canary_that_was_refused_here_leaves_the_device_to_the_champion(publisher: Publisher, home: Home) -> None:
    publisher.publish(1)
    update(home)
    commit(home)
    publisher.make(2, contract={"max_p95_ms": 1e-9})
    publisher.serve(2, "canary", share_ppm=1_000_000, salt="salt")
    assert update(home).kind == "refused"
    assert (update(home).kind, update(home).serial) == ("current", 1)


# What is refused


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_flipped_bits_are_never_opened_and_an_honest_file_succeeds_after(publisher: Publisher, home: Home) -> None:
    key = publisher.publish(1)
    honest = (publisher.bundles[1] / MODEL_FILE).read_bytes()
    flip(publisher.bundles[1] / MODEL_FILE)
    with pytest.raises(EdgeError, match="is not the file that was signed: its sha256 is another. It was not opened"):
        update(home, prove=lambda folder: pytest.fail("opened"))
    assert home.read().failure.startswith("5/run1/bundle/model.int8.onnx is not the file")
    (publisher.bundles[1] / MODEL_FILE).write_bytes(honest)
    assert update(home).kind == "switched"
    assert (home.read().current, home.read().failure) == (key, "")


def expired(publisher: Publisher) -> None:
    publisher.sign(expires=timedelta(days=-1))


def signed_by_another(publisher: Publisher) -> None:
    publisher.keys["timestamp"] = type(publisher.keys["timestamp"]).generate_ed25519()
    publisher.sign()


def replayed(publisher: Publisher) -> None:
    for role in ("timestamp", "snapshot", "targets"):
        publisher.signed[role].version -= 2
    publisher.sign()


def manifest_changed(publisher: Publisher) -> None:
    publisher.publish(2)
    flip(publisher.bundles[2] / "manifest.json")


def nobody_named(publisher: Publisher) -> None:
    publisher.signed["targets"].targets.clear()
    publisher.sign()


def another_serial(publisher: Publisher) -> None:
    publisher.make(2)
    publisher.serve(2)
    publisher.signed["targets"].targets[f"{MODEL}/champion"].custom["serial"] = 3
    publisher.sign()


def outside(publisher: Publisher) -> None:
    publisher.make(2, files={"../model.int8.onnx": {"bytes": 1, "sha256": "0"}})
    publisher.serve(2)


def artifacts_outside(publisher: Publisher) -> None:
    publisher.make(2)
    publisher.serve(2)
    publisher.signed["targets"].targets[f"{MODEL}/champion"].custom["artifacts"] = "../../secrets"
    publisher.sign()


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        (expired, r"timestamp.json is expired, by this device's clock, .* Set the clock, or have the publisher"),
        (signed_by_another, r"cannot be trusted: timestamp was signed by 0/1 keys"),
        (replayed, r"cannot be trusted: .*version"),
        (manifest_changed, "the manifest of digits-phone/champion is not the one that was signed"),
        (nobody_named, "the signed metadata names no digits-phone/champion"),
        (another_serial, "serves serial 3, its manifest describes digits-phone serial 2"),
        (outside, "names '../model.int8.onnx', which is outside its folder; it cannot be trusted"),
        (artifacts_outside, "leads out of the artifact store; it cannot be trusted"),
    ],
)
def test_what_is_not_to_be_trusted_changes_nothing(publisher: Publisher, home: Home, attack: Any, message: str) -> None:
    key = publisher.publish(1)
    update(home)
    commit(home)
    attack(publisher)
    with pytest.raises(EdgeError, match=message):
        update(home)
    assert home.read().current == key
    bundle.read(home.bundle(key))


def test_a_frozen_mirror_is_noticed_and_a_renewed_one_taken(publisher: Publisher, home: Home) -> None:
    publisher.publish(1)
    update(home)
    commit(home)
    eight_days = time.time() + 8 * 86400
    with pytest.raises(EdgeError, match="timestamp.json expired at .* by this device's clock"):
        update(home, now=lambda: eight_days)
    publisher.sign()
    assert update(home).kind == "current"


def test_a_clock_set_back_makes_nothing_fresh_that_had_expired(publisher: Publisher, home: Home) -> None:
    publisher.publish(1)
    update(home)
    with home.edit() as record:
        record.clock = time.time() + 8 * 86400  # a check went well at that time
    with pytest.raises(EdgeError, match="expired at"):
        update(home)


def test_a_new_root_signed_by_the_old_one_is_followed(publisher: Publisher, home: Home) -> None:
    publisher.publish(1)
    update(home)
    commit(home)
    root = publisher.signed["root"]
    old = publisher.keys["timestamp"]
    publisher.keys["timestamp"] = type(old).generate_ed25519()
    root.revoke_key(old.public_key.keyid, "timestamp")
    root.add_key(publisher.keys["timestamp"].public_key, "timestamp")
    root.version += 1
    publisher.write_root()
    publisher.publish(2)
    assert update(home).serial == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"minimum_agent": "99.0"}, "needs limbeck 99.0, this is .*; update the agent"),
        ({"runtime": {"onnxruntime": ">=9"}}, "needs onnxruntime >=9, this device has 1"),
        ({"instructions": "abacus"}, "needs the processor's abacus, which .* does not report"),
        ({"format": 3}, "manifest has format 3, this agent reads 2; update it"),
        ({"variant": "other"}, "lists no other.onnx; publish it again"),
        ({"measured": None}, "manifest is none of format 2"),
    ],
)
def test_what_cannot_run_here_is_not_even_fetched(
    publisher: Publisher, server: ArtifactServer, home: Home, changed: dict[str, Any], message: str
) -> None:
    publisher.publish(1, **changed)
    with pytest.raises(EdgeError, match=message):
        update(home)
    assert not fetched(server, MODEL_FILE)
    assert home.read().current is None


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    publisher: Publisher, server: ArtifactServer, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish(1)
    usage = shutil.disk_usage(home.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(EdgeError, match="of disk below .*, 1,000 are free; free some space"):
        update(home)
    assert not fetched(server, MODEL_FILE)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"contract": {"max_p95_ms": 1e-6}}, r"is too slow on this device: p95 .* ms, its contract allows 1e-06 ms"),
        ({"golden_factor": 2.0}, "does not give the golden answers here"),
        ({"input": {"name": "input", "shape": ["batch", 9], "dtype": "uint8"}}, "not what the manifest says"),
    ],
)
def test_what_fails_its_trial_is_remembered_reported_and_not_tried_again_until_asked(
    publisher: Publisher, server: ArtifactServer, home: Home, changed: dict[str, Any], message: str
) -> None:
    working = publisher.publish(1)
    update(home)
    commit(home)
    publisher.make(2, **changed)
    publisher.serve(2)
    key = key_of(publisher.bundles[2])
    outcome = update(home)
    assert outcome.kind == "refused"
    with pytest.raises(EdgeError, match=message):
        raise EdgeError(outcome.why)
    server.seen.clear()
    assert update(home).why.startswith("was refused here before")
    assert not fetched(server, MODEL_FILE)
    record = home.read()
    assert (record.current, list(record.refused)) == (working, [key])
    (told,) = (json.loads(path.read_text()) for path in home.spool.glob("*.json"))
    assert (told["event"], told["bundle"], told["why"]) == ("refused", key, outcome.why)
    assert update(home, again=True).kind == "refused"
    assert fetched(server, MODEL_FILE)


# The trial itself, in a process of its own


def test_a_bundle_proves_itself_in_a_child(publisher: Publisher) -> None:
    key = publisher.publish(1)
    folder = publisher.bundles[1].rename(publisher.folder / key)
    found = trial.prove(folder)
    assert found["max_difference"] == 0
    assert found["p95_ms"] > 0


def test_a_model_that_takes_its_process_down_is_a_message(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what a crash in native code is to the parent: the child's end by a signal
    (tmp_path / "sitecustomize.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EdgeError, match=r"1-abc took its process down here \(SIGSEGV\)"):
        trial.prove(tmp_path / "1-abc")


def test_a_model_that_does_not_end_is_a_message(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGALRM)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EdgeError, match=r"1-abc did not end its trial within 300 s on this device"):
        trial.prove(tmp_path / "1-abc")


# Networks


def cut_after(num_bytes: int, name: str = "padding.bin") -> Any:
    """The connection ends, every time, after so many bytes of what was asked."""

    def fault(handler: _Handler, place: str, content: bytes) -> bool:
        if not place.endswith(name):
            return False
        start = int((handler.headers.get("Range") or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        handler.wfile.write(content[start : start + num_bytes])
        handler.wfile.flush()
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
        return True

    return fault


def test_a_download_that_keeps_breaking_off_goes_on_from_where_it_was(
    publisher: Publisher, server: ArtifactServer, home: Home
) -> None:
    publisher.publish(1, padding=100_000)
    server.faults.append(cut_after(10_000))
    assert update(home).kind == "switched"
    starts = [int((wanted or "bytes=0-")[6:-1]) for wanted in fetched(server, "padding.bin")]
    assert starts == list(range(0, 100_000, 10_000))


def test_a_server_that_gives_drops_is_left_alone_until_another_update(
    publisher: Publisher, server: ArtifactServer, home: Home
) -> None:
    key = publisher.publish(1, padding=100_000)
    server.faults.append(cut_after(10))
    with pytest.raises(Unavailable, match=r"padding\.bin"):
        update(home)
    assert len(fetched(server, "padding.bin")) == QUICK.attempts
    assert (home.incoming(key) / "padding.bin.part").stat().st_size == 10 * QUICK.attempts
    server.faults.clear()
    assert update(home).kind == "switched"


def test_what_came_before_the_server_went_away_is_kept_for_the_next_update(
    publisher: Publisher, server: ArtifactServer, home: Home
) -> None:
    key = publisher.publish(1, padding=100_000)
    cut = cut_after(40_000)

    def goes_away(handler: _Handler, place: str, content: bytes) -> bool:
        if place.endswith("padding.bin") and fetched(server, "padding.bin")[1:]:
            handler.answer(503)
            return True
        return bool(cut(handler, place, content))

    server.faults.append(goes_away)
    with pytest.raises(Unavailable, match="padding.bin answers 503 Service Unavailable"):
        update(home)
    assert (home.incoming(key) / "padding.bin.part").stat().st_size == 40_000
    server.faults.clear()
    server.seen.clear()
    assert update(home).kind == "switched"
    assert fetched(server, "padding.bin") == ["bytes=40000-"]
    assert not fetched(server, "golden.npz")


def test_a_part_that_is_damaged_is_fetched_anew(publisher: Publisher, server: ArtifactServer, home: Home) -> None:
    key = publisher.publish(1, padding=100_000)
    home.incoming(key).mkdir(parents=True)
    (home.incoming(key) / "padding.bin.part").write_bytes(bytes(50_000))
    with home.edit() as record:
        record.step, record.candidate = "offered", key
    assert update(home).kind == "switched"
    assert fetched(server, "padding.bin") == ["bytes=50000-", None]


def test_a_server_that_cannot_skip_is_read_from_the_start(
    publisher: Publisher, server: ArtifactServer, home: Home
) -> None:
    publisher.publish(1, padding=100_000)
    cut = cut_after(40_000)

    def plain(handler: _Handler, place: str, content: bytes) -> bool:
        if not fetched(server, "padding.bin")[1:]:
            return bool(cut(handler, place, content))
        handler.answer(200, content)
        return True

    server.faults.append(plain)
    assert update(home).kind == "switched"


@pytest.mark.parametrize("name", ["padding.bin", "timestamp.json", "manifest.json"])
def test_endless_data_is_cut_off_at_the_size_that_was_signed(
    publisher: Publisher, server: ArtifactServer, home: Home, name: str
) -> None:
    publisher.publish(1, padding=1000)
    sent = 0

    def endless(handler: _Handler, place: str, content: bytes) -> bool:
        nonlocal sent
        if not place.endswith(name):
            return False
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        handler.wfile.write(content)
        while sent < 50_000_000:
            handler.wfile.write(bytes(100_000))
            sent += 100_000
        return True

    server.faults.append(endless)
    with pytest.raises(EdgeError, match="has more than the .* bytes announced; it is not taken|cannot be fetched"):
        update(home)
    assert sent < 50_000_000
    assert sum(path.stat().st_size for path in home.path.rglob("*") if path.is_file()) < 100_000


def drips(what: str) -> Any:
    """A slow loris: a byte now and then, of the head or of the body."""

    def fault(handler: _Handler, place: str, content: bytes) -> bool:
        if not place.endswith("golden.npz"):
            return False
        handler.close_connection = True
        if what == "body":
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
        with contextlib.suppress(ConnectionError):  # it goes on until nobody listens
            for byte in itertools.chain(b"HTTP/1.1 200 OK\r\nX-Slow: ", itertools.repeat(ord("a"))):
                handler.wfile.write(bytes([byte]))
                time.sleep(0.02)
        return True

    return fault


@pytest.mark.parametrize("what", ["head", "body"])
def test_a_server_that_drips_is_given_up(publisher: Publisher, server: ArtifactServer, home: Home, what: str) -> None:
    publisher.publish(1)
    server.faults.append(drips(what))
    impatient = dataclasses.replace(QUICK, headers_s=0.2, grace_s=0.2, attempts=1)
    with pytest.raises(Unavailable, match="does not answer|comes too slowly"):
        update(home, patience=impatient)


HALF_A_HEAD = b"HTTP/1.1 200 OK\r\nContent-Ty"
LESS_THAN_SIGNED = b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{"a":'


@pytest.mark.parametrize(
    ("name", "answer"),
    [("timestamp.json", HALF_A_HEAD), ("manifest.json", HALF_A_HEAD), ("manifest.json", LESS_THAN_SIGNED)],
)
def test_an_answer_that_was_cut_off_and_looks_whole_is_asked_for_again(
    publisher: Publisher, server: ArtifactServer, home: Home, name: str, answer: bytes
) -> None:
    publisher.publish(1)

    def cut_short(handler: _Handler, place: str, content: bytes) -> bool:
        if not place.endswith(name) or len(fetched(server, name)) > 1:
            return False
        handler.wfile.write(answer)
        handler.close_connection = True
        return True

    server.faults.append(cut_short)
    assert update(home).kind == "switched"
    assert len(fetched(server, name)) == 2


def test_a_server_that_asks_for_time_gets_it(publisher: Publisher, server: ArtifactServer, home: Home) -> None:
    publisher.publish(1)
    asked: list[float] = []

    def busy(handler: _Handler, place: str, content: bytes) -> bool:
        asked.append(time.monotonic())
        if len(asked) == 1:
            handler.answer(429, Retry_After="0.2")
        return len(asked) == 1

    server.faults.append(busy)
    assert update(home).kind == "switched"
    assert asked[1] - asked[0] >= 0.2


def test_a_server_that_asks_for_an_hour_is_left_alone(publisher: Publisher, server: ArtifactServer, home: Home) -> None:
    publisher.publish(1)
    server.faults.append(lambda handler, place, content: handler.answer(503, Retry_After="3600") or True)
    with pytest.raises(Unavailable, match="answers 503"):
        update(home)
    assert len(server.seen) == 1
    assert 3500 < home.read().not_before - time.time() <= 3600


@pytest.mark.parametrize("asked", ["1e999", "nan", "soon", "-1", "Mon, 01 Jan 0001 00:00:00 -0000"])
def test_a_server_that_asks_for_no_time_at_all_is_asked_again_as_usual(
    publisher: Publisher, server: ArtifactServer, home: Home, asked: str
) -> None:
    publisher.publish(1)
    server.faults.append(lambda handler, place, content: handler.answer(503, Retry_After=asked) or True)
    with pytest.raises(Unavailable, match="answers 503"):
        update(home)
    assert len(server.seen) == QUICK.attempts
    assert home.read().not_before == 0


def test_a_server_that_sends_on_to_what_is_no_address_is_told_of(
    publisher: Publisher, server: ArtifactServer, home: Home
) -> None:
    server.faults.append(lambda handler, place, content: handler.answer(302, Location="http://[") or True)
    with pytest.raises(Unavailable, match="does not answer: "):
        update(home)


def test_a_device_is_as_patient_as_its_settings_say(publisher: Publisher, tmp_path: Path) -> None:
    source = updating.open_source(provisioned(publisher, tmp_path, patience=0.5))
    usual = Patience()
    assert (source.patience.read_s, source.patience.most_s) == (usual.read_s / 2, usual.most_s / 2)
    assert (source.patience.attempts, source.patience.min_bytes_per_s) == (usual.attempts, usual.min_bytes_per_s)
    assert usual.times(0).read_s == usual.read_s / 100


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "answers 401 .* set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to the device's account"),
        (500, "answers 500 Internal Server Error"),
    ],
)
def test_a_server_that_refuses_is_told_of(
    publisher: Publisher, server: ArtifactServer, home: Home, status: int, message: str
) -> None:
    server.faults.append(lambda handler, place, content: handler.answer(status) or True)
    with pytest.raises(EdgeError, match=message):
        update(home)


def test_a_server_that_is_away_is_told_of(publisher: Publisher, tmp_path: Path, closed_server: str) -> None:
    home = provisioned(publisher, tmp_path, closed_server)
    with pytest.raises(Unavailable, match="does not answer: .*refused"):
        update(home)


def test_the_account_comes_from_the_environment(
    publisher: Publisher, server: ArtifactServer, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher.publish(1)
    wanted = []

    def look(handler: _Handler, place: str, content: bytes) -> bool:
        wanted.append(handler.headers.get("Authorization"))
        return False

    server.faults.append(look)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "device")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "word")
    updating.update(home, updating.open_source(home), prove=trial.examine)
    assert set(wanted) == {"Basic ZGV2aWNlOndvcmQ="}


# Locks


def test_while_the_application_says_not_now_nothing_is_tried_out_or_switched_to(
    publisher: Publisher, home: Home
) -> None:
    publisher.publish(1)
    with home.hold():
        outcome = update(home, prove=lambda folder: pytest.fail("tried out"))
        assert (outcome.kind, home.read().step, home.read().current) == ("held", "verified", None)
    with contextlib.ExitStack() as stack:

        def prove_and_hold(folder: Path) -> dict[str, Any]:
            stack.enter_context(home.hold())  # the application begins to fly while the trial runs
            return {}

        assert update(home, prove=prove_and_hold).kind == "held"
        assert (home.read().step, home.read().current) == ("proven", None)
    assert update(home, prove=lambda folder: pytest.fail("tried out again")).kind == "switched"


def test_two_updates_do_not_meet(publisher: Publisher, home: Home) -> None:
    publisher.publish(1)

    def prove(folder: Path) -> dict[str, Any]:
        with pytest.raises(EdgeError, match="another update of .* is running"):
            update(home)
        return {}

    assert update(home, prove=prove).kind == "switched"


def test_a_bundle_that_rotted_on_the_disk_is_fetched_again(publisher: Publisher, home: Home) -> None:
    first = publisher.publish(1)
    update(home)
    commit(home)
    second = publisher.publish(2)
    update(home)
    commit(home)
    flip(home.bundle(second) / MODEL_FILE)
    assert update(home).kind == "switched"
    bundle.read(home.bundle(second))
    assert home.read().previous == first


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_told_of(publisher: Publisher, home: Home) -> None:
    publisher.publish(1)
    home.path.chmod(0o500)
    with pytest.raises(OSError, match="denied"):
        update(home)
