"""Distillation whose weight and temperature differ by sample. Legend: B batch, K classes."""

import math

from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor
from torch.nn import functional

from limbeck.objectives.batch import Batch
from limbeck.objectives.logits import soft_divergence
from limbeck.params import Quality


def adaptive(
    logits_BK: Tensor,
    batch: Batch,
    *,
    alpha: Quality,
    temperature: PositiveFloat,
    confidence: NonNegativeFloat,
    gap: NonNegativeFloat,
) -> Tensor:
    """`kd` with an alpha and a temperature for each sample; confidence 0 and gap 0 make it `kd` itself.

    alpha_i = alpha (1 - H(p_teacher) / ln K)^confidence: where the teacher is unsure, by the entropy H of its answer, the
    label counts for more (weighing a teacher by its entropy: Kwon et al. 2020, Adaptive Knowledge Distillation Based on
    Entropy).
    T_i = T + gap (mean d - d_i), at least 1 (or T where that is less), with d_i the distance of student and teacher from 0
    to 1, half the sum of |p_teacher - p_student|: where they disagree the teacher speaks sharper, where they agree softer
    (Wen, Lai and Qian 2019, Preparing Lessons: Improve Knowledge Distillation with Better Supervision, Dynamic
    Temperature Distillation, whose distance is a cosine of logits). Neither is differentiated.
    """
    assert batch.teacher_BK is not None, "distillation needs the teacher's logits"
    logs_BK = functional.log_softmax(batch.teacher_BK.float(), dim=1)
    teacher_BK, student_BK = logs_BK.exp(), functional.softmax(logits_BK.detach(), dim=1)
    entropy_B = -(teacher_BK * logs_BK).sum(1)
    sureness_B = (1 - entropy_B / math.log(logs_BK.shape[1])).clamp(0, 1)
    alpha_B = alpha * sureness_B**confidence
    distance_B = (teacher_BK - student_BK).abs().sum(1) / 2
    temperature_B = (temperature + gap * (distance_B.mean() - distance_B)).clamp(min=min(1.0, temperature))
    soft_B = soft_divergence(logits_BK, batch.teacher_BK, temperature_B[:, None])
    hard_B = functional.cross_entropy(logits_BK, batch.labels, reduction="none")
    return (alpha_B * soft_B + (1 - alpha_B) * hard_B).mean()
