"""What stands: the champion of one target, the workspace that it was made in, and what that workspace measured."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from flows import environment
from flows.turns import alone
from limbeck import ledger
from limbeck import params as params_file
from limbeck.atomic import replace, write_json
from limbeck.components import nearest
from limbeck.data.prepared import read_meta
from limbeck.data.window import labelled_in, read_about
from limbeck.edge import manifest as manifest_file
from limbeck.errors import LimbeckError, ParamsError
from limbeck.params import ContractParams
from limbeck.refresh import gate, story
from limbeck.refresh.story import Story
from limbeck.tracking import promotion, registry
from limbeck.tracking.server import home_of, tracking_uri

ADDED = "added.json"
"""Below `place_of` a model: whose target it is, where a request added that to those of params.yaml."""


class Waits(LimbeckError):
    """A refresh cannot go on now: the day's budget is spent, or nobody has said yes yet. It goes on when it is run again."""

    exit_code = 0


class NoChampion(LimbeckError):
    """There is nothing to refresh: no champion, or one that was made elsewhere."""


class Standing:
    """One target and its champion.

    Args:
        base: the workspace of the first champion.
        target: whose student.
        threads: of this process, while it scores files.

    Raises:
        ParamsError: params.yaml or the target is not right.

    """

    def __init__(self, base: Path, target: str, threads: int) -> None:
        self.base, self.target, self.threads = base, target, threads
        models = models_of(base)
        if target not in models:
            raise ParamsError(f"no target {target!r}; {nearest(target, list(models))}")
        self.model = models[target]
        self.uri = tracking_uri(params_file.load(base / "params.yaml").tracking.uri, base)
        self.place = place_of(self.model)

    def champion(self) -> tuple[str, Path]:
        """The version that stands, and the workspace that it was made in.

        Raises:
            NoChampion: there is none, or it was made elsewhere.
            TrackingError: the server does not answer or fails.

        """
        stands = registry.champion_of(self.model, uri=self.uri)
        if stands is None:
            raise NoChampion(f"{self.model} has no champion yet; run the pipeline first: make run.")
        version, identity = stands
        made = [self.base, *(place.parent.parent for place in self.place.glob(f"*/*/registry/{self.target}.json"))]
        for place in made:
            if self.identity(place) == identity:
                return version, place
        raise NoChampion(
            f"version {version}, the champion of {self.model}, was made neither in {self.base} nor by a refresh here; a "
            "refresh starts from its checkpoints. Run it where they are, or `make run` and promote what comes out."
        )

    def overtaken(self, told: Story) -> str:
        """Why a story's champion is none to be held against any more; empty while it is, or what passed took its place.

        Raises:
            TrackingError: the server does not answer or fails.

        """
        stands = registry.champion_of(self.model, uri=self.uri)
        version, identity = stands or ("none", "")
        picked = told.picked
        if picked and identity and self.identity(self.folder(told) / picked.rung) == identity:
            return ""
        if version != told.champion:
            return (
                f"the champion is version {version} by now, and the rungs were held against version {told.champion}; "
                "the next refresh begins anew"
            )
        if self.identity(told.workspace) != identity:
            return (
                f"{told.workspace} holds another student than version {version} by now, so that nothing can be held "
                "against that; the next refresh begins anew"
            )
        return ""

    def identity(self, place: Path) -> str:
        """What a workspace decided to register for the target; empty before it did."""
        decision = place / "registry" / f"{self.target}.json"
        return str(json.loads(decision.read_text(encoding="utf-8"))["identity"]) if decision.is_file() else ""

    def variant(self, place: Path) -> str:
        """Which file of the champion ships."""
        decision: dict[str, str] = json.loads((place / "registry" / f"{self.target}.json").read_text(encoding="utf-8"))
        return decision["variant"]

    def contract(self, place: Path) -> ContractParams:
        """What a workspace's student has to keep."""
        return params_file.load(place / "params.yaml").targets[self.target].contract

    def wanted(self, place: Path) -> dict[str, Any]:
        """What a person asked for where a refresh's rungs did otherwise: the target's contract, distill and quantize, parsed."""
        section = _parsed(place)["targets"][self.target]
        found = {key: section[key] for key in ("contract", "distill", "quantize")}
        if (place.parent / story.STORY).is_file() and (asked := story.read(place.parent).wanted) is not None:
            found |= asked
        return found

    def params(self, place: Path) -> dict[str, Any]:
        """The params.yaml of a workspace, parsed, with what a person asked for."""
        found = _parsed(place)
        found["targets"][self.target] |= self.wanted(place)
        return found

    def learned(self, place: Path) -> set[str]:
        """Digests of the windows that the champion of a workspace, or one before it, has learned from.

        One that holds samples of a class which was left out, for there were too few, is learned once they are taken, too.
        """
        source = yaml.safe_load((place / "params.yaml").read_text(encoding="utf-8"))["data"]["source"]
        if source["use"] != "windows":
            return set()
        folders, left = [place / folder for folder in source["folders"]], set(source.get("leave_out", ()))
        waiting = {read_about(folder).digest for folder in folders if left and left & set(labelled_in([folder]))}
        meta, older = read_meta(place / "data"), (place / source["base"]).parent
        own = {window.digest for window in meta.windows} - waiting
        if older == place or not (older / "params.yaml").is_file():  # data that no refresh here made
            return own | {window.digest for window in meta.learned}
        return own | self.learned(older)

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
        return gate.score(champion, challenger, place / "data", split, metric, threads=self.threads)

    def folder(self, told: Story) -> Path:
        """Where a story lies."""
        made = self.place / f"{told.number:04d}"
        made.mkdir(parents=True, exist_ok=True)
        return made


def _parsed(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((place / "params.yaml").read_text(encoding="utf-8"))
    return found


def place_of(model: str) -> Path:
    """Where the refreshes of a model lie."""
    return environment.ROOT / "work/refresh" / model


@contextmanager
def turn(model: str) -> Iterator[None]:
    """Alone with a model.

    Raises:
        Busy: somebody else refreshes it.

    """
    with alone(place_of(model), f"{model} is being refreshed already; two refreshes of a model never overlap."):
        yield


def made_in(model: str) -> tuple[Path, str] | None:
    """The workspace and target of a registered model: of the project, or of one in work/; None: of neither."""
    for file in (environment.ROOT / "params.yaml", *sorted(environment.ROOT.glob("work/*/params.yaml"))):
        try:
            models = models_of(file.parent)
        except ParamsError:  # not ours to judge here
            continue
        for target, made in models.items():
            if made == model:
                return file.parent, target
    return None


def models_of(base: Path) -> dict[str, str]:
    """The registered models of a workspace by target: targets of its params.yaml, then those that requests added to it.

    Raises:
        ParamsError: params.yaml is not right.

    """
    params, own = params_file.load(base / "params.yaml"), _from_root(base)
    models = {target: f"{params.name}-{target}" for target in params.targets}
    for file in sorted(environment.ROOT.glob(f"work/refresh/*/{ADDED}")):
        added = json.loads(file.read_text(encoding="utf-8"))
        model = f"{params.name}-{added['target']}"
        if (added["workspace"], file.parent.name) == (own, model):  # another name in params.yaml is another model
            models[added["target"]] = model
    return models


def note_added(base: Path, model: str, target: str) -> None:
    """Write down that a request added a target to a workspace: it is refreshed from now on."""
    write_json(place_of(model) / ADDED, {"workspace": _from_root(base), "target": target})


def _from_root(base: Path) -> str:
    """A workspace as the project names it, wherever that moves."""
    return os.path.relpath(base, environment.ROOT)


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
