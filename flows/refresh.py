"""`python -m flows.refresh`, and the flow that prefect.yaml schedules: new data in, drift, a better student out.

What happens in which order stands in `flows.refreshing.climbing`.
"""

import os
import sys
import time
from collections.abc import Sequence
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
from flows.refreshing.approval import Approval, NotYet
from flows.refreshing.climbing import Refresh
from flows.refreshing.requesting import fulfil
from flows.refreshing.shipping import Approve, Say
from flows.refreshing.standing import Waits, made_in, models_of
from flows.turns import Busy
from limbeck.errors import ContractBroken, LimbeckError
from limbeck.refresh import requests
from limbeck.refresh import rules as rules_file
from limbeck.refresh.rules import Rules


@flow(name="refresh", persist_result=False)
def refresh(
    target: list[str] | None = None,
    recipe: str | None = None,
    folder: Path | None = None,
    rules: Path | None = None,
    request: Path | None = None,
    anyway: bool = False,
    model: str | None = None,
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
        show: keep the terminal informed (the command line does).

    """
    environment.settle()
    log = get_run_logger()

    def say(line: str) -> None:
        log.info("%s", line)
        if show:
            print(line, flush=True)

    try:
        if model is not None:
            if (found := made_in(model)) is None:
                return Completed(message=f"{model} is made elsewhere")
            folder, target = found[0], [found[1]]
        base = workspace.locate(recipe, folder)
        chosen = rules_file.load(rules_file.find(base, environment.ROOT, rules))
        asked = requests.read(request) if request else None
        targets = target or list(models_of(base))
    except LimbeckError as error:
        return Failed(message=str(error), data=error)
    said, failures = list[str](), list[LimbeckError]()
    if asked is not None and asked.new_classes is None:
        try:
            return Completed(message=fulfil(base, asked, chosen, run_stages=run_stages, say=say))
        except LimbeckError as error:
            return Failed(message=str(error), data=error)
    standing = _standing(base, chosen, say, said, failures)
    classes = tuple(dict.fromkeys(name for names in standing.values() for name in names))
    approval = Approval(chosen.ship.approval_hours, say)
    approve = _asked(approval, show)

    def one(name: str) -> None:
        try:
            refreshed = Refresh(base, name, chosen, run_stages=run_stages, approve=approve, say=say)
            said.append(f"{refreshed.model}: {refreshed.run(asked, standing=classes, anyway=anyway)}")
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
    for path, names in standing.items():
        if _is_fulfilled(base, chosen, names):
            requests.take(path)
            said.append(f"{path.name} is fulfilled")
    return Completed(message="\n".join(said))


def _standing(
    base: Path, rules: Rules, say: Say, said: list[str], failures: list[LimbeckError], *, dry: bool = False
) -> dict[Path, tuple[str, ...]]:
    """Requests in the drop folder: the classes that each asks for; what else they ask for is done at once, and told."""
    standing = {}
    for path in requests.dropped(base / rules.drop, time.time() - rules.windows.settle_s):
        try:
            asked = requests.read(path)
            if asked.new_classes is not None:
                standing[path] = asked.new_classes
                continue
            said.append(fulfil(base, asked, rules, run_stages=run_stages, say=say, dry=dry))
            if not dry:
                requests.take(path)
        except LimbeckError as error:  # it stays where it is until somebody mends it or takes it away
            failures.append(error)
    return standing


def _is_fulfilled(base: Path, rules: Rules, classes: Sequence[str]) -> bool:
    try:
        return all(Refresh.quiet(base, name, rules).knows(classes) for name in models_of(base))
    except LimbeckError:  # a target without a champion cannot know them
        return False


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
            base = workspace.locate(recipe, folder)
            chosen = rules_file.load(rules_file.find(base, environment.ROOT, rules))
            asked = requests.read(request) if request else None
            if asked is not None and asked.new_classes is None:
                print(fulfil(base, asked, chosen, run_stages=run_stages, say=print, dry=True))
                return
            told, failures = list[str](), list[LimbeckError]()
            standing = _standing(base, chosen, print, told, failures, dry=True)
            print(*told, *failures, sep="\n", end="\n" if told or failures else "")
            classes = tuple(dict.fromkeys(name for names in standing.values() for name in names))
            for name in target or list(models_of(base)):
                one = Refresh.quiet(base, name, chosen, say=print)
                print(f"{one.model}: {one.run(asked, standing=classes, anyway=anyway, dry=True)}")
            return
    except LimbeckError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    os.environ.update(guard.start().environment)  # what Prefect starts ends with this process
    state: Any = refresh(target, recipe, folder, rules, request, anyway, None, show=True, return_state=True)
    print(state.message, file=sys.stderr if state.is_failed() else sys.stdout)
    answer = state.result(raise_on_failure=False)
    raise SystemExit(getattr(answer, "exit_code", 1) if state.is_failed() else 0)


if __name__ == "__main__":
    typer.run(main)
