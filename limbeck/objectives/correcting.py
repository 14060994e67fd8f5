"""A teacher whose mistakes are not taught. Legend: B batch, K classes."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.objectives.batch import Batch
from limbeck.objectives.learned import Learned, Supplies


def corrected_logits(teacher_BK: Tensor, labels: Tensor) -> Tensor:
    """The teacher's logits [B, K], made to agree with labels [B], or with shares of classes [B, K] where views mix samples.

    Where the largest belongs to no class of the sample, it changes places with that of the class with the largest share:
    the answer is right then, as sure as it was, and what it says of the others stays (Wen, Lai and Qian 2019, Preparing
    Lessons: Improve Knowledge Distillation with Better Supervision, section 3.2, probability shift).
    """
    shares_BK = nn.functional.one_hot(labels, teacher_BK.shape[1]) if labels.dim() == 1 else labels
    first_B1 = teacher_BK.argmax(1, keepdim=True)
    label_B1 = shares_BK.argmax(1, keepdim=True)
    is_right_B1 = shares_BK.gather(1, first_B1) > 0
    label_B1 = torch.where(is_right_B1, first_B1, label_B1)
    first, label = teacher_BK.gather(1, first_B1), teacher_BK.gather(1, label_B1)
    return teacher_BK.scatter(1, first_B1, label).scatter(1, label_B1, first)


class Corrected(Learned):
    """Another loss on logits, whose teacher never contradicts the labels.

    For a teacher that meets samples unlike those it learned from, labelled by people: what it takes them for would weigh
    against the labels. Losses on features, and teachers at work, stay as they are.

    Raises:
        ComponentError: the loss trains two students; turn it round.

    """

    def __init__(self, supplies: Supplies, *, loss: Component) -> None:
        super().__init__()
        component = Component.model_validate(loss)
        self.loss = supplies.loss(component)
        if isinstance(self.loss, Learned) and self.loss.stands_alone:
            raise ComponentError(
                f"loss 'corrected': {component.use} trains two students; turn it round, {{use: {component.use}, own: {{use: corrected, ...}}}}."
            )

    def forward(self, logits_BK: Tensor, batch: Batch) -> Tensor:
        """The loss's value, a scalar."""
        assert batch.teacher_BK is not None, "there is a teacher to correct"
        return self.loss(logits_BK, replace(batch, teacher_BK=corrected_logits(batch.teacher_BK, batch.labels)))
