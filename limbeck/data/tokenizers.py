"""Tokenizers made for a data set; what they do is `limbeck.edge.tokenizer`'s, so that a device does the same.

A maker takes a function that starts a pass over the training texts, and keyword-only settings; one line of TOKENIZERS.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field, PositiveInt

from limbeck.components import Component, bind
from limbeck.data.sources.source import located
from limbeck.edge.tokenizer import MAX_LENGTH, Ngrams, Tokenizer, WordPiece
from limbeck.errors import DataError

Texts: TypeAlias = Callable[[], Iterable[str]]
Length: TypeAlias = Annotated[int, Field(ge=1, le=MAX_LENGTH)]

VOCABULARY = "vocab.txt"
UNUSED = "[unused"
"""What BERT calls places of its vocabulary that nobody uses."""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
HOW = (
    "Expected a BERT-like model's folder with its vocab.txt, or such a file; of a Python package that holds one: "
    "`python -c 'import PACKAGE; print(PACKAGE.__path__)'`."
)


def ngrams(
    texts: Texts,
    *,
    length: Length,
    buckets: Annotated[int, Field(ge=2)],
    words: PositiveInt,
    characters: list[PositiveInt],
) -> Tokenizer:
    """Hashed n-grams of 1 to `words` words and of so many `characters`; nothing is learned, no vocabulary is kept."""
    return Ngrams(length=length, buckets=buckets, words=words, characters=tuple(characters))


def wordpiece(
    texts: Texts,
    *,
    length: Length,
    vocabulary: str | None,
    size: Annotated[int, Field(ge=64)] | None,
    lower: bool,
) -> Tokenizer:
    """Pieces of a teacher's vocabulary, or of one trained on the texts here.

    Args:
        texts: of the training split, one by one.
        length: codes of a text; what is longer is cut off.
        vocabulary: the folder of a BERT-like encoder, or its vocab.txt: then that encoder can be the teacher. Null: train one.
        size: pieces of a vocabulary that is trained; null where `vocabulary` is given.
        lower: whether case and accents are dropped; a model called `uncased` wants it.

    Raises:
        DataError: the vocabulary is missing, or is none; both or none of `vocabulary` and `size` are given.

    """
    if (vocabulary is None) == (size is None):
        raise DataError("tokenizer wordpiece: give `vocabulary` a folder, or `size` a number of pieces to train, not both.")
    pieces = _read(vocabulary) if vocabulary is not None else _trained(texts, size or 0, lower)
    try:
        return WordPiece(pieces, length=length, lower=lower)
    except ValueError as error:
        raise DataError(f"{vocabulary}: {error}. {HOW}") from None


def _read(vocabulary: str) -> list[str]:
    place = located(vocabulary, HOW)
    file = place / VOCABULARY if place.is_dir() else place
    try:
        pieces = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}. {HOW}") from None
    return ["" if piece.startswith(UNUSED) else piece for piece in pieces]


def _trained(texts: Texts, size: int, lower: bool) -> list[str]:
    """A vocabulary by the library `tokenizers`: pairs merged as in byte-pair encoding (Sennrich et al. 2016)."""
    try:
        from tokenizers import BertWordPieceTokenizer
    except ImportError:
        raise DataError(
            "training a vocabulary needs the library tokenizers: pip install 'limbeck[pipeline,text]'. Or name a teacher's "
            "`vocabulary`, or use ngrams."
        ) from None
    trainer = BertWordPieceTokenizer(lowercase=lower, strip_accents=lower)
    trainer.train_from_iterator(
        texts(), vocab_size=size, min_frequency=2, special_tokens=SPECIAL, show_progress=False
    )
    codes: dict[str, int] = json.loads(trainer.to_str())["model"]["vocab"]
    return sorted(codes, key=lambda piece: codes[piece])


def vocabulary_of(folder: Path) -> list[str]:
    """The pieces of an encoder's folder, as `wordpiece` takes them."""
    return _read(str(folder.resolve()))


TOKENIZERS: dict[str, Callable[..., Tokenizer]] = {"ngrams": ngrams, "wordpiece": wordpiece}


def make(component: Component, texts: Texts) -> Tokenizer:
    """The tokenizer that `data.source.tokenizer` names.

    Raises:
        ComponentError: there is no such tokenizer, or it rejects its keywords.
        DataError: what it says of its files.

    """
    return bind(component, TOKENIZERS, "tokenizer")(texts)  # type: ignore[no-any-return]
