"""A small transformer over a history: what is taken next depends on what was taken before, and in which order."""

from typing import Annotated

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from limbeck.errors import ComponentError
from limbeck.models.catalogue import Catalogue, Places, expect_history

FAR = -1e4
"""Added to what must not be attended to; finite, so that a history of nothing has an answer."""


class Attention(nn.Module):
    """Softmax attention, causal, of heads; `newest` asks for the last place alone.

    torch's own would hide its layers from quantization. Heads hang together in ways that pruning does not see.
    """

    keeps_channels = True
    causal_LL: Tensor

    def __init__(self, length: int, width: int, heads: int, dropout: float, *, newest: bool) -> None:
        super().__init__()
        self.heads, self.newest = heads, newest
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.join = nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        causal_LL = torch.full((length, length), FAR).triu(1)
        self.register_buffer("causal_LL", causal_LL[-1:] if newest else causal_LL, persistent=False)

    def split(self, rows_BLD: Tensor) -> Tensor:
        """[B, L, D] -> [B, heads, L, D / heads]."""
        num_steps, width = rows_BLD.shape[1:]
        return rows_BLD.reshape(-1, num_steps, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, rows_BLD: Tensor, barred_B11L: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D], or [B, 1, D] of the newest; barred places are not attended to."""
        asking_BQD = rows_BLD[:, -1:] if self.newest else rows_BLD
        query, key, value = (
            self.split(layer(rows))
            for layer, rows in ((self.query, asking_BQD), (self.key, rows_BLD), (self.value, rows_BLD))
        )
        scores_BHQL = query @ key.transpose(2, 3) * query.shape[3] ** -0.5 + barred_B11L + self.causal_LL
        mixed_BQD = (self.drop(scores_BHQL.softmax(3)) @ value).transpose(1, 2).flatten(2)
        joined_BQD: Tensor = self.join(mixed_BQD)
        return joined_BQD


class Block(nn.Module):
    """Self-attention and two layers, each behind a norm and beside a shortcut."""

    def __init__(self, length: int, width: int, heads: int, hidden: int, dropout: float, *, newest: bool) -> None:
        super().__init__()
        self.newest = newest
        self.is_residual = not newest  # one row leaves that of the newest
        self.before_attention, self.before_layers = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(length, width, heads, dropout, newest=newest)
        self.enter, self.leave = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, rows_BLD: Tensor, barred_B11L: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D], or [B, 1, D] of the newest."""
        attended_BQD = self.attention(self.before_attention(rows_BLD), barred_B11L)
        rows_BQD = (rows_BLD[:, -1:] if self.newest else rows_BLD) + self.drop(attended_BQD)
        inner_BQH = functional.relu(self.enter(self.before_layers(rows_BQD)))
        out_BQD: Tensor = rows_BQD + self.drop(self.leave(inner_BQH))
        return out_BQD


class Sequential(nn.Module):
    """Rows of the catalogue and of places, `depth` blocks, the newest place as the user."""

    def __init__(
        self, num_classes: int, length: int, width: int, depth: int, heads: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        self.catalogue = Catalogue(num_classes, width)
        self.places = Places(length, width, spread=0.1)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            Block(length, width, heads, hidden, dropout, newest=index == depth - 1) for index in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, codes_BL: Tensor) -> Tensor:
        """Codes [B, L] -> logits [B, K]."""
        rows_BLD, is_item_BL1 = self.catalogue.look_up(codes_BL)
        rows_BLD = self.drop(rows_BLD * self.catalogue.items.in_features**0.5 + self.places())
        barred_B11L = ((1.0 - is_item_BL1) * FAR).transpose(1, 2).unsqueeze(1)
        for block in self.blocks:
            rows_BLD = block(rows_BLD, barred_B11L)
        logits_BK: Tensor = self.catalogue(self.norm(rows_BLD[:, -1]))
        return logits_BK


def sequential(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    width: PositiveInt,
    depth: PositiveInt,
    heads: PositiveInt,
    hidden: PositiveInt,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
) -> nn.Module:
    """Self-attentive sequential recommendation (Kang and McAuley 2018, section III): `depth` causal blocks, tied items.

    The last block computes the newest place alone, which is all that is answered. Norms stand before the layers, as in
    the authors' code; the loss is the softmax over the catalogue, which needs no drawn negatives.

    Raises:
        ComponentError: `width` is no multiple of `heads`.

    """
    if width % heads:
        raise ComponentError(f"model 'sequential': width {width} is no multiple of {heads} heads.")
    return Sequential(num_classes, expect_history(shape, "sequential"), width, depth, heads, hidden, dropout)
