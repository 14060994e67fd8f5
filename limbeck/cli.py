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
