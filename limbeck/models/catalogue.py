"""What models of histories share: one table of items that is looked up on the way in and multiplied on the way out.

Legend: B batch, L history, D width, K items.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from limbeck.errors import ComponentError

PADDING = 0
"""The code of no item; item i is code i + 1."""


class Catalogue(nn.Module):
    """Items as rows [K, D]: history -> embeddings, user vector -> a logit for each item.

    The table is the weight of the linear layer that makes the logits, so that both share its bytes, in int8 too, row by
    row (tied embeddings: Press and Wolf 2017, Using the Output Embedding to Improve Language Models). Its bias is how
    popular an item is, whoever asks.
    """

    keeps_channels = True

    def __init__(self, num_items: int, width: int) -> None:
        super().__init__()
        self.items = nn.Linear(width, num_items)
        nn.init.normal_(self.items.weight, std=width**-0.5)
        nn.init.zeros_(self.items.bias)

    def look_up(self, codes_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings [B, L, D], zero where there is no item, and [B, L, 1] with 1 where there is one.

        A code beyond the table, of an item that is newer than the model, is no item.
        """
        num_items = self.items.out_features
        is_item_BL1 = ((codes_BL > PADDING) & (codes_BL <= num_items)).unsqueeze(2).to(self.items.weight.dtype)
        rows_BLD = functional.embedding((codes_BL - 1).clamp(0, num_items - 1), self.items.weight)
        return rows_BLD * is_item_BL1, is_item_BL1

    def forward(self, users_BD: Tensor) -> Tensor:
        """User vectors [B, D] -> logits [B, K]."""
        logits_BK: Tensor = self.items(users_BD)
        return logits_BK


class Places(nn.Module):
    """Numbers of each place in a history: `forward()` gives [L, D]. In a module of their own, whose channels stay."""

    keeps_channels = True

    def __init__(self, length: int, width: int, spread: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(length, width) * spread)

    def forward(self) -> Tensor:
        """[L, D]."""
        return self.weight


def expect_history(shape: tuple[int, ...], name: str) -> int:
    """L of codes [L].

    Raises:
        ComponentError: the samples are no histories.

    """
    if len(shape) != 1:
        raise ComponentError(f"model {name!r} takes histories of codes [L], found samples of shape {shape}.")
    return shape[0]
