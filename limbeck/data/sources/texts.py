"""Texts with labels, from jsonl, csv or json; a sample is what the tokenizer makes of one: codes int32 [L]."""

import csv
import json
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from limbeck.components import Among, Component
from limbeck.data.prepared import NAMES
from limbeck.data.sources import tokenizers
from limbeck.data.sources.source import Broken, OnError, Part, Source, located
from limbeck.edge.tokenizer import TextError, Tokenizer, encode
from limbeck.errors import DataError

HOW = (
    "Expected NAME.jsonl (an object with a text and a label in each line), NAME.csv with a header, or NAME.json "
    "(lists of [text, label], by the name of the split)."
)
BOM = "﻿"
OWN = {"train": 0, "validation": 1, "calibration": 2, "test": 3}
assert tuple(OWN) == NAMES


class Row(NamedTuple):
    """One line: where it stands, its text and its label; bytes where it is no UTF-8."""

    place: str
    text: Any
    label: Any


Rows: TypeAlias = Callable[[], Iterator[Row]]


def texts(
    *,
    train: str,
    tokenizer: Annotated[Component, Among(tokenizers.TOKENIZERS, "tokenizer")],
    validation: str | None = None,
    test: str | None = None,
    text: str = "text",
    label: str = "label",
    classes: Annotated[list[str], Field(min_length=2)] | None = None,
    on_error: OnError = "fail",
    get: str | None = None,
) -> Source:
    """Texts and their classes. Memory holds labels; texts are read anew for each pass.

    A place is a file, or of a json that holds several lists `FILE.json#KEY`, or `FILE.json#KEY+KEY2` of both.

    Args:
        train: where the texts are; below $LIMBECK_DATA when it is relative.
        tokenizer: `{use: wordpiece, ...}` or `{use: ngrams, ...}`, see `limbeck.data.sources.tokenizers`.
        validation: the data set's own validation split; null: `data.split.validation` takes a share of `train`.
        test: its own test split; null: `data.split.test` takes a share of `train`.
        text: the key or column of the text.
        label: of the label.
        classes: names, in the order of the logits. Null: those of `train`, sorted.
        on_error: what texts do that are empty, no UTF-8, or of nothing that the vocabulary knows.
        get: how to get the files, told when they are absent.

    Raises:
        DataError: a file is missing or is none of these, has no such key or column, or a label that is no class.

    """
    places = [place for place in (train, validation) if place is not None]
    passes = [_rows(place, text, label, get or HOW) for place in places]
    found = [_labels(rows) for rows in passes]
    names = tuple(classes) if classes is not None else tuple(sorted({name for name, _ in found[0].counts.items()}))
    if len(set(names)) < max(2, len(names)):
        raise DataError(f"{train}: expected two and more classes, each named once, found {', '.join(names) or 'none'}.")
    parts = [each.indices(names, place) for each, place in zip(found, places, strict=True)]
    made = tokenizers.make(Component.model_validate(tokenizer), lambda: _sound(passes[0]))
    assigned = None
    if validation is not None:  # what is trained on is still to be divided: calibration is a share of it
        assigned = np.repeat(np.array([-1, OWN["validation"]], np.int8), [len(y) for y in parts])
    joined = _part(passes, np.concatenate(parts), made, assigned)
    if test is None:
        return Source(Path(_file_of(train)).stem, names, joined, on_error=on_error, tokenizer=made)
    rows = _rows(test, text, label, get or HOW)
    own = _part([rows], _labels(rows).indices(names, test), made, None)
    return Source(Path(_file_of(train)).stem, names, joined, own, on_error, tokenizer=made)


def _part(passes: list[Rows], labels: NDArray[np.int64], tokenizer: Tokenizer, assigned: Any) -> Part:
    def rows() -> Iterator[Row]:
        for each in passes:
            yield from each()

    def samples() -> Iterator[NDArray[np.int32] | Broken]:
        for row in rows():
            try:
                yield encode(tokenizer, row.text)
            except TextError as error:
                yield Broken(row.place, str(error))

    return Part(labels, samples, assigned, texts=lambda: (row.text for row in rows()))


def _sound(rows: Rows) -> Iterator[str]:
    """The texts that are text, to learn pieces from."""
    return (row.text for row in rows() if isinstance(row.text, str))


