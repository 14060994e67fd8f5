"""What devices told of a version: one word per device to judge a canary by, or the last day of each.

    REPORTS/DEVICE/TIME-SERIAL-DIGEST-RANDOM.json       written by `limbeck.edge.spool`, or by whoever has an account

Everything here came from outside. A file counts when it parses, says of itself what its place says, and speaks of the time
since the canary began; all others are counted and left out, and none of them can raise. Who reports as a canary's device
has to be one whose turn it is by the signed salt. An account can speak for many devices all the same: what is decided
upon this is which signed version serves whom, never what a device runs unverified.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from limbeck.edge import bundle
from limbeck.edge.trust import share_of
from limbeck.publishing.places import Place
from limbeck.publishing.serving import Canary, Served

MAX_DEVICES = 1000
"""Of a group, the first by their hash: a sample that chance drew and that stays the same."""
MAX_FILES = 6
"""The newest of a device and version that are read: how it ended stands at the end."""
MIN_TIMED = 20
"""A 95th percentile of fewer calls is their largest."""
ACTIVE_S = 7 * 24 * 3600
"""A device that told nothing for so long is not waited for."""
SLACK_S = 3600
"""By which a device's clock may be ahead."""
SPAN_S = 24 * 3600
"""A report tells of this much time at most: it is named by its beginning."""
MAX_HEARD = 100
"""Devices whose last day is read, the first by their hash."""
MAX_HOURS = 24
"""The newest reports of that day that are read; one is written every hour."""
DEVICE = re.compile(r"[0-9a-f]{16}")
FILE = re.compile(r"(\d{8}T\d{6}Z)-(\d{1,9}-[0-9a-f]{16})-[0-9a-f]{8}\.json")

Count = Annotated[int, Field(ge=0, le=10**15)]
Moment = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]


class _Said(BaseModel):
    """What every report begins with; see `limbeck.edge.spool.header`."""

    model_config = ConfigDict(strict=True, frozen=True)
    format: Literal[1]
    device: str
    model: str
    serial: int
    bundle: str


class _Event(_Said):
    kind: Literal["event"]
    event: Literal["committed", "reverted", "refused", "rolled back"]
    time: Moment
    why: str


