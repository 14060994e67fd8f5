"""What comes back from a device: small, bounded, sent once it is acknowledged, never in the way."""

import errno
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.edge import EdgeError, spool
from limbeck.edge.agent import Agent
from limbeck.edge.fetch import Server, Unavailable
from limbeck.edge.home import Home
from limbeck.edge.sketch import Sketch
from limbeck.edge.usage import Usage
from tests.edge.delivery import INPUTS, QUICK, ArtifactServer, Publisher, _Handler, provisioned
from tests.edge.test_agent import install, wait_for

VALUES = st.lists(st.floats(-1e6, 1e6).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=1, max_size=60)


@given(values=VALUES, q=st.floats(0, 1))
def test_a_sketch_knows_its_quantiles_within_its_accuracy(values: list[float], q: float) -> None:
    sketch = Sketch(1.04)
    sketch.add(values)
    expected = float(np.quantile(values, q, method="lower"))
    assert sketch.quantile(q) == pytest.approx(expected, rel=0.02 + 1e-9)
    assert sketch.mean == pytest.approx(np.mean(values), abs=1e-6)


@given(ours=VALUES, theirs=VALUES)
def test_sketches_add_up_and_come_back_from_json(ours: list[float], theirs: list[float]) -> None:
    one, other, both = Sketch(), Sketch(), Sketch()
    one.add(ours)
    other.add(theirs)
    both.add([*ours, *theirs])
    one.merge(Sketch.from_json(json.loads(json.dumps(other.to_json()))))
    found, expected = one.to_json(), both.to_json()
    assert found.pop("sum", 0) == pytest.approx(expected.pop("sum", 0), abs=1e-6)
    assert found == expected


def test_a_sketch_of_nothing_says_so() -> None:
    sketch = Sketch()
    sketch.add([float("nan"), float("inf")])
    assert sketch.to_json() == {"growth": 1.04, "count": 0}
    assert np.isnan(sketch.quantile(0.5))
    assert Sketch.from_json(sketch.to_json()).count == 0


def test_counts_are_exact_from_many_threads_and_a_report_is_a_few_kilobytes() -> None:
    usage = Usage()
    generator = np.random.default_rng(0)
    batches = generator.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    logits = generator.standard_normal((2, 10)).astype(np.float32)

    def ask() -> None:
        for _ in range(3000):
            usage.note(int(generator.integers(10_000, 10_000_000)), batches, logits)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        usage.digest()
    usage.digest()
    report = usage.report()
    assert (report["calls"], report["samples"]) == (12_000, 24_000)
    assert set(report["inputs"]) == {"mean 0", "mean 1", "mean 2", "std 0", "std 1", "std 2"}
    assert report["latency_ms"]["2"]["p50_ms"] < report["latency_ms"]["2"]["p95_ms"]
    assert len(json.dumps(report, separators=(",", ":"))) < 8000


def test_latency_is_kept_apart_for_a_few_batch_sizes_alone() -> None:
    usage = Usage()
    for size in range(1, 9):
        usage.note(1000 * size, np.zeros((size, 2), np.float32), np.zeros((size, 3), np.float32))
    usage.digest()
    assert {size: found["sketch"]["count"] for size, found in usage.report()["latency_ms"].items()} == {
        **dict.fromkeys("1234", 1),
        "other": 4,
    }


def test_answers_that_are_no_numbers_and_errors_are_counted() -> None:
    usage = Usage()
    usage.note(1000, INPUTS[:2], np.array([[np.nan, 0], [1, 2]], np.float32))
    usage.note_error("Fail")
    usage.digest()
    report = usage.report()
    assert (report["not_finite"], report["errors"], report["confidence"]["count"]) == (1, {"Fail": 1}, 1)


@pytest.mark.parametrize(
    ("shape", "columns"),
    [((3,), {"0", "1", "2"}), ((16_000,), {"mean", "std", "max"}), ((8, 40), {"mean", "std", "max"})],
)
def test_inputs_of_any_shape_are_described(shape: tuple[int, ...], columns: set[str]) -> None:
    usage = Usage()
    usage.note(1000, np.ones((1, *shape), np.float32), np.zeros((1, 2), np.float32))
    usage.digest()
    assert set(usage.report()["inputs"]) == columns


# The spool


@pytest.fixture
def device(publisher: Publisher, server: ArtifactServer, tmp_path: Path) -> Home:
    return provisioned(publisher, tmp_path, server.address)


def upload(home: Home) -> int:
    return spool.upload(home, Server(home.device.server or "", home.device.metadata, patience=QUICK))


def test_a_report_is_removed_once_the_server_has_acknowledged_it(device: Home, server: ArtifactServer) -> None:
    spool.tell(device, "refused", "3-abc", "too slow")
    assert upload(device) == 1
    ((place, content),) = server.uploads.items()
    assert place.startswith(f"9/reports/{device.device.id}/")
    found = json.loads(content)
    assert (found["event"], found["serial"], found["why"]) == ("refused", 3, "too slow")
    assert not list(device.spool.iterdir())
    assert upload(device) == 0


