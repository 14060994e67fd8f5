"""Networks for texts as codes [B, L], 0 for padding (`limbeck.edge.tokenizer`). Legend: B batch, L codes, D width, H heads.

Their tables are read row by row, so int8 rounds each row by a scale of its own (`limbeck.quantization`), and pruning leaves
their width alone.
"""

import math
from typing import Annotated, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from limbeck.errors import ComponentError
from limbeck.params import Quality

OPEN = 0.02
"""Spread of n-grams beside inherited codes."""
Start: TypeAlias = Literal["chance", "teacher"]
MULTIPLIER = 1_000_003
"""Of the hash over neighbouring codes: a prime, larger than most vocabularies."""


def expect_codes(shape: tuple[int, ...], name: str) -> int:
    """L of samples that are codes.

    Raises:
        ComponentError: they are something else.

    """
    if len(shape) != 1:
        raise ComponentError(
            f"{name} takes texts as codes [L], found samples of shape {shape}; choose resnet or convnet."
        )
    return shape[0]


@runtime_checkable
class Inheriting(Protocol):
    """A student that may take over part of its teacher before it learns; `inherits`: it does."""

    inherits: bool

    def inherit_(self, teacher: nn.Module) -> None:
        """Fill what it can from the teacher's body, in place."""


def inherit_table_(table: nn.Embedding, teacher: nn.Module) -> None:
    """Fill a table with the principal components of the teacher's own, in place.

    Words that the training texts hardly show keep the place among others that the teacher learned for them. (Pearson 1901;
    of word embeddings: Raunak et al. 2019, Effective Dimensionality Reduction for Word Embeddings.)

    Raises:
        ComponentError: the teacher has no table of as many rows, and at least as wide.

    """
    rows, width = table.weight.shape
    theirs = [each for each in teacher.modules() if isinstance(each, nn.Embedding) and each.num_embeddings == rows]
    if not theirs or theirs[0].embedding_dim < width:
        raise ComponentError(
            f"start: teacher asks for a teacher with a table of {rows:,} codes, {width} wide or wider, and this one has none. Give "
            "`rows` the number of the tokenizer's codes, or start: chance."
        )
    with torch.no_grad():
        found = theirs[0].weight.double()
        found = found - found.mean(0)
        _, axes = torch.linalg.eigh(found.T @ found)
        axes = axes[:, -width:]
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()  # either sign is an axis: take one
        parts = found @ axes
        table.weight.copy_(parts / (parts.std() * math.sqrt(width)))


class NgramTables(nn.Module):
    """Mean of embeddings: of codes, of pairs of neighbours, and so on; n-grams are hashed into their table's rows.

    A table of more rows than there are codes gives each code its own row.
    """

    keeps_channels = True  # rows are bound to codes, columns to each other across tables

    def __init__(self, rows: list[int], width: int) -> None:
        super().__init__()
        self.rows = list(rows)
        self.tables = nn.ModuleList(nn.Embedding(num, width) for num in rows)
        for table in self.tables:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=1 / math.sqrt(width))

    def inherit_(self, teacher: nn.Module) -> None:
        """Begin with the teacher's codes; their n-grams are to say what those leave open."""
        first, *others = self.tables
        assert isinstance(first, nn.Embedding)
        inherit_table_(first, teacher)
        for table in others:
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=OPEN)

    def forward(self, codes_BL: Tensor) -> Tensor:
        """Codes [B, L] -> [B, D]."""
        codes_BL = codes_BL.long()
        hashed_BL, is_there_BL = torch.zeros_like(codes_BL), codes_BL == codes_BL
        total_BD, num_B1 = torch.zeros(()), torch.zeros(())
        for n, (table, rows) in enumerate(zip(self.tables, self.rows, strict=True), start=1):
            shifted_BL = codes_BL[:, n - 1 :]
            width = shifted_BL.shape[1]
            hashed_BL = hashed_BL[:, :width] * MULTIPLIER % (2**31 - 1) + shifted_BL
            is_there_BL = is_there_BL[:, :width] & (shifted_BL != 0)
            weights_BL1 = is_there_BL.float().unsqueeze(2)
            total_BD = total_BD + (table(hashed_BL % rows) * weights_BL1).sum(1)
            num_B1 = num_B1 + weights_BL1.sum(1)
        return total_BD / num_B1.clamp(min=1.0)


