"""Losses on what enters the head, in the student and in the teacher (`label.features: true` keeps the teacher's).

Each adds `hard` times the cross-entropy with the labels. In a graph that is trained quantized the student's features have
no name: there the cross-entropy alone works, and the log says so. Legend: B batch, D features.
"""

import torch
from pydantic import NonNegativeFloat
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
    hard: NonNegativeFloat = 1.0,
) -> Tensor:
    """Relational distillation: hard CE + distance Huber(distances) + angle Huber(angles) between samples' features.

    Distances [B, B] are divided by their mean; angles are the cosines at the middle one of three samples. Both are compared
    with the teacher's by Huber's loss, mean over pairs and triples of different samples (Park et al. 2019, Relational
    Knowledge Distillation, section 3.2, which weighs them 25 and 50). Turned, moved or scaled as a whole, features stay
    the same to it; numbers of features may differ. Angles take time and memory as B^3; 0 leaves them out.
    """
    assert batch.features_BD is not None, "relational needs the teacher's features"
    own = hard * functional.cross_entropy(logits_BK, batch.labels)
    if batch.student_BD is None or len(logits_BK) < 2:
        return own
    with torch.autocast(logits_BK.device.type, enabled=False):
        ours, theirs = _Relations(batch.student_BD.float()), _Relations(batch.features_BD.float())
        own = own + distance * _of_distances(ours, theirs)
        return own + angle * _of_angles(ours, theirs) if angle else own


class _Relations:
    """Distances and angles between samples, from their inner products alone: [B, B, B] numbers, but none times D."""

    def __init__(self, features_BD: Tensor) -> None:
        centred_BD = features_BD - features_BD.mean(0)
        self.inner_BB = centred_BD @ centred_BD.T
        self.norms_B = self.inner_BB.diagonal()
        squares_BB = (self.norms_B[:, None] + self.norms_B[None, :] - 2 * self.inner_BB).clamp(min=0)
        least = EPSILON * squares_BB.detach().mean() + SMALLEST
        self.lengths_BB = (squares_BB + least).sqrt()
        self.differs_BB = ~torch.eye(len(features_BD), dtype=torch.bool, device=features_BD.device)

    @property
    def distances(self) -> Tensor:
        """[B, B], over the mean of all pairs of different samples; 0 from a sample to itself."""
        between_BB = self.lengths_BB * self.differs_BB
        return between_BB / (between_BB.sum() / self.differs_BB.sum())

    @property
    def cosines(self) -> Tensor:
        """[B, B, B], of the angle at the first sample between the second and the third; 0 where either is the first."""
        inner_BBB = self.inner_BB[None] - self.inner_BB[:, :, None] - self.inner_BB[:, None, :]
        inverse_BB = self.differs_BB / self.lengths_BB
        return (inner_BBB + self.norms_B[:, None, None]) * inverse_BB[:, :, None] * inverse_BB[:, None, :]


def _of_distances(ours: _Relations, theirs: _Relations) -> Tensor:
    """Huber's loss of distances, mean over pairs of different samples."""
    num = len(ours.norms_B)
    return functional.smooth_l1_loss(ours.distances, theirs.distances, reduction="sum") / (num * (num - 1))


def _of_angles(ours: _Relations, theirs: _Relations) -> Tensor:
    """Huber's loss of cosines, mean over triples of different samples."""
    num = len(ours.norms_B)
    own, taught = ours.cosines, theirs.cosines
    everywhere = functional.smooth_l1_loss(own, taught, reduction="sum")
    own, taught = own.diagonal(dim1=1, dim2=2), taught.diagonal(dim1=1, dim2=2)  # the second is the third
    same = functional.smooth_l1_loss(own, taught, reduction="sum")
    return (everywhere - same) / max(1, num * (num - 1) * (num - 2))
