"""Text to codes int32 [L], where a model is made and on the device alike: what runs here is all there is of it.

`tokenizer.json` travels with the model. It says `use` and the sizes, and of word pieces the vocabulary:

    wordpiece   words in pieces of a vocabulary, the longest first, as BERT cuts them (Wu et al. 2016, section 4.1;
                Devlin et al. 2019). A code is the number of a piece
    ngrams      words, their n-grams, and n-grams of characters, each hashed into one of so many buckets (Joulin et al.
                2016, Bag of Tricks for Efficient Text Classification, section 2.1; Bojanowski et al. 2017, section 3.2)

Code 0 is padding in both. Codes beyond the length are cut off: n-grams of characters go first, then those of words.
"""

import json
import string
import unicodedata
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from limbeck.edge import EdgeError

NAME = "tokenizer.json"
FORMAT = 1
MAX_CHARACTERS = 20_000
"""Of one text: what is longer is no request, and would only keep the device busy."""
MAX_LENGTH = 4096
PADDING = 0
LONGEST_WORD = 100
"""Characters of a word that is cut into pieces; a longer one is unknown."""


class TextError(EdgeError):
    """A text that no answer can be given to: empty, no text, too long, or of nothing that is known."""


class Tokenizer(Protocol):
    """What reads texts.

    Attributes:
        length: L, codes of a text.
        size: codes are below it.
    """

    @property
    def length(self) -> int:
        """L."""

    @property
    def size(self) -> int:
        """Codes are below it."""

    def codes(self, text: str) -> list[int]:
        """The codes of a text, up to L and without padding."""

    def described(self) -> dict[str, Any]:
        """What `tokenizer.json` says of it."""


