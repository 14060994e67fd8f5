"""An agent: a model that answers throughout, swapped, judged and taken back under a running application."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.edge import EdgeError, trial
from limbeck.edge import update as updating
from limbeck.edge.agent import Agent
from limbeck.edge.fetch import Folder
from limbeck.edge.home import Home
from limbeck.edge.measure import open_session
from tests.conftest import ROOT
from tests.edge.delivery import (
    INPUTS,
    LOOPS,
    NAN_ON_BLACK,
    PLAIN,
    RAISES_ON_BLACK,
    ArtifactServer,
    Publisher,
    provisioned,
)

BLACK = np.zeros((1, 8, 8, 1), np.uint8)


@pytest.fixture
def home(publisher: Publisher, tmp_path: Path) -> Home:
    """A device that runs serial 1, and has no server."""
    home = provisioned(publisher, tmp_path)
    install(publisher, home, 1)
    with home.edit() as record:
        record.commit()
    return home


def install(publisher: Publisher, home: Home, serial: int, body: str = PLAIN, **changed: Any) -> str:
    """Publish a bundle and switch to it; its key."""
    key = publisher.publish(serial, body, **changed)
    assert updating.update(home, Folder(publisher.folder), prove=trial.examine).kind == "switched"
    return key


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


def events(home: Home) -> list[tuple[str, int]]:
    found = [json.loads(path.read_text()) for path in sorted(home.spool.glob("*.json"))]
    return [(report["event"], report["serial"]) for report in found if report["kind"] == "event"]


def test_answers_are_the_files_own(publisher: Publisher, home: Home) -> None:
    expected = open_session(publisher.bundles[1] / "model.int8.onnx", 1).run(None, {"input": INPUTS})[0]
    with Agent(home.path, updates=False) as agent:
        assert np.array_equal(agent.predict(INPUTS), expected)
        best = agent.classify(INPUTS)[0]
        assert best.label == f"digit {expected[0].argmax()}"
        assert 0.1 < best.confidence <= 1


@pytest.mark.parametrize(
    "batch",
    [INPUTS.astype(np.float32), INPUTS[0], INPUTS[:, :4], INPUTS[:0]],
    ids=["type", "one sample", "shape", "empty"],
)
def test_a_batch_that_does_not_fit_is_described_and_no_fault_of_the_model(
    publisher: Publisher, home: Home, batch: Any
) -> None:
    key = install(publisher, home, 2)
    with Agent(home.path, updates=False) as agent:
        with pytest.raises(EdgeError, match=r"digits-phone takes uint8 \[batch, 8, 8, 1\], raw; found"):
            agent.predict(batch)
        assert agent.serial == 2
    assert home.read().current == key


def test_a_swap_loses_no_request_and_those_in_flight_finish_on_the_old_model(publisher: Publisher, home: Home) -> None:
    answers: dict[int, np.ndarray] = {}
    for serial in (1, 2):
        publisher.make(serial)
        answers[serial] = open_session(publisher.bundles[serial] / "model.int8.onnx", 1).run(None, {"input": INPUTS})[0]
    wrong: list[Any] = []
    seen = set()
    stop = threading.Event()
    with Agent(home.path, updates=False) as agent:

        def ask() -> None:
            while not stop.is_set():
                try:
                    found = agent.predict(INPUTS)
                    (serial,) = [s for s, logits in answers.items() if np.array_equal(found, logits)]
                    seen.add(serial)
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        install(publisher, home, 2)
        wait_for(lambda: agent.serial == 2 and 2 in seen)
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong
    assert seen == {1, 2}


def test_a_version_without_a_fault_in_its_window_is_committed(publisher: Publisher, home: Home) -> None:
    with Agent(home.path, updates=False) as agent:
        install(publisher, home, 2)
        wait_for(lambda: agent.serial == 2)
        assert home.read().on_probation
        for _ in range(3):
            agent.predict(INPUTS)
        wait_for(lambda: not home.read().on_probation)
    record = home.read()
    assert (record.step, record.current.split("-")[0], record.previous.split("-")[0]) == ("idle", "2", "1")  # type: ignore[union-attr]
    assert events(home) == [("committed", 2)]


@pytest.mark.parametrize(
    ("body", "why"),
    [(NAN_ON_BLACK, "it answered with what is no finite number"), (RAISES_ON_BLACK, "InvalidArgument: .*Gather")],
    ids=["nan", "error"],
)
def test_a_version_that_fails_in_use_is_left_before_its_answer_is_given(
    publisher: Publisher, home: Home, body: str, why: str
) -> None:
    first = home.read().current
    key = install(publisher, home, 2, body)
    with Agent(home.path, updates=False) as agent:
        assert agent.serial == 2
        assert np.isfinite(agent.predict(BLACK)).all()
        assert agent.serial == 1
    record = home.read()
    assert (record.current, list(record.refused)) == (first, [key])
    with pytest.raises(EdgeError, match=why):
        raise EdgeError(record.refused[key])
    assert events(home)[-1] == ("reverted", 2)
    again = updating.update(home, Folder(publisher.folder), prove=trial.examine)
    assert again.kind == "refused"


def test_a_version_that_was_left_is_not_taken_up_before_that_is_written_down(
    publisher: Publisher, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(publisher, home, 2, RAISES_ON_BLACK)
    monkeypatch.setattr(Agent, "_write_back", lambda *_: None)  # later, or never: the disk is slow, or read-only
    with Agent(home.path, updates=False) as agent:
        agent.predict(BLACK)
        with home.edit() as record:
            record.failure = "an update wrote meanwhile"
        agent._follow()
        agent._swap()
        agent.predict(BLACK)
        assert agent.serial == 1
        with home.edit() as record:
            record.since += 1  # the operator had it switched to again
        agent._follow()
        assert agent.serial == 2


def test_of_two_processes_the_second_follows_where_the_first_went_back(publisher: Publisher, home: Home) -> None:
    key = install(publisher, home, 2, RAISES_ON_BLACK)
    with Agent(home.path, updates=False) as one, Agent(home.path, updates=False) as other:
        assert np.array_equal(one.predict(BLACK), other.predict(BLACK))
        assert (one.serial, other.serial) == (1, 1)
    assert list(home.read().refused) == [key]


def test_a_version_too_slow_in_use_goes_back_by_itself(publisher: Publisher, home: Home) -> None:
    with Agent(home.path, updates=False) as agent:
        publisher.publish(2, LOOPS.format(times=30000), contract={"max_p95_ms": 0.01})
        updating.update(home, Folder(publisher.folder), prove=lambda folder: {})  # idle then, busy now
        wait_for(lambda: agent.serial == 2)
        for _ in range(3):
            agent.predict(INPUTS[:1])
        wait_for(lambda: agent.serial == 1)
    (why,) = home.read().refused.values()
    assert "in use, more than 3 times the contract's 0.01 ms" in why


def test_a_version_that_is_much_less_sure_goes_back(publisher: Publisher, home: Home) -> None:
    with Agent(home.path, updates=False) as agent:
        for _ in range(3):
            agent.predict(INPUTS)
        wait_for(lambda: agent._model.usage.confidence.count >= 3)
        install(publisher, home, 2, "tenth = Constant<value_float=0.01>() logits = Mul(plain, tenth)")
        wait_for(lambda: agent.serial == 2)
        for _ in range(3):
            agent.predict(INPUTS)
        wait_for(lambda: agent.serial == 1)
    (why,) = home.read().refused.values()
    assert why.startswith("its mean confidence is 0.1")


def test_the_first_version_has_nothing_to_go_back_to_and_says_so(publisher: Publisher, tmp_path: Path) -> None:
    home = provisioned(publisher, tmp_path)
    with pytest.raises(EdgeError, match="holds no model yet. Next: limbeck-edge update --home"):
        Agent(home.path)
    install(publisher, home, 1, RAISES_ON_BLACK)
    with Agent(home.path, updates=False) as agent:
        with pytest.raises(EdgeError, match="1-.* cannot answer: InvalidArgument"):
            agent.predict(BLACK)
        assert np.isfinite(agent.predict(INPUTS)).all()


def test_a_version_that_takes_processes_down_is_left_after_some(publisher: Publisher, home: Home) -> None:
    install(publisher, home, 2)
    code = "import os, sys; from limbeck.edge.agent import Agent; Agent(sys.argv[1], updates=False); os._exit(9)"
    with home.edit() as record:
        record.starts = 2
    subprocess.run([sys.executable, "-c", code, str(home.path)], cwd=ROOT, check=False)
    assert home.read().starts == 3
    with Agent(home.path, updates=False) as agent:
        assert agent.serial == 1
    (why,) = home.read().refused.values()
    assert why == "3 processes that used it ended without closing it."


def test_a_clean_end_on_probation_counts_as_none(publisher: Publisher, home: Home) -> None:
    install(publisher, home, 2)
    for _ in range(5):
        with Agent(home.path, updates=False) as agent:
            assert agent.serial == 2
    assert home.read().starts == 0


def test_a_damaged_current_version_is_not_opened_and_the_one_before_serves(publisher: Publisher, home: Home) -> None:
    key = install(publisher, home, 2)
    with home.edit() as record:
        record.commit()
    file = home.bundle(key) / "model.int8.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    with Agent(home.path, updates=False) as agent:
        assert agent.serial == 1


def test_while_the_application_holds_the_model_stays(publisher: Publisher, home: Home) -> None:
    with Agent(home.path, updates=False) as agent, agent.hold():
        publisher.publish(2)
        assert updating.update(home, Folder(publisher.folder), prove=trial.examine).kind == "held"
        assert agent.serial == 1


def test_a_folder_that_turned_read_only_or_a_full_disk_end_no_inference(
    publisher: Publisher, home: Home, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from limbeck.edge import durable

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    install(publisher, home, 2)
    monkeypatch.setattr(durable, "write_bytes", full)
    with caplog.at_level(logging.WARNING, "limbeck.edge"), Agent(home.path, updates=False) as agent:
        for _ in range(5):
            agent.predict(INPUTS)
        wait_for(lambda: "judge failed; inference goes on" in caplog.text)
        assert agent.serial == 2
        assert np.isfinite(agent.predict(INPUTS)).all()


def test_the_agent_starts_updates_by_itself_in_another_process(
    publisher: Publisher, server: ArtifactServer, home: Home
) -> None:
    described = json.loads((home.path / "device.json").read_text())
    (home.path / "device.json").write_text(json.dumps({**described, "server": server.address}))
    publisher.publish(2)
    with Agent(home.path) as agent:
        agent._check_due = 0.0
        wait_for(lambda: agent.serial == 2)
        for _ in range(3):
            agent.predict(INPUTS)
        wait_for(lambda: not home.read().on_probation)


def test_the_serving_process_carries_no_update_client(home: Home) -> None:
    code = (
        "import sys; import numpy as np\nfrom limbeck.edge.agent import Agent\n"
        "with Agent(sys.argv[1]) as agent: agent.predict(np.zeros((1, 8, 8, 1), np.uint8))\n"
        "heavy = {'tuf', 'urllib3', 'securesystemslib', 'cryptography', 'packaging', 'http.client'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(home.path)], check=True, cwd=ROOT, env={**os.environ})
