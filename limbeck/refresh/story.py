"""What became of one refresh, in a file that is brought up to date after every step: a killed one goes on from it.

work/refresh/MODEL/
looks/TIME.json .png      every look at windows that called for nothing
heard/TIME.json .png      what devices told of another world
settled.json              digests of the windows that such a look was enough for
0001/story.json           a refresh
0001/RUNG/                a workspace for each rung that ran
0001/report.md .html
"""

import json
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from limbeck.atomic import write_json
from limbeck.errors import DataError
from limbeck.refresh.gate import Verdict
from limbeck.refresh.rungs import Cost, Rung, Spent, Step, Work

STORY = "story.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Judged(_Part):
    """A `Verdict`, as a file holds it."""

    passed: bool
    words: str
    clauses: list[dict[str, Any]]
    rows: list[dict[str, Any]]

    @classmethod
    def of(cls, verdict: Verdict) -> "Judged":
        """The verdict's."""
        from dataclasses import asdict

        return cls(
            passed=verdict.passed,
            words=str(verdict),
            clauses=[asdict(clause) for clause in verdict.clauses],
            rows=[asdict(row) for row in verdict.rows],
        )

    @property
    def gain(self) -> float:
        """On the new samples, challenger less champion."""
        return float(next(row["difference"]["value"] for row in self.rows if row["name"] == "new"))


class Try(_Part):
    """One rung.

    Attributes:
        state: waiting, or how it ended; failed: a stage of it could not do its work.
        why: it was passed over, or failed.
        changes: what the feedback made of it.
        work: samples that pass through each network.
        expected_s: what it was to take, and `known_from`.
        seconds: what it took, all attempts together.
        by_day: of these by the day (UTC) on which an attempt ended: what the day's budget counts.
        began: when the attempt began that has not ended; set by one that was cut off, too.
        ended: when the last one did.
        variant: the file that it would ship.

    """

    rung: Rung
    state: Literal["waiting", "skipped", "failed", "refused", "passed"]
    why: str = ""
    changes: tuple[str, ...] = ()
    work: dict[str, int] | None = None
    expected_s: float | None = None
    known_from: str = ""
    seconds: float = 0.0
    by_day: dict[str, float] = {}
    began: datetime | None = None
    ended: datetime | None = None
    variant: str | None = None
    verdict: Judged | None = None

    @classmethod
    def of(cls, step: Step, work: Work | None, cost: Cost | None) -> "Try":
        """A rung that is still to be tried, or is passed over."""
        if work is None or cost is None:
            return cls(rung=step.rung, state="skipped", why=step.skipped)
        return cls(
            rung=step.rung,
            state="waiting",
            changes=step.changes,
            work=vars(work),
            expected_s=cost.seconds,
            known_from=cost.known_from,
        )

    def took(self, seconds: float, ended: datetime) -> None:
        """An attempt is over."""
        self.seconds += seconds
        day = ended.date().isoformat()
        self.by_day[day] = self.by_day.get(day, 0.0) + seconds
        self.began, self.ended = None, ended


class Asked(_Part):
    """Who waits for a person's yes, without a process of its own.

    Attributes:
        by: id of the flow run.
        since: when it began to.

    """

    by: str
    since: datetime


class Source(_Part):
    """A window that the refresh learns from."""

    folder: Path
    digest: str
    labelled_by: str


class Story(_Part):
    """The file.

    Attributes:
        champion: version that stands, and the folder that it was made in.
        asked: why the refresh began: what moved, or what was requested.
        looked: drift report, estimate and feedback.
        wanted: of the target's section what rungs change and a person had asked for otherwise: contract and distill.
        exam: of the rung that passed, on test.
        asked_for: a yes that somebody waits for.
        approved: when a person said yes.
        version: that was registered.
        outcome: None while it goes on; superseded: another version became the champion meanwhile.

    """

    model: str
    target: str
    number: int
    began: datetime
    champion: str
    workspace: Path
    windows: list[Source]
    asked: str
    looked: dict[str, Any]
    wanted: dict[str, Any] | None = None
    tries: list[Try] = []
    exam: Judged | None = None
    data: str | None = None
    asked_for: Asked | None = None
    approved: datetime | None = None
    version: str | None = None
    outcome: Literal["champion", "canary", "refused", "failed", "superseded"] | None = None
    why: str = ""
    ended: datetime | None = None

    @property
    def picked(self) -> Try | None:
        """Of the rungs that passed the gate the one that gained most, the cheapest of equal ones."""
        passed = [(each.verdict.gain, each) for each in self.tries if each.state == "passed" and each.verdict]
        return max(passed, key=lambda pair: pair[0])[1] if passed else None

    @property
    def fell(self) -> float | None:
        """The champion's quality on old samples less that on the new ones; None: nobody labelled any."""
        fell: float | None = self.looked["feedback"]["fell"]
        return fell

    @property
    def seconds(self) -> float:
        """What its rungs took."""
        return sum(each.seconds for each in self.tries)

    def has_answered(self, champion: str, digests: set[str], asked: str, *, now: bool = False) -> bool:
        """Whether it ended about these very windows, for this very reason: to try again would end the same.

        A rung that failed, rather than was refused, is worth another try, but not `now`.
        """
        is_same = (self.champion, {window.digest for window in self.windows}, self.asked) == (champion, digests, asked)
        return is_same and self.outcome is not None and (now or all(each.state != "failed" for each in self.tries))

    def spent(self) -> list[Spent]:
        """Rungs that ran to their end, for the cost of the next."""
        return [
            Spent(each.rung, Work(**each.work), each.seconds)
            for each in self.tries
            if each.work is not None and each.state in ("refused", "passed")
        ]

    def write(self, folder: Path) -> None:
        """Bring the file up to date."""
        write_json(folder / STORY, self.model_dump(mode="json"))


def read(folder: Path) -> Story:
    """The story of a folder.

    Raises:
        DataError: there is none, or it is no story.

    """
    path = folder / STORY
    try:
        return Story.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, ValidationError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove {folder}, and the refresh begins anew.") from None


def every(place: Path) -> list[Story]:
    """All stories of a model, in their order.

    Raises:
        DataError: one cannot be read.

    """
    return [read(path.parent) for path in sorted(place.glob(f"[0-9]*/{STORY}"))]
