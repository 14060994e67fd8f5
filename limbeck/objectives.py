"""What training minimizes. The loop calls `objective(model, batch)` and never asks which it is.

A loss is a function of a student's logits and its batch with keyword-only settings, one line of LOSSES.
Legend: B batch, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn
from torch.nn import functional

from limbeck.components import bind
from limbeck.params import DistillParams, Quality, Unused


@dataclass(frozen=True)
class Batch:
    """What one step sees: raw inputs [B, ...], labels [B] int64, the teacher's logits [B, K] where there are any.

    Where views mix samples, labels are [B, K] float32: the share of each class. `functional.cross_entropy` takes both.
    """

    inputs: Tensor
    labels: Tensor
    teacher_BK: Tensor | None

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        teacher = None if self.teacher_BK is None else self.teacher_BK.to(device)
        return Batch(self.inputs.to(device), self.labels.to(device), teacher)


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


LOSSES: dict[str, Callable[..., Tensor]] = {"cross_entropy": cross_entropy, "kd": kd}


def on_logits(loss: Loss) -> Objective:
    """The objective that applies a loss to the model's float32 logits."""

    def objective(model: nn.Module, batch: Batch) -> Tensor:
        return loss(model(batch.inputs).float(), batch)

    return objective


def objective_of(distill: DistillParams | Unused) -> Objective:
    """The objective a target's `distill` section names; plain cross-entropy when it is `{use: none}`."""
    return on_logits(cross_entropy if isinstance(distill, Unused) else bind(distill, LOSSES, "loss"))
