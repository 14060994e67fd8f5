"""Whether a canary goes to more of the fleet, to all of it, back, or waits: a pure decision on what devices told.

    5 % --dwell, enough devices, every criterion kept--> 20 % --> 50 % --> champion
     |                                                     |        |
     +------------- a criterion is broken -----------------+--------+----> taken back

Every device has one word, whatever it sends, and chance drew (the hash of its id) who has the canary. Two statistics:

- Of devices that went back, that answer with errors, or that are slower than the contract allows: their share, with the
  exact one-sided bound for a binomial proportion (Clopper and Pearson, Biometrika 1934).
- Of latency and confidence beside the champion's: the median of all differences between a canary's and a champion's device
  (Hodges and Lehmann, Annals of Mathematical Statistics 1963), with the distribution-free one-sided bound that belongs
  to the test of Mann and Whitney (normal approximation, rounded to the safe side). No figure that one device makes up
  moves it further than any other device's could.

As for contracts, a criterion is *kept* when the estimate keeps it, and *broken* when the bound proves so and at least
`min_witnesses` devices say so. In between the rollout waits for more devices: noise takes nothing back and widens nothing.
The bound is one of 99 % because it is looked at again and again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator
from scipy.special import betaincinv, ndtri

from limbeck.publishing.reports import Evidence, Word, reasons

Action: TypeAlias = Literal["wait", "widen", "promote", "take back"]
Verdict: TypeAlias = Literal["kept", "unclear", "broken", "not judged"]
T = TypeVar("T")
Share: TypeAlias = Annotated[float, Field(gt=0, le=1)]


class Rules(BaseModel):
    """How a rollout goes, and what stops it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ladder: tuple[Share, ...] = Field((0.01, 0.05, 0.2, 0.5), description="shares of the fleet, then all of it")
    dwell_hours: NonNegativeFloat = Field(24.0, description="at each share, at least")
    min_devices: PositiveInt = Field(20, description="that use the canary, at least, before it goes on")
    min_answers: PositiveInt = Field(100, description="of a device, before its figures count")
    min_using: float = Field(0.5, ge=0, le=1, description="of the devices whose turn it is, before it goes on")
    max_failing: float = Field(0.05, ge=0, lt=1, description="share of devices that go back, or err, or are too slow")
    max_error_rate: float = Field(0.01, ge=0, lt=1, description="of a device's answers, above which it errs")
    latency_slack: PositiveFloat = Field(3.0, description="times the contract's p95, above which a device is too slow")
    max_slowdown: float = Field(1.25, ge=1, description="p95 of the canary's devices over the champion's")
    max_confidence_drop: float = Field(0.1, ge=0, le=1, description="of the mean confidence below the champion's")
    min_witnesses: PositiveInt = Field(3, description="devices without which nothing is taken back")
    certainty: float = Field(0.99, gt=0.5, lt=1, description="of the bound that takes a canary back")

    @field_validator("ladder")
    @classmethod
    def _ascends(cls, ladder: tuple[float, ...]) -> tuple[float, ...]:
        if list(ladder) != sorted(set(ladder)):
            raise ValueError(f"a ladder goes up, found {list(ladder)}")
        return ladder


@dataclass(frozen=True)
class Criterion:
    """One thing that a canary is judged by.

    Attributes:
        name: what is measured.
        num: of how many devices that run it.
        value: the estimate, None when nothing is known.
        limit: what it may be.
        bound: what it is at least, with certainty.
        verdict: kept, unclear (above the limit, not proven), broken, or not judged.

    """

    name: str
    num: int
    value: float | None
    limit: float
    bound: float | None
    verdict: Verdict

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.name}: not judged"
        bound = "" if self.bound is None else f", at least {self.bound:.3g}"
        return f"{self.name} {self.value:.3g}{bound}, allowed {self.limit:.3g}, {self.num} devices: {self.verdict}"


@dataclass(frozen=True)
class Decision:
    """What to do with a canary, and why. `share` is the one it gets when it is widened."""

    action: Action
    share: float | None
    why: str
    criteria: tuple[Criterion, ...]


def decide(evidence: Evidence, *, share: float, hours: float, max_p95_ms: float | None, rules: Rules) -> Decision:
    """Judge a canary.

    Worse evidence (a device that goes back instead of staying, more errors, more latency, less confidence) never makes a
    decision bolder.

    Args:
        evidence: what devices told.
        share: that it has now.
        hours: that it has had it.
        max_p95_ms: the contract's clause, if it has one.
        rules: see `Rules`.

    """
    criteria = judge(evidence, max_p95_ms, rules)
    broken = [criterion for criterion in criteria if criterion.verdict == "broken"]
    if broken:
        said = reasons(evidence.canary)
        why = "; ".join([*map(str, broken), *said])
        return Decision("take back", None, why, criteria)
    waits = _waits(evidence, criteria, hours, rules)
    if waits:
        return Decision("wait", None, "; ".join(waits), criteria)
    wider = next((step for step in rules.ladder if step > share), None)
    why = "; ".join(str(criterion) for criterion in criteria if criterion.value is not None)
    return Decision("promote" if wider is None else "widen", wider, why, criteria)


