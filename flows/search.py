"""`python -m flows.search sensor`: try values of a target's knobs toward the front of quality, bytes and latency.

Every trial is a workspace of its own, `work/search/NAME-TARGET-SAMPLER/007`, where `dvc repro` runs from distill to
benchmark; prepared data, teacher and soft labels come out of the shared cache. The study (Optuna) is a SQLite
file beside them: a killed search goes on with the trial that it was in, and stops at any time with what it has.
Quality is that on validation, of the int8 file where there is one.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
import typer
import yaml
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from flows import environment, space, workspace
from flows.turns import alone, forget_zombies
from limbeck import params as params_file
from limbeck.atomic import replace, write_json
from limbeck.errors import LimbeckError, ParamsError
from limbeck.pictures import front as draw_front
from limbeck.pictures import png
from limbeck.selection import FP32, INT8
from limbeck.watch import WATCH

DIRECTIONS = ("maximize", "minimize", "minimize")
Sampler = Literal["tpe", "random"]


def main(
    target: Annotated[str, typer.Argument(help="The target whose knobs are tried.")],
    recipe: Annotated[str | None, typer.Option(help="Start from recipes/NAME.yaml.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Start from this workspace instead of the project.")] = None,
    knobs: Annotated[Path, typer.Option("--space", help="What may change.")] = Path("searches/student.yaml"),
    trials: Annotated[int, typer.Option(min=1, help="Stop when so many are done, earlier runs' included.")] = 20,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Begin no trial after so many. [default: no limit]")
    ] = None,
    sampler: Annotated[Sampler, typer.Option(help="tpe learns from earlier trials; random does not.")] = "tpe",
    seed: Annotated[int, typer.Option(help="Of the sampler.")] = 0,
) -> None:
    """Search; the same command goes on where a killed one was, or adds trials when --trials is higher."""
    environment.settle()
    try:
        base = workspace.locate(recipe, folder)
        search = Search(base, target, space.read(knobs), sampler, seed)
        search.run(trials, minutes)
        search.show()
    except LimbeckError as error:
        typer.echo(str(error), err=True)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        typer.echo("Interrupted; the same command goes on from here.", err=True)
        raise SystemExit(130) from None


class Search:
    """Trials of one target of one workspace.

    Args:
        base: the workspace whose params are varied.
        target: whose knobs.
        choices: what may change.
        sampler: who chooses.
        seed: of the sampler; trial n draws from (seed, n), so that a kill changes nothing.
        say: told of every trial; by itself the terminal.

    Raises:
        ParamsError: the target or a place does not exist, a fixed value is not one that it takes, or the folder holds
            trials of another search.

    """

    def __init__(
        self, base: Path, target: str, choices: space.Space, sampler: Sampler, seed: int,
        say: Callable[[str], None] | None = None,
    ) -> None:  # fmt: skip
        self.target, self.choices, self.sampler, self.seed = target, choices, sampler, seed
        params_file.load(base / "params.yaml")
        self.raw: dict[str, Any] = yaml.safe_load((base / "params.yaml").read_text(encoding="utf-8"))
        space.with_values(self.raw, target, dict.fromkeys(choices.choose) | choices.fix)  # every place exists
        self.folder = environment.ROOT / "work/search" / f"{self.raw['name']}-{target}-{sampler}"
        self.folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(
            storage=f"sqlite:///{self.folder / 'study.db'}",
            study_name="search",
            directions=DIRECTIONS,
            load_if_exists=True,
        )
        self._belong()
        self.console = Console(highlight=False, soft_wrap=True)
        self.say: Callable[[str], None] = say or self.console.print

    def _belong(self) -> None:
        """Note what this search is of; refuse to mix its trials with those of another.

        Raises:
            ParamsError: its folder holds trials of other params, another space or another seed.

        """
        params = space.with_values(self.raw, self.target, {})
        told = {"params": params, "space": self.choices.model_dump(mode="json"), "seed": self.seed}
        noted = self.study.user_attrs.get("of")
        if noted is None:
            self.study.set_user_attr("of", told)
        elif others := [key for key in told if noted[key] != told[key]]:
            raise ParamsError(
                f"{self.folder.relative_to(environment.ROOT)} holds trials of a search with other {' and '.join(others)}. "
                "Remove the folder to begin anew, or give params.yaml another `name`."
            )

    def run(self, trials: int, minutes: float | None, after: Callable[[], None] = lambda: None) -> None:
        """Go on until so many trials are done or time is up.

        Args:
            trials: earlier runs' included.
            minutes: after which none begins; None: no limit.
            after: called after every trial.

        Raises:
            Busy: this search runs already.

        """
        began = time.monotonic()
        with alone(self.folder, f"{self.folder.name} is searched already; one search of a kind runs at a time."):
            if self.rows():  # the last trial of a killed search may not be in its files yet
                self.write()
            for killed in self.study.get_trials(states=(TrialState.RUNNING,)):
                self.say(f"trial {killed.number} was cut short; it goes on")
                self.study.sampler = self.fresh_sampler(killed.number)
                going_on = optuna.Trial(self.study, killed._trial_id)  # keeps what it drew, draws the rest
                self.finish(killed.number, self.choices.suggest(going_on))
                after()
            while len(self.ended()) < trials and (minutes is None or time.monotonic() - began < 60 * minutes):
                self.study.sampler = self.fresh_sampler(len(self.study.trials))
                trial = self.study.ask()
                self.finish(trial.number, self.choices.suggest(trial))
                after()

    def fresh_sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The sampler of one trial."""
        seed = self.seed * 100_000 + number
        if self.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, multivariate=True)

    def ended(self) -> list[FrozenTrial]:
        """Trials that have an answer, be it that they failed."""
        return self.study.get_trials(states=(TrialState.COMPLETE, TrialState.FAIL))

    def place_of(self, number: int) -> Path:
        """The workspace of a trial."""
        return self.folder / f"{number:03d}"

    def finish(self, number: int, values: dict[str, Any]) -> None:
        """Run a trial, or what is left of it, and tell the study."""
        said = ", ".join(
            f"{place} {value:.3g}" if isinstance(value, float) else f"{place} {value}"
            for place, value in values.items()
        )
        try:
            figures = self.measure(number, values)
        except TrialFailed as error:
            self.study.tell(number, state=TrialState.FAIL)
            self.say(f"trial {number}: {said}: failed: {error}")
            return
        self.study.tell(number, figures)
        quality, size, latency = figures
        self.say(
            f"trial {number}: {said}: {100 * quality:.1f} % on validation, {size / 1000:.1f} kB, p50 {latency:.3f} ms",
        )
        self.write()

    def measure(self, number: int, values: dict[str, Any]) -> tuple[float, float, float]:
        """Quality on validation, bytes and p50 in ms of a trial's file.

        Raises:
            TrialFailed: a stage did, or the values are none that params take.

        """
        place = self.place_of(number)
        source = self.folder / "params" / f"{number:03d}.yaml"
        source.parent.mkdir(exist_ok=True)
        with replace(source) as partial:
            changed = space.with_values(self.raw, self.target, self.choices.fix | values)
            partial.write_text(yaml.safe_dump(changed, sort_keys=False), encoding="utf-8")
        try:
            params_file.load(source)
            workspace.create(place, source, links=True)
        except LimbeckError as error:
            raise TrialFailed(str(error)) from None
        log = place / ".limbeck/search.log"
        log.parent.mkdir(exist_ok=True)
        forget_zombies(place)
        with log.open("w", encoding="utf-8") as stream:
            done = subprocess.run(
                # it waits, for a killed search's dvc may still be ending
                [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", f"benchmark@{self.target}"],
                cwd=place,
                env={**os.environ, "PATH": environment.path(), WATCH: str(os.getpid())},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        if done.returncode:
            raise TrialFailed(f"see {log}: {_last_line(log)}")
        quality = json.loads((place / f"metrics/{self.target}/quality.json").read_text(encoding="utf-8"))["variants"]
        latency = json.loads((place / f"metrics/{self.target}/latency.json").read_text(encoding="utf-8"))["variants"]
        variant = INT8 if INT8 in quality else FP32
        return (
            quality[variant]["validation"]["value"],
            float(latency[variant]["bytes"]),
            latency[variant]["p50_ms"]["value"],
        )

    def rows(self) -> list[dict[str, Any]]:
        """Every trial that came through, as front.json has it."""
        front = {trial.number for trial in self.study.best_trials}
        return [
            {
                "trial": trial.number,
                "on_front": trial.number in front,
                "values": trial.params,
                **dict(zip(("validation", "bytes", "p50_ms"), trial.values, strict=True)),
                "folder": str(self.place_of(trial.number).relative_to(environment.ROOT)),
            }
            for trial in self.study.get_trials(states=(TrialState.COMPLETE,))
        ]

    def write(self) -> None:
        """Bring front.json and front.png up to date: what is there is always the best so far."""
        rows = self.rows()
        write_json(self.folder / "front.json", {"sampler": self.sampler, "seed": self.seed, "trials": rows})
        with replace(self.folder / "front.png") as partial:
            partial.write_bytes(png(draw_front(rows)))

    def front(self) -> list[FrozenTrial]:
        """The trials of the front, smallest first.

        Raises:
            LimbeckError: every trial failed.

        """
        found = sorted(self.study.best_trials, key=lambda trial: trial.values[1])
        if not found:
            raise LimbeckError(f"none of {len(self.ended())} trials came through; see the lines above.")
        return found

    def show(self) -> None:
        """Print the front and what to do with it.

        Raises:
            LimbeckError: every trial failed.

        """
        done = self.front()
        table = Table("trial", *self.choices.choose, "validation %", "bytes", "p50 ms", box=None, pad_edge=False)
        for trial in done:
            values = [
                f"{trial.params[p]:.3g}" if isinstance(trial.params[p], float) else str(trial.params[p])
                for p in self.choices.choose
            ]
            quality, size, latency = trial.values
            table.add_row(str(trial.number), *values, f"{100 * quality:.1f}", f"{size:,.0f}", f"{latency:.3f}")
        self.console.print(
            f"\nThe front of {len(self.ended())} trials, smallest first; short trainings, on validation:"
        )
        self.console.print(table)
        folder = self.folder.relative_to(environment.ROOT)
        self.console.print(f"\n{folder}/front.png, {folder}/front.json\n")
        self.console.print(
            f"Take one over: its values stand in {folder}/NNN/params.yaml, its files in {folder}/NNN/export/{self.target}.",
        )


class TrialFailed(Exception):
    """A trial has no figures; the search goes on."""


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("ERROR: failed to reproduce", "Running stage", "> "))]
    return told[-1] if told else "it said nothing"


if __name__ == "__main__":
    typer.run(main)
