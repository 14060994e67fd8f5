"""One refresh of one model: new data in, drift, rung by rung in workspaces of their own, gate, exam, champion.

What is decided, and how, stands in `limbeck.windows`, `limbeck.drift` and `limbeck.refresh`; here is what happens in which
order, and what is written down between two steps (`limbeck.refresh.story`), so that a killed refresh goes on.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flows import workspace
from flows.refreshing import windows
from flows.refreshing.hearing import listen
from flows.refreshing.shipping import Say, Shipping
from flows.refreshing.standing import Waits, keep, turn
from limbeck import params as params_file
from limbeck.atomic import replace, write_json
from limbeck.data.prepared import read_meta, read_origin
from limbeck.data.window import labelled_in, read_about
from limbeck.errors import ContractBroken, LimbeckError, PublishingError, TrackingError
from limbeck.publishing.places import Place
from limbeck.refresh import gate, requests, rungs, story
from limbeck.refresh.requests import Meaning, TaskRequest
from limbeck.refresh.rules import Rules
from limbeck.refresh.rungs import Champion, Situation, Step, Work
from limbeck.refresh.story import Judged, Source, Story, Try
from limbeck.refresh.telling import estimated, line
from limbeck.selection import choose
from limbeck.tracking import registry
from limbeck.tracking.delivery import Server

if TYPE_CHECKING:
    from limbeck.refresh.looking import Look


SPENT = ("champion", "canary", "failed", "refused")
"""Outcomes of a refresh after which windows cool down."""


class Refresh(Shipping):
    """Refreshes of one target of one workspace: see `Shipping`."""

    @classmethod
    def quiet(cls, base: Path, target: str, rules: Rules, say: Say = lambda _: None) -> "Refresh":
        """One that only looks."""

        def never(*_: Any) -> Any:
            raise AssertionError("it was only to look")

        return cls(base, target, rules, run_stages=never, approve=never, say=say)

    def run(
        self, request: TaskRequest | None = None, *, standing: tuple[str, ...] = (), anyway: bool = False, dry: bool = False
    ) -> str:  # fmt: skip
        """Do what there is to do, what was begun before first; what became of it, in a line each.

        Args:
            request: for new classes, which have to be there.
            standing: new classes that may be learned as soon as windows bring enough of them.
            anyway: a person has looked: act on whatever windows nothing was learned from, moved or not.
            dry: say what would be done.

        Raises:
            Busy: somebody else refreshes the model.
            Waits: it goes on later.
            ContractBroken: a challenger passed the gate and failed the exam, or broke its contract.
            LimbeckError: something it needs is missing or not right.

        """
        with turn(self.model):
            told, ended = story.every(self.place), list[str]()
            if told and told[-1].outcome is None:
                self.say(f"refresh {told[-1].number} of {self.model} goes on")
                try:
                    ended.append(self.climb(told[-1], dry=dry))
                except ContractBroken as error:
                    ended.append(str(error))
                if dry:
                    return ended[0]
            # What landed meanwhile has no other run than this one.
            found = self.begin(told, request, standing, anyway=anyway and not ended, went_on=bool(ended), dry=dry)
            return "\n".join([*ended, found if isinstance(found, str) else self.climb(found, dry=dry)])

    # What arrived, and whether it calls for anything.

    def begin(
        self, told: Sequence[Story], request: TaskRequest | None, standing: tuple[str, ...] = (), *, anyway: bool = False,
        went_on: bool = False, dry: bool,
    ) -> Story | str:  # fmt: skip
        """Take in what landed, look at it, and open a story where that, or a request, calls for one."""
        version, place = self.champion()
        champion = Champion.of(place, self.target)
        if champion.lost_root:
            self.say(
                f"{champion.lost_root} is not the data any more that this began with: what was replayed last is again"
            )
        known = read_meta(champion.data).classes
        standing = tuple(name for name in standing if name not in known)
        wanted = (*(request.new_classes if request and request.new_classes else ()), *standing)
        uploads = self.uploads
        listen(
            uploads, self.place / "heard", champion.data, place / "export" / self.target / f"{self.variant(place)}.onnx",
            self.rules, model=self.model, version=version, say=self.say, dry=dry,
        )  # fmt: skip
        aside = windows.take(
            self.base, self.base / self.rules.drop, champion.data, champion.teacher.folder, self.rules.windows,
            model=self.model, uploads=uploads, requested=wanted, root=champion.root, say=self.say,
        )  # fmt: skip
        settled = set() if anyway else set(_read(self.settled, []))
        pending = windows.pending(self.base, settled | self.learned(place))
        if not pending:
            told_aside = f"; set aside: {', '.join(aside)} (limbeck windows list)" if aside else ""
            return f"no new window: nothing to do{told_aside}"
        if told and told[-1].outcome == "canary" and self.is_canary(told[-1]):
            return f"version {told[-1].version} is a canary; nothing else is tried until it is the champion or was taken back"
        from limbeck.refresh.looking import look, unknown_rows

        if again := [folder for folder in pending if not len(unknown_rows(folder, champion.data))]:
            pending = [folder for folder in pending if folder not in again]
            if not dry:
                self.settle(again)
            if not pending:
                return "no new sample: labels came late, for samples that the champion was made of"

        def meant(folders: Sequence[Path]) -> Meaning | None:
            labelled = labelled_in(folders)
            return self.meaning(request or requests.ready(standing, labelled, self.rules.requests), place, labelled)

        meaning, now = meant(pending), datetime.now(UTC)
        acted = [each.ended for each in told if each.outcome in SPENT and each.ended]
        looked = look(
            place, self.target, champion, pending, self.rules,
            variant=self.variant(place), contract=params_file.ContractParams.model_validate(self.wanted(place)["contract"]), now=now, last_action=max(acted, default=None),
            act="all" if anyway else "wanted" if meaning else "moved", new_classes=meaning.new_classes if meaning else (),
        )  # fmt: skip
        seen = {
            "report": looked.report.to_json(),
            "estimate": asdict(looked.estimate),
            "feedback": vars(looked.feedback),
        }
        for told_line in (*looked.lines(), estimated(seen["estimate"])):
            self.say(told_line)
        for name in set(standing) - set(meaning.new_classes if meaning else ()):
            enough, labelled = self.rules.requests.min_class_samples, labelled_in(pending).get(name, 0)
            self.say(f"{name} waits: people labelled {labelled} samples of it, expected {enough}")
        why = meaning.why if meaning else f"{'a person asked: ' if anyway else ''}{looked.report.reason}"
        if not dry:
            self.settle(looked.settled)
        if meaning and len(looked.acts) < len(pending) and meant(looked.acts) != meaning:
            return f"no action: {why}, but labels contradict what was learned. Where they are right: --anyway"
        if not (meaning or anyway) and (more := looked.calls_for_nothing) is not None:
            if not dry:
                self.keep_look(pending, looked, seen, now)
            return f"no action: {why}{more}"
        if meaning is None and (few := self.few_labels(looked.num_labelled)):
            return f"no action: {why}, but {few}"
        digests = {read_about(folder).digest for folder in looked.acts}
        if told and not anyway and told[-1].has_answered(version, digests, why, now=went_on):
            return (
                f"refresh {told[-1].number} had the same windows ({told[-1].outcome}: {told[-1].why}): waits for others"
            )
        return self.open(told, version, place, champion, looked, meaning, why, seen, now, dry=dry)

    def open(
        self, told: Sequence[Story], version: str, place: Path, champion: Champion, looked: "Look", meaning: Meaning | None,
        why: str, seen: dict[str, Any], now: datetime, *, dry: bool,
    ) -> Story:  # fmt: skip
        """The story of a refresh that is called for, with every rung planned."""
        situation = Situation(
            base=self.params(place),
            target=self.target,
            champion=champion,
            windows=looked.acts,
            rules=self.rules.ladder,
            feedback=looked.feedback,
            new_classes=meaning.new_classes if meaning else (),
            unready=looked.unready,
        )
        steps = rungs.ladder(
            situation, start=meaning.start.get(self.target) if meaning else None, why=meaning.why if meaning else ""
        )
        past = [spent for each in told for spent in each.spent()]
        opened = Story(
            model=self.model, target=self.target, number=told[-1].number + 1 if told else 1, began=now, champion=version, workspace=place,
            windows=[self.source(folder) for folder in looked.acts], asked=why,
            looked=seen, wanted=self.wanted(place), tries=[self.planned(step, champion, looked.acts, past) for step in steps],
        )  # fmt: skip
        for step in steps:
            if step.params is not None and not dry:
                self.write_params(opened, step)
        if not dry:
            folder = self.folder(opened)
            _draw(folder / "moved.png", looked)
            opened.write(folder)
        return opened

    def is_canary(self, told: Story) -> bool:
        """Whether a share of the fleet still tries what a story shipped."""
        return told.version is not None and registry.is_at(self.model, "canary", told.version, uri=self.uri)

    def few_labels(self, labelled: int) -> str:
        """Why so many labels are too few for a gate to say anything; empty where they are enough."""
        asked = self.rules.drift.min_samples
        if labelled >= asked:
            return ""
        return (
            f"only {labelled} of the new samples are labelled, by people or by a teacher that was sure, and drift.min_samples "
            f"asks for {asked}: a gate could not tell a repair from chance. Label some: drop NAME.labels.csv (docs/windows.md)"
        )

    @property
    def settled(self) -> Path:
        """Digests of windows that called for nothing."""
        return self.place / "settled.json"

    @property
    def uploads(self) -> Place | None:
        """Where devices put reports and samples; None without a server, or with one that does not let us."""
        if not self.uri.startswith("http"):
            return None
        try:
            return Server(self.uri)
        except (PublishingError, TrackingError) as error:
            self.say(f"nothing of devices is heard: {error}")
            return None

    def keep_look(self, pending: Sequence[Path], looked: "Look", seen: dict[str, Any], now: datetime) -> None:
        """Keep what a look found that calls for nothing, unless the last one found the same."""
        looks, names = self.place / "looks", [folder.name for folder in pending]
        before = max(looks.glob("*.json"), default=None)
        last = {} if before is None else _read(before, {})
        if (last.get("windows"), last.get("report", {}).get("reason")) != (names, looked.report.reason):
            at = looks / now.strftime("%Y%m%dT%H%M%SZ")
            at.parent.mkdir(exist_ok=True)
            _draw(at.with_suffix(".png"), looked)
            write_json(at.with_suffix(".json"), {"windows": names, **seen})

    def settle(self, folders: Sequence[Path]) -> None:
        """Windows that are not looked at again."""
        known = _read(self.settled, [])
        if digests := [digest for folder in folders if (digest := read_about(folder).digest) not in known]:
            write_json(self.settled, [*known, *digests])

    def meaning(self, request: TaskRequest | None, place: Path, labelled: dict[str, int]) -> Meaning | None:
        """What a request asks of this target's ladder, None without one."""
        if request is None or request.new_classes is None:
            return None
        base = self.params(place)
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
        held_out = (ladder.split.test or 0.0) + (ladder.split.validation or 0.0) + ladder.split.calibration
        origins = read_origin(champion.data, "train")
        learned, replayed = int((origins != 0).sum()), int((origins == 0).sum())
        if champion.root or not learned:
            replayed = round(read_meta(champion.root or champion.data).counts["train"] * ladder.replay)
        num_train = round(replayed + learned + new * (1 - held_out))
        work = Work.of(params_file.checked(step.params, step.rung), self.target, num_train)
        return Try.of(step, work, rungs.cost(step, self.target, num_train, self.rules.rates, past))

    # Rung by rung.

    def write_params(self, told: Story, step: Step) -> None:
        """Keep a rung's params beside its story. The champion moves by gate and exam alone, not by `register`."""
        assert step.params is not None
        step.params["tracking"]["champion_margin"] = None
        keep(self.folder(told) / f"{step.rung}.yaml", yaml.safe_dump(step.params, sort_keys=False, allow_unicode=True))

    def climb(self, told: Story, *, dry: bool) -> str:
        """Try rung after rung until one regains enough; then examine the best that passed and let it ship."""
        if dry:
            return "\n".join([f"would refresh: {told.asked}", *map(line, told.tries)])
        for each in told.tries:
            if each.state == "waiting":
                if why := self.overtaken(told):
                    return self.end(told, "superseded", why)
                self.try_rung(told, each)
            self.say(line(each))
            if each.state == "passed" and each.verdict:
                if rungs.is_enough(each.verdict.gain, told.fell, self.rules.ladder):
                    break
                self.say(f"{each.rung} regains {each.verdict.gain / (told.fell or 1.0):.0%} of what was lost")
        if told.picked:
            return self.ship(told, told.picked.rung)
        return self.end(told, "failed", _without(told))

    def try_rung(self, told: Story, each: Try) -> None:
        """Run a rung's workspace up to its benchmark and hold its file against the champion's."""
        if why := self.passed_over(told, each):
            each.state, each.why = "skipped", why
            self.note(told)
            return
        folder = self.folder(told)
        place = workspace.create(folder / each.rung, folder / f"{each.rung}.yaml", links=True)
        self.say(f"{each.rung}: about {each.expected_s:.0f} s ({each.known_from})")
        if each.began is not None:
            last = _last_sign(place, each.began)
            each.took((last - each.began).total_seconds(), last)
        each.began, began = datetime.now(UTC), time.monotonic()
        self.note(told)
        try:
            self.run_stages(place, self.target, "benchmark")
            each.variant = self.judge(told, each, place)
        except ContractBroken as error:
            each.state, each.why = "refused", str(error)
        except LimbeckError as error:
            each.state, each.why = "failed", str(error)
        finally:
            each.took(time.monotonic() - began, datetime.now(UTC))
            self.note(told)

    def passed_over(self, told: Story, each: Try) -> str:
        """Why a rung does not begin; empty where it may.

        Raises:
            Waits: it would not end within what is left of today's budget, and no other rung has passed.

        """
        if told.picked and each.rung == "teacher":
            return f"{told.picked.rung} has passed the gate, which costs less than a teacher that learns"
        today, allowed = datetime.now(UTC).date().isoformat(), 60 * self.rules.minutes_per_day
        expected = each.expected_s or 0.0
        if expected > allowed:
            return f"it would take about {expected:.0f} s, and no day has more than {allowed:.0f} s (minutes_per_day)"
        spent = sum(tried.by_day.get(today, 0.0) for other in story.every(self.place) for tried in other.tries)
        if spent + expected <= allowed:
            return ""
        short = f"it would take about {expected:.0f} s, and {spent:.0f} of today's {allowed:.0f} s (minutes_per_day) are spent"
        if told.picked:
            return f"{short}; {told.picked.rung} has passed the gate"
        raise Waits(f"{each.rung}: {short}; it goes on tomorrow, or with a higher budget.")

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


def _without(told: Story) -> str:
    """Why no rung of a story ships."""
    if any(each.verdict or each.state == "refused" for each in told.tries):
        return "no rung passed the gate; the champion stays"
    return "no rung came as far as the gate; the champion stays"


def _last_sign(place: Path, began: datetime) -> datetime:
    """When an attempt that was cut off is last known to have lived: when a stage last wrote its status."""
    times = [path.stat().st_mtime for path in (place / ".limbeck/status").glob("*.json")]
    return max(began, datetime.fromtimestamp(max(times), UTC)) if times else began


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default


def _draw(path: Path, looked: "Look") -> None:
    """The picture of what moved, where anything did."""
    if (picture := looked.picture()) is not None:
        with replace(path) as partial:
            partial.write_bytes(picture)
