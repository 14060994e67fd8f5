"""What a device makes of a text: word pieces as BERT's own library cuts them, hashed n-grams, and clear words for what is none."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.edge import EdgeError, tokenizer
from limbeck.edge.tokenizer import Ngrams, TextError, Tokenizer, WordPiece, encode, encode_all

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "play",
    "##ing",
    "##er",
    "un",
    "##play",
    "?",
    "$",
    "musik",
    "das",
    "3",
    "##0",
    "音",
]
PIECE = WordPiece(PIECES, length=8)
GRAMS = Ngrams(length=32, buckets=1000, words=2, characters=(3,))
BOTH = pytest.mark.parametrize("made", [PIECE, GRAMS], ids=["wordpiece", "ngrams"])
# letters whose category and case Unicode has not touched for long: the library's tables are of another year than Python's
LETTERS = st.one_of(
    st.characters(min_codepoint=9, max_codepoint=0x24F),
    st.characters(min_codepoint=0x391, max_codepoint=0x3A1),
    st.characters(min_codepoint=0x400, max_codepoint=0x44F),
    st.sampled_from("音楽を再生éÉıßſ\ufeff\u200b\u00a0\u3000\U0001f600"),
)
WRITTEN = st.lists(st.one_of(LETTERS, st.sampled_from([" ", "play", "playing", "unplayer", "30"])), max_size=12).map(
    "".join
)


def named(*codes: int) -> list[str]:
    return [PIECES[code] for code in codes]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Playing?", ["play", "##ing", "?"]),
        ("unplayer", ["un", "##play", "##er"]),
        ("das Müsik, MUSIK", ["das", "musik", "[UNK]", "musik"]),  # no accents and no case; a comma nobody knows
        ("$30", ["$", "3", "##0"]),
        ("play音play", ["play", "音", "play"]),
        ("playx play", ["[UNK]", "play"]),  # a word that cannot be cut to its end is unknown as a whole
        ("pl\x00a\tplay", ["[UNK]", "play"]),
        ("play " * 20, ["play"] * 8),
        ("x" * 101, ["[UNK]"]),
    ],
)
def test_words_are_cut_into_their_longest_pieces(text: str, pieces: list[str]) -> None:
    assert named(*PIECE.codes(text)) == pieces


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("plaYing  unplayer 30", [4, 5, 7, 8, 6, 13, 14]),
        ("PLAY\xa0PLAYER", [4, 4, 6]),
        ("ＰＬＡＹ", [1]),
        ("pläying", [4, 5]),
        ("音play音", [15, 4, 15]),
        ("play\u3000ing", [4, 1]),
        ("play\u200bing", [4, 5]),
        ("un?er", [7, 9, 1]),
        ("\ufeffplay", [4]),
        ("musıK", [1]),
        ("ßplay", [1]),
        ("\U0001f600 play", [1, 4]),
        ("re音生play", [1, 15, 1, 4]),
    ],
)
def test_word_pieces_are_those_of_the_library(text: str, ids: list[int]) -> None:
    """Golden values: BertWordPieceTokenizer(vocab, lowercase=True).encode(text, add_special_tokens=False).ids of tokenizers 0.23.3."""
    assert PIECE.codes(text) == ids


@BOTH
@given(text=WRITTEN)
def test_a_text_becomes_codes_of_one_length_padded_with_0_or_is_refused(made: Tokenizer, text: str) -> None:
    try:
        codes = encode(made, text)
    except TextError:
        return
    num = int((codes != 0).sum())
    assert codes.dtype == np.int32
    assert codes.shape == (made.length,)
    assert num > 0
    assert (codes[:num] != 0).all()
    assert codes.max() < made.size


@BOTH
def test_a_tokenizer_comes_back_from_its_file_to_the_code(made: Tokenizer, tmp_path: Path) -> None:
    tokenizer.write(tmp_path / "tokenizer.json", made)
    written = (tmp_path / "tokenizer.json").read_bytes()
    again = tokenizer.read(tmp_path / "tokenizer.json")
    assert again.codes("play das 30?") == made.codes("play das 30?")
    tokenizer.write(tmp_path / "tokenizer.json", again)
    assert (tmp_path / "tokenizer.json").read_bytes() == written


def test_n_grams_are_of_words_then_of_characters_within_one() -> None:
    assert list(GRAMS.grams("Play ＭＥ")) == [
        "w play",
        "w me",
        "w play me",
        "c <pl",
        "c pla",
        "c lay",
        "c ay>",
        "c <me",
        "c me>",
    ]


def test_hashes_are_the_same_everywhere() -> None:
    assert GRAMS.codes("play") == [158, 502, 328, 760, 888]


@BOTH
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"the text '' is empty; expected at least one word"),
        (" \n\t ", "is empty"),
        (b"caf\xe9", "the text is no UTF-8: byte 3 is 0xe9. Recode it"),
        ("caf\udce9", "half a character"),
        ("a" * 20_001, "has 20,001 characters; a request has up to 20,000"),
        (3, "expected a text, found int"),
    ],
)
def test_what_is_no_request_is_told(made: Tokenizer, text: str, message: str) -> None:
    with pytest.raises(TextError, match=message):
        encode(made, text)


def test_a_script_that_the_vocabulary_lacks_is_told() -> None:
    with pytest.raises(TextError, match="holds no piece that the vocabulary knows"):
        encode(PIECE, "включи музыку")


def test_of_several_texts_the_one_is_named() -> None:
    with pytest.raises(TextError, match="text 2 of 2: the text '' is empty"):
        encode_all(PIECE, ["play", ""])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("{", "is no tokenizer"),
        ("[]", "is no tokenizer"),
        (json.dumps({"format": 1, "use": "sentencepiece"}), "a tokenizer 'sentencepiece' of format 1; this agent runs ngrams, wordpiece"),
        (json.dumps({"format": 2, "use": "ngrams"}), "of format 2"),
        (json.dumps({"format": 1, "use": "ngrams", "length": 4}), "is no tokenizer: 'buckets'"),
        (json.dumps({"format": 1, "use": "wordpiece", "length": 4, "unknown": "?", "lower": True, "pieces": "a\nb"}), "has no '[?]'"),
        (json.dumps({"format": 1, "use": "ngrams", "length": 0, "buckets": 9, "words": 1, "characters": []}), "length is 0"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_tokenizer_is_told(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(EdgeError, match=message):
        tokenizer.read(path)
