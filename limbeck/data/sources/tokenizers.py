"""Tokenizers made for a data set; what they do is `limbeck.edge.tokenizer`'s, so that a device does the same.

A maker takes a function that starts a pass over the training texts, and keyword-only settings; one line of TOKENIZERS.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from itertools import chain, pairwise
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field, PositiveInt

from limbeck.components import Component, bind
from limbeck.data.sources.source import located
from limbeck.edge.tokenizer import LONGEST_WORD, MAX_LENGTH, PADDING, Ngrams, Tokenizer, WordPiece, words_of
from limbeck.errors import DataError

Texts: TypeAlias = Callable[[], Iterable[str]]
Pair: TypeAlias = tuple[str, str]
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
        vocabulary: the folder of a BERT-like encoder, or its vocab.txt: then that encoder can be the teacher. Null: pieces
            are learned from the texts.
        size: how many pieces. Of a vocabulary the special ones, those that the texts need, and then the first; null: all.
        lower: whether case and accents are dropped; a model called `uncased` wants it.

    Raises:
        DataError: the vocabulary is missing or is none, neither `vocabulary` nor `size` is given, or the texts need more pieces.

    """
    if vocabulary is None:
        if size is None:
            raise DataError("tokenizer wordpiece: give `vocabulary` a folder, or `size` a number of pieces to learn.")
        return WordPiece(_trained(texts(), size, lower), length=length, lower=lower)
    pieces = _read(vocabulary)
    try:
        whole = WordPiece(pieces, length=length, lower=lower)
    except ValueError as error:
        raise DataError(f"{vocabulary}: {error}. {HOW}") from None
    return whole if size is None else WordPiece(_some(whole, texts(), size), length=length, lower=lower)


def _some(whole: WordPiece, texts: Iterable[str], size: int) -> list[str]:
    """So many pieces of a vocabulary, in its order: texts seen here are cut as before, others into smaller pieces at worst."""
    needed = {PADDING, *(code for code, piece in enumerate(whole.pieces) if piece in SPECIAL)}
    for text in texts:
        needed.update(whole.codes(text))
    letters = [
        code for code, piece in enumerate(whole.pieces) if len(piece.removeprefix("##")) == 1 and piece.isascii()
    ]
    if len(needed) > size:
        raise DataError(
            f"tokenizer wordpiece: the texts need {len(needed):,} pieces, size is {size:,}; expected at least as many."
        )
    others = (code for code, piece in enumerate(whole.pieces) if piece)
    for code in chain(letters, others):
        if len(needed) >= size:
            break
        needed.add(code)
    return [whole.pieces[code] for code in sorted(needed)]


def _read(vocabulary: str) -> list[str]:
    place = located(vocabulary, HOW)
    file = place / VOCABULARY if place.is_dir() else place
    try:
        pieces = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}. {HOW}") from None
    return ["" if piece.startswith(UNUSED) else piece for piece in pieces]


def _trained(texts: Iterable[str], size: int, lower: bool) -> list[str]:
    """A vocabulary by merging the most frequent pair of pieces, again and again (Sennrich et al. 2016, algorithm 1).

    Of equally frequent pairs the first in the alphabet is merged: the library `tokenizers` takes either, and another one
    each time it is asked.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(words_of(text, lower))
    split = {
        word: [word[0], *(f"##{letter}" for letter in word[1:])] for word in sorted(counts) if len(word) <= LONGEST_WORD
    }
    letters = Counter[str]()
    for word, parts in split.items():
        for part in parts:
            letters[part] += counts[word]
    alphabet = sorted(sorted(letters), key=lambda part: -letters[part])[: size - len(SPECIAL)]
    pieces = [*SPECIAL, *sorted(alphabet)]
    pairs: Counter[Pair] = Counter()
    homes: defaultdict[Pair, set[str]] = defaultdict(set)
    for word, parts in split.items():
        for pair in pairwise(parts):
            pairs[pair] += counts[word]
            homes[pair].add(word)
    while len(pieces) < size and pairs:
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < 2:
            break
        merged = best[0] + best[1].removeprefix("##")
        if merged not in pieces[len(SPECIAL) :]:
            pieces.append(merged)
        for word in sorted(homes[best]):
            before = split[word]
            split[word] = after = _merged(before, best, merged)
            for pair in pairwise(before):
                pairs[pair] -= counts[word]
                homes[pair].discard(word)
                if pairs[pair] <= 0:
                    del pairs[pair]
            for pair in pairwise(after):
                pairs[pair] += counts[word]
                homes[pair].add(word)
    return pieces


def _merged(parts: list[str], pair: Pair, merged: str) -> list[str]:
    found: list[str] = []
    for part in parts:
        if found and (found[-1], part) == pair:
            found[-1] = merged
        else:
            found.append(part)
    return found


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
