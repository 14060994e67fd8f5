"""Events for Prefect's server, whose automations (`triggers:` in prefect.yaml) run deployments on them."""

from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.events import Event, Resource
from prefect.types._datetime import now


def announce(
    client: SyncPrefectClient,
    event: str,
    resource: dict[str, str],
    *,
    id: UUID,
    payload: dict[str, Any] | None = None,
) -> None:
    """Give the server an event and wait until it has it; `prefect.events.emit_event` would drop it while the server is away.

    Args:
        client: of the server.
        event: its name.
        resource: labels, `prefect.resource.id` among them; triggers match on them.
        id: the event's; the server takes one that it saw minutes ago only once.
        payload: what a trigger's parameters are made from.

    Raises:
        httpx.HTTPError: the server does not answer, or does not want it.

    """
    told = Event(
        id=id,
        occurred=now("UTC"),
        event=event,
        resource=Resource(resource),
        payload=payload or {},
    )
    client.request("POST", "/events", json=[told.model_dump(mode="json")]).raise_for_status()
