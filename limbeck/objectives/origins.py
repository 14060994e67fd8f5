"""One lesson for what a student knows, another for what is new. Legend: B batch, K classes."""

from pydantic import PositiveFloat
from torch import Tensor

from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.objectives.batch import Batch, Loss
from limbeck.objectives.combine import Sum
from limbeck.objectives.correcting import Corrected
from limbeck.objectives.learned import Learned, Supplies


class ByOrigin(Learned):
    """Two losses on logits: `old` of replayed samples, `new` of those that windows brought, now or before; each counts `weight` times.

    A teacher knows the old world, and what it says there keeps a student from forgetting (Li and Hoiem 2016, Learning
    without Forgetting, eq. 4); of the new one, people know more. Without windows all samples are old. A sample that a view
    mixes with another one counts as what it was itself.

    Raises:
        ComponentError: one of them owns networks.

    """

    def __init__(self, supplies: Supplies, *, old: Component, new: Component, weight: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.weight = weight
        self.old, self.new = (self._part(supplies, Component.model_validate(each)) for each in (old, new))

    @staticmethod
    def _part(supplies: Supplies, component: Component) -> Loss:
        loss = supplies.loss(component)
        inner = loss.modules() if isinstance(loss, Learned) else ()
        if any(isinstance(each, Learned) and not isinstance(each, Corrected | Sum) for each in inner):
            raise ComponentError(
                f"loss 'by_origin': {component.use} owns networks, which would see a part of each batch only."
            )
        return loss

    def forward(self, logits_BK: Tensor, batch: Batch) -> Tensor:
        """The sum over all samples, weighed, over their number; a scalar."""
        if batch.origins_B is None:
            return self.old(logits_BK, batch)
        total, is_new_B = (
            logits_BK.new_zeros(()),
            batch.origins_B != 0,
        )  # what was learned from windows before, the teacher has not seen either
        for weight, loss, rows_B in ((1.0, self.old, ~is_new_B), (self.weight, self.new, is_new_B)):
            if rows_B.any():
                total = total + weight * rows_B.float().mean() * loss(logits_BK[rows_B], batch.rows(rows_B))
        return total
