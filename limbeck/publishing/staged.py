"""One step of a staged rollout: look at the canary and at what devices told, decide, write it down, carry it out.

The state of a rollout is signed: which version, what share, since when. A step therefore asks nobody what was done before;
killed at any moment, the same step ends in the same state, and a second one right after finds nothing to do.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from limbeck import ledger
from limbeck.edge import EdgeError, bundle
from limbeck.errors import PublishingError
from limbeck.publishing.reports import Evidence, gather
from limbeck.publishing.rollout import Decision, Rules, decide
from limbeck.publishing.serving import CANARY, CHAMPION, Canary, Publisher

DECIDED = "rollout"
"""What the ledger calls the alias of a decision."""
PROMOTED = "to promote"


@dataclass(frozen=True)
class Step:
    """A canary as it stands, what devices told of it, and what follows."""

    model: str
    canary: Canary
    evidence: Evidence
    decision: Decision

    def __str__(self) -> str:
        canary, decision = self.canary, self.decision
        aim = f" to {decision.share:g} of the fleet" if decision.share is not None else ""
        return f"{self.model} version {canary.served.serial} at {canary.share:g} of the fleet: {decision.action}{aim}: {decision.why}"


def look(publisher: Publisher, model: str, rules: Rules, *, now: float | None = None) -> Step | None:
    """What is to be done with a model's canary; None when it has none.

    Args:
        publisher: who published it.
        model: name of the registered model.
        rules: see `Rules`.
        now: Unix time.

    Raises:
        PublishingError: the metadata or the bundle there are not to be trusted.
        TrackingError: the server does not answer or fails.

    """
    canary = publisher.canary(model)
    if canary is None:
        return None
    try:
        manifest = bundle.parse(publisher.manifest(canary.served))
    except EdgeError as error:
        raise PublishingError(f"the canary of {model} is no bundle: {error}") from None
    moment = time.time() if now is None else now
    evidence = gather(
        publisher.place, model, canary, batch_size=manifest.batch_size, min_answers=rules.min_answers, now=moment
    )
    hours = (moment - canary.since) / 3600
    decision = decide(evidence, share=canary.share, hours=hours, max_p95_ms=manifest.max_p95_ms, rules=rules)
    return Step(model, canary, evidence, decision)


def take(publisher: Publisher, step: Step) -> None:
    """Write a decision down and carry it out, unless somebody changed the canary meanwhile.

    Raises:
        PublishingError: somebody did, or keys are missing.
        TrackingError: the server does not answer or fails.

    """
    model, canary, action, share = step.model, step.canary, step.decision.action, step.decision.share
    if action == "wait":
        return
    _write_down(publisher, step)
    if action == "take back":
        publisher.withdraw(model, only=canary)
    elif share is not None:
        publisher.publish(model, CANARY, share=share, only=canary)
    else:
        publisher.publish(model, CHAMPION, only=canary)


def settle(publisher: Publisher, model: str) -> None:
    """Finish in registry and ledger what a step that was killed had signed.

    The registry's champion is not touched but after a promotion: training may have moved it on.

    Raises:
        PublishingError: the metadata there are not to be trusted.
        TrackingError: the server does not answer or fails.

    """
    own = [entry for entry in ledger.read(publisher.ledger_file) if entry.model == model]
    decided = next((i for i in reversed(range(len(own))) if own[i].alias == DECIDED), None)
    if decided is not None:
        promoted = own[decided].why.startswith(PROMOTED) and publisher.serves(model, int(own[decided].version))
        publisher.settle(model, champion=promoted and all(entry.alias != CHAMPION for entry in own[decided:]))


def models(publisher: Publisher) -> list[str]:
    """Whatever is published, or was decided upon here. Raises what `settle` does."""
    decided = {entry.model for entry in ledger.read(publisher.ledger_file) if entry.alias == DECIDED}
    return sorted(decided | set(publisher.models()))


def _write_down(publisher: Publisher, step: Step) -> None:
    """The decision, before it is carried out; once, however often it takes."""
    canary, decision = step.canary, step.decision
    aims = {"take back": "to take back", "promote": PROMOTED}
    aim = aims.get(decision.action, f"to widen from {canary.share:g} to {decision.share or 1:g}")
    since = datetime.fromtimestamp(canary.since, UTC).isoformat()
    told = f"{aim}, after {canary.share:g} of the fleet since {since} at {publisher.place.name}: "
    last = next(
        (e for e in reversed(ledger.read(publisher.ledger_file)) if (e.model, e.alias) == (step.model, DECIDED)), None
    )
    serial = str(canary.served.serial)
    if last is not None and last.version == serial and last.why.startswith(told):
        return
    previous = None if canary.champion is None else str(canary.champion.serial)
    entry = ledger.now(model=step.model, alias=DECIDED, previous=previous, version=serial, why=told + decision.why)
    ledger.append(publisher.ledger_file, entry)