def judge(evidence: Evidence, max_p95_ms: float | None, rules: Rules) -> tuple[Criterion, ...]:
    """Hold a canary's devices against the rules, the contract and the champion's devices."""

    def both(of: Callable[[Word], T | None]) -> tuple[list[T], list[T]]:
        """A figure of the canary's devices and of the champion's, where they have it."""
        used = ([w for w in words if w.answers >= rules.min_answers] for words in (evidence.canary, evidence.champion))
        ours, theirs = ([found for w in words if (found := of(w)) is not None] for words in used)
        return ours, theirs

    told = [w for w in evidence.canary if w.gone_back is not None or w.answers >= rules.min_answers]
    found = [_share("share that went back", ([w.gone_back is not None for w in told], []), rules)]
    errs = both(lambda w: w.error_rate > rules.max_error_rate)
    found.append(_share(f"share with errors above {rules.max_error_rate:g}", errs, rules))
    if max_p95_ms is not None:
        most = rules.latency_slack * max_p95_ms
        slow = both(lambda w: None if w.p95_ms is None else w.p95_ms > most)
        found.append(_share(f"share with p95 above {most:g} ms", slow, rules))
    times = both(lambda w: None if w.p95_ms is None else math.log(w.p95_ms))
    found.append(_shift("p95 over the champion's", times, math.log(rules.max_slowdown), rules, is_ratio=True))
    doubts = both(lambda w: None if w.confidence is None else -w.confidence)
    found.append(_shift("confidence below the champion's", doubts, rules.max_confidence_drop, rules))
    return tuple(found)


def _waits(evidence: Evidence, criteria: Sequence[Criterion], hours: float, rules: Rules) -> list[str]:
    """What keeps a canary where it is."""
    using = sum(_uses(word, rules) for word in evidence.canary)
    wanted = rules.min_using * evidence.num_active
    found = [str(criterion) for criterion in criteria if criterion.verdict == "unclear"]
    if using < rules.min_devices:
        found.append(f"{using} devices use it, {rules.min_devices} are asked for")
    if using < wanted:
        found.append(f"{using} of {evidence.num_active} devices whose turn it is use it, {wanted:.0f} are asked for")
    if hours < rules.dwell_hours:
        found.append(f"{hours:.1f} hours at this share, {rules.dwell_hours:g} are asked for")
    return found


def _uses(word: Word, rules: Rules) -> bool:
    return word.gone_back is None and word.answers >= rules.min_answers


def _share(name: str, groups: tuple[list[bool], list[bool]], rules: Rules) -> Criterion:
    """The share of devices with a fault; what the champion's devices are proven to suffer, too, is allowed on top."""
    ours, theirs = groups
    limit = rules.max_failing + at_least(sum(theirs), len(theirs), rules.certainty)
    if not ours:
        return Criterion(name, 0, None, limit, None, "not judged")
    faults = sum(ours)
    value, bound = faults / len(ours), at_least(faults, len(ours), rules.certainty)
    is_broken = bound > limit and faults >= rules.min_witnesses
    return Criterion(name, len(ours), value, limit, bound, _verdict(value, limit, is_broken))


def _shift(
    name: str, groups: tuple[list[float], list[float]], limit: float, rules: Rules, *, is_ratio: bool = False
) -> Criterion:
    """By how much the canary's devices lie above the champion's; figures come as logarithms when it is a ratio."""
    ours, theirs = groups
    shown = math.exp if is_ratio else float
    if not ours or not theirs:
        return Criterion(name, len(ours), None, shown(limit), None, "not judged")
    value, bound = shift(ours, theirs, rules.certainty)
    is_broken = bound is not None and bound > limit and len(ours) >= rules.min_witnesses
    return Criterion(
        name,
        len(ours),
        shown(value),
        shown(limit),
        None if bound is None else shown(bound),
        _verdict(value, limit, is_broken),
    )


def _verdict(value: float, limit: float, is_broken: bool) -> Verdict:
    if is_broken:
        return "broken"
    return "kept" if value <= limit else "unclear"


def at_least(faults: int, num: int, certainty: float) -> float:
    """The share that is at least behind so many of `num`: Clopper and Pearson's lower bound; 0 of none."""
    return float(betaincinv(faults, num - faults + 1, 1 - certainty)) if faults else 0.0


def shift(ours: Sequence[float], theirs: Sequence[float], certainty: float) -> tuple[float, float | None]:
    """Hodges and Lehmann's estimate of how far [N] values lie above [M] others, and its lower bound.

    The bound is the k-th smallest of all N*M differences, where k is the quantile of Mann and Whitney's U. None when there
    are too few for one (below about 5 and 5 with 99 %).
    """
    differences = np.sort(np.subtract.outer(np.asarray(ours), np.asarray(theirs)), axis=None)
    n, m = len(ours), len(theirs)
    k = math.floor(n * m / 2 - float(ndtri(certainty)) * math.sqrt(n * m * (n + m + 1) / 12))
    return float(np.median(differences)), float(differences[k - 1]) if k >= 1 else None
