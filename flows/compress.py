"""`python -m flows.compress`: the whole pipeline as a Prefect flow (the flow itself stands in `flows.pipeline`).

Prefect reads its settings when it is imported, so this file prepares the environment and checks what can be
checked first; `--help`, `--dry-run` and a params.yaml with a mistake in it start no server.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flows import environment, graph, guard, workspace
from flows.graph import Step
from limbeck import params as params_file
from limbeck.errors import LimbeckError

INTERRUPTED = "Interrupted; the same command goes on from here."
STYLES = {"run": "bold green", "may run": "yellow", "fresh": "dim"}


def main(
    target: Annotated[list[str] | None, typer.Option(help="Only this target; may be given several times.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Run recipes/NAME.yaml in work/NAME.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Run in this workspace instead of the project.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Stages side by side. [default: one per processor]")] = None,
    serial: Annotated[bool, typer.Option("--serial", help="One stage after the other; the same as --jobs 1.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would run and why, and run nothing.")] = False,
) -> None:
    """Bring every target's student up to date: distilled, pruned, quantized, measured and registered."""
    if recipe and folder:
        raise typer.BadParameter("give --recipe or --folder, not both")
    environment.set_up(quiet_console=True)
    try:
        place = workspace.locate(recipe, folder)
        params_file.load(place / "params.yaml")
        if dry_run:
            stages = graph.load(place, target or None)
            show(graph.plan(stages, graph.changed(place)))
            return
        graph.load(place, target or None)  # a target that does not exist shall start no server
    except LimbeckError as error:
        raise SystemExit(_say(str(error), error.exit_code)) from None
    raise SystemExit(run(target or None, place, 1 if serial else jobs))


def run(targets: list[str] | None, place: Path, jobs: int | None) -> int:
    """Run the flow in this process; the answer is the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until the flow listens, an order to end is one line
    try:
        os.environ.update(guard.start().environment)  # for Prefect's temporary server too; this process has none
        if not os.environ.get("PREFECT_API_URL"):
            print("Starting Prefect (a temporary server, some seconds) ...", flush=True)
        from flows.pipeline import PipelineFailed, compress

        state: Any = compress(target=targets, folder=place, jobs=jobs, show=True, return_state=True)
        answer = state.result(raise_on_failure=False)
    except KeyboardInterrupt:
        return _say(INTERRUPTED, 130)
    if isinstance(answer, PipelineFailed):
        return _say(str(answer), answer.exit_code)
    if state.is_completed():
        return 0
    return _say(state.message or f"The flow ended as {state.name}.", 130 if state.is_cancelled() else 1)


def show(steps: tuple[Step, ...]) -> None:
    """Print a plan."""
    table = Table("stage", "would", "why", box=None, pad_edge=False)
    for step in steps:
        table.add_row(step.stage.name, f"[{STYLES[step.verdict]}]{step.verdict}[/]", ", ".join(step.why))
    Console().print(table)


def _say(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


if __name__ == "__main__":
    typer.run(main)
