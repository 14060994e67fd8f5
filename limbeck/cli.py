"""The command `limbeck`: what one does beside running the pipeline."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

try:
    import typer
except ModuleNotFoundError:
    print("limbeck: only the device's part, limbeck-edge, is installed; the rest: pip install 'limbeck[pipeline]'")
    sys.exit(2)

from limbeck.errors import LimbeckError, ParamsError

if TYPE_CHECKING:
    from limbeck.publishing.serving import Publisher

app = typer.Typer(
    help="Large trained models distilled into small ones that keep a contract. "
    "The pipeline itself runs by `make run`, `dvc repro` or `python -m flows.compress`.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

WINDOWS = "windows"

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


keys_app = typer.Typer(
    help="The keys that sign what devices may run: root says which keys count, targets which version serves whom, snapshot "
    "and timestamp (online) that this is the newest.",
    no_args_is_help=True,
)
app.add_typer(keys_app, name="keys")

Model = Annotated[str, typer.Argument(help="The registered model: NAME-TARGET of params.yaml, e.g. digits-phone.")]
Uri = Annotated[str | None, typer.Option(help="The MLflow server. Default: MLFLOW_TRACKING_URI, else params.yaml.")]
KeysFolder = Annotated[Path | None, typer.Option("--keys", help="The folder of keys. Default: keys/ of the project.")]
Stick = Annotated[
    Path | None, typer.Option(help="Write it into this folder, too: a stick, for devices without a network.")
]

Offline = Annotated[Path | None, typer.Option("--folder", help="Of devices that live on this stick, without a server.")]


def _keys_folder(keys: Path | None, workspace: Path) -> Path:
    from limbeck.publishing.keys import KEYS
    from limbeck.tracking.server import home_of

    return keys or home_of(workspace) / KEYS


def _publisher(keys: Path | None, uri: str | None, workspace: Path, stick: Path | None = None) -> "Publisher":
    from limbeck.publishing.serving import Publisher

    return Publisher.of(workspace, keys=keys, uri=uri, stick=stick is not None, say=typer.echo)


def _copy(publisher: "Publisher", name: str, stick: Path | None) -> None:
    """Write what devices are to see of a model onto a stick, where one is meant."""
    from limbeck.publishing.places import Folder

    if stick is not None:
        publisher.copy_to(Folder(stick), name)
        typer.echo(f"copied to {stick}")


@keys_app.command("init")
def keys_init(
    at: Annotated[
        list[str] | None,
        typer.Option(
            help="ROLE=URI: this key lives elsewhere, e.g. root=file2:/media/stick/root.pem or targets=awskms:..."
        ),
    ] = None,
    public: Annotated[
        list[str] | None, typer.Option(help="ROLE=FILE: public key (PEM) of a URI that is no file.")
    ] = None,
    days: Annotated[
        list[str] | None,
        typer.Option(
            help="ROLE=DAYS: how long its metadata hold. Default: root and targets 365, snapshot 14, timestamp 3."
        ),
    ] = None,
    keys: KeysFolder = None,
    workspace: Workspace = Path("."),
) -> None:
    """Make the keys, once: into keys/, which git never sees. Keep root's away from this machine, and a copy of all.

    A file2: URI is a file; where it has no key yet, one is made. Relative paths are those of the folder of keys.
    """
    from limbeck.publishing.keys import init, pairs

    folder = _keys_folder(keys, workspace)
    try:
        lifetimes = {role: int(value) for role, value in pairs(days, "--days").items()}
    except ValueError as error:
        raise ParamsError(f"--days: {error}; expected whole days, e.g. --days timestamp=3.") from None
    publics = {role: Path(value) for role, value in pairs(public, "--public").items()}
    init(folder, uris=pairs(at, "--at"), public=publics, days=lifetimes)
    keys_show(folder, workspace)


@keys_app.command("show")
def keys_show(keys: KeysFolder = None, workspace: Workspace = Path(".")) -> None:
    """Say which keys count, where they are, and whether they can sign here."""
    from rich.console import Console
    from rich.table import Table

    from limbeck.publishing.keys import Keys, is_open_to_others

    opened = Keys.open(_keys_folder(keys, workspace))
    table = Table("role", "needed", "key", "signs here", "where", box=None, pad_edge=False)
    for row in opened.rows():
        warning = "  (others can read it: chmod 600)" if is_open_to_others(row.where) else ""
        table.add_row(
            row.role, str(row.threshold), row.keyid[:16], "yes" if row.can_sign else "no", row.where + warning
        )
    console = Console(width=None if sys.stdout.isatty() else 200, soft_wrap=True, highlight=False)
    console.print(table)
    console.print(f"\nroot version {opened.root.version}, until {opened.root.expires:%Y-%m-%d}")


@keys_app.command("rotate")
def keys_rotate(
    role: Annotated[str, typer.Argument(help="root, targets, snapshot or timestamp.")],
    at: Annotated[
        str | None, typer.Option(help="URI of the new key. Default: a new file in the folder of keys.")
    ] = None,
    public: Annotated[Path | None, typer.Option(help="Its public key (PEM), when the URI is no file.")] = None,
    add: Annotated[bool, typer.Option("--add", help="Beside the present keys instead of in their place.")] = False,
    threshold: Annotated[int | None, typer.Option(min=1, help="How many of the role's keys have to sign.")] = None,
    folder: Offline = None,
    uri: Uri = None,
    keys: KeysFolder = None,
    workspace: Workspace = Path("."),
) -> None:
    """Give a role a new key, signed by root; devices follow by themselves. Root's key has to be here."""
    from limbeck.publishing.keys import NewKey, check_role

    check_role(role)
    publisher = _publisher(keys, uri, workspace, folder)
    publisher.rotate(role, NewKey(at, public, add, threshold))
    keys_show(keys, workspace)


