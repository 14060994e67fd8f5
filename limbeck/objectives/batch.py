"""What a loss sees of one step. Legend: B batch, K classes, D features (teacher and student have numbers of their own)."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from limbeck.models.features import tapped


@dataclass(frozen=True)
class Batch:
    """What one step sees: raw inputs [B, ...], labels [B] int64, the teacher's logits [B, K] where there are any.

    Where views mix samples, labels are [B, K] float32: the share of each class. `functional.cross_entropy` takes both.
    features_BD: the teacher's features, where `label` kept them.
    student_BD: the student's, of this very step, where the teacher's are there and the model has layers to tap.
    progress: how much of the training is done, from 0 in its first step to 1 in its last.
    origins_B: int16, 0 where a sample is old, i where it is of the i-th window of new ones, -i of those before; None where all are old.
    """

    inputs: Tensor
    labels: Tensor
    teacher_BK: Tensor | None
    features_BD: Tensor | None = None
    student_BD: Tensor | None = None
    progress: float = 0.0
    origins_B: Tensor | None = None

    def rows(self, chosen_B: Tensor) -> "Batch":
        """Those samples of it for which `chosen_B` [B] is true."""
        return self._each(lambda tensor: tensor[chosen_B])

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        made: dict[str, Any] = {key: change(value) for key, value in values.items() if isinstance(value, Tensor)}
        return replace(self, **made)


Loss: TypeAlias = Callable[[Tensor, Batch], Tensor]
Objective: TypeAlias = Callable[[nn.Module, Batch], Tensor]


def answer(model: nn.Module, batch: Batch) -> tuple[Tensor, Batch]:
    """The model's logits [B, K] in float32, and the batch with its features where the teacher's are there."""
    if batch.features_BD is None:
        return model(batch.inputs).float(), batch
    with tapped(model) as tap:
        logits_BK = model(batch.inputs).float()
    return logits_BK, replace(batch, student_BD=tap.features)
