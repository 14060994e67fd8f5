"""What Prefect's server does by itself about runs of deployments whose process is gone.

    Pending, heartbeat --- nothing for `lost_s` ---> Crashed --- at most TRIES times ---> AwaitingRetry ---> a worker
                                                     (frees the deployment's place)     (the same run, its parameters)

A run tells every `environment.HEARTBEAT_S` that it lives. Killed with its worker, it says nothing more: without this it
would stay Running for ever and hold its deployment's `concurrency_limit`. The next try goes on where DVC knows the last
one got to. A run that lives and was only slow to say so loses nothing by that either: DVC's locks keep one stage from
two runs at once.
"""

from datetime import timedelta
from uuid import uuid4

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
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from flows.announcing import announce

TRIES = 3
"""How often one run is begun, at most: what kills its process every time shall not do so for ever."""

LOST = "Nothing was heard of it for too long: its process is gone."

FOUND = "limbeck.flow-run.found"
"""The event that has a run watched which was already there when its server started."""

AGAIN = "AwaitingRetry"

OF_DEPLOYMENTS = ResourceSpecification.model_validate({"prefect.resource.role": "deployment"})
ONE_DAY = timedelta(days=1)


def automations(lost_s: float) -> tuple[AutomationCore, ...]:
    """All of them.

    Args:
        lost_s: how long a run may be silent; several heartbeats.

    """
    return (
        AutomationCore(
            name="limbeck: lost",
            description=f"a run that has said nothing for {lost_s:g} s has no process any more",
            trigger=EventTrigger(
                after={"prefect.flow-run.Pending", "prefect.flow-run.heartbeat", FOUND},
                expect={"prefect.flow-run.*"},
                match=_runs(),
                match_related=OF_DEPLOYMENTS,
                for_each={"prefect.resource.id"},
                posture=Posture.Proactive,
                threshold=1,
                within=timedelta(seconds=lost_s),
            ),
            actions=[ChangeFlowRunState(state=StateType.CRASHED, message=LOST)],
        ),
        _again("limbeck: again", [str(count) for count in range(1, TRIES)], within=timedelta(0)),
        # What ends before it has begun is not counted by Prefect, so a limit is set by time.
        _again("limbeck: again, had not begun", ["0"], within=ONE_DAY),
    )


def _runs(**labels: list[str]) -> ResourceSpecification:
    return ResourceSpecification.model_validate({"prefect.resource.id": ["prefect.flow-run.*"], **labels})


def _again(name: str, run_counts: list[str], within: timedelta) -> AutomationCore:
    return AutomationCore(
        name=name,
        description="a run whose process is gone is tried again",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Crashed"},
            match=_runs(**{"prefect.run-count": run_counts}),
            match_related=OF_DEPLOYMENTS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(name=AGAIN, state=StateType.SCHEDULED, message="Its process was gone.")],
    )


def create(client: SyncPrefectClient, wanted: tuple[AutomationCore, ...]) -> list[str]:
    """Make them what they shall be, by name; one that is as wanted keeps what it has counted.

    Returns:
        The names of those that were made or changed.

    """
    changed = []
    for automation in wanted:
        found, *others = [*client.read_automations_by_name(automation.name), None]
        for other in filter(None, others):
            client.delete_automation(other.id)
        if found is None:
            client.create_automation(automation)
        elif _content(found) != _content(automation):
            client.update_automation(found.id, automation)
        else:
            continue
        changed.append(automation.name)
    return changed


def _content(automation: AutomationCore) -> dict[str, object]:
    return AutomationCore.model_validate(automation.model_dump()).model_dump()


def go_on(client: SyncPrefectClient, pool: str) -> None:
    """See to what a pool's runs were in the middle of when their server stopped; for a server that has just started.

    It forgets during a long stop for whom it waited, and while it starts it calls a run Crashed before it listens to that.
    """
    for run in _read(client, pool, StateType.PENDING, StateType.RUNNING):
        announce(
            client,
            FOUND,
            {"prefect.resource.id": f"prefect.flow-run.{run.id}", "prefect.resource.name": run.name},
            related={
                "prefect.resource.id": f"prefect.deployment.{run.deployment_id}",
                "prefect.resource.role": "deployment",
            },
            id=uuid4(),
        )
    for run in _read(client, pool, StateType.CRASHED):
        if run.state and run.state.message == LOST and run.run_count < TRIES:
            client.set_flow_run_state(run.id, State(type=StateType.SCHEDULED, name=AGAIN, message=LOST))


def _read(client: SyncPrefectClient, pool: str, *states: StateType) -> list[FlowRun]:
    """A pool's runs that are in one of these states."""
    return client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states)))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
        sort=FlowRunSort.START_TIME_DESC,
    )
