"""`python -m flows.rollout`, and the flow that prefect.yaml schedules: canaries go to more of the fleet, or back.

What it looks at and how it decides stand in `limbeck.publishing`: `reports`, `rollout`, `staged`.
"""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from flows import environment, guard, workspace

if __name__ == "__main__":
    environment.set_up(quiet_console=True)  # Prefect reads its settings when it is imported

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from limbeck.errors import LimbeckError, ParamsError, PublishingError
from limbeck.publishing.rollout import Rules
from limbeck.publishing.serving import Publisher
from limbeck.publishing.staged import Step, look, models, settle, take

RULES = Rules()
NOTHING = "no canary"


@flow(name="rollout", retries=3, retry_delay_seconds=60, persist_result=False)
def rollout(model: list[str] | None = None, rules: Rules = RULES, folder: Path | None = None) -> State[Any]:
    """Take every canary one step further, back, or leave it where it is. A server that is away is tried again.

    Args:
        model: only these registered models; whatever is published when empty.
        rules: how a rollout goes, and what stops it.
        folder: the workspace whose keys and server are used; by itself the project.

    """
    environment.settle()
    log = get_run_logger()
    said, failed = [], []
    try:
        publisher = Publisher.of(workspace.locate(None, folder), say=log.info)
        chosen = model or models(publisher)
    except LimbeckError as error:
        return Failed(message=str(error))
    for name in chosen:
        try:
            settle(publisher, name)
            step = look(publisher, name, rules)
            if step is None:
                log.info("%s: %s", name, NOTHING)
                continue
            log.info("%s", step)
            _show(step)
            take(publisher, step)
            said.append(str(step))
        except LimbeckError as error:  # one model's trouble is not another's
            log.error("%s: %s", name, error)
            failed.append(f"{name}: {error}")
    if failed:
        return Failed(message="\n".join(failed))
    return Completed(message="\n".join(said) or NOTHING)


def rows(step: Step) -> list[dict[str, Any]]:
    """A decision's figures as a table."""
    return [
        {
            "criterion": criterion.name,
            "devices": criterion.num,
            "measured": _short(criterion.value),
            "at least": _short(criterion.bound),
            "allowed": _short(criterion.limit),
            "verdict": criterion.verdict,
        }
        for criterion in step.decision.criteria
    ]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _show(step: Step) -> None:
    """Publish a decision as an artifact; it does not depend on that."""
    key = re.sub(r"[^a-z0-9]+", "-", f"rollout-{step.model}".lower()).strip("-")
    try:
        create_table_artifact(rows(step), key=key, description=str(step))
    except Exception:
        get_run_logger().exception("the decision was not published as an artifact")


def _rules(changed: list[str]) -> Rules:
    """The rules with `NAME=VALUE` in their places.

    Raises:
        ParamsError: there is no such rule, or it takes no such value.

    """
    try:
        return Rules.model_validate(
            {name: yaml.safe_load(value) for name, _, value in (c.partition("=") for c in changed)}
        )
    except (ValidationError, yaml.YAMLError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": "no YAML"}
        place = ".".join(map(str, first["loc"]))
        raise ParamsError(f"--rule {place}: {first['msg']}; there are {', '.join(Rules.model_fields)}.") from None


RULES_TOLD = "\n\n".join(
    [
        "Rules and their defaults:",
        *(f"{name}={getattr(RULES, name)}: {field.description}" for name, field in Rules.model_fields.items()),
    ]
)

app = typer.Typer(add_completion=False)


@app.command(epilog=RULES_TOLD)
def main(
    model: Annotated[
        list[str] | None, typer.Argument(help="Registered models. [default: whatever is published]")
    ] = None,
    rule: Annotated[list[str] | None, typer.Option(help="NAME=VALUE, see below; may be given several times.")] = None,
    folder: Annotated[Path | None, typer.Option(help="The workspace whose keys and server are used.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done and why, and do nothing.")
    ] = False,
) -> None:
    """Take every canary one step further, back, or leave it where it is, by what devices told of it."""
    try:
        chosen = _rules(rule or [])
        if dry_run:
            _print(Publisher.of(workspace.locate(None, folder)), model, chosen)
            return
    except LimbeckError as error:
        print(error, file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    os.environ.update(guard.start().environment)  # what Prefect starts ends with this process
    state = rollout.with_options(retries=0)(model, chosen, folder, return_state=True)
    print(state.message, file=sys.stderr if state.is_failed() else sys.stdout)
    raise SystemExit(PublishingError.exit_code if state.is_failed() else 0)


def _print(publisher: Publisher, wanted: list[str] | None, rules: Rules) -> None:
    """What would be done, and why."""
    console = Console(highlight=False, soft_wrap=True)
    for name in wanted or models(publisher):
        step = look(publisher, name, rules)
        console.print(f"{name}: {NOTHING}" if step is None else str(step), markup=False)
        if step is None:
            continue
        table = Table(*rows(step)[0], box=None, pad_edge=False)
        for row in rows(step):
            table.add_row(*map(str, row.values()))
        console.print(table)


if __name__ == "__main__":
    app()
