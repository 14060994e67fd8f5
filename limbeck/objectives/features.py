"""Losses on what enters the head, in the student and in the teacher (`label.features: true` keeps the teacher's).

Each adds `hard` times the cross-entropy with the labels. In a graph that is trained quantized the student's features have
no name: there the cross-entropy alone works, and the log says so. Legend: B batch, D features.
"""

import torch
from pydantic import NonNegativeFloat
from torch import Tensor
from torch.nn import functional

from limbeck.objectives.batch import Batch


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
