"""When devices look for updates: spread, and never before the server said."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from limbeck.edge import cli, fetch, schedule
from limbeck.edge import update as updating
from limbeck.edge.agent import Agent
from limbeck.edge.fetch import Folder, Patience, Unavailable, persist
from limbeck.edge.home import Home, Record, Settings
from tests.edge.delivery import Publisher, provisioned

NOW, FLEET = 1e9, 500
SETTINGS = Settings(check_every_s=1000)


def busiest(moments: list[float], span_s: float) -> int:
    """How many of the moments fall into the fullest tenth of a span."""
    least = min(moments)
    counts = [0] * 11
    for moment in moments:
        counts[int((moment - least) / span_s * 10)] += 1
    return max(counts)


def test_the_next_looks_of_a_fleet_lie_a_tenth_around_its_schedule() -> None:
    moments = [schedule.until_next_s(SETTINGS, Record(), NOW) for _ in range(FLEET)]
    assert all(900 <= moment <= 1100 for moment in moments)
    assert busiest(moments, 200) < FLEET / 5


def test_nobody_comes_back_before_the_server_said_nor_all_at_that_moment() -> None:
    moments = [schedule.until_next_s(SETTINGS, Record(not_before=NOW + 120), NOW) for _ in range(FLEET)]
    assert all(120 <= moment <= 220 for moment in moments)
    assert busiest(moments, 100) < FLEET / 5


@pytest.mark.parametrize("not_before", [NOW - 1, NOW + 40 * 24 * 3600])
def test_a_moment_that_is_over_or_absurd_leaves_the_schedule_as_it_is(not_before: float) -> None:
    assert 900 <= schedule.until_next_s(SETTINGS, Record(not_before=not_before), NOW) <= 1100


def test_without_a_model_pauses_double_up_to_the_schedule() -> None:
    for failed, most_s in ((1, 60), (2, 120), (5, 960), (6, 1000), (10**6, 1000)):
        assert most_s / 2 <= schedule.until_first_s(SETTINGS, Record(), NOW, failed) <= most_s
    assert 150 <= schedule.until_first_s(SETTINGS, Record(not_before=NOW + 120), NOW, 1) <= 180


def busy_once(retry_after_s: float) -> Callable[[], bool]:
    told = [Unavailable("busy", retry_after_s)]

    def knock() -> bool:
        if told:
            raise told.pop()
        return True

    return knock


def test_a_fleet_that_is_told_to_wait_comes_back_over_as_long_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(fetch, "time", SimpleNamespace(sleep=pauses.append))
    assert all(persist(busy_once(30.0), Patience()) for _ in range(FLEET))
    assert len(pauses) == FLEET
    assert all(30 <= pause <= 60 for pause in pauses)
    assert busiest(pauses, 30) < FLEET / 5


@pytest.fixture
def home(publisher: Publisher, tmp_path: Path) -> Home:
    return provisioned(publisher, tmp_path, check_every_s=1000)


def test_devices_that_start_together_have_each_their_own_first_moment(publisher: Publisher, home: Home) -> None:
    publisher.publish(1)
    updating.update(home, Folder(publisher.folder), prove=lambda _: {})
    moments = []
    for index in range(3):
        described = home.path / "device.json"
        described.write_text(described.read_text().replace(home.device.id, f"{index * 4999:016x}"))
        home = Home(home.path)
        with Agent(home.path) as agent:
            moments.append(round(agent._check_due - time.monotonic()))
    assert moments == [0, 50, 100]


def test_an_agent_whose_update_was_told_to_wait_comes_back_at_that_time(publisher: Publisher, home: Home) -> None:
    publisher.publish(1)
    updating.update(home, Folder(publisher.folder), prove=lambda _: {})
    with home.edit() as record:
        record.not_before = time.time() + 120
    with Agent(home.path) as agent:
        agent._updating = SimpleNamespace(poll=lambda: 2)  # type: ignore[assignment]
        agent._update()
        assert 119 < agent._check_due - time.monotonic() <= 220
        agent._check_due = 0.0
        agent._update()
        assert 119 < agent._check_due - time.monotonic() <= 220, "nor does a look that was due come earlier"
        assert agent._updating is None


class Told(threading.Event):
    """Says stop after so many waits, which it remembers and does not wait for."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times, self.pauses = times, []  # type: ignore[var-annotated]

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses.append(timeout)
        return len(self.pauses) > self.times


def test_without_a_model_run_waits_for_the_server_instead_of_ending(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(home: Home, *_: object) -> None:
        with home.edit() as record:
            record.not_before = time.time() + 200
        raise Unavailable("it answers 503.", 200.0)

    monkeypatch.setattr(updating, "update", away)
    told = Told(2)
    assert not cli._first_model(home, None, told)
    first, second, third = told.pauses
    assert first == 0
    assert 200 < second < 261
    assert 200 < third < 321
    assert "it answers 503. Trying again in" in capsys.readouterr().err
    again = Told(0)
    assert not cli._first_model(home, None, again)
    assert 199 < again.pauses[0] <= 200, "a supervisor's restart does not knock before its time either"
