"""Which runs are called lost, which are tried again, and how often."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, StateType

from flows.services.tending import TRIES, Tender

START = datetime(2026, 11, 21, 12, tzinfo=UTC)
LOST_S = 120.0


class Server:
    """Prefect's server as far as it is asked here."""

    def __init__(self) -> None:
        self.now = START
        self.history: dict[UUID, list[State[Any]]] = {}
        self.beats: dict[UUID, datetime] = {}

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def begin(self, *states: StateType) -> UUID:
        run = uuid4()
        self.history[run] = []
        for state in states:
            self.set_flow_run_state(run, State(type=state))
        return run

    def state(self, run: UUID) -> str:
        return str(self.history[run][-1].name)

    def read_flow_runs(self, flow_run_filter: Any, **_: Any) -> list[Any]:
        wanted = flow_run_filter.state.type.any_
        return [
            SimpleNamespace(id=run, name=str(run), state=states[-1])
            for run, states in self.history.items()
            if states[-1].type in wanted
        ]

    def read_flow_run_states(self, run: UUID) -> list[State[Any]]:
        return self.history[run]

    def set_flow_run_state(self, run: UUID, state: State[Any]) -> None:
        self.history[run].append(state.model_copy(update={"timestamp": self.now}))

    def request(self, method: str, path: str, json: dict[str, Any]) -> Any:
        assert (method, path) == ("POST", "/events/filter")
        (resource,) = json["filter"]["resource"]["id"]
        beat = self.beats.get(UUID(resource.removeprefix("prefect.flow-run.")))
        heard = beat is not None and beat >= datetime.fromisoformat(json["filter"]["occurred"]["since"])
        answer = SimpleNamespace(json=lambda: {"events": ["beat"] if heard else []})
        return SimpleNamespace(raise_for_status=lambda: answer)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def tender(server: Server, said: list[str]) -> Tender:
    fake: Any = server
    return Tender(fake, "limbeck", LOST_S, said.append, lambda: server.now)


@pytest.mark.parametrize("state", [StateType.RUNNING, StateType.PENDING])
def test_a_silent_run_is_called_crashed_and_tried_again(
    server: Server, tender: Tender, said: list[str], state: StateType
) -> None:
    run = server.begin(state)
    server.later(LOST_S)
    tender.look()
    assert server.history[run][-1].type == state
    server.later(1)
    tender.look()
    server.later(11)
    tender.look()
    assert [found.name for found in server.history[run][1:]] == ["Crashed", "AwaitingRetry"]
    assert "Nothing was heard of it for 120 s" in said[0]


def test_a_run_that_gives_signs_of_life_is_left_alone_however_long_it_takes(server: Server, tender: Tender) -> None:
    run = server.begin(StateType.RUNNING)
    for _ in range(100):
        server.later(30)
        server.beats[run] = server.now
        server.later(60)
        tender.look()
    assert server.state(run) == "Running"


def test_after_a_restart_living_runs_have_time_to_speak(server: Server, said: list[str]) -> None:
    run = server.begin(StateType.RUNNING)
    server.later(3600)
    fake: Any = server
    tender = Tender(fake, "limbeck", LOST_S, said.append, lambda: server.now)
    tender.look()
    assert server.state(run) == "Running"
    server.later(LOST_S + 1)
    tender.look()
    assert server.state(run) == "Crashed"


def test_what_kills_its_process_every_time_does_so_a_few_times_only(server: Server, tender: Tender) -> None:
    run = server.begin(StateType.RUNNING, StateType.CRASHED)
    for _ in range(10):
        server.later(11)
        tender.look()
        if server.state(run) == "AwaitingRetry":
            server.set_flow_run_state(run, State(type=StateType.CRASHED))
    assert sum(found.type == StateType.CRASHED for found in server.history[run]) == TRIES
    assert server.state(run) == "Crashed"


def test_a_death_may_be_told_twice_before_it_is_answered(server: Server, tender: Tender) -> None:
    run = server.begin(StateType.RUNNING, StateType.CRASHED)
    tender.look()
    assert server.state(run) == "Crashed"
    server.later(11)
    tender.look()
    assert server.state(run) == "AwaitingRetry"


def test_a_cancelled_run_whose_process_is_gone_stays_cancelled(server: Server, tender: Tender) -> None:
    run = server.begin(StateType.CANCELLING)
    server.later(LOST_S + 1)
    tender.look()
    tender.look()
    assert server.state(run) == "Cancelled"


@pytest.mark.parametrize("state", [StateType.FAILED, StateType.COMPLETED, StateType.PAUSED, StateType.SCHEDULED])
def test_everything_else_is_nobodys_business(server: Server, tender: Tender, state: StateType) -> None:
    run = server.begin(state)
    server.later(1e5)
    tender.look()
    assert [found.type for found in server.history[run]] == [state]


def test_an_old_crash_is_not_dug_up(server: Server, tender: Tender) -> None:
    run = server.begin(StateType.CRASHED)
    server.later(25 * 3600)
    tender.look()
    assert server.state(run) == "Crashed"
