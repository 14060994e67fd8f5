"""Making a teacher from its section of params.yaml, whatever its kind; each comes out as a spec and a network."""

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from limbeck import checkpoint, models
from limbeck.atomic import reserve, sha256
from limbeck.checkpoint import Spec
from limbeck.components import NONE, Component, bind
from limbeck.data.augment import AUGMENTS, Views
from limbeck.data.splits import SplitName, read, read_meta
from limbeck.errors import CheckpointError
from limbeck.models import MODELS, Network
from limbeck.models.ensemble import spec_of
from limbeck.models.features import tapped
from limbeck.objectives import Objective, cross_entropy, on_head, on_logits
from limbeck.params import (
    AdaptParams,
    CheckpointTeacher,
    EncoderTeacher,
    EnsembleTeacher,
    RegistryTeacher,
    TrainParams,
    TrainTeacher,
    Unused,
    WeightsTeacher,
)
from limbeck.prediction import NetworkScorer, predict
from limbeck.teachers import weights
from limbeck.teachers.encoders import WEIGHTS, from_encoder
from limbeck.teachers.outside import Brought, find_head, from_checkpoint, from_weights
from limbeck.training import Fitted, Progress, TrainingData, fit

Outside: TypeAlias = WeightsTeacher | CheckpointTeacher | EncoderTeacher | RegistryTeacher
Fetch: TypeAlias = Callable[[RegistryTeacher, Path], Path]
Made: TypeAlias = tuple[Spec, Network, dict[str, Any]]
"""A teacher and its figures."""
FEATURES_BATCH = 512
WATCHED = Path("custom/teachers")
"""A dep of the stage `teacher`."""


class Telling(Progress, Protocol):
    """Whom making a teacher tells; `limbeck.recording.Report` is one."""

    def log(self, message: str) -> None:
        """A line."""

    def warn(self, message: str) -> None:
        """A line that asks for attention."""