@app.command()
def publish(
    name: Model,
    alias: Annotated[str, typer.Option(help="champion, or canary: a share of the fleet takes it.")] = "champion",
    serial: Annotated[
        int | None, typer.Option(help="Which version. Default: the registry's champion; its candidate for a canary.")
    ] = None,
    share: Annotated[float | None, typer.Option(help="Of the fleet that takes a canary, e.g. 0.1.")] = None,
    folder: Stick = None,
    uri: Uri = None,
    keys: KeysFolder = None,
    workspace: Workspace = Path("."),
) -> None:
    """Sign a registered version for devices and put it where they fetch it. Run twice, it signs once."""
    publisher = _publisher(keys, uri, workspace, folder)
    publisher.publish(name, alias, serial=serial, share=share)
    _copy(publisher, name, folder)


@app.command()
def rollback(
    name: Model,
    to: Annotated[int | None, typer.Option(help="Serial to go back to. Default: the one that served before.")] = None,
    alias: Annotated[str, typer.Option(help="champion; or canary, whose devices get the champion again.")] = "champion",
    folder: Stick = None,
    uri: Uri = None,
    keys: KeysFolder = None,
    workspace: Workspace = Path("."),
) -> None:
    """Let an earlier version serve again, under newer metadata: devices take it at their next check."""
    publisher = _publisher(keys, uri, workspace, folder)
    if alias == "canary":
        publisher.withdraw(name)
    else:
        publisher.roll_back(name, to)
    _copy(publisher, name, folder)


@app.command()
def renew(
    everything: Annotated[
        bool, typer.Option("--all", help="Root and targets, too, which need their keys; once a year.")
    ] = False,
    uri: Uri = None,
    keys: KeysFolder = None,
    workspace: Workspace = Path("."),
) -> None:
    """Sign snapshot and timestamp anew, so that devices know what they see is the newest. `flows/renew.py` schedules it."""
    _publisher(keys, uri, workspace).renew(everything=everything)


