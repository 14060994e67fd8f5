"""The one training loop.

Teacher, student, recovery after pruning and QAT differ in one line: `loss = objective(model, batch)`.

Deterministic and resumable to the bit: batch order and views are functions of (seed, epoch), the learning
rate is a function of the step, and everything else that moves is in the state file that a killed run leaves.
"""

import copy
import dataclasses
import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from limbeck.atomic import replace
from limbeck.components import bind
from limbeck.data.augment import Blend, Views
from limbeck.data.splits import read, read_meta, read_origin
from limbeck.errors import TrainingDiverged
from limbeck.models.averaged import Averaged
from limbeck.models.compiled import compiled, pays
from limbeck.models.memory import keep_freed
from limbeck.models.parallel import DataParallel, num_parts
from limbeck.models.precision import uses_bf16
from limbeck.objectives import Batch, Learner, Objective, learned_of
from limbeck.optimizers import OPTIMIZERS
from limbeck.params import TrainParams
from limbeck.top_logits import TopLogits

CHECKPOINT_EVERY_S = 10.0


class Progress(Protocol):
    """Whom the loop tells how far it is; `limbeck.recording.Report` is one."""

    scratch: Path

    def progress(self, done: int, total: int, note: str = "") -> None:
        """So many of so many steps."""

    def curve(self, row: dict[str, float | str]) -> None:
        """The figures of one epoch."""


