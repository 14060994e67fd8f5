"""Which distillation helps: the same student by several methods and without a teacher, over several seeds.

    compare/TARGET/METHOD/SEED/    one training: result.json, scores.npy (test, one per sample), its state while it runs
    compare/TARGET.json            the comparison

A training is kept under a key of all that made it, and is repeated only when that changed. Validation says which
method is best; the test split says what it gains.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field, TypeAdapter, ValidationError

from limbeck import params as params_file
from limbeck.atomic import replace, sha256, write_json
from limbeck.components import Component, nearest
from limbeck.distillation import train_student
from limbeck.errors import ParamsError
from limbeck.evaluation import Estimate, Scores, paired_difference
from limbeck.labels import LOGITS
from limbeck.objectives import features_for, loss_of
from limbeck.params import DistillParams, Params, TargetParams, Unused
from limbeck.prediction import NetworkScorer

CONTROL = "control"
SOURCES = (
    "checkpoint.py",
    "components.py",
    "distillation.py",
    "evaluation.py",
    "kinds.py",
    "labels.py",
    "optimizers.py",
    "prediction.py",
    "top_logits.py",
    "training.py",
    "data",
    "models",
    "objectives",
    "../custom",
)
"""Code that decides what a training ends in."""

Methods = dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")], Component]


@dataclass(frozen=True)
class Compared:
    """One method over all seeds.

    Attributes:
        validation: mean over seeds; decides which method is best.
        test: mean over seeds.
        gain: over the control on test, with its 95 % interval; None of the control itself.
        verdict: gain, loss, or none where the interval holds 0.

    """

    method: str
    validation: float
    test: float
    gain: Estimate | None
    verdict: Literal["gain", "loss", "none"] | None


def read_methods(path: Path) -> dict[str, Component]:
    """Methods by name from a YAML file: `dkd: {use: dkd, alpha: 1.0, beta: 8.0, temperature: 4.0}`.

    Raises:
        ParamsError: it is missing, or names no methods.
        ComponentError: a loss does not exist or does not take its settings.

    """
    try:
        found = TypeAdapter(Methods).validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing; name a file such as searches/losses.yaml.") from None
    except (yaml.YAMLError, ValidationError) as error:
        raise ParamsError(f"{path} names no methods; expected `name: {{use: kd, ...}}`: {error}") from None
    for method in found.values():
        loss_of(method)
    return found


def gain_over(ours: Sequence[Scores], theirs: Sequence[Scores], num_resamples: int, seed: int) -> Estimate:
    """Mean of paired differences over seeds and test samples, with a 95 % interval for other seeds *and* samples.

    The spread between seeds enters by Student's t, that between samples (of their means over seeds) by the normal
    distribution; the half widths are added in squares. One seed knows only the samples.

    Args:
        ours: one array of scores [N] for each seed.
        theirs: the control's, for the same seeds and samples.
        num_resamples: of the bootstrap that one seed of a score that is not 0 or 1 takes.
        seed: of that bootstrap.

    """
    if len(ours) == 1:
        return paired_difference(ours[0], theirs[0], num_resamples, seed)
    from scipy.stats import norm, t

    differences_SN = np.stack(ours) - np.stack(theirs)
    by_seed, by_sample = differences_SN.mean(1), differences_SN.mean(0)
    of_seeds = t.ppf(0.975, len(by_seed) - 1) * by_seed.std(ddof=1) / np.sqrt(len(by_seed))
    of_samples = norm.ppf(0.975) * by_sample.std(ddof=1) / np.sqrt(len(by_sample))
    value, half = float(by_seed.mean()), float(np.hypot(of_seeds, of_samples))
    return {"value": value, "low": value - half, "high": value + half}


def verdict_of(gain: Estimate) -> Literal["gain", "loss", "none"]:
    """A gain inside the noise is none."""
    return "gain" if gain["low"] > 0 else "loss" if gain["high"] < 0 else "none"


class Told:
    """What a training tells: its scratch folder, and somebody who shows progress."""

    def __init__(self, scratch: Path, show: Callable[[int, int, str], None]) -> None:
        self.scratch, self.show = scratch, show

    def progress(self, done: int, total: int, note: str = "") -> None:
        """So many of so many steps."""
        self.show(done, total, note)

    def curve(self, row: dict[str, float | str]) -> None:
        """Curves are not kept."""


@dataclass(frozen=True)
class Comparison:
    """What every training of a comparison needs.

    Attributes:
        workspace: with data/, labels/ and models/teacher.
        target: whose student is trained.
        show: told (done, total, note) while a training runs.

    """

    workspace: Path
    target: str
    params: Params
    show: Callable[[int, int, str], None]

    @classmethod
    def of(cls, workspace: Path, target: str, show: Callable[[int, int, str], None]) -> "Comparison":
        """Of a workspace in which `label` has run.

        Raises:
            ParamsError: there is no such target, its student is the teacher, or `label` has not run.

        """
        params = params_file.load(workspace / "params.yaml")
        if target not in params.targets:
            raise ParamsError(f"no target {target!r}; {nearest(target, list(params.targets))}")
        if not (workspace / "labels" / LOGITS).exists():
            raise ParamsError(f"{workspace / 'labels'} holds no soft labels. Next: dvc repro label")
        if params.targets[target].student.is_teacher:
            raise ParamsError(
                f"{target}: its student is the teacher itself, which nothing teaches; name another target."
            )
        if (warm := params.targets[target].student.warm) and warm.tune == "nothing":
            raise ParamsError(f"{target}: student.model.tune is nothing, so nothing is taught; take all or norms.")
        return cls(workspace, target, params, show)

    @property
    def folder(self) -> Path:
        """Where this target's trainings are kept."""
        return self.workspace / "compare" / self.target

    def run(
        self, methods: Mapping[str, Component], seeds: Sequence[int], tell: Callable[[str], None]
    ) -> list[Compared]:
        """Train what is not there yet and compare; each method stands beside the control.

        Raises:
            ParamsError: a method is the control itself, or learns from features that `label` does not keep.

        """
        if unused := [name for name, method in methods.items() if method.use == "none" or name == CONTROL]:
            raise ParamsError(f"{unused[0]} is the control, which is always there; name losses with --methods.")
        for name, method in methods.items():
            if (needing := features_for(method)) and not self.params.label.features:
                raise ParamsError(
                    f"{name}: {needing} learns from the teacher's features, which label does not keep; set label.features: "
                    "true, then dvc repro label."
                )
        arms: dict[str, DistillParams | Unused] = {CONTROL: Unused(use="none")}
        arms |= {name: DistillParams(**method.model_dump(), control=False) for name, method in methods.items()}
        results = {name: [self.trained(name, arm, seed, tell) for seed in seeds] for name, arm in arms.items()}
        measure = self.params.measure
        compared = []
        for name, of_seeds in results.items():
            scores = [score_N for _, score_N in of_seeds]
            gain = None
            if name != CONTROL:
                gain = gain_over(scores, [score_N for _, score_N in results[CONTROL]], measure.bootstrap, measure.seed)
            compared.append(
                Compared(
                    name,
                    float(np.mean([result["validation"] for result, _ in of_seeds])),
                    float(np.mean(scores)),
                    gain,
                    None if gain is None else verdict_of(gain),
                )
            )
        told = {"seeds": list(seeds), "metric": self.params.metric, "methods": [asdict(row) for row in compared]}
        write_json(self.folder.with_suffix(".json"), told)
        return compared

    def trained(
        self, name: str, arm: DistillParams | Unused, seed: int, tell: Callable[[str], None]
    ) -> tuple[dict[str, Any], Scores]:
        """The result and test scores of one training: those that are kept, or new ones."""
        place = self.folder / name / str(seed)
        key = self.key_of(arm, seed)
        kept = _result_in(place)
        if kept is None or kept["key"] != key:
            if (place / "key").exists() and (place / "key").read_text(encoding="utf-8") != key:
                shutil.rmtree(place)  # the state of a training of something else
            place.mkdir(parents=True, exist_ok=True)
            with replace(place / "key") as partial:
                partial.write_text(key, encoding="utf-8")
            kept = self._train(place, name, arm, seed, key)
        tell(f"{name}, seed {seed}: {kept['validation']:.4f} on validation, {kept['test']:.4f} on test")
        return kept, np.load(place / "scores.npy")

    def _train(self, place: Path, name: str, arm: DistillParams | Unused, seed: int, key: str) -> dict[str, Any]:
        told = Told(place, lambda done, total, note: self.show(done, total, f"{name}, seed {seed}"))
        root, params = self.workspace, self.params
        network, fitted = train_student(
            params.targets[self.target].student, arm,
            data=root / "data", labels=root / "labels", teacher=root / "models/teacher",
            metric=params.metric, seed=seed, report=told, arm="student",
        )  # fmt: skip
        scores = NetworkScorer(params.metric, root / "data").of_model(network, "test")
        with replace(place / "scores.npy") as partial, partial.open("wb") as stream:
            np.save(stream, scores)
        result = {"key": key, "validation": fitted.best, "test": float(scores.mean()), "epoch": fitted.best_epoch}
        write_json(place / "result.json", result)
        (place / "student.pt").unlink(missing_ok=True)
        return result

    def key_of(self, arm: DistillParams | Unused, seed: int) -> str:
        """A digest of all that decides what a training ends in."""
        target: TargetParams = self.params.targets[self.target]
        told = {
            "student": target.student.model_dump(mode="json"),
            "arm": arm.model_dump(mode="json"),
            "seed": seed,
            "metric": self.params.metric,
            "labels": sha256(self.workspace / "labels/labels.json"),
            "code": _digest_of_code(),
        }
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _result_in(place: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((place / "result.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found if (place / "scores.npy").exists() else None


def _digest_of_code() -> str:
    here = Path(__file__).parent
    files = sorted(
        file for name in SOURCES for file in ([here / name] if name.endswith(".py") else (here / name).rglob("*.py"))
    )
    return hashlib.sha256("".join(sha256(file) for file in files).encode()).hexdigest()
