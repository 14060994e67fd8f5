"""The flow `renew`: snapshot and timestamp signed anew, several times before they would expire (prefect.yaml)."""

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows import environment, workspace
from limbeck.errors import LimbeckError


@flow(name="renew", retries=3, retry_delay_seconds=60, persist_result=False)
def renew(folder: Path | None = None) -> State[Any]:
    """Renew what is published to the tracking server. A server that is away is tried again.

    Args:
        folder: the workspace whose keys and server are used; by itself the project.

    """
    environment.settle()
    from limbeck.publishing.serving import Publisher

    log = get_run_logger()
    try:
        Publisher.of(workspace.locate(None, folder), say=log.info).renew()
    except LimbeckError as error:
        return Failed(message=str(error))
    return Completed(message="renewed")