class Making:
    """What all kinds share: the data, the metric, the seed, whom to tell, and how to fetch from a registry."""

    def __init__(self, data: Path, metric: str, seed: int, report: Telling, fetch: Fetch) -> None:
        self.data, self.metric, self.seed, self.report, self.fetch = data, metric, seed, report, fetch
        self.meta, self.score = read_meta(data), NetworkScorer(metric, data)

    def make(self, teacher: TrainTeacher | Outside | EnsembleTeacher, arm: str = "teacher") -> Made:
        """The teacher that a section describes; `arm` names its training."""
        if isinstance(teacher, EnsembleTeacher):
            return self.ensemble(teacher)
        return self.trained(teacher, arm) if isinstance(teacher, TrainTeacher) else self.brought(teacher, arm)

    def trained(self, teacher: TrainTeacher, arm: str) -> Made:
        """Train a fresh network through the one loop."""
        meta = self.meta
        spec = Spec(
            model=teacher.model, shape=meta.shape, dtype=meta.dtype, classes=meta.classes, mean=meta.mean, std=meta.std
        )
        torch.manual_seed(self.seed)
        network = models.build(spec)
        if spec.model.use not in MODELS:
            find_head(network, spec)  # before an hour of training: does it take these samples and answer these classes?
        fitted = self.fit_(network, on_logits(cross_entropy), teacher.augment, teacher.train, arm)
        self.report.log(f"{self.metric} {fitted.best:.4f} on validation, epoch {fitted.best_epoch + 1}")
        return spec, network, {"validation": fitted.best, "best_epoch": fitted.best_epoch, **package_of(spec.model)}

    def brought(self, teacher: Outside, arm: str) -> Made:
        """Take a network from outside, then evaluate it as it is, fine-tune it, or train its head."""
        torch.manual_seed(self.seed)  # of a head that is new
        brought = self.taken(teacher)
        spec, network = brought.spec, brought.network
        figures: dict[str, Any] = {"use": teacher.use, "adapt": teacher.adapt.use, **package_of(spec.model)}
        if isinstance(teacher.adapt, Unused):
            figures["validation"] = self.quality(network, "validation")
            self.report.curve({"epoch": 0, "arm": arm, "validation": figures["validation"]})
        else:
            fitted = self.adapt_(brought, teacher.adapt, arm)
            figures |= {"validation": fitted.best, "best_epoch": fitted.best_epoch}
        # Decides nothing; what is known of a published teacher is its quality on test.
        figures["test"] = self.quality(network, "test")
        self.report.log(f"{self.metric} {figures['validation']:.4f} on validation, {figures['test']:.4f} on test")
        self.doubt(figures["validation"], figures["test"])
        return spec, network, figures

    def taken(self, teacher: Outside) -> Brought:
        """A network from outside, filled."""
        adapts = not isinstance(teacher.adapt, Unused)
        if isinstance(teacher, WeightsTeacher):
            file = weights.locate(teacher.file)
            if not file.is_file():
                raise CheckpointError(f"{file} is a folder; teacher.file names a file of weights in it.")
            if teacher.sha256 is None:
                self.tell_unwatched(file, sha256(file))
            brought = from_weights(teacher, self.meta, file)
            self.report.log(f"{file.name} fills {teacher.model.use}{', its head is new' * brought.has_new_head}")
            return brought
        if isinstance(teacher, RegistryTeacher):
            folder = self.fetch(teacher, self.report.scratch / "fetched")
            return from_checkpoint(folder, self.meta, sha256=None, trust=teacher.trust, adapts=adapts)
        folder = weights.locate(teacher.folder)
        if isinstance(teacher, EncoderTeacher):
            if teacher.sha256 is None and (folder / WEIGHTS).is_file():
                self.tell_unwatched(folder / WEIGHTS, sha256(folder / WEIGHTS))
            return from_encoder(teacher, self.data, self.meta, folder)
        if teacher.sha256 is None:
            self.tell_unwatched(folder, checkpoint.digest_of(folder))
        return from_checkpoint(folder, self.meta, sha256=teacher.sha256, trust=teacher.trust, adapts=adapts)

    def adapt_(self, brought: Brought, adapt: AdaptParams, arm: str) -> Fitted:
        """Fine-tune every weight, or train the head on frozen features, in place."""
        network, objective = brought.network, on_logits(cross_entropy)
        if adapt.use == "head" and adapt.augment.use == NONE and not self.score.is_played:
            return self.head_(network.get_submodule(brought.head), network, adapt.train, arm)
        if adapt.use == "head":
            network.requires_grad_(False).get_submodule(brought.head).requires_grad_(True)
            objective = on_head(objective, brought.head)
        fitted = self.fit_(network, objective, adapt.augment, adapt.train, arm)
        network.requires_grad_(True)
        return fitted

    def head_(self, head: nn.Module, network: Network, train: TrainParams, arm: str) -> Fitted:
        """Train the head, in place, on features that are computed once: views that are all alike have the same."""
        torch.set_num_threads(train.threads)
        folder = self.report.scratch / "features"
        folder.mkdir(parents=True, exist_ok=True)
        train_ND = self.features(network, "train", folder / "train.npy")
        validation_ND = self.features(network, "validation", folder / "validation.npy")
        views = Views(train_ND, bind(Component(use=NONE), AUGMENTS, "augmentation")(), self.seed)

        def quality(head: nn.Module) -> float:
            logits_NK = predict(head, validation_ND)
            return float(self.score(lambda _: logits_NK, "validation", logits_NK).mean())

        training = TrainingData(views, read(self.data, "train")[1], None)
        return fit(
            head, on_logits(cross_entropy), training, train,
            quality=quality, seed=self.seed, report=self.report, arm=arm,
        )  # fmt: skip

    def features(self, network: Network, split: SplitName, file: Path) -> NDArray[np.float32]:
        """What enters the head for a split's samples, [N, D], written batch by batch and memory-mapped."""
        x, _ = read(self.data, split)
        stored = None
        with torch.inference_mode(), tapped(network.eval()) as tap:
            for start in range(0, len(x), FEATURES_BATCH):
                network(torch.from_numpy(np.array(x[start : start + FEATURES_BATCH])))
                assert tap.features is not None
                if stored is None:
                    shape = (len(x), tap.features.shape[1])
                    stored = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
                    reserve(file)
                stored[start : start + FEATURES_BATCH] = tap.features.float().numpy()
                self.report.progress(min(len(x), start + FEATURES_BATCH), len(x), f"features of {split}")
        assert stored is not None
        stored.flush()
        return stored

    def fit_(self, network: Network, objective: Objective, augment: Component, train: TrainParams, arm: str) -> Fitted:
        """Train on a fresh view of the data every epoch, in place."""
        x, _ = read(self.data, "train")
        views = Views(x, bind(augment, AUGMENTS, "augmentation")(), self.seed)
        return fit(
            network, objective, TrainingData.of(self.data, views, None), train,
            quality=self.score.quality, seed=self.seed, report=self.report, arm=arm,
        )  # fmt: skip

    def ensemble(self, teacher: EnsembleTeacher) -> Made:
        """Make every member, each with a seed of its own, and join them to one network."""
        made = []
        for index, member in enumerate(teacher.members):
            self.report.log(f"member {index + 1} of {len(teacher.members)}: {member.use}")
            making = Making(self.data, self.metric, self.seed + index, self.report, self.fetch)
            made.append(making.make(member, f"member{index + 1}"))
        shares = [1.0] * len(made) if teacher.weights is None else list(teacher.weights)
        spec = spec_of([member_spec for member_spec, _, _ in made], shares)
        network = models.build(spec)
        for place, (_, member_network, _) in zip(network.body.get_submodule("members").children(), made, strict=True):
            place.load_state_dict(member_network.state_dict())
        validation, test = self.quality(network.eval(), "validation"), self.quality(network, "test")
        self.report.log(f"together: {self.metric} {validation:.4f} on validation, {test:.4f} on test")
        by_member = {f"member{index + 1}": figures for index, (_, _, figures) in enumerate(made)}
        return spec, network, {"use": "ensemble", "validation": validation, "test": test, **by_member}

    def quality(self, network: Network, split: SplitName) -> float:
        """Mean score on a split."""
        return self.score.quality(network, split)

    def doubt(self, validation: float, test: float) -> None:
        """Warn where figures say that something else than quality was measured."""
        num_classes, counts = len(self.meta.classes), self.meta.counts
        if self.metric == "accuracy" and validation < min(0.5, 2 / num_classes):
            self.report.warn(
                f"{validation:.1%} on validation is about what guessing among {num_classes} classes gives. Check the "
                "order of the classes, and input: mean, std, units."
            )
        if self.score.is_played:  # no sample that a teacher may have learned by heart
            return
        noise = sum(q * (1 - q) / counts[s] for q, s in ((validation, "validation"), (test, "test"))) ** 0.5
        if validation - test > 4 * noise + 0.01:
            self.report.warn(
                f"{validation:.1%} on validation and {test:.1%} on test: the teacher has probably been trained on samples "
                "that are in validation here. A student looks worse beside it there than it is: hold it to "
                "contract.min_quality, and set max_drop to null."
            )

    def tell_unwatched(self, path: Path, digest: str) -> None:
        """Warn of a file that has no pinned digest, unless it lies where DVC watches it: what `prepare` made, WATCHED."""
        if not any(path.resolve().is_relative_to(place.resolve()) for place in (self.data, Path.cwd() / WATCHED)):
            self.report.warn(
                f"DVC does not watch {path}: a change of it goes unnoticed. Pin it, teacher.sha256: {digest}, or keep "
                f"it in {WATCHED}/."
            )


def package_of(model: Component) -> dict[str, str]:
    """Which version of which package an imported architecture is from; nothing for ours and the user's own."""
    package = model.use.partition(":")[0].partition(".")[0]
    if model.use in MODELS or package in ("custom", "limbeck"):
        return {}
    try:
        return {"package": f"{package} {metadata.version(package)}"}
    except metadata.PackageNotFoundError:
        return {"package": package}