class NgramEmbedding(nn.Module):
    """Mean embedding, hidden layers with ReLU, a head."""

    def __init__(
        self, num_classes: int, rows: list[int], width: int, hidden: int, dropout: float, start: Start
    ) -> None:
        super().__init__()
        self.inherits = start == "teacher"
        self.tables = NgramTables(rows, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.Linear(width, hidden)
        self.head = nn.Linear(hidden, num_classes)

    def inherit_(self, teacher: nn.Module) -> None:
        """See `inherit_table_`."""
        self.tables.inherit_(teacher)

    def forward(self, codes_BL: Tensor) -> Tensor:
        """Codes [B, L] -> logits [B, K]."""
        mean_BD = self.dropout(self.norm(self.tables(codes_BL)))
        return self.head(functional.relu(self.layer(mean_BD)))  # type: ignore[no-any-return]


def ngram_embedding(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    rows: Annotated[list[Annotated[int, Field(ge=2)]], Field(min_length=1)],
    width: PositiveInt,
    hidden: PositiveInt,
    dropout: Quality = 0.0,
    start: Start = "chance",
) -> nn.Module:
    """Averaged embeddings of codes and their n-grams, then one hidden layer.

    Joulin et al. 2016, Bag of Tricks for Efficient Text Classification, with the hidden layer of Iyyer et al. 2015, Deep
    Unordered Composition Rivals Syntactic Methods for Text Classification, and a norm before it (Ba et al. 2016).

    Args:
        shape: [L].
        num_classes: K.
        rows: of the table of single codes, of pairs, of threes ...; as many as the tokenizer has codes: no collisions.
        width: D, numbers of a row.
        hidden: units.
        dropout: share of the mean that a training step forgets.
        start: what codes mean before training: nothing, or what they mean to the `teacher`.

    """
    expect_codes(shape, "ngram_embedding")
    return NgramEmbedding(num_classes, rows, width, hidden, dropout, start)


class TextCnn(nn.Module):
    """Filters over neighbouring codes, where each answers most; beside them the mean embedding; a hidden layer, a head."""

    def __init__(
        self,
        num_classes: int,
        rows: int,
        width: int,
        filters: int,
        reach: int,
        hidden: int,
        dropout: float,
        start: Start,
    ) -> None:
        super().__init__()
        self.inherits = start == "teacher"
        self.rows = rows
        self.codes = nn.Embedding(rows, width)
        nn.init.normal_(self.codes.weight, std=1 / math.sqrt(width))
        self.filters = nn.Conv1d(width, filters, reach, padding=reach // 2)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.of_mean, self.of_filters = nn.Linear(width, hidden), nn.Linear(filters, hidden)
        self.head = nn.Linear(hidden, num_classes)

    def inherit_(self, teacher: nn.Module) -> None:
        """See `inherit_table_`."""
        inherit_table_(self.codes, teacher)

    def forward(self, codes_BL: Tensor) -> Tensor:
        """Codes [B, L] -> logits [B, K]."""
        is_there_BL1 = (codes_BL != 0).float().unsqueeze(2)
        rows_BLD = self.codes(codes_BL.long() % self.rows) * is_there_BL1
        mean_BD = rows_BLD.sum(1) / is_there_BL1.sum(1).clamp(min=1.0)
        answers_BLF = functional.relu(self.filters(rows_BLD.transpose(1, 2))).transpose(1, 2)
        most_BF = (answers_BLF * is_there_BL1).amax(1)
        hidden_BH = self.of_mean(self.dropout(self.norm(mean_BD))) + self.of_filters(self.dropout(most_BF))
        return self.head(functional.relu(hidden_BH))  # type: ignore[no-any-return]


def text_cnn(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    rows: Annotated[int, Field(ge=2)],
    width: PositiveInt,
    filters: PositiveInt,
    reach: PositiveInt,
    hidden: PositiveInt,
    dropout: Quality = 0.0,
    start: Start = "chance",
) -> nn.Module:
    """Filters over embeddings of neighbouring codes and their maximum over the text, then one hidden layer.

    Kim 2014, Convolutional Neural Networks for Sentence Classification, with filters of one length; the mean embedding of
    Iyyer et al. 2015, Deep Unordered Composition Rivals Syntactic Methods for Text Classification, enters the hidden layer
    beside them.

    Args:
        shape: [L].
        num_classes: K.
        rows: of the table of codes; as many as the tokenizer has: no collisions.
        width: D, numbers of a row.
        filters: so many; pruning cuts them.
        reach: codes that a filter sees; odd.
        hidden: units; pruning cuts them.
        dropout: share of what enters the hidden layer that a training step forgets.
        start: what codes mean before training: nothing, or what they mean to the `teacher`.

    Raises:
        ComponentError: the samples are no codes, or `reach` is even.

    """
    expect_codes(shape, "text_cnn")
    if reach % 2 == 0:
        raise ComponentError(f"model 'text_cnn': reach is {reach}; expected an odd number of codes.")
    return TextCnn(num_classes, rows, width, filters, reach, hidden, dropout, start)


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2), blind to padding."""

    keeps_channels = True  # heads are cut out of the width

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x_BLD: Tensor, bias_B11L: Tensor) -> Tensor:
        """[B, L, D] and what is added to the scores of each code -> [B, L, D]."""
        split = (*x_BLD.shape[:2], self.heads, x_BLD.shape[2] // self.heads)
        query, key, value = (part(x_BLD).view(split).transpose(1, 2) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(2, 3) / math.sqrt(split[3]) + bias_B11L
        return self.out((scores.softmax(3) @ value).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and two layers, each normalized before and added (Xiong et al. 2020, On Layer Normalization, pre-LN)."""

    is_residual = True

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor, bias_B11L: Tensor) -> Tensor:
        """[B, L, D] -> [B, L, D]."""
        x_BLD = x_BLD + self.dropout(self.attention(self.norm1(x_BLD), bias_B11L))
        return x_BLD + self.dropout(self.down(functional.relu(self.up(self.norm2(x_BLD)))))  # type: ignore[no-any-return]


