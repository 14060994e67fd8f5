"""Losses on what enters the head, in the student and in the teacher (`label.features: true` keeps the teacher's).

Each adds `hard` times the cross-entropy with the labels. In a graph that is trained quantized the student's features have
no name: there the cross-entropy alone works, and the log says so. Legend: B batch, D features.
"""

from typing import Annotated

import torch
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn
from torch.nn import functional

from limbeck.models.features import width_of
from limbeck.objectives.batch import Batch
from limbeck.objectives.learned import Learned, Supplies

EPSILON, SMALLEST = 1e-6, 1e-12
"""Squared distances are held from 0 by this share of their mean, and this: the gradient of a root stays finite."""


def similarity(logits_BK: Tensor, batch: Batch, *, gamma: NonNegativeFloat, hard: NonNegativeFloat = 1.0) -> Tensor:
    """Similarity-preserving distillation: hard CE(labels, p_student) + gamma / B^2 ||G_teacher - G_student||^2.

    G is the matrix [B, B] of inner products between the features of a batch's samples, each row scaled to length 1
    (Tung and Mori 2019, Similarity-Preserving Knowledge Distillation, eq. 1-4, here on what enters the head).
    The teacher may answer other classes and have another number of features: no regressor between them is needed.
    """
    assert batch.features_BD is not None, "similarity needs the teacher's features"
    own = hard * functional.cross_entropy(logits_BK, batch.labels)
    if batch.student_BD is None:
        return own

    def gram(features_BD: Tensor) -> Tensor:
        features_BD = features_BD.float()
        return functional.normalize(features_BD @ features_BD.T, dim=1)

    with torch.autocast(logits_BK.device.type, enabled=False):
        return own + gamma * (gram(batch.features_BD) - gram(batch.student_BD)).square().mean()


class Hint(Learned):
    """Hints: hard CE + gamma / (2 D) ||features_teacher - W features_student - b||^2, D those of the teacher.

    The projector W, b is trained with the student and forgotten with the training; it lets the student have another
    number of features (Romero et al. 2015, FitNets: Hints for Thin Deep Nets, eq. 3, here on what enters the head, in
    one stage with the labels, and divided by D so that one gamma suits teachers of any width).
    """

    def __init__(self, _: Supplies, *, gamma: NonNegativeFloat, hard: NonNegativeFloat = 1.0) -> None:
        super().__init__()
        self.gamma, self.hard = gamma, hard
        self.projector: nn.Linear | None = None

    def begin(self, model: nn.Module, batch: Batch) -> None:
        """Make the projector, unless the student is a graph whose features have no name."""
        assert batch.features_BD is not None, "hint needs the teacher's features"
        width = width_of(model, batch.inputs[:1])
        self.projector = None if width is None else nn.Linear(width, batch.features_BD.shape[1])

    def forward(self, logits_BK: Tensor, batch: Batch) -> Tensor:
        """The loss of a batch, a scalar."""
        own = self.hard * functional.cross_entropy(logits_BK, batch.labels)
        if batch.student_BD is None or self.projector is None:
            return own
        assert batch.features_BD is not None
        with torch.autocast(logits_BK.device.type, enabled=False):
            projected_BD = self.projector(batch.student_BD.float())
            return own + self.gamma / 2 * functional.mse_loss(projected_BD, batch.features_BD.float())


def relational(
    logits_BK: Tensor,
    batch: Batch,
    *,
    distance: NonNegativeFloat,
    angle: NonNegativeFloat,
    group: Annotated[int, Field(ge=3)] = 32,
    hard: NonNegativeFloat = 1.0,
) -> Tensor:
    """Relational distillation: hard CE + distance Huber(distances) + angle Huber(angles) between samples' features.

    Distances are divided by their mean; angles are the cosines at one of three samples. Both are compared with the
    teacher's by Huber's loss, mean over pairs and triples of different samples (Park et al. 2019, Relational Knowledge
    Distillation, section 3.2, which weighs them 25 and 50). Turned, moved or scaled as a whole, features stay the same to
    it; numbers of features may differ.
    Triples are taken within groups of so many samples of the batch, whose order is random: B group^2 of them, not B^3,
    which took seconds a step at 256 samples. Samples that fill no group are in none.
    """
    assert batch.features_BD is not None, "relational needs the teacher's features"
    own = hard * functional.cross_entropy(logits_BK, batch.labels)
    if batch.student_BD is None or len(logits_BK) < 2:
        return own
    features = batch.student_BD.float(), batch.features_BD.float()
    with torch.autocast(logits_BK.device.type, enabled=False):
        own = own + distance * _of_distances(*(_Relations(values[None]) for values in features))
        if not angle:
            return own
        size = min(group, len(logits_BK))
        whole = len(logits_BK) // size * size
        return own + angle * _of_angles(
            *(_Relations(values[:whole].reshape(-1, size, values.shape[1])) for values in features)
        )


class _Relations:
    """Distances and angles between the samples of each group, from inner products alone. Legend: G groups, S samples."""

    def __init__(self, features_GSD: Tensor) -> None:
        centred_GSD = features_GSD - features_GSD.mean(1, keepdim=True)
        self.size = features_GSD.shape[1]
        self.inner_GSS = centred_GSD @ centred_GSD.mT
        self.norms_GS = self.inner_GSS.diagonal(dim1=1, dim2=2)
        squares_GSS = (self.norms_GS[:, :, None] + self.norms_GS[:, None, :] - 2 * self.inner_GSS).clamp(min=0)
        least = EPSILON * squares_GSS.detach().mean() + SMALLEST
        self.lengths_GSS = (squares_GSS + least).sqrt()
        self.differs_SS = ~torch.eye(self.size, dtype=torch.bool, device=features_GSD.device)

    @property
    def distances(self) -> Tensor:
        """[G, S, S], over the mean of a group's pairs of different samples; 0 from a sample to itself."""
        between_GSS = self.lengths_GSS * self.differs_SS
        return between_GSS / (between_GSS.sum((1, 2), keepdim=True) / self.differs_SS.sum())

    @property
    def cosines(self) -> Tensor:
        """[G, S, S, S], of the angle at the first sample between the second and the third; 0 where two are the same."""
        inner = self.inner_GSS[:, None] - self.inner_GSS[:, :, :, None] - self.inner_GSS[:, :, None, :]
        inverse_GSS = self.differs_SS / self.lengths_GSS
        scaled = (inner + self.norms_GS[:, :, None, None]) * inverse_GSS[:, :, :, None] * inverse_GSS[:, :, None, :]
        return scaled * self.differs_SS


def _of_distances(ours: _Relations, theirs: _Relations) -> Tensor:
    """Huber's loss of distances, mean over pairs of different samples."""
    total = functional.smooth_l1_loss(ours.distances, theirs.distances, reduction="sum")
    return total / (len(ours.norms_GS) * ours.size * (ours.size - 1))


def _of_angles(ours: _Relations, theirs: _Relations) -> Tensor:
    """Huber's loss of cosines, mean over triples of different samples."""
    total = functional.smooth_l1_loss(ours.cosines, theirs.cosines, reduction="sum")
    return total / max(1, len(ours.norms_GS) * ours.size * (ours.size - 1) * (ours.size - 2))
