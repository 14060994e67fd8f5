"""One refresh of one model: new data in, drift, rung by rung in workspaces of their own, gate, exam, champion.

What is decided, and how, stands in `limbeck.windows`, `limbeck.drift` and `limbeck.refresh`; here is what happens in which
order, and what is written down between two steps (`limbeck.refresh.story`), so that a killed refresh goes on.
"""

import fcntl
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from flows import environment, windows, workspace
from limbeck import ledger
from limbeck import params as params_file
from limbeck.atomic import replace, write_json
from limbeck.components import nearest
from limbeck.data.prepared import read_meta
from limbeck.data.window import read_about
from limbeck.edge import manifest as manifest_file
from limbeck.errors import ContractBroken, LimbeckError, ParamsError
from limbeck.params import ContractParams
from limbeck.publishing.places import Place
from limbeck.refresh import gate, requests, rungs, story
from limbeck.refresh.requests import Meaning, TaskRequest
from limbeck.refresh.rules import Rules
from limbeck.refresh.rungs import Champion, Rung, Situation, Step, Work
from limbeck.refresh.story import Judged, Source, Story, Try
from limbeck.refresh.telling import line, page
from limbeck.selection import choose, quality_clauses
from limbeck.tracking import promotion, registry
from limbeck.tracking.delivery import Server
from limbeck.tracking.server import home_of, tracking_uri

if TYPE_CHECKING:
    from limbeck.refresh.looking import Look

RunStages: TypeAlias = Callable[[Path, str, str], None]
"""Bring a target of a workspace up to date, as far as a stage; raises what a stage raised."""
Say: TypeAlias = Callable[[str], None]


class Busy(LimbeckError):
    """Another refresh of the model runs."""


class Waits(LimbeckError):
    """A refresh cannot go on now: the day's budget is spent, or nobody has said yes yet. It goes on when it is run again."""

    exit_code = 0


