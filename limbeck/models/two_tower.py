"""Two towers: a user from the mean of a history, an item as a row of a table, their product as the logit."""

from typing import Annotated

from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from limbeck.models.catalogue import Catalogue, Places, expect_history


class TwoTower(nn.Module):
    """Weighted mean of the history's rows, a hidden layer beside it, the product with every item's row.

    The weights of places in the history are learned: what was taken last counts for more than what was taken first. The
    newest item stands beside the mean in what the hidden layer sees.
    """

    def __init__(self, num_classes: int, length: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.catalogue = Catalogue(num_classes, width)
        self.places = Places(length, 1, spread=0.0)
        self.drop = nn.Dropout(dropout)
        self.enter, self.recall = nn.Linear(width, hidden), nn.Linear(width, hidden, bias=False)
        self.leave = nn.Linear(hidden, width)

    def forward(self, codes_BL: Tensor) -> Tensor:
        """Codes [B, L] -> logits [B, K]."""
        rows_BLD, is_item_BL1 = self.catalogue.look_up(codes_BL)
        weights_BL1 = is_item_BL1 * self.places().exp()
        mean_BD = (rows_BLD * weights_BL1).sum(1) / weights_BL1.sum(1).clamp(min=1e-6)
        seen_BH = self.enter(self.drop(mean_BD)) + self.recall(self.drop(rows_BLD[:, -1]))
        users_BD = mean_BD + self.leave(self.drop(functional.relu(seen_BH)))
        logits_BK: Tensor = self.catalogue(users_BD)
        return logits_BK


def two_tower(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    width: PositiveInt,
    hidden: PositiveInt,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> nn.Module:
    """Items as rows of `width`, `hidden` units between a history's mean and its user.

    After Covington, Adams and Sargin 2016 (Deep Neural Networks for YouTube Recommendations, section 3: a mean of watched
    items through a layer to a user vector, softmax over the catalogue), with one table for both towers.
    """
    return TwoTower(num_classes, expect_history(shape, "two_tower"), width, hidden, dropout)