@app.command()
def provision(
    name: Model,
    out: Annotated[Path, typer.Option(help="Where device.json and root.json go; copy them onto the device.")],
    server: Annotated[str | None, typer.Option(help="The server's address as devices see it.")] = None,
    reports: Annotated[
        bool, typer.Option("--reports", help="Let it report counts and sketches, no inputs: docs/device.md.")
    ] = False,
    folder: Offline = None,
    uri: Uri = None,
    keys: KeysFolder = None,
    workspace: Workspace = Path("."),
) -> None:
    """Write what a device of this model starts from: where to fetch, and the root that it trusts."""
    _publisher(keys, uri, workspace, folder).provision(name, out, server=server, reports=reports)
    typer.echo(f"{out}/device.json, {out}/root.json; on the device: limbeck-edge init {out}")


windows_app = typer.Typer(
    help="Windows of new samples: which arrived, which were set aside and why (docs/windows.md).", no_args_is_help=True
)
app.add_typer(windows_app, name="windows")

WindowName = Annotated[str, typer.Argument(help="Of a window, as `limbeck windows list` has it.")]


@windows_app.command("list")
def windows_list(workspace: Workspace = Path(".")) -> None:
    """Every window in the order of arrival, then those that were set aside."""
    from rich.console import Console
    from rich.table import Table

    from limbeck.windows import read_about, shelf

    windows = workspace / WINDOWS
    current = shelf.current(windows)
    table = Table("window", "arrived", "labelled", "by", "unlabelled", "digest", "", box=None, pad_edge=False)
    for folder in shelf.folders(windows):
        about = read_about(folder)
        table.add_row(
            about.name, f"{about.arrived:%Y-%m-%d %H:%M}", f"{about.counts.labelled:,}", about.labelled_by,
            f"{about.counts.unlabelled:,}", about.digest[:12], "" if folder in current else "replaced",
        )  # fmt: skip
    for folder in shelf.set_aside(windows):
        why = shelf.read_why(folder)
        checks = ", ".join(dict.fromkeys(reason.check for reason in why.reasons))
        table.add_row(why.name, f"{why.at:%Y-%m-%d %H:%M}", "", "", "", "", f"aside: {checks}")
    Console(width=None if sys.stdout.isatty() else 160, soft_wrap=True, highlight=False).print(table)


@windows_app.command("show")
def windows_show(
    name: WindowName,
    samples: Annotated[bool, typer.Option("--samples", help="A table of its samples instead, as CSV.")] = False,
    workspace: Workspace = Path("."),
) -> None:
    """What is known of a window, and why it was set aside; or its samples, by the names that late labels use."""
    import csv

    from limbeck.data.window import ABOUT
    from limbeck.windows import read_about, read_keys, read_window, shelf
    from limbeck.windows.intake import digests

    folder = shelf.find(workspace / WINDOWS, name)
    if samples:
        window, writer = read_window(folder), csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["sample", "digest", "class", "confidence"])
        for key, digest, label, confidence in zip(
            read_keys(folder), digests(folder), window.y.tolist(), window.confidence.tolist(), strict=True
        ):
            sure = "" if confidence != confidence else f"{confidence:.4f}"  # NaN: the teacher was not asked
            writer.writerow([key, digest, window.about.classes[label] if label >= 0 else "", sure])
        return
    if (folder / ABOUT).exists():
        typer.echo(read_about(folder).model_dump_json(indent=2))
    if (folder / shelf.WHY).exists():
        why = shelf.read_why(folder)
        typer.echo(f"{name} is set aside:")
        for reason in why.reasons:
            typer.echo(f"  {reason.check}: found {reason.found}; expected {reason.expected}. Next: {reason.next_step}.")


@windows_app.command("release")
def windows_release(
    name: WindowName,
    by: Annotated[str, typer.Option(help="Who decides. Default: the name you are logged in with.")] = "",
    workspace: Workspace = Path("."),
) -> None:
    """Let a window that was set aside be trained on after all; who decided it stays in its notes."""
    import getpass

    from limbeck.windows import shelf

    folder = shelf.release(workspace / WINDOWS, name, by=by or getpass.getuser())
    typer.echo(f"{folder} counts; `dvc add {folder}` makes it a version of the data.")


def main() -> None:
    """Run the command; a `LimbeckError` is one line on stderr and its exit code."""
    try:
        app()
    except LimbeckError as error:
        typer.echo(f"limbeck: {error}", err=True)
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
