"""Several losses as one."""

from typing import Annotated

from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.objectives.batch import Batch
from limbeck.objectives.learned import Learned, Supplies
from limbeck.objectives.schedules import Schedule, is_schedule, read


class Sum(Learned):
    """Losses added up, each by its weight (null: all by 1).

    Most losses contain the labels' cross-entropy themselves, times `hard`: give it to one of them and 0 to the others.

    Raises:
        ComponentError: as many weights as parts are needed; or a part cannot stand in a sum.

    """

    def __init__(
        self,
        supplies: Supplies,
        *,
        parts: Annotated[list[Component], Field(min_length=1)],
        weights: list[NonNegativeFloat] | None = None,
    ) -> None:
        super().__init__()
        components = [Component.model_validate(part) for part in parts]
        if weights is not None and len(weights) != len(parts):
            raise ComponentError(
                f"loss 'sum': {len(parts)} parts have {len(weights)} weights; give each one, or null for all 1."
            )
        self.weights: list[float | Schedule] = [
            read(weight, "loss 'sum': weights") if is_schedule(weight) else weight
            for weight in weights or [1.0] * len(parts)
        ]
        self.losses = [supplies.loss(component) for component in components]
        for index, (component, loss) in enumerate(zip(components, self.losses, strict=True)):
            if isinstance(loss, Learned) and loss.stands_alone:
                raise ComponentError(
                    f"loss 'sum': {component.use} trains two students, each with a whole loss; turn it round, "
                    f"{{use: {component.use}, own: {{use: sum, ...}}}}."
                )
            if isinstance(loss, nn.Module):
                self.add_module(f"part{index}", loss)

    def forward(self, logits_BK: Tensor, batch: Batch) -> Tensor:
        """The weighted sum, a scalar."""
        total = logits_BK.new_zeros(())
        for weight, loss in zip(self.weights, self.losses, strict=True):
            now = weight.at(batch.progress) if isinstance(weight, Schedule) else weight
            total = total + now * loss(logits_BK, batch)
        return total
