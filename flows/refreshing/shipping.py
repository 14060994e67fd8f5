"""What becomes of a challenger that passed the gate: exam, a person's yes, registered, champion or canary.

    exam      on test, once, and written down: a refresh that was cut off does not sit it again
    yes       asked for where the rules say so, and written down
    register  the pipeline's last stage: a version, a candidate
    serve     the champion's alias, or a canary that is signed

Each of them can be done again without doing more. Before the exam and before it serves it is made sure that the champion is
still the one that it was held against.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from flows import environment
from flows.refreshing.standing import Standing, appoint, registered
from limbeck.data.prepared import read_meta
from limbeck.errors import ContractBroken
from limbeck.refresh import gate, story
from limbeck.refresh.rules import Rules
from limbeck.refresh.rungs import Rung
from limbeck.refresh.story import Judged, Story
from limbeck.refresh.telling import page
from limbeck.selection import quality_clauses
from limbeck.tracking import registry

RunStages: TypeAlias = Callable[[Path, str, str], None]
"""Bring a target of a workspace up to date, as far as a stage; raises what a stage raised."""
Say: TypeAlias = Callable[[str], None]
Approve: TypeAlias = Callable[[Story, Callable[[], None]], str]
"""Why a story's challenger may not ship; empty where a person said yes. The second keeps what was changed in the story."""


class Shipping(Standing):
    """A `Standing` whose challengers ship.

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
        self, base: Path, target: str, rules: Rules, *, run_stages: RunStages, approve: Approve, say: Say
    ) -> None:  # fmt: skip
        super().__init__(base, target, rules.threads)
        self.rules, self.run_stages, self.approve, self.say = rules, run_stages, approve, say

    def ship(self, told: Story, rung: Rung) -> str:
        """Examine the picked rung on test, register it, and let it serve; what became of it, in a line.

        Raises:
            ContractBroken: it fails the exam, or does not keep its contract.
            Waits: nobody has said yes yet.
            LimbeckError: a stage failed, or the registry does not answer.

        """
        place = self.folder(told) / rung
        if why := self.overtaken(told):
            return self.end(told, "superseded", why)
        try:
            exam = self.exam(told, place)
            self.say(f"exam: {exam.words}")
            if self.rules.ship.approval == "ask" and told.approved is None:
                if why := self.approve(told, lambda: self.note(told)):
                    return self.end(told, "refused", f"{why}; the champion stays")
                told.approved = datetime.now(UTC)
                self.note(told)
            self.run_stages(place, self.target, "register")
        except ContractBroken as error:
            self.end(told, "refused", str(error))
            raise
        if why := self.overtaken(told):  # training and people take their time
            return self.end(told, "superseded", why)
        return self.serve(told, place, f"refresh {told.number}, {rung}: {exam.words}")

    def exam(self, told: Story, place: Path) -> Judged:
        """The picked rung on test: once.

        Raises:
            ContractBroken: it fails; or another one failed on these very samples.

        """
        if told.exam is None:
            each = told.picked
            assert each is not None
            assert each.variant is not None
            contract, (_, quality, _) = self.contract(place), self.measured(place)
            told.data = read_meta(place / "data").digest
            exam = gate.examine(
                self.scored(told, place, each.variant, "test"), self.rules.gate,
                quality_clauses(quality["variants"][each.variant]["test"], contract, "test"),
                require=contract.require, digest=told.data,
                sat=self.failed_exams(),
            )  # fmt: skip
            told.exam = Judged.of(exam)
            self.note(told)
        if not told.exam.passed:
            raise ContractBroken(
                f"the challenger was picked on validation and fails the exam; the champion stays.\n  it {told.exam.words}\n"
                "  No further rung is tried on this test set: it would then choose. A larger ladder.split.validation, or a "
                "longer window, makes the choice surer."
            )
        return told.exam

    def failed_exams(self) -> list[str]:
        """Digests of the data on which a challenger failed. One that passed and then had no person's yes has spent no exam."""
        told = story.every(self.place)
        return [each.data for each in told if each.data and each.exam and not each.exam.passed]

    def serve(self, told: Story, place: Path, why: str) -> str:
        """Champion at once, or a canary. A refresh that was cut off here changes no canary that has gone on meanwhile."""
        share = self.rules.ship.canary
        if share is None:
            told.version = appoint(place, self.target, why)
            return self.end(told, "champion", why)
        told.version = registered(place, self.target)
        if registry.is_at(self.model, registry.CHAMPION, told.version, uri=self.uri):
            return self.end(told, "champion", why)
        from limbeck.publishing.serving import CANARY, Publisher

        if not registry.is_at(self.model, CANARY, told.version, uri=self.uri):
            publisher = Publisher.of(self.base, uri=self.uri, say=self.say)
            publisher.publish(self.model, CANARY, serial=int(told.version), share=share)
        return self.end(told, "canary", f"{why}; {share:.0%} of the fleet take it first")

    def note(self, told: Story) -> None:
        """Write down what became of a story so far."""
        told.write(self.folder(told))

    def end(self, told: Story, outcome: Any, why: str) -> str:
        """Close the story."""
        told.outcome, told.why, told.ended = outcome, why, datetime.now(UTC)
        folder = self.folder(told)
        page(told, folder).write(folder, "report")  # before the story says that all is done
        self.note(told)
        return f"{outcome}: {why}; see {(folder / 'report.html').relative_to(environment.ROOT)}"