@dataclass(frozen=True)
class TrainingData:
    """What a training reads.

    views: the augmented training samples. labels_N: int64.
    teacher_VNK: the teacher's logits for each of V views, or None; then every epoch has a view of its own.
    features_VND: the teacher's features for the same views, or None.
    num_classes: needed where views mix samples, whose labels are shares of classes.
    """

    views: Views
    labels_N: NDArray[np.int64]
    teacher_VNK: NDArray[np.float16] | TopLogits | None
    features_VND: NDArray[np.float16] | None = None
    num_classes: int | None = None
    origins_N: NDArray[np.int16] | None = None

    @classmethod
    def of(
        cls,
        data: Path,
        views: Views,
        teacher_VNK: NDArray[np.float16] | TopLogits | None,
        features_VND: NDArray[np.float16] | None = None,
    ) -> "TrainingData":
        """Join views of the training split with its labels."""
        _, labels_N = read(data, "train")
        meta = read_meta(data)
        origins_N = read_origin(data, "train") if meta.windows else None
        return cls(views, labels_N, teacher_VNK, features_VND, len(meta.classes), origins_N)

    def batches(self, epoch: int, batch_size: int, seed: int) -> Iterator[Batch]:
        """The batches of an epoch: a fresh permutation, whole batches only (one smaller one if there is no other)."""
        view = epoch if self.teacher_VNK is None else epoch % len(self.teacher_VNK)
        order = np.random.default_rng([seed, epoch]).permutation(len(self.views))
        for start in range(0, max(1, len(order) // batch_size) * batch_size, batch_size):
            indices = order[start : start + batch_size]
            teacher, features = (
                None if stored is None else torch.from_numpy(np.asarray(stored[view, indices]))
                for stored in (self.teacher_VNK, self.features_VND)
            )
            inputs, blend = self.views.blended(view, torch.from_numpy(indices))
            labels = torch.from_numpy(np.asarray(self.labels_N[indices]))
            origins = None if self.origins_N is None else torch.from_numpy(self.origins_N[indices])
            labels = labels if blend is None else self.shared(labels, blend)
            yield Batch(inputs, labels, teacher, features, origins_B=origins)

    def shared(self, labels: Tensor, blend: Blend) -> Tensor:
        """Labels [B, K] of mixed samples: lambda of a sample's own class, 1 - lambda of its partner's.

        By linearity, cross-entropy with them is lambda CE(y_a) + (1 - lambda) CE(y_b) (Zhang et al. 2018, section 2).
        """
        assert self.num_classes is not None, "mixed labels need the number of classes"
        others = torch.from_numpy(np.asarray(self.labels_N[blend.partners_B.numpy()]))
        own_BK, others_BK = (functional.one_hot(y, self.num_classes) for y in (labels, others))
        shares_B1 = blend.shares_B[:, None]
        return shares_B1 * own_BK + (1 - shares_B1) * others_BK

    def num_batches(self, batch_size: int) -> int:
        """Batches per epoch."""
        return max(1, len(self.views) // batch_size)


@dataclass
class Fitted:
    """How a training went: the best validation quality, its epoch (from 0), one row per epoch, whose weights were kept."""

    best: float
    best_epoch: int
    history: list[dict[str, float]] = field(default_factory=list)
    kept: str = "student"


class Optimizing:
    """One optimizer for each network that is trained: the model, and those that its loss owns. Each is clipped by itself."""

    def __init__(self, learners: Iterable[Learner], params: TrainParams) -> None:
        make = bind(params.optimizer, OPTIMIZERS, "optimizer")
        self.clip_norm = params.clip_norm
        self.networks = [(own, share, make(iter(own), params.lr, params.weight_decay)) for own, share in learners]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for _, _, optimizer in self.networks:
            optimizer.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """Move every network at its share of the learning rate."""
        for own, share, optimizer in self.networks:
            for group in optimizer.param_groups:
                group["lr"] = rate * share()
            nn.utils.clip_grad_norm_(own, self.clip_norm)
            optimizer.step()

    def state_dict(self) -> list[dict[str, Any]]:
        """The state of every optimizer."""
        return [optimizer.state_dict() for _, _, optimizer in self.networks]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        """Go on from `state_dict`."""
        for (_, _, optimizer), state in zip(self.networks, states, strict=True):
            optimizer.load_state_dict(state)


def learning_rate(step: int, num_steps: int, num_warmup: int, peak: float) -> float:
    """Linear warm-up to `peak`, then a half cosine to nearly 0 (Loshchilov and Hutter 2017, SGDR, eq. 5)."""
    if step < num_warmup:
        return peak * (step + 1) / num_warmup
    done = (step - num_warmup) / max(1, num_steps - num_warmup)
    return peak * (1 + math.cos(math.pi * done)) / 2


def choose_device(wanted: str) -> torch.device:
    """`auto` is CUDA where there is one."""
    return torch.device("cuda" if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()) else "cpu")


def _digest_of(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor):
            digest.update(name.encode())
            copied = (
                value.detach().cpu().clone()
            )  # numpy forbids resizing, and ranges that nothing was seen in have no size yet
            digest.update(copied.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _state_in(file: Path, device: torch.device, start: str) -> dict[str, Any] | None:
    """What a killed run left that began with the same weights; any other file is put away and the training begins anew."""
    if not file.exists():
        return None
    try:
        found: dict[str, Any] = torch.load(file, weights_only=True, map_location=device)
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        logging.getLogger(__name__).warning("%s is damaged (%s); this training starts from its beginning", file, error)
        file.unlink()
        return None
    if found["start"] != start:  # a teacher's file was replaced after the kill
        logging.getLogger(__name__).warning(
            "%s began with other weights; this training starts from its beginning", file
        )
        file.unlink()
        return None
    return found


def _faster(
    model: nn.Module, objective: Objective, data: TrainingData, params: TrainParams, num_steps: int, bf16: bool
) -> nn.Module:
    """The model, in parts side by side and compiled, each where that pays; taps on features see into neither."""
    if data.features_VND is not None or learned_of(objective).watches:
        return model
    device = next(model.parameters()).device
    batch = next(data.batches(0, params.batch_size, seed=0)).to(device)
    compile = pays(params.compile, model, batch.inputs[:1], 3 * num_steps * params.batch_size)  # forward, two backward
    parts = num_parts(model.train(), batch.inputs[: len(batch.inputs) // params.threads], params.threads)
    together = DataParallel(model, parts) if parts > 1 else None
    if not compile:
        return together or model

    tried = copy.deepcopy(objective)  # networks that its loss owns must not learn from the trial either
    part = next(data.batches(0, math.ceil(params.batch_size / parts), seed=0)).to(device)

    def step(trial: nn.Module) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = tried(trial.train(), part)
        loss.backward()  # type: ignore[no-untyped-call]

    if together is None:
        return compiled(model, step)
    together.compile_(step)
    return together


def fit(
    model: nn.Module,
    objective: Objective,
    data: TrainingData,
    params: TrainParams,
    *,
    quality: Callable[[nn.Module], float],
    seed: int,
    report: Progress,
    arm: str,
) -> Fitted:
    """Train `model` in place and leave the weights that were best on validation in it.

    Args:
        model: raw inputs [B, ...] -> logits [B, K].
        objective: the loss of a batch, a scalar. Networks that its loss owns are trained and kept with the model.
        data: views, labels and soft labels.
        params: settings; `threads` is part of the result's bits.
        quality: a network's figure on validation, such as `limbeck.prediction.NetworkScorer.quality`.
        seed: decides batch order.
        report: told of progress and epochs; its scratch folder holds the state of a killed run.
        arm: names this training within its stage (its state file and its curve).

    Returns:
        Best validation quality (of the averaged weights when `ema_decay` > 0; the later epoch wins ties).

    Raises:
        TrainingDiverged: a loss is not finite; nothing is written.

    """
    start = _digest_of(model)
    keep_freed()
    torch.set_num_threads(params.threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads what it did not write
    device = choose_device(params.device)
    bf16 = uses_bf16(params.precision, device)
    # fp32 kernels of oneDNN corrupt the heap in channels_last at odd widths (torch 2.13, AVX2); bf16 ones gain from it
    model.to(device).to(memory_format=torch.channels_last if bf16 else torch.contiguous_format)  # type: ignore[call-overload]
    learned = learned_of(objective)
    learned.begin(model, next(data.batches(0, params.batch_size, seed)).to(device))
    learned.to(device).to(memory_format=torch.channels_last if bf16 else torch.contiguous_format)  # type: ignore[call-overload]
    moving = [value for value in model.parameters() if value.requires_grad]  # what is frozen does not decay either
    optimizing = Optimizing([(moving, lambda: 1.0), *learned.learners()], params)
    contenders = learned.contenders(model)
    averaged = {name: Averaged(net, params.ema_decay) for name, net in contenders.items() if params.ema_decay}
    judged = {name: averaged[name].model if averaged else net for name, net in contenders.items()}

    per_epoch = data.num_batches(params.batch_size)
    num_steps = params.epochs * per_epoch
    num_warmup = round(params.warmup_epochs * per_epoch)
    fitted = Fitted(best=-math.inf, best_epoch=-1)
    best: dict[str, Tensor] = {}
    step, loss_sum = 0, 0.0

    state_file = report.scratch / f"{arm}.pt"
    if (state := _state_in(state_file, device, start)) is not None:
        model.load_state_dict(state["model"])
        learned.load_state_dict(state["learned"])
        for name, average in averaged.items():
            average.load_state_dict(state["averaged"][name])
        optimizing.load_state_dict(state["optimizing"])
        torch.set_rng_state(state["rng"].cpu())
        best, step, loss_sum = state["best"], state["step"], state["loss_sum"]
        fitted = Fitted(state["best_score"], state["best_epoch"], state["history"], state["kept"])
        for row in fitted.history:
            report.curve({**row, "arm": arm})
    stepped = _faster(model, objective, data, params, num_steps, bf16)
    saved = time.monotonic()

    def keep() -> None:
        state: dict[str, Any] = {
            "start": start, "model": model.state_dict(), "learned": learned.state_dict(), "optimizing": optimizing.state_dict(),
            "averaged": {name: average.state_dict() for name, average in averaged.items()},
            "rng": torch.get_rng_state(), "best": best, "step": step, "loss_sum": loss_sum,
            "best_score": fitted.best, "best_epoch": fitted.best_epoch, "history": fitted.history, "kept": fitted.kept,
        }  # fmt: skip
        with replace(state_file) as partial:
            torch.save(state, partial)

    while step < num_steps:
        epoch, first = divmod(step, per_epoch)
        model.train()
        learned.train()
        for index, batch in enumerate(data.batches(epoch, params.batch_size, seed)):
            if index < first:  # done before the kill
                continue
            rate = learning_rate(step, num_steps, num_warmup, params.lr)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = objective(stepped, dataclasses.replace(batch.to(device), progress=step / max(1, num_steps - 1)))
            value = loss.item()
            if not math.isfinite(value):
                raise TrainingDiverged(
                    f"{arm}: the loss is {value} at step {step + 1} of {num_steps} (epoch {epoch + 1}); expected a "
                    f"finite number. Lower train.lr (now {params.lr:g}), lengthen warmup_epochs, or look at the data."
                )
            optimizing.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizing.step(rate)
            learned.after_step(model)
            for name, average in averaged.items():
                average.update(contenders[name])
            loss_sum += value
            step += 1
            report.progress(step, num_steps, f"{arm} epoch {epoch + 1}/{params.epochs}")
            if time.monotonic() - saved > CHECKPOINT_EVERY_S and step % per_epoch:
                keep()
                saved = time.monotonic()
        qualities = {name: quality(net) for name, net in judged.items()}
        leader = max(qualities, key=lambda name: qualities[name])
        if qualities[leader] >= fitted.best:
            fitted.best, fitted.best_epoch, fitted.kept = qualities[leader], epoch, leader
            best = {name: value.clone() for name, value in judged[leader].state_dict().items()}
        row = {"epoch": epoch, "train": loss_sum / per_epoch, "validation": qualities[leader], "lr": rate}
        if len(qualities) > 1:
            row |= {f"validation_{name}": value for name, value in qualities.items()}
        fitted.history.append(row)
        report.curve({**row, "arm": arm})
        loss_sum = 0.0
        if time.monotonic() - saved > CHECKPOINT_EVERY_S or step == num_steps:
            keep()
            saved = time.monotonic()
    model.load_state_dict(best)
    model.to("cpu").eval()
    return fitted