def encode(tokenizer: Tokenizer, text: str | bytes) -> NDArray[np.int32]:
    """A text's codes [L], padded with 0.

    Raises:
        TextError: it is no UTF-8, empty, too long to be a request, or of nothing that the vocabulary knows.

    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise TextError(
                f"the text is no UTF-8: byte {error.start} is 0x{text[error.start]:02x}. Recode it."
            ) from None
    if not isinstance(text, str):
        raise TextError(f"expected a text, found {type(text).__name__}.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise TextError("the text holds half a character (a lone surrogate): it was decoded wrongly; expected UTF-8.")
    if len(text) > MAX_CHARACTERS:
        raise TextError(f"the text has {len(text):,} characters; a request has up to {MAX_CHARACTERS:,}.")
    codes = tokenizer.codes(text)
    if not codes:
        raise TextError(f"the text {shown(text)} is empty; expected at least one word.")
    if isinstance(tokenizer, WordPiece) and all(code == tokenizer.unknown for code in codes):
        raise TextError(
            f"the text {shown(text)} holds no piece that the vocabulary knows; it is in a script the model never saw."
        )
    padded = np.zeros(tokenizer.length, np.int32)
    padded[: len(codes)] = codes
    return padded


def encode_all(tokenizer: Tokenizer, texts: Sequence[str | bytes]) -> NDArray[np.int32]:
    """Codes [B, L] of some texts.

    Raises:
        TextError: see `encode`; the message says which text.

    """
    rows = np.zeros((len(texts), tokenizer.length), np.int32)
    for index, text in enumerate(texts):
        try:
            rows[index] = encode(tokenizer, text)
        except TextError as error:
            raise TextError(f"text {index + 1} of {len(texts)}: {error}") from None
    return rows


def shown(text: str) -> str:
    """A text in a message: its beginning, quoted."""
    return repr(text if len(text) <= 40 else text[:39] + "…")


@dataclass(frozen=True)
class Ngrams:
    """Hashed n-grams: of 1 to `words` words, then of each length in `characters` within `<word>`.

    Attributes:
        length: L.
        buckets: codes are 1 to `buckets` - 1.
        words: the longest n-gram of words.
        characters: lengths of n-grams of characters; none: words alone.
    """

    length: int
    buckets: int
    words: int
    characters: tuple[int, ...]
    USE: ClassVar[str] = "ngrams"

    def __post_init__(self) -> None:
        _expect(0 < self.length <= MAX_LENGTH, f"length is {self.length}; expected 1 to {MAX_LENGTH}")
        _expect(self.buckets >= 2, f"buckets is {self.buckets}; expected 2 or more")
        _expect(self.words >= 1, f"words is {self.words}; expected 1 or more")
        _expect(all(n >= 1 for n in self.characters), f"characters is {self.characters}; expected lengths from 1")

    @property
    def size(self) -> int:
        """Codes are below it."""
        return self.buckets

    def codes(self, text: str) -> list[int]:
        """See `Tokenizer`."""
        return [1 + zlib.crc32(gram.encode()) % (self.buckets - 1) for gram in self.grams(text)][: self.length]

    def grams(self, text: str) -> Iterator[str]:
        """N-grams in the order in which they are kept; words and characters never share a name."""
        words = list(_words(unicodedata.normalize("NFKC", text).lower()))
        for n in range(1, self.words + 1):
            yield from ("w " + " ".join(words[at : at + n]) for at in range(len(words) - n + 1))
        for n in self.characters:
            for word in words:
                bounded = f"<{word}>"
                yield from (f"c {bounded[at : at + n]}" for at in range(len(bounded) - n + 1))

    def described(self) -> dict[str, Any]:
        """See `Tokenizer`."""
        return {
            "use": self.USE,
            "length": self.length,
            "buckets": self.buckets,
            "words": self.words,
            "characters": list(self.characters),
        }


class WordPiece:
    """Greedy longest pieces. A piece that goes on within a word begins with `##`.

    Args:
        pieces: the vocabulary; a piece's place is its code. The first stands for padding and is never met; "" is
            a place that nobody uses.
        length: L.
        unknown: the piece that stands for what cannot be cut.
        lower: whether case and accents are dropped, as an `uncased` vocabulary wants.
    """

    USE = "wordpiece"

    def __init__(self, pieces: Sequence[str], *, length: int, unknown: str = "[UNK]", lower: bool = True) -> None:
        _expect(0 < length <= MAX_LENGTH, f"length is {length}; expected 1 to {MAX_LENGTH}")
        _expect(not any(any(map(str.isspace, piece)) for piece in pieces), "a piece holds white space; expected none")
        self.pieces, self.length, self.lower = tuple(pieces), length, lower
        self._codes = {piece: code for code, piece in enumerate(pieces) if piece and code != PADDING}
        _expect(unknown in self._codes, f"the vocabulary has no {unknown!r}, which stands for what it does not know")
        self.unknown = self._codes[unknown]
        self._longest = max(map(len, self._codes))

    @property
    def size(self) -> int:
        """Codes are below it."""
        return len(self.pieces)

    def codes(self, text: str) -> list[int]:
        """See `Tokenizer`."""
        found: list[int] = []
        for word in words_of(text, self.lower):
            found += self._cut(word)
            if len(found) >= self.length:
                break
        return found[: self.length]

    def _cut(self, word: str) -> list[int]:
        if len(word) > LONGEST_WORD:
            return [self.unknown]
        found, start = [], 0
        while start < len(word):
            lead = "##" if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                code = self._codes.get(lead + word[start:end])
                if code is not None:
                    break
            else:
                return [self.unknown]
            found.append(code)
            start = end
        return found

    def described(self) -> dict[str, Any]:
        """See `Tokenizer`."""
        return {
            "use": self.USE,
            "length": self.length,
            "lower": self.lower,
            "unknown": self.pieces[self.unknown],
            "pieces": "\n".join(self.pieces),
        }


PUNCTUATION = frozenset(string.punctuation)


CONTROLS = ("Cc", "Cf", "Co", "Cs")  # not Cn: which characters exist is another year's question


def _is_punctuation(character: str) -> bool:
    return character in PUNCTUATION or unicodedata.category(character).startswith("P")


def _words(text: str) -> Iterator[str]:
    """What stands between white space, each punctuation mark by itself."""
    for chunk in text.split():
        start = 0
        for at, character in enumerate(chunk):
            if _is_punctuation(character):
                if at > start:
                    yield chunk[start:at]
                yield character
                start = at + 1
        if start < len(chunk):
            yield chunk[start:]


def words_of(text: str, lower: bool) -> Iterator[str]:
    """The words of a text, as they are cut into pieces."""
    return _words(_bert_clean(text, lower))


IDEOGRAPHS = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip
"""Written without spaces: each is a word of its own. (BERT's list, with its 2B920 for Unicode's 2B820.)"""


def _bert_clean(text: str, lower: bool) -> str:
    """What BERT does before it cuts: no controls, ideographs apart, and without case and accents where `lower`."""
    kept = []
    for character in text:
        if character in "\t\n\r":
            kept.append(" ")
        elif character in "\0�" or unicodedata.category(character) in CONTROLS:
            continue
        elif character.isspace():
            kept.append(" ")
        elif ord(character) >= 0x3400 and any(low <= ord(character) <= high for low, high in IDEOGRAPHS):
            kept += [" ", character, " "]
        else:
            kept.append(character)
    cleaned = "".join(kept)
    if not lower:
        return cleaned
    bare = (c for c in unicodedata.normalize("NFD", cleaned) if unicodedata.category(c) != "Mn")
    return "".join(map(str.lower, bare))  # one by one: what a letter becomes does not depend on its place


def _ngrams(found: dict[str, Any]) -> Tokenizer:
    numbers = {name: int(found[name]) for name in ("length", "buckets", "words")}
    return Ngrams(**numbers, characters=tuple(int(n) for n in found["characters"]))


def _wordpiece(found: dict[str, Any]) -> Tokenizer:
    pieces = str(found["pieces"]).split("\n")
    return WordPiece(pieces, length=int(found["length"]), unknown=str(found["unknown"]), lower=bool(found["lower"]))


TOKENIZERS: dict[str, Callable[[dict[str, Any]], Tokenizer]] = {"ngrams": _ngrams, "wordpiece": _wordpiece}


def write(path: Path, tokenizer: Tokenizer) -> None:
    """Write `tokenizer.json`; equal tokenizers give equal bytes."""
    text = json.dumps({"format": FORMAT, **tokenizer.described()}, ensure_ascii=False, indent=1) + "\n"
    path.write_bytes(text.encode())


def read(path: Path) -> Tokenizer:
    """Read a tokenizer back.

    Raises:
        EdgeError: the file is missing, or is no tokenizer that this agent runs.

    """
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
        known, use = found["format"] == FORMAT, str(found["use"])
        if not known or use not in TOKENIZERS:
            raise EdgeError(
                f"{path} is a tokenizer {use!r} of format {found['format']}; this agent runs {', '.join(TOKENIZERS)} of "
                f"format {FORMAT}. Update it."
            )
        return TOKENIZERS[use](found)
    except FileNotFoundError:
        raise EdgeError(f"{path} is missing; restore its folder (`dvc checkout`) or fetch it again.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EdgeError(f"{path} is no tokenizer: {error}. Restore it (`dvc checkout`) or fetch it again.") from None


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
