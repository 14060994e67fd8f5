"""What a request means on a device, beside what one would do instead: quantize the teacher, or train without one.

The teacher, ONNX Runtime's dynamic quantization of it, a network of averaged embeddings of words and their pairs that saw labels
alone (as fastText), scikit-learn's logistic regression over TF-IDF, and what the recipe made, with its twin that had no teacher.
All read the same test texts; times are from a text to its class, tokenizer included, in interleaved rounds, one thread. The
second figure is what each refuses that belongs to no class. Needs the workspace of `recipes/intents.yaml`, finished.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.places import ROOT
from limbeck import checkpoint, models
from limbeck import params as params_file
from limbeck.components import Component
from limbeck.data.prepared import SplitName, read, read_texts, tokenizer_file
from limbeck.data.sources.source import located
from limbeck.distillation import begun, train_student
from limbeck.edge import tokenizer
from limbeck.edge.session import open_session
from limbeck.evaluation import accuracy, estimate, paired_difference
from limbeck.export import to_onnx
from limbeck.params import StudentParams, Unused
from limbeck.rejection import confidence, judge, threshold

RECIPE = ROOT / "recipes/intents.yaml"
WORKSPACE = ROOT / "work/intents"
TARGET = "phone"
FOREIGN = "clinc150/data_full.json"
"""Its `oos_val` chooses each threshold, its `oos_test` examines it."""
EPOCHS = 20
AVERAGED_WORDS = Component(use="ngram_embedding", rows=[10000, 4096], width=64, hidden=256, dropout=0.3)  # type: ignore[call-arg]
TEACHER, DYNAMIC, AVERAGED, LINEAR, ALONE, DISTILLED, INT8 = (
    *("teacher, fp32", "teacher, ONNX Runtime dynamic int8", "averaged embeddings, no teacher, fp32"),
    *(
        "TF-IDF and logistic regression, fp32",
        "student, no teacher, fp32",
        "student, distilled, fp32",
        "the same, int8",
    ),
)
LIMITS = {"megabytes of model and tokenizer": 1.5, "points of test accuracy lost to the teacher": 1.5}
Answers = Callable[[list[str]], NDArray[np.floating[Any]]]


class Row(NamedTuple):
    """What answers texts by logits, and the bytes that it needs."""

    answers: Answers
    num_bytes: int


class _Silent:
    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Nobody asks."""

    def curve(self, row: dict[str, float | str]) -> None:
        """Nobody looks."""


def averaged(place: Path, values: params_file.Params) -> Path:
    """Train a network of averaged embeddings on labels alone; its file."""
    train = values.targets[TARGET].student.train.model_copy(update={"epochs": EPOCHS})
    student = StudentParams(model=AVERAGED_WORDS, train=train)
    (place / "scratch").mkdir()
    data = WORKSPACE / "data"
    network, _ = train_student(
        student, Unused(use="none"), data=data, labels=WORKSPACE / "labels", teacher=WORKSPACE / "models/teacher",
        metric="accuracy", seed=values.seed, report=_Silent(place / "scratch"), arm="averaged",
    )  # fmt: skip
    spec, _ = begun(student, data, values.seed)
    to_onnx(place / "averaged.onnx", network, spec, values.targets[TARGET].export.opset, {})
    return place / "averaged.onnx"


def files_of(place: Path, values: params_file.Params) -> dict[str, Path]:
    """Every ONNX file by what it is; those that the pipeline has no use for are made here."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    exported = WORKSPACE / "export" / TARGET
    logging.getLogger().setLevel(logging.ERROR)  # it advises to preprocess, which changes nothing here
    quantize_dynamic(exported / "teacher.onnx", place / "dynamic.onnx", weight_type=QuantType.QInt8)
    spec, network = models.load(WORKSPACE / "models" / TARGET / "control")
    to_onnx(place / "alone.onnx", network, spec, values.targets[TARGET].export.opset, {})
    return {
        TEACHER: exported / "teacher.onnx", DYNAMIC: place / "dynamic.onnx", AVERAGED: averaged(place, values),
        ALONE: place / "alone.onnx", DISTILLED: exported / "student.onnx", INT8: exported / "model.int8.onnx",
    }  # fmt: skip


def of_file(file: Path, made: tokenizer.Tokenizer, tokenizer_bytes: int) -> Row:
    """An ONNX file behind the tokenizer, as an agent runs it."""
    session = open_session(file, 1)

    def answers(texts: list[str]) -> NDArray[np.floating[Any]]:
        codes = tokenizer.encode_all(made, texts)
        parts = [session.run(None, {"input": codes[at : at + 100]})[0] for at in range(0, len(codes), 100)]
        return np.concatenate(parts)

    return Row(answers, file.stat().st_size + tokenizer_bytes)


def linear() -> Row:
    """Words and their pairs, weighed; the regularization is chosen on validation. Bytes: its numbers in fp32 and its terms."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    terms = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2)
    x, y = terms.fit_transform(texts_of("train")), read(WORKSPACE / "data", "train")[1]
    x_val, y_val = terms.transform(texts_of("validation")), read(WORKSPACE / "data", "validation")[1]
    fitted = [LogisticRegression(C=c, max_iter=200).fit(x, y) for c in (10, 100)]
    best = max(fitted, key=lambda each: float(each.score(x_val, y_val)))
    vocabulary = len("\n".join(terms.vocabulary_).encode())
    numbers = best.coef_.size + best.intercept_.size + terms.idf_.size
    return Row(lambda texts: best.decision_function(terms.transform(texts)), 4 * numbers + vocabulary)


