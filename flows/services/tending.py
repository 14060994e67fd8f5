"""Runs of deployments whose process is gone: called so, and tried again.

    Pending, Running --- no sign of life for `lost_s` ---> Crashed --- TRIES times in all ---> AwaitingRetry ---> a worker
    Cancelling ----------------------------------------> Cancelled        (the same run, its parameters)

A run tells its server every `environment.HEARTBEAT_S` that it lives. Killed with its worker it says nothing more, and
would stay Running for ever and hold its deployment's `concurrency_limit`. The next try goes on where DVC knows the last
one got to. Should a run live and only have been slow to say so, nothing is lost by that either: DVC's locks keep one
stage from two runs at once.

Prefect's own advice is an automation on missing heartbeats. After a restart a server holds state changes back that follow
others which it saw before, for a quarter of an hour, and automations with them; states and heartbeats themselves are in
its database at once, so these are what is looked at.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.types._datetime import now

TRIES = 3
"""How often one run is begun, at most: what kills its process every time shall not do so for ever."""

RECENT = timedelta(days=1)
"""What crashed longer ago is left to those who saw it."""

ENDS = {
    StateType.PENDING: StateType.CRASHED,
    StateType.RUNNING: StateType.CRASHED,
    StateType.CANCELLING: StateType.CANCELLED,
}
SETTLED = timedelta(seconds=10)
"""A worker may call one death Crashed twice; what is Scheduled in between crashes anew."""

LOST = "Nothing was heard of it for {:.0f} s: its process is gone."
AGAIN = "AwaitingRetry"


class Tender:
    """Looks after the runs of a work pool.

    Args:
        client: of the server.
        pool: the work pool's name.
        lost_s: how long a run may be silent; several heartbeats. Counted from now on, for the server may have been away.
        say: gets a line about everything that is done.
        clock: tells the time.

    """

    def __init__(
        self,
        client: SyncPrefectClient,
        pool: str,
        lost_s: float,
        say: Callable[[str], None] = print,
        clock: Callable[[], datetime] = lambda: now("UTC"),
    ) -> None:
        self.client, self.pool, self.say, self.clock = client, pool, say, clock
        self.lost = timedelta(seconds=lost_s)
        self.began = clock()
        self._left: set[UUID] = set()

    def look(self) -> None:
        """End what is gone, then try again what may.

        Raises:
            httpx.HTTPError: the server does not answer.

        """
        for run in self._read(*ENDS):
            assert run.state is not None
            since = self.clock() - self.lost
            if max(self.began, run.state.timestamp) < since and not self._beats(run, since):
                self._set(run, State(type=ENDS[run.state.type], message=LOST.format(self.lost.total_seconds())))
        for run in self._read(StateType.CRASHED):
            if run.id not in self._left and run.state and SETTLED < self.clock() - run.state.timestamp < RECENT:
                if self._crashes(run) < TRIES:
                    self._set(run, State(type=StateType.SCHEDULED, name=AGAIN, message="Its process was gone."))
                else:
                    self._left.add(run.id)

    def _read(self, *states: StateType) -> list[FlowRun]:
        """The pool's runs that are in one of these states, the latest ones."""
        return self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self.pool])),
            sort=FlowRunSort.START_TIME_DESC,
        )

    def _beats(self, run: FlowRun, since: datetime) -> bool:
        """Whether the run said that it lives."""
        wanted = {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{run.id}"]},
            "occurred": {"since": since.isoformat()},
        }
        answer = self.client.request("POST", "/events/filter", json={"filter": wanted, "limit": 1})
        return bool(answer.raise_for_status().json()["events"])

    def _crashes(self, run: FlowRun) -> int:
        """How often it has crashed. (Prefect's `run_count` leaves out what ended before it had begun.)"""
        return sum(state.type == StateType.CRASHED for state in self.client.read_flow_run_states(run.id))

    def _set(self, run: FlowRun, state: State[None]) -> None:
        assert run.state is not None
        self.client.set_flow_run_state(run.id, state)
        self.say(f"run {run.name}: {run.state.name} -> {state.name}. {state.message}")
