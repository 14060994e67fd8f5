"""`python -m flows.services.deploy`: what a Prefect server must know before workers may work for us. `make up` runs it.

The work pool, the deployments of prefect.yaml and, where it is asked for, the registry's webhook. All of it may be repeated.
"""

import os
import subprocess
import sys
from typing import Annotated

import typer

from flows import environment

if __name__ == "__main__":
    environment.set_up(quiet_console=True)  # Prefect reads its settings when it is imported

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound

from flows.environment import POOL, ROOT
from limbeck.errors import LimbeckError
from limbeck.tracking import webhooks


def main(
    hook: Annotated[
        str | None,
        typer.Option(help="Where the registry tells what changes (flows.services.listen); needs its secret."),
    ] = None,
) -> None:
    """Make the work pool, deploy prefect.yaml; all of it may be repeated."""
    if not os.environ.get("PREFECT_API_URL"):
        raise SystemExit("PREFECT_API_URL is not set: start a server with `make up`, or name yours.")
    try:
        with get_client(sync_client=True) as client:
            make_pool(client)
            prefect("deploy", "--all")
        if hook:
            webhooks.register(os.environ["MLFLOW_TRACKING_URI"], hook, webhooks.secret())
    except subprocess.CalledProcessError as error:
        raise SystemExit(error.returncode) from None
    except httpx.TransportError as error:
        raise SystemExit(f"The Prefect server at {os.environ['PREFECT_API_URL']} does not answer: {error}") from None
    except LimbeckError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None


def make_pool(client: SyncPrefectClient) -> None:
    """The pool whose workers run a process for each flow."""
    try:
        client.read_work_pool(POOL)
    except ObjectNotFound:
        prefect("work-pool", "create", POOL, "--type", "process")


def prefect(*arguments: str) -> None:
    """Run a command of Prefect's own; it ends this one when it fails, having said why."""
    subprocess.run([sys.executable, "-m", "prefect", "--no-prompt", *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    typer.run(main)