class _Labels:
    """Labels [N] of a pass, as places in the names met."""

    def __init__(self) -> None:
        self.order, self.counts = array("q"), dict[str, int]()
        self.first = dict[str, str]()

    def add(self, name: str, place: str) -> None:
        self.order.append(self.counts.setdefault(name, len(self.counts)))
        self.first.setdefault(name, place)

    def indices(self, names: tuple[str, ...], place: str) -> NDArray[np.int64]:
        """[N] into `names`.

        Raises:
            DataError: a label is none of them.
        """
        index_of = {name: index for index, name in enumerate(names)}
        foreign = [name for name in self.counts if name not in index_of]
        if foreign:
            raise DataError(
                f"{self.first[foreign[0]]}: the label {foreign[0]!r} is none of the {len(names)} classes"
                f"{f' (nor are {len(foreign) - 1} more labels of {place})' if len(foreign) > 1 else ''}. Name all classes "
                "in data.source.classes, or leave such texts out."
            )
        table = np.array([index_of[name] for name in self.counts], np.int64)
        return table[np.array(self.order, np.int64)] if self.order else np.zeros(0, np.int64)


def _labels(rows: Rows) -> _Labels:
    found = _Labels()
    for row in rows():
        if not isinstance(row.label, str | int) or isinstance(row.label, bool) or row.label == "":
            raise DataError(f"{row.place}: the label is {row.label!r}; expected the name of a class.")
        found.add(str(row.label), row.place)
    return found


def _file_of(place: str) -> str:
    return place.partition("#")[0]


def _rows(place: str, text: str, label: str, how: str) -> Rows:
    """What starts a pass over a place."""
    name, _, keys = place.partition("#")
    file = located(name, how)
    readers: dict[str, Callable[[], Iterator[Row]]] = {
        ".jsonl": lambda: _jsonl(file, text, label),
        ".csv": lambda: _csv(file, text, label),
        ".json": lambda: _json(file, keys.split("+") if keys else []),
    }
    if file.suffix.lower() not in readers or (keys and file.suffix.lower() != ".json"):
        raise DataError(f"{place} is none of {', '.join(readers)}{' with a #KEY' if keys else ''}. {HOW}")
    return readers[file.suffix.lower()]


def _jsonl(file: Path, text: str, label: str) -> Iterator[Row]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            place = f"{file}:{number}"
            if not line.strip():
                continue
            try:
                found = json.loads(line.decode("utf-8-sig") if number == 1 else line)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{place} is no UTF-8: {error.reason} at byte {error.start}. Recode the file."
                ) from None
            except ValueError as error:
                raise DataError(f"{place} is no JSON: {error}. {HOW}") from None
            if not isinstance(found, dict) or text not in found or label not in found:
                shown = ", ".join(found) if isinstance(found, dict) else type(found).__name__
                raise DataError(
                    f"{place} has no {text!r} and {label!r}; found {shown or 'nothing'}. See data.source.text, .label."
                )
            yield Row(place, found[text], found[label])


def _csv(file: Path, text: str, label: str) -> Iterator[Row]:
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            if text not in columns or label not in columns:
                raise DataError(
                    f"{file} has no columns {text!r} and {label!r}; its first line names {', '.join(columns) or 'none'}. "
                    "See data.source.text and .label."
                )
            for row in reader:
                place = f"{file}:{reader.line_num}"
                if row[text] is None or row[label] is None:
                    raise DataError(f"{place} has too few columns; expected {len(columns)}.")
                said: Any = row[text]
                if not said.isascii() and any("\udc80" <= c <= "\udcff" for c in said):
                    said = said.encode("utf-8", "surrogateescape")  # bytes that are no UTF-8: `encode` says where
                yield Row(place, said, row[label])
    except csv.Error as error:
        raise DataError(f"{file} is no CSV: {error}. {HOW}") from None


def _json(file: Path, keys: list[str]) -> Iterator[Row]:
    """The lists of a json file; it is in memory as long as a pass over it lasts."""
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise DataError(f"{file} is no JSON: {error}. {HOW}") from None
    if not keys and isinstance(found, list):
        found, keys = {"": found}, [""]
    if not isinstance(found, dict) or not keys or any(not isinstance(found.get(key), list) for key in keys):
        names = ", ".join(found) if isinstance(found, dict) else type(found).__name__
        raise DataError(
            f"{file} has no list{' of ' + ' and '.join(keys) if keys else ''}; it holds {names}. Name one: {file.name}#KEY."
        )
    for key in keys:
        for number, pair in enumerate(found[key], start=1):
            place = f"{file}{'#' + key if key else ''}, entry {number}"
            if not isinstance(pair, list) or len(pair) != 2:
                raise DataError(f"{place} is {str(pair)[:40]!r}; expected [text, label].")
            yield Row(place, *pair)
