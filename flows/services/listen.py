"""`python -m flows.services.listen`: what happens outside becomes events, on which deployments run; lost runs are tried again.

`make up` starts it. What it does beside that stands in `flows.services.tending`.

drop/ of a workspace ---- limbeck.data-landed --+
+--> Prefect's server --> triggers in prefect.yaml --> a run
the registry's webhook -- limbeck.registry -----+
"""

import os
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

from flows import environment, workspace

if __name__ == "__main__":
    environment.set_up(quiet_console=True)  # Prefect reads its settings when it is imported

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client

from flows.environment import DROP, HOOK_PORT, HOOK_ROUTE, LOST_S, POOL, QUIET_S
from flows.services.announcing import announce
from flows.services.hook import Hook
from flows.services.landing import Drop, Landed
from flows.services.tending import Tender
from limbeck.errors import LimbeckError
from limbeck.tracking import webhooks
from limbeck.tracking.webhooks import Change

DATA = "limbeck.data-landed"
REGISTRY = "limbeck.registry"
LOOPBACK = "127.0.0.1"


def main(
    folder: Annotated[
        list[Path] | None, typer.Option(help="Workspaces. [default: the project and work/*, new ones too]")
    ] = None,
    port: Annotated[int, typer.Option(help="Where the registry's webhook calls.")] = HOOK_PORT,
    every_s: Annotated[float, typer.Option(min=0.1, help="Between two looks.")] = 5.0,
    quiet_s: Annotated[float, typer.Option(min=0, help="An entry has landed when unchanged for so long.")] = QUIET_S,
    lost_s: Annotated[float, typer.Option(min=40, help="A run that says nothing for so long is tried again.")] = LOST_S,
) -> None:
    """Turn data that lands and changes in the registry into Prefect events, until interrupted."""
    if not os.environ.get("PREFECT_API_URL"):
        raise SystemExit("PREFECT_API_URL is not set: start a server with `make up`, or name yours.")
    with get_client(sync_client=True) as client:
        if os.environ.get(webhooks.SECRET):
            try:
                hook = Hook((LOOPBACK, port), webhooks.secret(), lambda change: announce_change(client, change), _say)
            except (LimbeckError, OSError) as error:
                raise SystemExit(f"No webhook on port {port}: {error}") from None
            threading.Thread(target=hook.serve_forever, name="hook", daemon=True).start()
            _say(f"The registry's webhook: http://{LOOPBACK}:{hook.server_port}{HOOK_ROUTE}")
        else:
            _say(f"No {webhooks.SECRET}, so no webhook.")
        tender, drops = Tender(client, POOL, lost_s, _say), dict[Path, Drop]()
        while True:
            try:
                tender.look()
                for place in folder or workspace.having(DROP):
                    drop = drops.setdefault(place, Drop(place, quiet_s))
                    for landed in drop.look():
                        announce_data(client, landed)
                        drop.announced(landed)
                        _say(f"{landed.folder / DROP / landed.name} has landed")
            except httpx.HTTPError as error:
                _say(f"Prefect's server does not answer, again in {every_s:g} s: {error!r}")
            time.sleep(every_s)


def announce_data(client: SyncPrefectClient, landed: Landed) -> None:
    """Tell Prefect's server what landed where; see `flows.services.announcing.announce`."""
    told = {"workspace": landed.folder.name, "folder": str(landed.folder), "entry": landed.name}
    announce(
        client, DATA, _labels(f"limbeck.drop.{landed.folder.name}.{landed.name}", told), id=landed.id, payload=told
    )


def announce_change(client: SyncPrefectClient, change: Change) -> None:
    """Tell Prefect's server what changed in the registry; see `flows.services.announcing.announce`."""
    named = {"model": change.model, "version": change.version, "alias": change.alias, "action": change.action}
    told = {key: value for key, value in named.items() if value is not None}
    announce(client, REGISTRY, _labels(f"limbeck.model.{change.model}", told), id=change.delivery, payload=named)


def _labels(resource_id: str, told: dict[str, str]) -> dict[str, str]:
    """A resource whose labels `match:` of a trigger may name: limbeck.alias, limbeck.entry, ..."""
    return {"prefect.resource.id": resource_id, **{f"limbeck.{key}": value for key, value in told.items()}}


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    typer.run(main)