@pytest.mark.parametrize(
    ("status", "message"),
    [(503, "answers 503"), (403, "let the device's account edit .* nothing is lost, .*json waits")],
)
def test_nothing_is_lost_while_the_server_does_not_take_it(
    device: Home, server: ArtifactServer, status: int, message: str
) -> None:
    spool.tell(device, "refused", "3-abc", "too slow")
    server.faults.append(lambda handler, place, content: handler.answer(status) or True)
    with pytest.raises(EdgeError, match=message):
        upload(device)
    server.faults.clear()
    assert upload(device) == 1


def test_a_page_in_the_servers_place_is_no_acknowledgement(device: Home, server: ArtifactServer) -> None:
    spool.tell(device, "refused", "3-abc", "too slow")
    server.faults.append(lambda handler, place, content: handler.answer(200, b"<html>Welcome!</html>") or True)
    with pytest.raises(Unavailable, match="did not acknowledge it"):
        upload(device)
    server.faults[0] = lambda handler, place, content: handler.answer(200, b"{}") or True
    assert upload(device) == 1


def test_an_acknowledgement_that_is_lost_leads_to_the_same_file_again(device: Home, server: ArtifactServer) -> None:
    spool.tell(device, "refused", "3-abc", "too slow")

    def hangs_up(handler: _Handler, place: str, content: bytes) -> bool:
        server.uploads[place] = content
        handler.close_connection = True
        return True

    server.faults.append(hangs_up)
    with pytest.raises(Unavailable, match="does not answer"):
        upload(device)
    server.faults.clear()
    assert upload(device) == 1
    assert len(server.uploads) == 1


def test_the_spool_is_bounded_and_the_oldest_goes_first(publisher: Publisher, tmp_path: Path) -> None:
    home = provisioned(publisher, tmp_path, max_spool_bytes=1000)
    for index in range(20):
        path = home.spool / f"2026{index:04}.json"
        path.write_bytes(bytes(100))
    assert spool.bound(home) == 10
    assert spool.bound(home) == 10, "how many went in all"
    assert min(path.name for path in home.spool.iterdir()) == "20260010.json"


def test_what_a_dead_process_left_open_is_sent_and_what_a_living_one_writes_is_not(
    device: Home, server: ArtifactServer
) -> None:
    for name, age in (("20260101-1-a", 3600), ("20260102-1-b", 1)):
        path = device.spool / f"{name}.open"
        path.write_text("{}")
        os.utime(path, (time.time() - age, time.time() - age))
    assert upload(device) == 1
    assert [path.name for path in device.spool.iterdir()] == ["20260102-1-b.open"]


def test_what_a_killed_process_had_not_written_to_its_end_is_removed_in_time(device: Home) -> None:
    old, new = (device.spool / f"{name}.json.partial" for name in ("old", "new"))
    for path in (old, new):
        path.write_text('{"cut off')
    os.utime(old, (0, 0))
    spool.close_stale(device)
    assert list(device.spool.glob("*.partial")) == [new]


def test_a_report_that_a_full_disk_does_not_take_leaves_nothing_there(
    device: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(device.spool.iterdir())

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    spool.tell(device, "refused", "1-abc", "it is too slow")
    assert set(device.spool.iterdir()) == before


def test_a_report_that_gives_way_while_it_is_sent_is_no_failure(
    device: Home, server: ArtifactServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.tell(device, "refused", "1-abc", "it is too slow")

    def give_way(self: Server, place: str, content: bytes) -> None:
        for path in device.spool.glob("*.json"):
            path.unlink()

    monkeypatch.setattr(Server, "put", give_way)
    assert upload(device) >= 1


def test_a_device_without_a_place_for_reports_sends_none(
    publisher: Publisher, server: ArtifactServer, tmp_path: Path
) -> None:
    home = provisioned(publisher, tmp_path, server.address)
    described = json.loads((home.path / "device.json").read_text())
    (home.path / "device.json").write_text(json.dumps({**described, "reports": None}))
    silent = Home(home.path)
    spool.tell(silent, "refused", "3-abc", "too slow")
    assert upload(silent) == 0
    assert not server.uploads


# Samples


def used(publisher: Publisher, place: Path, **settings: Any) -> Home:
    """A device whose application asked for a while."""
    home = provisioned(publisher, place, **settings)
    install(publisher, home, 1)
    with Agent(home.path, updates=False) as agent:
        for _ in range(4):
            looked = sum(sketch.count for sketch in agent._model.usage.inputs.values())
            agent._model.usage._input_due = 0.0
            agent.predict(INPUTS[:1])
            wait_for(lambda seen=looked: sum(s.count for s in agent._model.usage.inputs.values()) > seen)  # type: ignore[misc]
    return home


def test_raw_inputs_never_leave_by_default(publisher: Publisher, tmp_path: Path) -> None:
    home = used(publisher, tmp_path)
    assert not list(home.spool.glob("*.npz"))
    assert all(b"sketch" in path.read_bytes() for path in home.spool.glob("*.json") if b"usage" in path.read_bytes())


def test_unsure_samples_are_kept_where_that_was_switched_on_up_to_a_daily_cap(
    publisher: Publisher, tmp_path: Path
) -> None:
    home = used(publisher, tmp_path, samples_below=1.0, samples_per_day=2)
    kept = list(home.spool.glob("*.npz"))
    assert len(kept) == 2
    with np.load(kept[0], allow_pickle=False) as found:
        assert set(found) == {"input", "confidence"}
        assert np.array_equal(found["input"], INPUTS[:1])
        assert 0 < found["confidence"] < 1