class _Timed(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    count: Count


class _Latency(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    p95_ms: Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
    sketch: _Timed


class _Confidence(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    count: Count
    sum: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class _Usage(_Said):
    """See `limbeck.edge.usage.Usage.report`."""

    kind: Literal["usage"]
    began: Annotated[Moment, Field(alias="from")]
    to: Moment
    calls: Count
    samples: Count
    not_finite: Count
    errors: dict[str, Count]
    latency_ms: dict[str, _Latency]
    confidence: _Confidence


_REPORT: TypeAdapter[_Event | _Usage] = TypeAdapter(Annotated[_Event | _Usage, Field(discriminator="kind")])


@dataclass(frozen=True)
class Word:
    """What a device tells of a version.

    Attributes:
        gone_back: why it refused the version or went back from it, None when it did not.
        answers: calls that the figures below are made of, those that failed included.
        error_rate: share of calls that raised, plus share of samples whose answer was no finite number, at most 1.
        p95_ms: latency of calls with the contract's batch size; None of too few.
        confidence: mean probability of the likeliest class; None of none.

    """

    gone_back: str | None = None
    answers: int = 0
    error_rate: float = 0.0
    p95_ms: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Evidence:
    """What there is to judge a canary by.

    Attributes:
        canary: a word per device that told of it.
        champion: a word per device that has it.
        num_active: devices whose turn it is and that told anything at all of late.
        num_unusable: files that were left out, and where reports count twice.

    """

    canary: tuple[Word, ...] = ()
    champion: tuple[Word, ...] = ()
    num_active: int = 0
    num_unusable: int = 0


def gather(
    place: Place, model: str, canary: Canary, *, batch_size: int, min_answers: int, now: float | None = None
) -> Evidence:
    """Read what devices told since a canary began.

    Args:
        place: where they tell it.
        model: name of the registered model.
        canary: as the signed targets name it.
        batch_size: whose latency the contract speaks of.
        min_answers: a device's latest report with so many answers counts, else the one with most.
        now: Unix time.

    Raises:
        TrackingError: the server does not answer or fails.

    """
    moment = time.time() if now is None else now
    by_turn = sorted(
        (share_of(canary.salt, device), device) for device in place.reporters() if DEVICE.fullmatch(device)
    )
    ours = [device for turn, device in by_turn if turn < canary.share][:MAX_DEVICES]
    others = [device for turn, device in by_turn if turn >= canary.share][:MAX_DEVICES]
    reader = _Reader(place, model, canary.began, moment, batch_size, min_answers)
    heard = [reader.word(device, canary.served) for device in ours]
    held = [reader.word(device, canary.champion) for device in others] if canary.champion else []
    return Evidence(
        tuple(word for word in heard if word is not None),
        tuple(word for word in held if word is not None),
        reader.num_active(ours),
        reader.num_unusable,
    )


class _Reader:
    """Reads the files of devices and counts those that are none."""

    def __init__(self, place: Place, model: str, began: float, now: float, batch_size: int, min_answers: int) -> None:
        self.place, self.model, self.began, self.now = place, model, began, now
        self.batch_size, self.min_answers = str(batch_size), min_answers
        self.num_unusable = 0
        self._newest: dict[str, str] = {}

    def num_active(self, devices: list[str]) -> int:
        """How many of these told anything of late."""
        oldest = _stamp(self.now - ACTIVE_S)
        return sum(self._newest.get(device, "") >= oldest for device in devices)

    def word(self, device: str, served: Served) -> Word | None:
        """A device's word on a version, None when it did not speak of it."""
        key = bundle.key_of(served.serial, served.sha256)
        said = sorted(
            self._read(device, key), key=lambda report: report.time if isinstance(report, _Event) else report.began
        )
        if not said:
            return None
        uses = [report for report in said if isinstance(report, _Usage)]
        enough = [report for report in uses if _answers(report) >= self.min_answers]
        used = enough[-1] if enough else max(uses, key=_answers, default=None)
        ends = [report for report in said if isinstance(report, _Event) and report.event != "committed"]
        last = ends[-1] if ends else None
        # Who tried it again after that and uses it, uses it.
        is_back = last is not None and not any(report.began > last.time for report in uses)
        gone_back = _line(f"{last.event}: {last.why}") if last is not None and is_back else None
        return Word(gone_back) if used is None else self._figures(used, gone_back)

    def _figures(self, used: _Usage, gone_back: str | None) -> Word:
        answers = _answers(used)
        rate = (answers - used.calls) / max(answers, 1) + used.not_finite / max(used.samples, 1)
        timed = used.latency_ms.get(self.batch_size)
        p95 = timed.p95_ms if timed is not None and timed.sketch.count >= MIN_TIMED else None
        seen = used.confidence
        confidence = min(seen.sum / seen.count, 1.0) if seen.count else None
        return Word(gone_back, answers, min(rate, 1.0), p95, confidence)

    def _read(self, device: str, key: str) -> Iterator["_Event | _Usage"]:
        earliest, latest = _stamp(self.began - SPAN_S), _stamp(self.now + SLACK_S)
        names = []
        for name in self.place.told(device):
            match = FILE.fullmatch(name)
            if match is None:
                self.num_unusable += not name.endswith(".npz")  # the operator's samples
            elif match[1] <= latest:
                self._newest[device] = max(self._newest.get(device, ""), match[1])
                if match[2] == key and match[1] >= earliest:
                    names.append(name)
        for name in sorted(names)[-MAX_FILES:]:
            report = self._parse(self.place.hear(device, name), device, key)
            if report is None:
                self.num_unusable += 1
            elif (report.time if isinstance(report, _Event) else report.to) >= self.began:
                yield report

    def _parse(self, content: bytes | None, device: str, key: str) -> "_Event | _Usage | None":
        return _parsed(content, (device, self.model, key), self.now)


def last_days(place: Place, model: str, serial: int, *, now: float | None = None) -> dict[str, list[dict[str, Any]]]:
    """By device the reports of use of the last day on which it told of a version, parsed, where that is not long ago.

    A day, because whoever is heard of its last hour alone sees the night by night. Each report tells of other answers.

    Args:
        place: where they tell it.
        model: name of the registered model; its bundles were kept at the place.
        serial: the version.
        now: Unix time.

    Raises:
        TrackingError: the server does not answer or fails.

    """
    moment = time.time() if now is None else now
    keys = {bundle.key_of(serial, digest) for digest in place.kept(model)}
    found, latest = dict[str, list[dict[str, Any]]](), _stamp(moment + SLACK_S)
    if not keys:
        return found
    devices = (device for device in place.reporters() if DEVICE.fullmatch(device))
    for device in sorted(devices, key=lambda device: sha256(device.encode()).digest())[:MAX_DEVICES]:
        named = [match for match in map(FILE.fullmatch, place.told(device)) if match is not None]
        ours = sorted((match for match in named if match[2] in keys and match[1] <= latest), key=lambda match: match[0])
        if not ours or ours[-1][1] < _stamp(moment - ACTIVE_S):
            continue
        read = [(place.hear(device, match[0]) or b"", match[2]) for match in ours[-MAX_HOURS:]]
        reports = [(_parsed(content, (device, model, key), moment), content) for content, key in read]
        uses = [(report.to, content) for report, content in reports if isinstance(report, _Usage)]
        last = max((ended for ended, _ in uses), default=0.0)
        found[device] = [from_json(content) for ended, content in uses if ended > last - SPAN_S]
        if len(found) == MAX_HEARD:
            break
    return {device: said for device, said in found.items() if said}


def _parsed(content: bytes | None, whose: tuple[str, str, str], now: float) -> "_Event | _Usage | None":
    """A report that is one, says of itself what its place says (device, model, bundle), and is of no later time."""
    try:
        report = _REPORT.validate_json(content or b"")
    except ValidationError:
        return None
    is_meant = (report.device, report.model, report.bundle) == whose
    moment = report.time if isinstance(report, _Event) else report.to
    return report if is_meant and moment <= now + SLACK_S else None


def reasons(words: tuple[Word, ...], most: int = 3) -> list[str]:
    """Why devices went back, the commonest reasons first, with their numbers."""
    counts = Counter(word.gone_back for word in words if word.gone_back is not None)
    return [f"{count}x {why}" for why, count in counts.most_common(most)]


def _answers(report: _Usage) -> int:
    return report.calls + sum(report.errors.values())


def _stamp(moment: float) -> str:
    """A Unix time as names of reports begin."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(max(moment, 0.0)))


def _line(said: str, most: int = 160) -> str:
    """A device's words as they may stand in a log: one short line that can be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in said).split())[:most]
