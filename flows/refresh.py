"""`python -m flows.refresh`, and the flow that prefect.yaml schedules: new data in, drift, a better student out.

What happens in which order stands in `flows.refreshing.climbing`.
"""

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import environment, guard, workspace

if __name__ == "__main__":
    environment.set_up(quiet_console=True)  # Prefect reads its settings when it is imported

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.pipeline import PipelineFailed, compress
from flows.refreshing.rounds import Round, serve, served
from flows.refreshing.shipping import Approve, Say
from flows.refreshing.standing import made_in
from limbeck.errors import ContractBroken, LimbeckError, ParamsError
from limbeck.refresh import requests
from limbeck.refresh.story import Story


@flow(name="refresh", persist_result=False)
def refresh(
    target: list[str] | None = None,
    recipe: str | None = None,
    folder: Path | None = None,
    rules: Path | None = None,
    request: Path | None = None,
    anyway: bool = False,
    model: str | None = None,
    everywhere: bool = False,
    show: bool = False,
) -> State[Any]:
    """Take in what landed; where that calls for it, try the ladder's rungs until one passes, and let it ship.

    Args:
        target: only these; all of them when empty.
        recipe: the workspace of recipes/NAME.yaml instead of the project.
        folder: another workspace's folder.
        rules: the values of a refresh, below the project unless absolute; the workspace's refresh.yaml or else the project's.
        request: a task request to fulfil now; those in the drop folder need not be named.
        anyway: a person has looked: act on what nothing was learned from, moved or not.
        model: a registered model, which says target and workspace; one that is made elsewhere is left alone.
        everywhere: the project, and every workspace in work/ that has a drop folder or windows.
        show: keep the terminal informed (the command line does).

    """
    environment.settle()
    log = get_run_logger()

    def say(line: str) -> None:
        log.info("%s", line)
        if show:
            print(line, flush=True)

    said = list[str]()
    try:
        if model is not None:
            if (found := made_in(model)) is None:
                return Completed(message=f"{model} is made elsewhere")
            folder, target = found[0], [found[1]]
        rounds = _rounds(
            target, recipe, folder, rules, request, anyway, everywhere,
            say=say, tell=said.append, complain=said.append, on_terminal=_confirm if show and sys.stdin.isatty() else None,
        )  # fmt: skip
    except LimbeckError as error:
        return Failed(message=str(error), data=error)
    if failures := serve(rounds):
        return Failed(message="\n".join(said), data=failures[0])
    return Completed(message="\n".join(said))


def _rounds(
    target: list[str] | None, recipe: str | None, folder: Path | None, rules: Path | None, request: Path | None, anyway: bool,
    everywhere: bool, *, say: Say, tell: Say, complain: Say, on_terminal: Approve | None = None, dry: bool = False,
) -> list[Round]:  # fmt: skip
    """The workspaces whose turn it is. Beside the project's own lines, those of others name their workspace.

    Raises:
        ParamsError: a recipe or request is not there or is none, or `everywhere` is narrowed.

    """
    if everywhere and (target or recipe or folder or request):
        raise ParamsError("everywhere serves every workspace: leave out target, recipe, folder and request, or it.")
    asked = requests.read(request) if request else None

    def of(base: Path) -> Round:
        is_other = everywhere and base != environment.ROOT
        named = f"{base.relative_to(environment.ROOT)}: " if is_other else ""

        def naming(to: Say) -> Say:
            return lambda line: to(f"{named}{line}")

        return Round(
            base, run_stages, naming(say), naming(tell), naming(complain), tuple(target or ()), rules, asked, anyway,
            on_terminal=on_terminal, may_lack=is_other, dry=dry,
        )  # fmt: skip

    return [of(base) for base in (served() if everywhere else [workspace.locate(recipe, folder)])]


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


def _confirm(story: Story, _: Callable[[], None]) -> str:
    """The one who sits at the terminal is asked."""
    return "" if typer.confirm(f"{story.model}: let refresh {story.number} ship?") else "a person said no"


def main(
    target: Annotated[list[str] | None, typer.Argument(help="Targets. [default: all of them]")] = None,
    recipe: Annotated[str | None, typer.Option(help="The workspace of recipes/NAME.yaml.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Another workspace's folder.")] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            help="When it acts, what it tries and what may ship. [default: refresh.yaml, the workspace's or the project's]"
        ),
    ] = None,
    request: Annotated[Path | None, typer.Option(help="A task request: docs/refresh.md.")] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="You have looked: act on what nothing was learned from, moved or not.")
    ] = False,
    everywhere: Annotated[
        bool,
        typer.Option(
            "--everywhere", help="The project, and every workspace in work/ that has a drop folder or windows."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Take in what landed, say what would be done, why and at what cost, and do none of it."
        ),
    ] = False,
) -> None:
    """Take in new data; where they drifted, find the cheapest repair that passes the gate, and let it ship."""
    if dry_run:
        try:
            failures = serve(
                _rounds(
                    target, recipe, folder, rules, request, anyway, everywhere,
                    say=print, tell=print, complain=partial(print, file=sys.stderr), dry=True,
                )
            )  # fmt: skip
        except LimbeckError as error:
            print(error, file=sys.stderr)
            raise SystemExit(error.exit_code) from None
        raise SystemExit(failures[0].exit_code if failures else 0)
    os.environ.update(guard.start().environment)  # what Prefect starts ends with this process
    state: Any = refresh(target, recipe, folder, rules, request, anyway, None, everywhere, show=True, return_state=True)
    print(state.message, file=sys.stderr if state.is_failed() else sys.stdout)
    answer = state.result(raise_on_failure=False)
    raise SystemExit(getattr(answer, "exit_code", 1) if state.is_failed() else 0)


if __name__ == "__main__":
    typer.run(main)
