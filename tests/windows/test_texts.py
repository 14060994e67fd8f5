"""Texts that are dropped: read by the tokenizer of the base data, or set aside with a reason."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from limbeck.components import Component, bind
from limbeck.data import splits
from limbeck.data.sources import SOURCES
from limbeck.data.window import UNLABELLED, read_window
from limbeck.edge import tokenizer
from limbeck.params import SplitParams
from tests.windows.conftest import RULES, Yard

NGRAMS = {"use": "ngrams", "length": 8, "buckets": 4096, "words": 1, "characters": []}
WORDS = {"weather": ("rain", "sun", "wind", "snow"), "music": ("song", "band", "radio", "drums")}


def requests(num: int, start: int = 0) -> list[tuple[str, str]]:
    return [
        (f"{WORDS[label][n % 4]} number {n}", label)
        for n in range(start, start + num)
        for label in ("weather", "music")
    ]


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def texts(tmp_path: Path, yard: Yard) -> Yard:
    """A yard whose base data are texts."""
    file = write_lines(tmp_path / "base.jsonl", [{"text": text, "label": label} for text, label in requests(60)])
    source = bind(
        Component.model_validate({"use": "texts", "train": str(file), "tokenizer": NGRAMS}), SOURCES, "source"
    )()
    splits.write(tmp_path / "base", source, SplitParams(test=0.2, validation=0.2, calibration=0.1), 0)
    return replace(yard, data=tmp_path / "base")


def test_dropped_texts_become_the_codes_that_a_device_would_make(texts: Yard) -> None:
    rows: list[Any] = [{"text": text, "label": label} for text, label in requests(20, start=100)]
    rows[0].pop("label")
    rows[1]["label"] = None
    rows.append({"text": " "})
    write_lines(texts.drop / "morning.jsonl", rows)
    (arrived,) = texts.take(teacher=None).arrived
    assert (arrived.name, arrived.reasons) == ("morning", ())
    window = read_window(arrived.folder)
    made = tokenizer.read(texts.data / tokenizer.NAME)
    assert np.array_equal(
        np.load(arrived.folder / "x.npy"), tokenizer.encode_all(made, [row["text"] for row in rows[:-1]])
    )
    assert window.y[:4].tolist() == [UNLABELLED, UNLABELLED, 1, 0]
    assert window.about.counts.broken == 1


def test_codes_outside_of_the_table_are_refused(texts: Yard) -> None:
    x = np.arange(1, 241, dtype=np.int32).reshape(30, 8) % 63 + 1
    x[:3, 0], x[3, 0] = 4096, -1
    texts.put("codes.npz", x=x)
    (arrived,) = texts.take(RULES.model_copy(update={"max_unusable": 0.1}), teacher=None).arrived
    (reason,) = arrived.reasons
    assert (reason.check, reason.found) == ("unusable", "4 of 30: 0 broken, 0 not finite, 4 out of range")


@pytest.mark.parametrize(
    "line", ['["rain", "weather"]', '{"label": "weather"}', '{"text": "rain", "label": []}', "{", "\xff"]
)
def test_what_is_no_text_with_a_label_sets_the_entry_aside(texts: Yard, line: str) -> None:
    texts.drop.mkdir()
    (texts.drop / "odd.jsonl").write_bytes(b'{"text": "hail"}\n' + line.encode("latin-1") + b"\n")
    (reason,) = texts.take(teacher=None).arrived[0].reasons
    assert reason.check == "schema"
    assert reason.expected.startswith('{"text": TEXT}')
    assert reason.found.startswith("line 2: ")


def test_texts_for_a_model_of_pictures_are_set_aside(yard: Yard) -> None:
    write_lines(yard.drop / "words.jsonl", [{"text": "rain"}])
    (reason,) = yard.take().arrived[0].reasons
    assert (reason.expected, reason.found) == ("samples of uint8[4, 4, 1], as data/meta.json says", "texts")
