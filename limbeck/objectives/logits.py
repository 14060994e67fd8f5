"""Losses on the student's and the teacher's logits. Legend: B batch, K classes.

Each adds `hard` times the cross-entropy with the labels (`kd` weighs it by 1 - alpha, as its paper does).
"""

import math

import torch
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import functional

from limbeck.objectives.batch import Batch
from limbeck.params import Quality

EPSILON = 1e-8
"""Keeps the correlation and the spread of equal numbers finite, and their gradients."""


def soft_divergence(logits_BK: Tensor, teacher_BK: Tensor, temperature: float | Tensor) -> Tensor:
    """T^2 KL(p_teacher^T || p_student^T) of each sample [B]; T is a number, or one by sample [B, 1]."""
    student = functional.log_softmax(logits_BK / temperature, dim=1)
    teacher = functional.log_softmax(teacher_BK.float() / temperature, dim=1)
    divergence_B1 = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1, keepdim=True)
    return (divergence_B1 * temperature**2).squeeze(1)


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


def dkd(
    logits_BK: Tensor,
    batch: Batch,
    *,
    alpha: NonNegativeFloat,
    beta: NonNegativeFloat,
    temperature: PositiveFloat,
    hard: NonNegativeFloat = 1.0,
) -> Tensor:
    """Decoupled knowledge distillation: hard CE + T^2 (alpha TCKD + beta NCKD).

    TCKD compares how much of the probability the label's class gets, NCKD how the rest is spread over the other
    classes. In `kd`, which is TCKD + (1 - p_teacher(label)) NCKD, a sure teacher silences the second (Zhao et al. 2022,
    Decoupled Knowledge Distillation, eq. 6 and 7). A mixture has two labels: each counts by its share, as in
    cross-entropy. The authors let the soft part grow over the first epochs; see `alpha` and `beta` as schedules.
    """
    assert batch.teacher_BK is not None, "distillation needs the teacher's logits"
    student = functional.log_softmax(logits_BK / temperature, dim=1)
    teacher = functional.log_softmax(batch.teacher_BK.float() / temperature, dim=1)
    own = hard * functional.cross_entropy(logits_BK, batch.labels)
    for label_B, share_B in _labels_and_shares(batch.labels):
        target_B, others_B = _decoupled(student, teacher, functional.one_hot(label_B, logits_BK.shape[1]).bool())
        own = own + temperature**2 * (share_B * (alpha * target_B + beta * others_B)).mean()
    return own


def _labels_and_shares(labels: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Labels [B] or shares [B, K], of which two at most are not 0, as pairs of classes [B] and their shares [B]."""
    if labels.dim() == 1:
        return [(labels, torch.ones_like(labels, dtype=torch.float32))]
    shares, classes = labels.float().topk(min(2, labels.shape[1]), dim=1)
    return list(zip(classes.unbind(1), shares.unbind(1), strict=True))


def _decoupled(student_BK: Tensor, teacher_BK: Tensor, is_target_BK: Tensor) -> tuple[Tensor, Tensor]:
    """KL of target against rest [B], and KL among the rest [B], from log probabilities [B, K]."""

    def parts(logs_BK: Tensor) -> tuple[Tensor, Tensor]:
        others_BK = logs_BK.masked_fill(is_target_BK, -math.inf)
        rest_B1 = others_BK.logsumexp(1, keepdim=True)
        target_B1 = (logs_BK * is_target_BK).sum(1, keepdim=True)
        return torch.cat([target_B1, rest_B1], 1), (logs_BK - rest_B1).masked_fill(is_target_BK, 0.0)

    (student_B2, student_others), (teacher_B2, teacher_others) = parts(student_BK), parts(teacher_BK)
    target_B = functional.kl_div(student_B2, teacher_B2, reduction="none", log_target=True).sum(1)
    among_BK = teacher_others.exp() * (teacher_others - student_others)  # the target's own entries are 0 in both
    return target_B, among_BK.sum(1)


def dist(
    logits_BK: Tensor,
    batch: Batch,
    *,
    inter: NonNegativeFloat,
    intra: NonNegativeFloat,
    temperature: PositiveFloat,
    hard: NonNegativeFloat = 1.0,
) -> Tensor:
    """DIST: hard CE + T^2 (inter (1 - r between classes) + intra (1 - r within classes)), r Pearson's correlation.

    Between classes: of a sample's probabilities with its teacher's, mean over samples. Within classes: of a class's
    probabilities over the batch, mean over classes. Correlation asks for the teacher's order and distances, not for
    its size, which suits a teacher far stronger than its student (Huang et al. 2022, Knowledge Distillation from A
    Stronger Teacher, eq. 6 to 10; T^2 as in the authors' code).
    """
    assert batch.teacher_BK is not None, "distillation needs the teacher's logits"
    student = functional.softmax(logits_BK / temperature, dim=1)
    teacher = functional.softmax(batch.teacher_BK.float() / temperature, dim=1)
    between, within = 1 - _correlation(student, teacher).mean(), 1 - _correlation(student.T, teacher.T).mean()
    own = hard * functional.cross_entropy(logits_BK, batch.labels)
    return own + temperature**2 * (inter * between + intra * within)


def _correlation(ours: Tensor, theirs: Tensor) -> Tensor:
    """Pearson's r of each pair of rows; 0 where one row is constant."""
    ours, theirs = (rows - rows.mean(1, keepdim=True) for rows in (ours, theirs))
    return functional.cosine_similarity(ours, theirs, dim=1, eps=EPSILON)


def standardized(
    logits_BK: Tensor,
    batch: Batch,
    *,
    weight: NonNegativeFloat,
    temperature: PositiveFloat,
    hard: NonNegativeFloat = 1.0,
) -> Tensor:
    """Distillation of standardized logits: hard CE + weight T^2 KL between softmaxes of z-scores over T.

    Each sample's logits lose their mean and are divided by their standard deviation first, the teacher's and the
    student's alike: the student need not reach the size of the teacher's logits (Sun et al. 2024, Logit
    Standardization in Knowledge Distillation, algorithm 1). Cross-entropy sees the logits as they are.
    """
    assert batch.teacher_BK is not None, "distillation needs the teacher's logits"
    soft = soft_divergence(_z_scores(logits_BK), _z_scores(batch.teacher_BK.float()), temperature).mean()
    return hard * functional.cross_entropy(logits_BK, batch.labels) + weight * soft


def _z_scores(logits_BK: Tensor) -> Tensor:
    centred = logits_BK - logits_BK.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + EPSILON).sqrt()
