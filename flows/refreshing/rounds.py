"""One workspace's turn: what the requests in its drop folder ask for, then each of its targets. The trouble of one is its own."""

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flows import environment, workspace
from flows.environment import DROP
from flows.refreshing import windows
from flows.refreshing.approval import Approval, NotYet
from flows.refreshing.climbing import Refresh
from flows.refreshing.requesting import fulfil
from flows.refreshing.shipping import Approve, RunStages, Say
from flows.refreshing.standing import NoChampion, Waits, models_of
from flows.turns import Busy
from limbeck.errors import ContractBroken, LimbeckError
from limbeck.refresh import requests
from limbeck.refresh import rules as rules_file
from limbeck.refresh.requests import TaskRequest


@dataclass
class Round:
    """What there is to do in a workspace, and what became of it.

    Attributes:
        base: the workspace.
        run_stages: runs the pipeline.
        say: told what happens.
        tell: told what became of each request and target, in a line.
        complain: told in the same way what went wrong.
        targets: only these; all of them when empty.
        rules: what it goes by, as `flows.refresh` names it.
        asked: a request that is not in the drop folder.
        anyway: a person has looked: act on whatever windows nothing was learned from, moved or not.
        on_terminal: asks the person who sits there; None: Prefect's pages ask.
        may_lack: a target without a champion is told, and no failure.
        dry: say what would be done, and do none of it.
        failures: what went wrong.

    """

    base: Path
    run_stages: RunStages
    say: Say
    tell: Say
    complain: Say
    targets: Sequence[str] = ()
    rules: Path | None = None
    asked: TaskRequest | None = None
    anyway: bool = False
    on_terminal: Approve | None = None
    may_lack: bool = False
    dry: bool = False
    failures: list[LimbeckError] = field(default_factory=list)
    _standing: dict[Path, tuple[str, ...]] = field(default_factory=dict)
    _waiting: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Do what needs nobody's yes."""
        try:
            self._rules = rules_file.load(rules_file.find(self.base, environment.ROOT, self.rules))
            if self.asked is not None and self.asked.new_classes is None:
                self.tell(self._fulfil(self.asked))
                return
            targets = self.targets or list(models_of(self.base))
        except LimbeckError as error:
            self.fail(error)
            return
        if not self.dry:
            self._approval = Approval(self._rules.ship.approval_hours, self.say)
        self._take_requests()
        for name in targets:
            self._refresh(name)

    def ask(self) -> None:
        """Wait for a person, where a challenger passed and nobody was asked yet."""
        for name in tuple(self._waiting):
            self._approval.may_wait = True
            self._refresh(name)

    def end(self) -> None:
        """Put requests away whose classes every champion knows by now."""
        if self.dry or self.failures:
            return
        for path, classes in self._standing.items():
            if self._is_known(classes):
                requests.take(path)
                self.tell(f"{path.name} is fulfilled")

    def fail(self, error: LimbeckError, of: str = "") -> None:
        """Count and tell what went wrong."""
        self.failures.append(error)
        self.complain(f"{of}{error}")

    def _take_requests(self) -> None:
        """Those in the drop folder: one for classes stands, what else is asked for is done at once."""
        settled_before = time.time() - self._rules.windows.settle_s
        for path in requests.dropped(self.base / self._rules.drop, settled_before):
            try:
                asked = requests.read(path)
                if asked.new_classes is not None:
                    self._standing[path] = asked.new_classes
                    continue
                self.tell(self._fulfil(asked))
                if not self.dry:
                    requests.take(path)
            except LimbeckError as error:  # it stays where it is until somebody mends it or takes it away
                self.fail(error)

    def _fulfil(self, asked: TaskRequest) -> str:
        return fulfil(self.base, asked, self._rules, run_stages=self.run_stages, say=self.say, dry=self.dry)

    def _refresh(self, name: str) -> None:
        classes = tuple(dict.fromkeys(each for names in self._standing.values() for each in names))
        try:
            one = self._opened(name)
            self.tell(f"{one.model}: {one.run(self.asked, standing=classes, anyway=self.anyway, dry=self.dry)}")
        except NotYet:
            self._waiting.append(name)
        except LimbeckError as error:
            if self._is_news(error):
                self.tell(f"{name}: {error}")
            else:
                self.fail(error, f"{name}: ")
        except OSError as error:
            self.fail(LimbeckError(f"{error}; give the command again."), f"{name}: ")

    def _opened(self, name: str) -> Refresh:
        if self.dry:
            return Refresh.quiet(self.base, name, self._rules, say=self.say)
        approve = self.on_terminal or self._approval
        return Refresh(self.base, name, self._rules, run_stages=self.run_stages, approve=approve, say=self.say)

    def _is_news(self, error: LimbeckError) -> bool:
        """Whether an error is told and no failure: the champion stays, that is what a gate is for."""
        if isinstance(error, NoChampion):
            return self.may_lack
        return isinstance(error, (Waits, Busy, ContractBroken)) and not self.dry

    def _is_known(self, classes: Sequence[str]) -> bool:
        try:
            return all(Refresh.quiet(self.base, name, self._rules).knows(classes) for name in models_of(self.base))
        except LimbeckError:  # a target without a champion cannot know them
            return False


def serve(rounds: Sequence[Round]) -> list[LimbeckError]:
    """Give every workspace its turn, and only then wait for people; what went wrong."""
    for part in (Round.run, Round.ask, Round.end):
        for each in rounds:
            try:
                part(each)
            except Exception as error:  # a fault of ours in one workspace keeps no other from its turn
                if len(rounds) == 1:
                    raise
                each.say("".join(traceback.format_exception(error)))
                each.fail(LimbeckError(f"broke down: {error!r}; what was said above has the place in the code."))
    return [error for each in rounds for error in each.failures]


def served() -> list[Path]:
    """The project, and the workspaces in work/ that have params and a place for new data: a drop folder, or windows."""
    others = (place for place in workspace.having(DROP, windows.FOLDER) if place != environment.ROOT)
    return [environment.ROOT, *(place for place in others if (place / "params.yaml").is_file())]
