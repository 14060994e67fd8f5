"""A target that is new, or a budget that changed: a workspace with other params, run to its end.

Nothing is gated here: what is asked for differs from what the champion does, so that holding one against the other would say
nothing. The contract decides, on the file that ships; a share of the fleet takes it first where the rules say so. Whoever made
the request has said yes to it: nobody is asked again, and the day's budget neither holds it back nor counts it.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from flows import workspace
from flows.refreshing.climbing import Refresh
from flows.refreshing.shipping import RunStages, Say
from flows.refreshing.standing import appoint, keep, models_of, note_added, place_of, registered, turn
from limbeck import params as params_file
from limbeck.data.prepared import read_meta
from limbeck.refresh import requests
from limbeck.refresh.requests import Meaning, TaskRequest
from limbeck.refresh.rules import Rules
from limbeck.refresh.rungs import Champion, Rates, Work
from limbeck.tracking import registry
from limbeck.tracking.server import tracking_uri


def fulfil(
    base: Path, request: TaskRequest, rules: Rules, *, run_stages: RunStages, say: Say, dry: bool = False
) -> str:
    """Do what a request asks for, unless it asks for classes; what became of it, in a line.

    Raises:
        ParamsError: what comes out cannot be used.
        DataError: the data that it takes are not what `prepare` writes.
        Busy: the model is being refreshed.
        ContractBroken: the result does not keep its contract.
        LimbeckError: a stage failed, or the registry does not answer.

    """
    meaning, origin = _meaning(base, request, rules)
    ((target, params),) = meaning.params.items()
    model = f"{params['name']}-{target}"
    if dry:
        return f"{model}: would run its whole chain, {_cost(origin, target, params, rules.rates)}: {meaning.why}"
    say(f"{model}: {meaning.why}")
    params["tracking"]["champion_margin"] = None
    text = yaml.safe_dump(params, sort_keys=False, allow_unicode=True)
    place = place_of(model) / "requests" / hashlib.sha256(text.encode()).hexdigest()[:12]
    with turn(model):
        keep(place.with_suffix(".yaml"), text)
        workspace.create(place, place.with_suffix(".yaml"), links=True)
        run_stages(place, target, "register")
        served = _serve(base, model, place, target, rules, meaning.why, say)
        if request.add_target is not None:
            note_added(base, model, target)
    return f"{model}: {served}: {meaning.why}"


def _serve(base: Path, model: str, place: Path, target: str, rules: Rules, why: str, say: Say) -> str:
    """Champion at once, or a canary where there is a champion to go back to; in words."""
    uri, share = tracking_uri(params_file.load(place / "params.yaml").tracking.uri, place), rules.ship.canary
    if share is None or registry.champion_of(model, uri=uri) is None:
        return f"champion: version {appoint(place, target, why)}"
    from limbeck.publishing.serving import CANARY, Publisher

    version = registered(place, target)
    Publisher.of(base, uri=uri, say=say).publish(model, CANARY, serial=int(version), share=share)
    return f"canary: version {version}, for {share:.0%} of the fleet first"


def _cost(origin: Path, target: str, params: dict[str, Any], rates: Rates) -> str:
    """What a request takes, in words; a teacher and soft labels that are there are not made again."""
    if not (origin / "data").is_dir():
        return f"at a cost that is known once {origin} has data (make run)"
    num_train = read_meta(origin / "data").counts["train"]
    asked = params_file.checked(params, "request")
    section, work = asked.targets[target], Work.of(asked, target, num_train)
    is_trained = section.student.warm is None or section.student.warm.tune != "nothing"
    if is_trained and getattr(section.distill, "control", False):  # as long again: its twin without a teacher
        work = replace(work, student=work.student + section.student.train.epochs * num_train)
    if (origin / "labels").is_dir():
        work = replace(work, label=0, teacher=0)
    return f"about {work.seconds(rates):.0f} s ({num_train:,} samples at the rates of refresh.yaml)"


def _meaning(base: Path, request: TaskRequest, rules: Rules) -> tuple[Meaning, Path]:
    """What a request asks for, and the workspace whose data, teacher and soft labels it takes."""
    raw: dict[str, Any] = yaml.safe_load((base / "params.yaml").read_text(encoding="utf-8"))
    models = models_of(base)
    if request.add_target is not None:
        return requests.for_target(request.add_target, raw, models), base
    asked = request.change_budget
    assert asked is not None, "classes are for the ladder"
    one = Refresh.quiet(base, asked.target, rules)
    _, place = one.champion()
    _, _, latency = one.measured(place)
    meaning = requests.for_budget(
        asked, one.params(place), Champion.of(place, asked.target),
        variant=one.variant(place), latency=latency, rules=rules.requests,
    )  # fmt: skip
    return meaning, place