class TextTransformer(nn.Module):
    """Embeddings of codes and places, blocks, the mean over codes, a head."""

    def __init__(
        self, length: int, num_classes: int, rows: int, width: int, depth: int, heads: int, hidden: int, dropout: float,
        start: Start = "chance",
    ) -> None:  # fmt: skip
        super().__init__()
        self.rows, self.inherits = rows, start == "teacher"
        self.codes, self.places = nn.Embedding(rows, width), nn.Embedding(length, width)
        for table in (self.codes, self.places):
            nn.init.normal_(table.weight, std=1 / math.sqrt(width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, hidden, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_classes)

    def inherit_(self, teacher: nn.Module) -> None:
        """See `inherit_table_`."""
        inherit_table_(self.codes, teacher)
        nn.init.normal_(self.places.weight, std=OPEN)

    def forward(self, codes_BL: Tensor) -> Tensor:
        """Codes [B, L] -> logits [B, K]."""
        codes_BL = codes_BL.long()
        is_there_BL = (codes_BL != 0).float()
        bias_B11L = (1 - is_there_BL)[:, None, None, :] * -1e4
        x_BLD = self.codes(codes_BL % self.rows) + self.places(torch.arange(codes_BL.shape[1], device=codes_BL.device))
        x_BLD = self.dropout(x_BLD)
        for block in self.blocks:
            x_BLD = block(x_BLD, bias_B11L)
        weights_BL1 = is_there_BL.unsqueeze(2)
        mean_BD = (self.norm(x_BLD) * weights_BL1).sum(1) / weights_BL1.sum(1).clamp(min=1.0)
        return self.head(mean_BD)  # type: ignore[no-any-return]


def text_transformer(
    shape: tuple[int, ...],
    num_classes: int,
    *,
    rows: Annotated[int, Field(ge=2)],
    width: PositiveInt,
    depth: PositiveInt,
    heads: PositiveInt,
    hidden: PositiveInt,
    dropout: Quality = 0.0,
    start: Start = "chance",
) -> nn.Module:
    """A small transformer encoder over codes (Vaswani et al. 2017, Attention Is All You Need), pre-LN, mean-pooled.

    Args:
        shape: [L].
        num_classes: K.
        rows: of the table of codes; as many as the tokenizer has: no collisions.
        width: D; a multiple of `heads`.
        depth: blocks.
        heads: of each attention.
        hidden: units between the two layers of a block; pruning cuts them.
        dropout: share that a training step forgets.
        start: what codes mean before training: nothing, or what they mean to the `teacher`.

    Raises:
        ComponentError: the samples are no codes, or `width` is no multiple of `heads`.

    """
    length = expect_codes(shape, "text_transformer")
    if width % heads:
        raise ComponentError(f"model 'text_transformer': width is {width}; expected a multiple of heads, {heads}.")
    return TextTransformer(length, num_classes, rows, width, depth, heads, hidden, dropout, start)
