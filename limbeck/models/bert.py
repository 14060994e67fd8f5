"""BERT's encoder with a head, named as Hugging Face's files name it: what a published text encoder is filled into.

Devlin et al. 2019, BERT: Pre-training of Deep Bidirectional Transformers. MiniLM (Wang et al. 2020), BGE, E5 and GTE of
the BERT kind are the same network at other sizes. Codes are numbers of the model's own word pieces; `[CLS]` and `[SEP]` are
added here. Legend: B batch, L codes, D width.
"""

import math
from typing import Literal

import torch
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from limbeck.models.text import expect_codes

AT_ONCE = 64
"""Texts of one pass outside of an export: sorted by length, each pass is as long as its longest."""


class Embeddings(nn.Module):
    """Of pieces, places and the one segment, normalized."""

    def __init__(self, vocabulary: int, places: int, segments: int, width: int, eps: float) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(places, width)
        self.token_type_embeddings = nn.Embedding(segments, width)
        self.LayerNorm = nn.LayerNorm(width, eps=eps)

    def forward(self, codes_BL: Tensor) -> Tensor:
        """[B, L] -> [B, L, D]."""
        places_L = torch.arange(codes_BL.shape[1], device=codes_BL.device)
        found = self.word_embeddings(codes_BL) + self.position_embeddings(places_L)
        return self.LayerNorm(found + self.token_type_embeddings.weight[0])  # type: ignore[no-any-return]


def _named(**modules: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict(modules)


class Layer(nn.Module):
    """Self-attention and two layers, each added and then normalized."""

    is_residual = True

    def __init__(self, width: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention = nn.ModuleDict({
            "self": _named(query=nn.Linear(width, width), key=nn.Linear(width, width), value=nn.Linear(width, width)),
            "output": _named(dense=nn.Linear(width, width), LayerNorm=nn.LayerNorm(width, eps=eps)),
        })  # fmt: skip
        self.intermediate = _named(dense=nn.Linear(width, hidden))
        self.output = _named(dense=nn.Linear(hidden, width), LayerNorm=nn.LayerNorm(width, eps=eps))

    def forward(self, x_BLD: Tensor, bias_B11L: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        split = (*x_BLD.shape[:2], self.heads, x_BLD.shape[2] // self.heads)
        own, output = self.attention["self"], self.attention["output"]
        assert isinstance(own, nn.ModuleDict)
        assert isinstance(output, nn.ModuleDict)
        query, key, value = (own[name](x_BLD).view(split).transpose(1, 2) for name in ("query", "key", "value"))
        scores = query @ key.transpose(2, 3) / math.sqrt(split[3]) + bias_B11L
        mixed_BLD = (scores.softmax(3) @ value).transpose(1, 2).flatten(2)
        x_BLD = output["LayerNorm"](output["dense"](mixed_BLD) + x_BLD)
        inner = functional.gelu(self.intermediate["dense"](x_BLD))
        return self.output["LayerNorm"](self.output["dense"](inner) + x_BLD)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """The layers, one after the other."""

    def __init__(self, depth: int, width: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(width, heads, hidden, eps) for _ in range(depth))

    def forward(self, x_BLD: Tensor, bias_B11L: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        for layer in self.layer:
            x_BLD = layer(x_BLD, bias_B11L)
        return x_BLD


class Bert(nn.Module):
    """See `bert`."""

    keeps_channels = True  # a teacher; its width runs through every sum

    def __init__(
        self, num_classes: int, vocabulary: int, width: int, depth: int, heads: int, hidden: int, places: int,
        segments: int, eps: float, pooling: str, start: int, end: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pooling, self.start, self.end, self.places = pooling, start, end, places
        self.embeddings = Embeddings(vocabulary, places, segments, width, eps)
        self.encoder = Encoder(depth, width, heads, hidden, eps)
        self.head = nn.Linear(width, num_classes)

    def forward(self, codes_BL: Tensor) -> Tensor:
        """Codes [B, L] -> logits [B, K]."""
        codes_BL = codes_BL.long()
        if torch.compiler.is_compiling() or torch.compiler.is_exporting() or codes_BL.shape[0] <= 1:
            return self.head(self.pooled(codes_BL))  # type: ignore[no-any-return]
        lengths_B = (codes_BL != 0).sum(1)
        order_B = lengths_B.argsort(stable=True)
        parts = [
            self.pooled(codes_BL[chosen, : max(1, int(lengths_B[chosen].max()))])
            for chosen in torch.split(order_B, AT_ONCE)
        ]
        return self.head(torch.cat(parts)[order_B.argsort()])  # type: ignore[no-any-return]

    def pooled(self, codes_BL: Tensor) -> Tensor:
        """Codes [B, L] -> [B, D], what the head is given; means all of one length, as these models compare by angle."""
        batch, ends_B1 = codes_BL.shape[0], (codes_BL != 0).sum(1, keepdim=True)
        places_L = torch.arange(codes_BL.shape[1] + 1, device=codes_BL.device)
        room_B1 = torch.zeros((batch, 1), dtype=codes_BL.dtype, device=codes_BL.device)
        codes_BL = torch.where(places_L == ends_B1, self.end, torch.cat([codes_BL, room_B1], 1))
        codes_BL = torch.cat([room_B1 + self.start, codes_BL], 1)
        is_there_BL = (codes_BL != 0).float()
        bias_B11L = (1 - is_there_BL)[:, None, None, :] * -1e4
        x_BLD: Tensor = self.encoder(self.embeddings(codes_BL), bias_B11L)
        if self.pooling == "first":
            return x_BLD[:, 0]
        mean_BD = (x_BLD * is_there_BL.unsqueeze(2)).sum(1) / is_there_BL.sum(1, keepdim=True)
        found: Tensor = functional.normalize(mean_BD) * math.sqrt(mean_BD.shape[1])
        return found


def bert(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    vocabulary: PositiveInt,
    width: PositiveInt,
    depth: PositiveInt,
    heads: PositiveInt,
    hidden: PositiveInt,
    places: PositiveInt,
    segments: PositiveInt,
    eps: PositiveFloat,
    pooling: Literal["mean", "first"],
    start: NonNegativeInt,
    end: NonNegativeInt,
) -> nn.Module:
    """A BERT encoder; `teacher: {use: encoder, folder: ...}` reads its sizes from the model's own folder.

    Args:
        shape: [L]; L + 2 may not be more than `places`.
        num_classes: K.
        vocabulary: word pieces.
        width: D.
        depth: layers.
        heads: of each attention.
        hidden: units between the two layers.
        places: the longest text, `[CLS]` and `[SEP]` included.
        segments: kinds of segment, of which the first is used.
        eps: of the norms.
        pooling: `mean` over all pieces (sentence-transformers), or the `first` one, `[CLS]`.
        start: the code of `[CLS]`.
        end: of `[SEP]`.

    """
    length = expect_codes(shape, "bert")
    if length + 2 > places:
        raise ValueError(
            f"texts of {length} codes with [CLS] and [SEP] are longer than the {places} places of this encoder"
        )
    return Bert(num_classes, vocabulary, width, depth, heads, hidden, places, segments, eps, pooling, start, end)