class Refresh:
    """Refreshes of one target of one workspace.

    Args:
        base: the workspace of the first champion; windows and the drop folder lie in it.
        target: whose student.
        rules: refresh.yaml.
        run_stages: runs the pipeline.
        approve: asked before anything ships where the rules say so.
        say: told what happens.

    Raises:
        ParamsError: params.yaml or the target is not right.

    """

    def __init__(
        self, base: Path, target: str, rules: Rules, *, run_stages: RunStages, approve: Callable[[Story], bool], say: Say
    ) -> None:  # fmt: skip
        self.base, self.target, self.rules = base, target, rules
        self.run_stages, self.approve, self.say = run_stages, approve, say
        params = params_file.load(base / "params.yaml")
        if target not in params.targets:
            raise ParamsError(f"no target {target!r}; {nearest(target, list(params.targets))}")
        self.model = f"{params.name}-{target}"
        self.uri = tracking_uri(params.tracking.uri, base)
        self.place = environment.ROOT / "work/refresh" / self.model

    @classmethod
    def quiet(cls, base: Path, target: str, rules: Rules, say: Say = lambda _: None) -> "Refresh":
        """One that only looks."""

        def never(*_: Any) -> Any:
            raise AssertionError("it was only to look")

        return cls(base, target, rules, run_stages=never, approve=never, say=say)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Alone with this model.

        Raises:
            Busy: somebody else refreshes it.

        """
        self.place.mkdir(parents=True, exist_ok=True)
        with (self.place / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise Busy(
                    f"{self.model} is being refreshed already; two refreshes of a model never overlap."
                ) from None
            yield

    def run(
        self, request: TaskRequest | None = None, *, standing: tuple[str, ...] = (), dry: bool = False
    ) -> str:  # fmt: skip
        """Do what there is to do, what was begun before first; what became of it, in a line each.

        Args:
            request: for new classes, which have to be there.
            standing: new classes that may be learned as soon as windows bring enough of them.
            dry: say what would be done.

        Raises:
            Busy: see `turn`.
            Waits: it goes on later.
            ContractBroken: a challenger passed the gate and failed the exam, or broke its contract.
            LimbeckError: something it needs is missing or not right.

        """
        with self.turn():
            told, ended = story.every(self.place), list[str]()
            if told and told[-1].outcome is None:
                self.say(f"refresh {told[-1].number} of {self.model} goes on")
                try:
                    ended.append(self.climb(told[-1], dry=dry))
                except ContractBroken as error:
                    ended.append(str(error))
                if dry:
                    return ended[0]
            found = self.begin(told, request, standing, dry=dry)  # what landed meanwhile has no other run than this
            return "\n".join([*ended, found if isinstance(found, str) else self.climb(found, dry=dry)])

    # What arrived, and whether it calls for anything.

    def begin(
        self, told: Sequence[Story], request: TaskRequest | None, standing: tuple[str, ...] = (), *, dry: bool
    ) -> Story | str:  # fmt: skip
        """Take in what landed, look at it, and open a story where that, or a request, calls for one."""
        version, place = self.champion()
        champion = Champion.of(place, self.target)
        known = read_meta(champion.data).classes
        standing = tuple(name for name in standing if name not in known)
        wanted = (*(request.new_classes if request and request.new_classes else ()), *standing)
        aside = windows.take(
            self.base, self.base / self.rules.drop, champion.data, champion.teacher.folder, self.rules.windows,
            uploads=self.uploads, requested=wanted, say=self.say,
        )  # fmt: skip
        settled = set(_read(self.settled, []))
        pending = windows.pending(self.base, settled | self.learned(place))
        if not pending:
            told_aside = f"; set aside: {', '.join(aside)} (limbeck windows list)" if aside else ""
            return f"no new window: nothing to do{told_aside}"
        from limbeck.refresh.looking import look

        now = datetime.now(UTC)
        acted = [each.ended for each in told if each.outcome in ("champion", "canary") and each.ended]
        looked = look(
            place, self.target, champion, pending, self.rules,
            variant=self.variant(place), contract=self.contract(place), now=now, last_action=max(acted, default=None),
        )  # fmt: skip
        for told_line in looked.report.lines():
            self.say(told_line)
        meaning = self.meaning(
            request or requests.ready(standing, looked.labelled, self.rules.requests), place, looked.labelled
        )
        for name in set(standing) - set(meaning.new_classes if meaning else ()):
            enough = self.rules.requests.min_class_samples
            self.say(f"{name} waits: people labelled {looked.labelled.get(name, 0)} samples of it, expected {enough}")
        seen = {
            "report": looked.report.to_json(),
            "estimate": asdict(looked.estimate),
            "feedback": vars(looked.feedback),
        }
        if meaning is None and not looked.report.fires:
            if not dry:
                self.settle(pending, looked, seen, now)
            return f"no action: {looked.report.reason}"
        why = meaning.why if meaning else looked.report.reason
        if told and told[-1].has_answered(version, {read_about(folder).digest for folder in pending}, why):
            return (
                f"refresh {told[-1].number} had the same windows ({told[-1].outcome}: {told[-1].why}): waits for others"
            )
        situation = Situation(
            base=yaml.safe_load((place / "params.yaml").read_text(encoding="utf-8")),
            target=self.target,
            champion=champion,
            windows=tuple(pending),
            rules=self.rules.ladder,
            feedback=looked.feedback,
            new_classes=tuple(dict.fromkeys((*(meaning.new_classes if meaning else ()), *looked.new_classes))),
        )
        steps = rungs.ladder(
            situation, start=meaning.start.get(self.target) if meaning else None, why=meaning.why if meaning else ""
        )
        past = [spent for each in told for spent in each.spent()]
        opened = Story(
            model=self.model, target=self.target, number=len(told) + 1, began=now, champion=version, workspace=place,
            windows=[self.source(folder) for folder in pending], asked=why, looked=seen,
            tries=[self.planned(step, champion, pending, past) for step in steps],
        )  # fmt: skip
        for step in steps:
            if step.params is not None and not dry:
                self.write_params(opened, step)
        if not dry:
            folder = self.folder(opened)
            _draw(folder / "moved.png", looked)
            opened.write(folder)
        return opened

    def champion(self) -> tuple[str, Path]:
        """The version that stands, and the workspace that it was made in.

        Raises:
            LimbeckError: there is none, or it was made elsewhere.

        """
        stands = registry.champion_of(self.model, uri=self.uri)
        if stands is None:
            raise LimbeckError(f"{self.model} has no champion yet; run the pipeline first: make run.")
        version, identity = stands
        made = [self.base, *(place.parent.parent for place in self.place.glob(f"*/*/registry/{self.target}.json"))]
        for place in made:
            decision = place / "registry" / f"{self.target}.json"
            if decision.is_file() and json.loads(decision.read_text(encoding="utf-8"))["identity"] == identity:
                return version, place
        raise LimbeckError(
            f"version {version}, the champion of {self.model}, was made neither in {self.base} nor by a refresh here; a "
            "refresh starts from its checkpoints. Run it where they are, or `make run` and promote what comes out."
        )

    def variant(self, place: Path) -> str:
        """Which file of the champion ships."""
        decision: dict[str, str] = json.loads((place / "registry" / f"{self.target}.json").read_text(encoding="utf-8"))
        return decision["variant"]

    def contract(self, place: Path) -> ContractParams:
        """What the champion keeps."""
        return params_file.load(place / "params.yaml").targets[self.target].contract

    def learned(self, place: Path) -> set[str]:
        """Digests of the windows that the champion of a workspace, or one before it, has learned from."""
        if not (place.parent / story.STORY).is_file():
            return set()
        told = story.read(place.parent)
        return {window.digest for window in told.windows} | self.learned(told.workspace)

    @property
    def settled(self) -> Path:
        """Digests of windows that called for nothing."""
        return self.place / "settled.json"

    @property
    def uploads(self) -> Place | None:
        """Where devices put samples; None without a server."""
        return Server(self.uri) if self.uri.startswith("http") else None

    def settle(self, pending: Sequence[Path], looked: "Look", seen: dict[str, Any], now: datetime) -> None:
        """Keep what a look found; windows that it could judge are not looked at again."""
        at = self.place / "looks" / now.strftime("%Y%m%dT%H%M%SZ")
        at.parent.mkdir(exist_ok=True)
        _draw(at.with_suffix(".png"), looked)
        write_json(at.with_suffix(".json"), {"windows": [folder.name for folder in pending], **seen})
        if looked.is_judged and not looked.new_classes:  # those may become enough of a class that was asked for
            digests = [read_about(folder).digest for folder in pending]
            write_json(self.settled, [*_read(self.settled, []), *digests])

    def meaning(self, request: TaskRequest | None, place: Path, labelled: dict[str, int]) -> Meaning | None:
        """What a request asks of this target's ladder, None without one."""
        if request is None or request.new_classes is None:
            return None
        base = yaml.safe_load((place / "params.yaml").read_text(encoding="utf-8"))
        return requests.for_classes(
            request.new_classes, base, known=read_meta(place / "data").classes, labelled=labelled, rules=self.rules.requests
        )  # fmt: skip

    def knows(self, classes: Sequence[str]) -> bool:
        """Whether the champion answers these classes.

        Raises:
            LimbeckError: see `champion`.

        """
        _, place = self.champion()
        return set(classes) <= set(read_meta(place / "data").classes)

    def source(self, folder: Path) -> Source:
        """A window as a story names it."""
        about = read_about(folder)
        return Source(folder=folder, digest=about.digest, labelled_by=about.labelled_by)

    def planned(self, step: Step, champion: Champion, pending: Sequence[Path], past: Sequence[rungs.Spent]) -> Try:
        """A rung with what it will cost."""
        if step.params is None:
            return Try.of(step, None, None)
        ladder = self.rules.ladder
        new = sum(read_about(folder).counts.labelled for folder in pending)
        held_out = (ladder.split.test or 0.0) + ladder.split.validation + ladder.split.calibration
        num_train = round(read_meta(champion.data).counts["train"] * ladder.replay + new * (1 - held_out))
        work = Work.of(params_file.checked(step.params, step.rung), self.target, num_train)
        return Try.of(step, work, rungs.cost(step, self.target, num_train, self.rules.rates, past))

    # Rung by rung.

    def folder(self, told: Story) -> Path:
        """Where a story lies."""
        made = self.place / f"{told.number:04d}"
        made.mkdir(parents=True, exist_ok=True)
        return made

    def write_params(self, told: Story, step: Step) -> None:
        """Keep a rung's params beside its story. The champion moves by gate and exam alone, not by `register`."""
        assert step.params is not None
        step.params["tracking"]["champion_margin"] = None
        keep(self.folder(told) / f"{step.rung}.yaml", yaml.safe_dump(step.params, sort_keys=False, allow_unicode=True))

    def climb(self, told: Story, *, dry: bool) -> str:
        """Try rung after rung until one passes; then examine it and let it ship."""
        if dry:
            return "\n".join([f"would refresh: {told.asked}", *map(line, told.tries)])
        for each in told.tries:
            if each.state == "waiting":
                self.try_rung(told, each)
            self.say(line(each))
            if each.state == "passed":
                return self.ship(told, each.rung)
        return self.end(told, "failed", "no rung passed the gate; the champion stays")

    def try_rung(self, told: Story, each: Try) -> None:
        """Run a rung's workspace up to its benchmark and hold its file against the champion's."""
        self.check_budget(each)
        folder, began = self.folder(told), time.monotonic()
        place = workspace.create(folder / each.rung, folder / f"{each.rung}.yaml", links=True)
        self.say(f"{each.rung}: about {each.expected_s:.0f} s ({each.known_from})")
        try:
            self.run_stages(place, self.target, "benchmark")
            each.variant = self.judge(told, each, place)
        except ContractBroken as error:
            each.state, each.why = "refused", str(error)
        except LimbeckError as error:
            each.state, each.why = "failed", str(error)
        finally:
            each.seconds += time.monotonic() - began
            each.ended = datetime.now(UTC)
            told.write(folder)

    def check_budget(self, each: Try) -> None:
        """Raises `Waits` where the rung would not end within what is left of the day."""
        today = datetime.now(UTC).date()
        spent = sum(
            tried.seconds for other in story.every(self.place) for tried in other.tries
            if tried.ended and tried.ended.date() == today
        )  # fmt: skip
        allowed = 60 * self.rules.minutes_per_day
        if spent + (each.expected_s or 0.0) > allowed:
            raise Waits(
                f"{each.rung} would take about {each.expected_s:.0f} s, and {spent:.0f} of today's {allowed:.0f} s "
                "(minutes_per_day) are spent; it goes on tomorrow, or with a higher budget."
            )

    def judge(self, told: Story, each: Try, place: Path) -> str:
        """The gate, on validation; the variant that would ship.

        Raises:
            ContractBroken: no variant keeps the contract.

        """
        contract = self.contract(place)
        variant, clauses = choose(*self.measured(place), contract)
        scored = self.scored(told, place, variant, "validation")
        verdict = gate.judge(scored, self.rules.gate, clauses[variant], require=contract.require)
        each.verdict, each.state = Judged.of(verdict), "passed" if verdict.passed else "refused"
        return variant

    def measured(self, place: Path) -> tuple[Any, Any, Any]:
        """Manifest, quality.json and latency.json of a workspace's target."""
        metrics = place / "metrics" / self.target
        figures = [
            json.loads((metrics / f"{name}.json").read_text(encoding="utf-8")) for name in ("quality", "latency")
        ]
        return manifest_file.read(place / "export" / self.target), figures[0], figures[1]

    def scored(self, told: Story, place: Path, variant: str, split: Any) -> gate.Scored:
        """The champion's file and a challenger's on a split of the challenger's data."""
        champion = told.workspace / "export" / self.target / f"{self.variant(told.workspace)}.onnx"
        challenger = place / "export" / self.target / f"{variant}.onnx"
        metric = params_file.load(place / "params.yaml").metric
        return gate.score(champion, challenger, place / "data", split, metric, threads=self.rules.threads)

    # What passed.

    def ship(self, told: Story, rung: Rung) -> str:
        """Examine the picked rung on test, register it, and let it serve."""
        place, each = self.folder(told) / rung, next(tried for tried in told.tries if tried.rung == rung)
        assert each.variant is not None
        contract, (_, quality, _) = self.contract(place), self.measured(place)
        try:
            if told.exam is None:
                told.data = read_meta(place / "data").digest
                exam = gate.examine(
                    self.scored(told, place, each.variant, "test"), self.rules.gate,
                    quality_clauses(quality["variants"][each.variant]["test"], contract, "test"),
                    require=contract.require, digest=told.data,
                    sat=[other.data for other in story.every(self.place) if other.outcome == "refused" and other.data],
                )  # fmt: skip
                told.exam = Judged.of(exam)
                told.write(self.folder(told))
            self.say(f"exam: {told.exam.words}")
            if self.rules.ship.approval == "ask" and not self.approve(told):
                return self.end(told, "refused", "a person said no; the champion stays")
            self.run_stages(place, self.target, "register")
        except ContractBroken as error:
            self.end(told, "refused", str(error))
            raise
        why = f"refresh {told.number}, {rung}: {told.exam.words}"
        if self.rules.ship.canary is None:
            told.version = appoint(place, self.target, why)
            return self.end(told, "champion", why)
        told.version = registered(place, self.target)
        from limbeck.publishing.serving import CANARY, Publisher

        publisher = Publisher.of(self.base, uri=self.uri, say=self.say)
        publisher.publish(self.model, CANARY, serial=int(told.version), share=self.rules.ship.canary)
        return self.end(told, "canary", f"{why}; {self.rules.ship.canary:.0%} of the fleet take it first")

    def end(self, told: Story, outcome: Any, why: str) -> str:
        """Close the story."""
        told.outcome, told.why, told.ended = outcome, why, datetime.now(UTC)
        folder = self.folder(told)
        told.write(folder)
        page(told, folder).write(folder, "report")
        return f"{outcome}: {why}; see {(folder / 'report.html').relative_to(environment.ROOT)}"


