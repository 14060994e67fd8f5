"""Texts from jsonl, csv and json: what is read, what is refused, and what lies in the prepared folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.components import Component
from limbeck.data import prepared, splits
from limbeck.data.sources import open_source, tokenizers
from limbeck.edge import tokenizer
from limbeck.errors import ComponentError, DataError
from limbeck.params import SplitParams

GRAMS = {"use": "ngrams", "length": 12, "buckets": 500, "words": 2, "characters": []}
SPLIT = SplitParams(test=0.2, validation=0.2, calibration=0.1)
ROWS = [(f"please play song number {n}", "play") for n in range(20)] + [
    (f"stop it after {n} minutes", "stop") for n in range(20)
]


def jsonl(folder: Path, rows: list[tuple[Any, Any]] = ROWS, name: str = "all.jsonl") -> Path:
    path = folder / name
    path.write_text(
        "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows), encoding="utf-8"
    )
    return path


def source(train: Path | str, **keywords: Any) -> Any:
    return open_source(Component.model_validate({"use": "texts", "train": str(train), "tokenizer": GRAMS, **keywords}))


def csv(folder: Path) -> Path:
    path = folder / "all.csv"
    path.write_text("text,label\n" + "".join(f'"{text}",{label}\n' for text, label in ROWS), encoding="utf-8-sig")
    return path


def pairs(folder: Path) -> str:
    path = folder / "all.json"
    path.write_text(json.dumps({"one": [list(row) for row in ROWS[:20]], "two": [list(row) for row in ROWS[20:]]}))
    return f"{path}#one+two"


@pytest.mark.parametrize("write", [jsonl, csv, pairs])
def test_the_same_texts_are_read_from_every_kind_of_file(tmp_path: Path, write: Any) -> None:
    found = source(write(tmp_path))
    assert found.classes == ("play", "stop")
    assert found.train.labels.tolist() == [0] * 20 + [1] * 20
    for _ in range(2):  # each pass begins anew
        rows = list(found.train.samples())
        assert [row.tolist() for row in rows] == [tokenizer.encode(found.tokenizer, text).tolist() for text, _ in ROWS]
    assert list(found.train.texts()) == [text for text, _ in ROWS]


def test_prepared_texts_lie_beside_their_codes_and_the_tokenizer_beside_meta(tmp_path: Path) -> None:
    found = source(jsonl(tmp_path))
    meta = splits.write(tmp_path / "data", found, SPLIT, 0)
    assert (meta.shape, meta.dtype, meta.mean, meta.std) == ((12,), "int32", (), ())
    file = prepared.tokenizer_file(tmp_path / "data")
    assert file is not None
    again = tokenizer.read(file)
    for split in prepared.NAMES:
        x, _ = prepared.read(tmp_path / "data", split)
        texts = [text or "" for text in prepared.read_texts(tmp_path / "data", split)]
        assert np.array_equal(tokenizer.encode_all(again, texts), x)
    file.write_bytes(file.read_bytes().replace(b"500", b"501"))
    with pytest.raises(DataError, match=r"tokenizer.json has changed since it was prepared"):
        prepared.tokenizer_file(tmp_path / "data")


def test_another_tokenizer_is_other_data(tmp_path: Path) -> None:
    place = jsonl(tmp_path)
    metas = [
        splits.write(tmp_path / str(length), source(place, tokenizer={**GRAMS, "length": length}), SPLIT, 0)
        for length in (12, 13)
    ]
    assert metas[0].digest != metas[1].digest


def test_a_data_set_keeps_its_own_splits(tmp_path: Path) -> None:
    own = [(f"own {text}", label) for text, label in ROWS[:5] + ROWS[-5:]]
    exam = [(f"exam {text}", label) for text, label in ROWS[:5] + ROWS[-5:]]
    found = source(
        jsonl(tmp_path),
        validation=str(jsonl(tmp_path, own, "own.jsonl")),
        test=str(jsonl(tmp_path, exam, "exam.jsonl")),
    )
    shares = SplitParams(test=None, validation=None, calibration=0.1)
    splits.write(tmp_path / "data", found, shares, 0)
    texts = {split: list(prepared.read_texts(tmp_path / "data", split)) for split in prepared.NAMES}
    assert texts["validation"] == [text for text, _ in own]
    assert texts["test"] == [text for text, _ in exam]
    assert sorted(map(str, [*texts["train"], *texts["calibration"]])) == sorted(text for text, _ in ROWS)
    assert len(texts["calibration"]) == 4


def test_texts_that_are_none_are_counted_or_left_out(tmp_path: Path) -> None:
    place = jsonl(tmp_path, [*ROWS, ("", "play"), ("  ", "stop"), (None, "stop")])
    with pytest.raises(DataError, match=r"3 of 43 samples cannot be read:\n.*all.jsonl:41: the text '' is empty"):
        splits.write(tmp_path / "data", source(place), SPLIT, 0)
    warnings: list[str] = []
    meta = splits.write(tmp_path / "data", source(place, on_error="skip"), SPLIT, 0, warn=warnings.append)
    assert (meta.skipped, len(warnings)) == (3, 1)
    assert sum(len(list(prepared.read_texts(tmp_path / "data", split))) for split in prepared.NAMES) == 40


def test_bytes_of_another_encoding_are_told_by_place(tmp_path: Path) -> None:
    path = csv(tmp_path)
    path.write_bytes(path.read_bytes() + "caf\xe9,play\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"all.csv:42: the text is no UTF-8: byte 3 is 0xe9"):
        splits.write(tmp_path / "data", source(path), SPLIT, 0)
    lines = jsonl(tmp_path)
    lines.write_bytes(lines.read_bytes() + b'{"text": "caf\xe9", "label": "play"}\n')
    with pytest.raises(DataError, match=r"all.jsonl:41 is no UTF-8: .* at byte 13"):
        source(lines)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"text": "a"', "a.jsonl:1 is no JSON"),
        ("a.jsonl", '{"words": "a", "label": "b"}', "a.jsonl:1 has no 'text' and 'label'; found words, label"),
        ("a.jsonl", '{"text": "a", "label": null}', "a.jsonl:1: the label is None; expected the name of a class"),
        ("a.jsonl", "", "expected two and more classes, each named once, found none"),
        ("a.csv", "said,what\na,b\n", "has no columns 'text' and 'label'; its first line names said, what"),
        ("a.csv", "text,label\na\n", "a.csv:2 has too few columns; expected 2"),
        ("a.json", '{"train": [["a", "b", "c"]]}', "has no list; it holds train. Name one: a.json#KEY"),
        ("a.json#val", '{"train": []}', "has no list of val; it holds train"),
        ("a.json#train", '{"train": [["a", "b", "c"]]}', r"#train, entry 1 is .*; expected \[text, label\]"),
        ("a.json", "[", "is no JSON"),
        ("a.txt", "a", "a.txt is none of .jsonl, .csv, .json"),
        ("a.csv#train", "text,label\n", "is none of .jsonl, .csv, .json with a #KEY"),
    ],
)
def test_files_that_are_none_of_these_are_told(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name.partition("#")[0]).write_text(content)
    with pytest.raises(DataError, match=message):
        source(tmp_path / name)


def test_what_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.jsonl is missing .*Ask for it"):
        source(tmp_path / "a.jsonl", get="Ask for it.")


def test_a_label_of_test_that_train_has_not_is_told(tmp_path: Path) -> None:
    other = jsonl(tmp_path, [("sing", "sing")], "other.jsonl")
    with pytest.raises(DataError, match=r"other.jsonl:1: the label 'sing' is none of the 2 classes"):
        source(jsonl(tmp_path), test=str(other))


def test_a_tokenizer_is_a_component_of_its_own_kind(tmp_path: Path) -> None:
    place = jsonl(tmp_path)
    with pytest.raises(ComponentError, match="no tokenizer 'ngram'; did you mean 'ngrams'"):
        source(place, tokenizer={**GRAMS, "use": "ngram"})
    with pytest.raises(ComponentError, match="tokenizer 'ngrams' has no keyword 'bucket'"):
        source(place, tokenizer={**GRAMS, "bucket": 3})


def test_a_vocabulary_is_read_from_a_teachers_folder(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[unused0]\n[UNK]\nplay\n##ing\n")
    made = tokenizers.make(
        Component(use="wordpiece", length=4, vocabulary=str(tmp_path), size=None, lower=True), lambda: iter(())
    )
    assert made.codes("playing along") == [3, 4, 2]
    assert made.codes("[unused0]") == [2, 2, 2], "a place that nobody uses"
    with pytest.raises(DataError, match="give `vocabulary` a folder, or `size` a number"):
        tokenizers.make(Component(use="wordpiece", length=4, lower=True, vocabulary=None, size=None), lambda: iter(()))
    (tmp_path / "vocab.txt").write_text("play\n##ing\n")
    with pytest.raises(DataError, match=r"the vocabulary has no '\[UNK\]'.*Expected a BERT-like model's folder"):
        tokenizers.make(
            Component(use="wordpiece", length=4, vocabulary=str(tmp_path), size=None, lower=True), lambda: iter(())
        )


def test_part_of_a_vocabulary_cuts_the_texts_seen_here_as_the_whole(tmp_path: Path) -> None:
    others = [f"word{number}" for number in range(80)]
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "a", "##b", *others, "play", "##ing"]) + "\n")
    keywords = {"use": "wordpiece", "length": 4, "vocabulary": str(tmp_path), "lower": True}
    whole, part = (
        tokenizers.make(Component.model_validate({**keywords, "size": size}), lambda: iter(["playing word79"]))
        for size in (None, 64)
    )
    assert isinstance(whole, tokenizer.WordPiece)
    assert isinstance(part, tokenizer.WordPiece)
    assert part.size == 64
    assert [part.pieces[code] for code in part.codes("playing word79")] == ["play", "##ing", "word79"]
    assert [part.pieces[code] for code in part.codes("ab")] == ["a", "##b"], "letters stay, to spell with"
    with pytest.raises(DataError, match="the texts need 86 pieces, size is 64"):
        tokenizers.make(Component.model_validate({**keywords, "size": 64}), lambda: iter([*others, "playing ab"]))


def test_a_vocabulary_trained_here_is_the_same_each_time(tmp_path: Path) -> None:
    component = Component(use="wordpiece", length=16, vocabulary=None, size=100, lower=True)
    first, second = (tokenizers.make(component, lambda: (text for text, _ in ROWS)) for _ in range(2))
    assert first.described() == second.described()
    assert first.size <= 100
    assert len(first.codes("please stop")) < len("please stop")
