"""What training minimizes. The loop calls `objective(model, batch)` and never asks which it is.

A loss is a function of a student's logits and its batch with keyword-only settings, one line of LOSSES.
Legend: B batch, K classes, D features (teacher and student have numbers of their own).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from limbeck.components import bind
from limbeck.models.features import tapped
from limbeck.params import DistillParams, Quality, Unused


@dataclass(frozen=True)
class Batch:
    """What one step sees: raw inputs [B, ...], labels [B] int64, the teacher's logits [B, K] where there are any.

    Where views mix samples, labels are [B, K] float32: the share of each class. `functional.cross_entropy` takes both.
    features_BD: the teacher's features, where `label` kept them.
    student_BD: the student's, of this very step, where the teacher's are there and the model has layers to tap.
    """

    inputs: Tensor
    labels: Tensor
    teacher_BK: Tensor | None
    features_BD: Tensor | None = None
    student_BD: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        teacher = None if self.teacher_BK is None else self.teacher_BK.to(device)
        features = None if self.features_BD is None else self.features_BD.to(device)
        return Batch(self.inputs.to(device), self.labels.to(device), teacher, features)


Loss: TypeAlias = Callable[[Tensor, Batch], Tensor]
Objective: TypeAlias = Callable[[nn.Module, Batch], Tensor]


def cross_entropy(logits_BK: Tensor, batch: Batch, *, label_smoothing: Quality = 0.0) -> Tensor:
    """Cross-entropy with the labels; needs no teacher."""
    return functional.cross_entropy(logits_BK, batch.labels, label_smoothing=label_smoothing)


def kd(logits_BK: Tensor, batch: Batch, *, alpha: Quality, temperature: PositiveFloat) -> Tensor:
    """Knowledge distillation: alpha T^2 KL(p_teacher^T || p_student^T) + (1 - alpha) CE(labels, p_student).

    Both distributions are softened by T; the factor T^2 keeps the gradient's size (Hinton, Vinyals and Dean
    2015, Distilling the Knowledge in a Neural Network, section 2).
    """
    assert batch.teacher_BK is not None, "distillation needs the teacher's logits"
    student = functional.log_softmax(logits_BK / temperature, dim=1)
    teacher = functional.log_softmax(batch.teacher_BK.float() / temperature, dim=1)
    soft = functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
    return alpha * soft + (1 - alpha) * functional.cross_entropy(logits_BK, batch.labels)


def similarity(logits_BK: Tensor, batch: Batch, *, gamma: NonNegativeFloat) -> Tensor:
    """Similarity-preserving distillation: CE(labels, p_student) + gamma / B^2 ||G_teacher - G_student||^2.

    G is the matrix [B, B] of inner products between the features of a batch's samples, each row scaled to length 1
    (Tung and Mori 2019, Similarity-Preserving Knowledge Distillation, eq. 1-4, here on what enters the head).
    The teacher may answer other classes and have another number of features: no regressor between them is needed.
    In a graph that is trained quantized the student's features have no name; cross-entropy alone works there.
    """
    assert batch.features_BD is not None, "similarity needs the teacher's features"
    own = functional.cross_entropy(logits_BK, batch.labels)
    if batch.student_BD is None:
        return own

    def gram(features_BD: Tensor) -> Tensor:
        features_BD = features_BD.float()
        return functional.normalize(features_BD @ features_BD.T, dim=1)

    with torch.autocast(logits_BK.device.type, enabled=False):
        return own + gamma * (gram(batch.features_BD) - gram(batch.student_BD)).square().mean()


LOSSES: dict[str, Callable[..., Tensor]] = {"cross_entropy": cross_entropy, "kd": kd, "similarity": similarity}
ON_FEATURES = ("similarity",)
"""Losses that need `label.features: true`."""


def on_logits(loss: Loss) -> Objective:
    """The objective that applies a loss to the model's float32 logits, and to its features where the teacher's are."""

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        if batch.features_BD is None:
            return loss(model(batch.inputs).float(), batch)
        with tapped(model) as tap:
            logits_BK = model(batch.inputs).float()
        return loss(logits_BK, replace(batch, student_BD=tap.features))

    return objective


def on_head(objective: Objective, head: str) -> Objective:
    """The same with everything but the submodule `head` in evaluation mode: frozen norms keep their statistics."""

    def objective_of_head(model: nn.Module, batch: Batch) -> Tensor:
        model.eval()
        model.get_submodule(head).train()
        return objective(model, batch)

    return objective_of_head


def objective_of(distill: DistillParams | Unused) -> Objective:
    """The objective a target's `distill` section names; plain cross-entropy when it is `{use: none}`."""
    return on_logits(cross_entropy if isinstance(distill, Unused) else bind(distill, LOSSES, "loss"))