def made_in(model: str) -> tuple[Path, str] | None:
    """The workspace and target of a registered model: of the project, or of one in work/; None: of neither."""
    for file in (environment.ROOT / "params.yaml", *sorted(environment.ROOT.glob("work/*/params.yaml"))):
        try:
            params = params_file.load(file)
        except ParamsError:  # not ours to judge here
            continue
        for target in params.targets:
            if f"{params.name}-{target}" == model:
                return file.parent, target
    return None


def registered(place: Path, target: str) -> str:
    """The version that a workspace registered for a target."""
    params = params_file.load(place / "params.yaml")
    decision = json.loads((place / "registry" / f"{target}.json").read_text(encoding="utf-8"))
    uri = tracking_uri(params.tracking.uri, place)
    return registry.version_of(f"{params.name}-{target}", decision["identity"], decision["variant"], uri=uri)


def appoint(place: Path, target: str, why: str) -> str:
    """Make what a workspace registered the champion; its version."""
    params, version = params_file.load(place / "params.yaml"), registered(place, target)
    uri = tracking_uri(params.tracking.uri, place)
    promotion.appoint(f"{params.name}-{target}", version, why, uri=uri, ledger_file=home_of(place) / ledger.NAME)
    return version


def keep(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replace(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default


def _draw(path: Path, looked: "Look") -> None:
    """The picture of what moved, where anything did."""
    if (picture := looked.picture()) is not None:
        with replace(path) as partial:
            partial.write_bytes(picture)
