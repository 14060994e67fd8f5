"""`python -m flows.refresh`, and the flow that prefect.yaml schedules: new data in, drift, a better student out.

What happens in which order stands in `flows.refreshing`.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import environment, guard, workspace

if __name__ == "__main__":
    environment.set_up(quiet_console=True)  # Prefect reads its settings when it is imported

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.approval import Approval, NotYet
from flows.pipeline import PipelineFailed, compress
from flows.refreshing import Refresh
from flows.requesting import fulfil
from flows.shipping import Approve
from flows.standing import Waits
from flows.turns import Busy
from limbeck import params as params_file
from limbeck.errors import ContractBroken, LimbeckError
from limbeck.refresh import requests
from limbeck.refresh import rules as rules_file

RULES = Path("refresh.yaml")


@flow(name="refresh", persist_result=False)
def refresh(
    target: list[str] | None = None,
    recipe: str | None = None,
    folder: Path | None = None,
    rules: Path = RULES,
    request: Path | None = None,
    anyway: bool = False,
    show: bool = False,
) -> State[Any]:
    """Take in what landed; where that calls for it, try the ladder's rungs until one passes, and let it ship.

    Args:
        target: only these; all of them when empty.
        recipe: the workspace of recipes/NAME.yaml instead of the project.
        folder: another workspace's folder.
        rules: the values of a refresh, below the project unless absolute.
        request: a task request to fulfil.
        anyway: a person has looked: act on what nothing was learned from, moved or not.
        show: keep the terminal informed (the command line does).

    """
    environment.settle()
    log = get_run_logger()

    def say(line: str) -> None:
        log.info("%s", line)
        if show:
            print(line, flush=True)

    try:
        base, chosen = workspace.locate(recipe, folder), rules_file.load(environment.ROOT / rules)
        asked = requests.read(request) if request else None
        targets = target or list(params_file.load(base / "params.yaml").targets)
    except LimbeckError as error:
        return Failed(message=str(error), data=error)
    said, failures = [], list[LimbeckError]()
    if asked is not None and asked.new_classes is None:
        try:
            return Completed(message=fulfil(base, asked, chosen, run_stages=run_stages, say=say))
        except LimbeckError as error:
            return Failed(message=str(error), data=error)
    approval = Approval(chosen.ship.approval_hours, say)
    approve = _asked(approval, show)

    def one(name: str) -> None:
        try:
            refreshed = Refresh(base, name, chosen, run_stages=run_stages, approve=approve, say=say)
            said.append(f"{refreshed.model}: {refreshed.run(asked, anyway=anyway)}")
        except NotYet:
            waiting.append(name)
        except (Waits, Busy, ContractBroken) as error:  # the champion stays: that is what a gate is for
            said.append(f"{name}: {error}")
        except LimbeckError as error:  # one target's trouble is not another's
            log.error("%s: %s", name, error)
            failures.append(error)

    waiting = list[str]()
    for name in targets:
        one(name)
    approval.may_wait = True
    for name in list(waiting):
        one(name)
    if failures:
        return Failed(message="\n".join(map(str, failures)), data=failures[0])
    return Completed(message="\n".join(said))


def run_stages(place: Path, target: str, until: str) -> None:
    """Bring a workspace up to date as a flow below this one.

    Raises:
        ContractBroken: the contract refused to register it.
        LimbeckError: a stage failed.

    """
    state: Any = compress(target=[target], folder=place, until=until, return_state=True)
    answer = state.result(raise_on_failure=False)
    if isinstance(answer, PipelineFailed):
        if answer.exit_code == ContractBroken.exit_code:
            raise ContractBroken(str(answer))
        raise answer
    if not state.is_completed():
        raise KeyboardInterrupt


def _asked(approval: Approval, show: bool) -> Approve:
    """On a terminal the one who sits there is asked."""
    if not (show and sys.stdin.isatty()):
        return approval
    return lambda story, _: (
        "" if typer.confirm(f"{story.model}: let refresh {story.number} ship?") else "a person said no"
    )


def main(
    target: Annotated[list[str] | None, typer.Argument(help="Targets. [default: all of them]")] = None,
    recipe: Annotated[str | None, typer.Option(help="The workspace of recipes/NAME.yaml.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Another workspace's folder.")] = None,
    rules: Annotated[Path, typer.Option(help="When it acts, what it tries and what may ship.")] = RULES,
    request: Annotated[Path | None, typer.Option(help="A task request: docs/refresh.md.")] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="You have looked: act on what nothing was learned from, moved or not.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Take in what landed, say what would be done, why and at what cost, and do none of it."
        ),
    ] = False,
) -> None:
    """Take in new data; where they drifted, find the cheapest repair that passes the gate, and let it ship."""
    try:
        if dry_run:
            base, chosen = workspace.locate(recipe, folder), rules_file.load(environment.ROOT / rules)
            asked = requests.read(request) if request else None
            if asked is not None and asked.new_classes is None:
                print(fulfil(base, asked, chosen, run_stages=run_stages, say=print, dry=True))
                return
            for name in target or list(params_file.load(base / "params.yaml").targets):
                one = Refresh.quiet(base, name, chosen, say=print)
                print(f"{one.model}: {one.run(asked, anyway=anyway, dry=True)}")
            return
    except LimbeckError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    os.environ.update(guard.start().environment)  # what Prefect starts ends with this process
    state: Any = refresh(target, recipe, folder, rules, request, anyway, show=True, return_state=True)
    print(state.message, file=sys.stderr if state.is_failed() else sys.stdout)
    answer = state.result(raise_on_failure=False)
    raise SystemExit(getattr(answer, "exit_code", 1) if state.is_failed() else 0)


if __name__ == "__main__":
    typer.run(main)