def texts_of(split: SplitName) -> list[str]:
    """The texts of a split."""
    return [str(text) for text in read_texts(WORKSPACE / "data", split)]


def p50_us(rows: dict[str, Row], texts: list[str], rounds: int, runs: int) -> dict[str, float]:
    """Median time of one text, by row; rounds are interleaved, and each begins with some that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    chosen: Iterator[str] = iter(texts * (rounds * (runs + 5) * len(rows) // len(texts) + 1))
    for _ in range(rounds):
        for name, row in rows.items():
            for run in range(runs + 5):
                text = [next(chosen)]
                began = time.perf_counter()
                row.answers(text).argmax()
                if run >= 5:
                    seconds[name].append(time.perf_counter() - began)
    return {name: 1e6 * float(np.median(each)) for name, each in seconds.items()}


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Ask and time everything about the finished workspace; other params than the default's mean fewer rounds."""
    if not (WORKSPACE / "registry" / f"{TARGET}.json").exists():
        raise SystemExit(f"text: {WORKSPACE} holds no finished run. Next: make run RECIPE=intents")
    place = place / "text"
    place.mkdir()
    data = WORKSPACE / "data"
    values, how = params_file.load(WORKSPACE / "params.yaml"), params_file.load(params).measure
    file = tokenizer_file(data)
    assert file is not None
    made, size = tokenizer.read(file), file.stat().st_size
    rows = {name: of_file(path, made, size) for name, path in files_of(place, values).items()}
    rows = {
        name: rows[name] if name in rows else linear()
        for name in (TEACHER, DYNAMIC, AVERAGED, LINEAR, ALONE, DISTILLED, INT8)
    }
    foreign = json.loads(located(FOREIGN, "").read_text(encoding="utf-8"))
    own, labels = {split: texts_of(split) for split in ("validation", "test")}, read(data, "test")[1]
    told: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    for name, row in rows.items():
        outside = {key: row.answers([text for text, _ in foreign[key]]) for key in ("oos_val", "oos_test")}
        logits = row.answers(own["test"])
        below = threshold(confidence(row.answers(own["validation"])), confidence(outside["oos_val"]))
        scores[name] = accuracy(logits, labels)
        told[name] = {
            "accuracy": estimate(scores[name], how.bootstrap, how.seed),
            "lost": paired_difference(scores[TEACHER], scores[name], how.bootstrap, how.seed),
            "bytes": row.num_bytes,
            "threshold": below,
            "rejection": judge(logits, labels, outside["oos_test"], below)._asdict(),
        }
    for name, each in p50_us(rows, own["test"], how.rounds, how.runs_per_round).items():
        told[name]["p50_us"] = each
    ships = {"model.fp32": DISTILLED, "model.int8": INT8}[
        json.loads((WORKSPACE / "registry" / f"{TARGET}.json").read_text(encoding="utf-8"))["variant"]
    ]
    return {
        "niceness": os.nice(0), "load": os.getloadavg()[0], "seconds": {}, "texts": len(labels),
        "foreign": len(foreign["oos_test"]), "tokenizer_bytes": size, "teacher": checkpoint.digest_of(WORKSPACE / "models/teacher"),
        "ships": ships, "files": told,
        "ratios": {
            "megabytes of model and tokenizer": told[ships]["bytes"] / 1e6,
            "points of test accuracy lost to the teacher": 100 * told[ships]["lost"]["value"],
        },
        "limits": LIMITS,
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """The rows of docs/text.md."""
    lines = [
        "| what answers | test accuracy | lost to the teacher, points | bytes | p50, µs | confidence from | right then | foreign refused |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in result["files"].items():
        share, lost, then = row["accuracy"], row["lost"], row["rejection"]
        told = (
            "" if name == TEACHER else f"{100 * lost['value']:.1f} [{100 * lost['low']:.1f}, {100 * lost['high']:.1f}]"
        )
        bold = "**" if name == result["ships"] else ""
        lines.append(
            f"| {bold}{name}{bold} | {100 * share['value']:.2f} % [{100 * share['low']:.1f}, {100 * share['high']:.1f}] | {told} | "
            f"{row['bytes']:,} | {row['p50_us']:,.0f} | {row['threshold']:.2f} | {100 * then['right']:.1f} % | {100 * then['refused']:.1f} % |"
        )
    return "\n".join(lines)
