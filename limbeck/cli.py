"""The command `limbeck`: what one does beside running the pipeline."""

import sys
from pathlib import Path
from typing import Annotated

try:
    import typer
except ModuleNotFoundError:
    print("limbeck: only the device's part, limbeck-edge, is installed; the rest: pip install 'limbeck[pipeline]'")
    sys.exit(2)

from limbeck.errors import LimbeckError, ParamsError

app = typer.Typer(
    help="Large trained models distilled into small ones that keep a contract. "
    "The pipeline itself runs by `make run`, `dvc repro` or `python -m flows.compress`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Workspace = Annotated[Path, typer.Option(help="The folder with params.yaml: the project, or work/NAME.")]


@app.command()
def report(
    workspace: Workspace = Path("."),
    out: Annotated[Path | None, typer.Option(help="Default: WORKSPACE/reports.")] = None,
) -> None:
    """Render what the last run left: the table here, report.md and report.html in reports/."""
    from rich.console import Console

    from limbeck.report import render

    rendered = render(workspace, out or workspace / "reports")
    Console(width=None if sys.stdout.isatty() else 100).print(rendered.console)
    typer.echo(f"\n{rendered.html_path}")


@app.command()
def compare(
    target: Annotated[str, typer.Argument(help="Whose student is trained: phone, sensor, ...")],
    methods: Annotated[
        Path | None, typer.Option(help="Losses by name, e.g. searches/losses.yaml. [default: the target's own distill]")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many; fewer than three say little.")] = 3,
    workspace: Workspace = Path("."),
) -> None:
    """Train a target's student by several methods and without a teacher; say what each gains, if anything.

    Needs the stage label's soft labels. A killed comparison goes on where it was, and what is done is kept in compare/.
    """
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from limbeck.comparison import CONTROL, Comparison, read_methods
    from limbeck.components import Component

    with Progress(disable=not sys.stdout.isatty(), transient=True) as bar:
        task = bar.add_task("")

        def show(done: int, total: int, note: str) -> None:
            bar.update(task, completed=done, total=total, description=note)

        comparison = Comparison.of(workspace, target, show)
        own = comparison.params.targets[target].distill
        chosen = read_methods(methods) if methods else {own.use: Component(use=own.use, **own.keywords)}
        compared = comparison.run(chosen, range(seeds), lambda line: bar.console.print(line, highlight=False))
    table = Table("method", "validation %", "test %", "gain, points [95 %]", "verdict", box=None, pad_edge=False)
    for row in compared:
        gain = row.gain
        table.add_row(
            row.method,
            f"{100 * row.validation:.2f}",
            f"{100 * row.test:.2f}",
            "" if gain is None else f"{100 * gain['value']:+.2f} [{100 * gain['low']:.2f}, {100 * gain['high']:.2f}]",
            row.verdict or "",
        )
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print()
    console.print(table)
    best = max(compared, key=lambda row: row.validation)
    said = "the control itself" if best.method == CONTROL else best.method
    console.print(f"\nBest on validation: {said}. Means over {seeds} seed(s); a gain whose interval holds 0 is none.")


@app.command()
def plan(
    target: Annotated[list[str] | None, typer.Option(help="Only this target; may be given several times.")] = None,
    workspace: Workspace = Path("."),
) -> None:
    """Say before any training which clauses of the contract each student can keep; exit code 2 where one cannot."""
    import contextlib

    from rich.console import Console

    from limbeck import params as params_file
    from limbeck.components import nearest

    with contextlib.chdir(workspace):
        params = params_file.load()
        known = list(params.targets)
        for name in target or ():
            if name not in known:
                raise ParamsError(f"params.yaml has no target {name!r}; {nearest(name, known)}")
        sys.path.insert(0, str(Path.cwd()))  # custom components live here
        from limbeck.data.splits import read_meta

        read_meta(Path("data"))  # before torch is imported
        from limbeck import plan as planning

        with Console(stderr=True).status("") as status:
            plans = planning.plan(params, Path("data"), target or known, status.update)
        Console(width=None if sys.stdout.isatty() else 120, soft_wrap=True).print(planning.render(plans))
    if refusals := [made.refusal for made in plans if made.refusal]:
        raise ParamsError("\n".join(refusals))


@app.command()
def replay(workspace: Workspace = Path(".")) -> None:
    """Send what stages recorded while the tracking server was away to MLflow."""
    from limbeck.tracking.runs import replay_workspace

    typer.echo(f"{replay_workspace(workspace)} runs sent")


@app.command()
def share(
    folder: Annotated[Path, typer.Argument(help="A checkpoint: models/teacher, models/phone/distill, ...")],
    name: Annotated[str, typer.Argument(help="The registered model that gets a version.")],
    workspace: Workspace = Path("."),
) -> None:
    """Put a checkpoint into the registry, to be another task's teacher."""
    from limbeck import params
    from limbeck.tracking.checkpoints import share_checkpoint
    from limbeck.tracking.server import tracking_uri

    tracking = params.load(workspace / "params.yaml").tracking
    uri = tracking_uri(tracking.uri, workspace)
    version = share_checkpoint(name, folder, uri=uri, experiment=tracking.experiment)
    typer.echo(f"models:/{name}/{version}")


def main() -> None:
    """Run the command; a `LimbeckError` is one line on stderr and its exit code."""
    try:
        app()
    except LimbeckError as error:
        typer.echo(f"limbeck: {error}", err=True)
        raise SystemExit(error.exit_code) from None
