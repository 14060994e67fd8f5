"""What people drop: arrays, texts, images, and labels that come late.

    NAME.npz                x [N, ...], perhaps y [N] (indices, -1 for none; or names, "" for none), perhaps `classes`
    NAME.jsonl              an object with `text`, perhaps `label`, in each line; read by the tokenizer of the base data
    NAME/, NAME.zip, NAME.tar.gz ...    images, a folder for each class, those below `unlabelled/` without one
    NAME.labels.csv         `sample,class` or `digest,class`: labels for the window NAME, by what its samples were called
    NAME.request.yaml       no data, and left alone here: what is wanted of the model (limbeck.refresh.requests)

An entry is whole once nothing in it has changed for a while by the clock of the file system (`ctime`, which a copying
program cannot set back as it can `mtime`). What begins with a dot or ends with `.partial`, `.part` or `.tmp` is somebody's
unfinished copy for as long as it is called so: renaming it at the end is the other way to hand in a slow one.
"""

import csv
import hashlib
import io
import json
import math
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from limbeck.atomic import sha256
from limbeck.data.prepared import Meta
from limbeck.data.sources.arrays import header_of, names_in, streamed, whole
from limbeck.data.sources.images import SUFFIXES, image_folder
from limbeck.data.sources.packed import listed
from limbeck.data.sources.source import Broken
from limbeck.data.window import UNLABELLED
from limbeck.edge.tokenizer import TextError, Tokenizer, encode
from limbeck.errors import DataError
from limbeck.windows.checks import Unfit
from limbeck.windows.rules import WindowRules

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LABELS, ARRAYS, TEXTS, REQUEST = ".labels.csv", ".npz", ".jsonl", ".request.yaml"
UNFINISHED = (".partial", ".part", ".tmp")
NO_CLASS = "unlabelled"
"""The folder of images without a label."""

MAX_NAME = 80
AGAIN = "mend it and drop it again under the same name"

Kind: TypeAlias = Literal["arrays", "texts", "images", "labels", "unknown"]
State: TypeAlias = tuple[tuple[str, int, int], ...]
"""Paths below an entry, with sizes and times of change in nanoseconds."""


@dataclass(frozen=True)
class Incoming:
    """Samples on their way in.

    Attributes:
        classes: the known ones, and behind them new ones.
        labels: [N], index into `classes`; -1: none.
        keys: N names of samples.
        samples: starts a pass over the N samples.

    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    keys: Sequence[str]
    samples: Callable[[], Iterator[NDArray[Any] | Broken]]


def is_unfinished(entry: Path) -> bool:
    """Whether an entry's name says that somebody is still copying, or that it is none."""
    return entry.name.startswith(".") or entry.name.endswith(UNFINISHED)


def is_request(entry: Path) -> bool:
    """Whether an entry asks for something instead of bringing samples."""
    return entry.name.lower().endswith(REQUEST) and not is_unfinished(entry)


def kind_of(entry: Path) -> Kind:
    """What an entry is taken for, by its name."""
    name = entry.name.lower()
    if entry.is_symlink():
        return "unknown"
    if entry.is_dir() or (entry.is_file() and name.endswith(ARCHIVES)):
        return "images"
    if name.endswith(LABELS):
        return "labels"
    if name.endswith(TEXTS):
        return "texts"
    return "arrays" if name.endswith(ARRAYS) else "unknown"


def name_of(entry: Path) -> str:
    """The name of an entry's window: letters, digits, `-` and `_`."""
    stem = entry.name
    for endings in (UNFINISHED, (LABELS, ARRAYS, TEXTS, *sorted(ARCHIVES, key=len, reverse=True))):
        cut = next((len(ending) for ending in endings if stem.lower().endswith(ending)), 0)
        stem = stem[: len(stem) - cut]
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:MAX_NAME] or "window"
    return f"{name}-" if name == "aside" else name


def state_of(entry: Path) -> State:
    """What of an entry would differ if it changed.

    Raises:
        OSError: it has gone.

    """
    paths = [entry]
    if entry.is_dir() and not entry.is_symlink():
        paths += [Path(folder) / name for folder, folders, files in os.walk(entry) for name in (*folders, *files)]
    stats = {str(path.relative_to(entry)): path.lstat() for path in sorted(paths)}
    return tuple((name, stat.st_size, stat.st_ctime_ns) for name, stat in stats.items())


def digest_of(entry: Path) -> str:
    """sha256 of an entry's content: of a file its bytes, of a folder the names and digests of its files.

    Raises:
        OSError: it has gone, or cannot be read.

    """
    if entry.is_symlink():
        return hashlib.sha256(os.readlink(entry).encode()).hexdigest()
    if entry.is_file():
        return sha256(entry)
    files = sorted(path for path in entry.rglob("*") if path.is_file())
    content = "\n".join(f"{path.relative_to(entry)}\t{sha256(path)}" for path in files)
    return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


def open_entry(entry: Path, meta: Meta, rules: WindowRules, tokenizer: Tokenizer | None = None) -> Incoming:
    """The samples of an entry.

    Args:
        entry: what was dropped.
        meta: of the base data.
        rules: how much may come.
        tokenizer: that of the base data; None: they are no texts.

    Raises:
        Unfit: it is too large, of another kind, or not laid out as expected.
        DataError: a file in it is damaged.

    """
    kind = kind_of(entry)
    if kind == "arrays":
        return _arrays(entry, meta, rules)
    if kind == "texts":
        return _texts(entry, meta, rules, tokenizer)
    if kind == "images":
        return _images(entry, meta, rules)
    raise Unfit(
        "schema",
        expected=f"NAME{ARRAYS}, NAME{TEXTS}, a folder or NAME{{{','.join(ARCHIVES)}}} of images, or NAME{LABELS}",
        found=f"{entry.name}{', which is a link' if entry.is_symlink() else ''}",
        next_step="drop it in one of these forms",
    )


def check_size(num_bytes: int, num_samples: int, rules: WindowRules) -> None:
    """Refuse what would fill the disk.

    Raises:
        Unfit: too many bytes or samples.

    """
    if num_bytes > rules.max_bytes or num_samples > rules.max_samples:
        raise Unfit(
            "size",
            expected=f"at most {rules.max_mb:,} MB unpacked (max_mb) and {rules.max_samples:,} samples (max_samples)",
            found=f"{num_bytes / 1e6:,.0f} MB, {num_samples:,} samples",
            next_step="drop it in parts",
        )


def _arrays(entry: Path, meta: Meta, rules: WindowRules) -> Incoming:
    names = names_in(entry)
    if not {"x"} <= names <= {"x", "y", "classes"}:
        raise Unfit(
            "schema", expected="x, perhaps y, perhaps classes", found=", ".join(sorted(names)) or "no arrays",
            next_step="save the samples as `np.savez(NAME, x=x, y=y)`",
        )  # fmt: skip
    with zipfile.ZipFile(entry) as archive:
        num_bytes = sum(member.file_size for member in archive.infolist())
    for name in sorted(names):  # before anything is set aside for what a header only claims
        shape, dtype = header_of(entry, name)
        check_size(max(num_bytes, math.prod(shape) * dtype.itemsize), shape[0] if shape else 0, rules)
    shape, dtype = header_of(entry, "x")
    is_grey = dtype == np.uint8 and len(shape) == 3 and len(meta.shape) == 3
    if not shape or ((*shape[1:], 1) if is_grey else shape[1:]) != meta.shape or str(dtype) != meta.dtype:
        raise Unfit(
            "schema",
            expected=f"x: {meta.dtype}{['N', *meta.shape]}, as data/meta.json says".replace("'", ""),
            found=f"{dtype}{list(shape)}",
            next_step=f"convert it as the base data were; {AGAIN}",
        )
    classes, labels = meta.classes, np.full(shape[0], UNLABELLED, np.int64)
    if "y" in names:
        named = tuple(str(name) for name in _checked_names(entry)) if "classes" in names else meta.classes
        classes, labels = _labels(entry, shape[0], meta.classes, named)

    def samples() -> Iterator[NDArray[Any]]:
        for sample in streamed(entry, "x"):
            yield sample[..., None] if is_grey else sample

    return Incoming(classes, labels, [str(number) for number in range(shape[0])], samples)


def _texts(entry: Path, meta: Meta, rules: WindowRules, tokenizer: Tokenizer | None) -> Incoming:
    if tokenizer is None:
        raise Unfit(
            "schema", expected=f"samples of {meta.dtype}{list(meta.shape)}, as data/meta.json says", found="texts",
            next_step=f"drop them as NAME{ARRAYS}",
        )  # fmt: skip
    check_size(entry.stat().st_size, 0, rules)
    names, keys = [], []
    for number, (_, label) in _lines(entry):
        names.append(label)
        keys.append(str(number))
        check_size(0, len(names), rules)
    classes, labels = with_new(meta.classes, names)

    def samples() -> Iterator[NDArray[np.int32] | Broken]:
        for number, (text, _) in _lines(entry):
            try:
                yield encode(tokenizer, text)
            except TextError as error:
                yield Broken(f"{entry.name}:{number}", str(error))

    return Incoming(classes, labels, keys, samples)


def _lines(entry: Path) -> Iterator[tuple[int, tuple[Any, str]]]:
    """Number, text (or what stands for it) and label ("": none) of each line that is not blank."""
    with entry.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                found = error
            label = found.get("label") if isinstance(found, dict) else None
            if not isinstance(found, dict) or "text" not in found or not isinstance(label, str | int | None):
                raise Unfit(
                    "schema", expected='{"text": TEXT}, perhaps with "label": CLASS, on each line, in UTF-8',
                    found=f"line {number}: {line[:80].decode(errors='backslashreplace').strip()}", next_step=AGAIN,
                )  # fmt: skip
            yield number, (found["text"], "" if label is None else str(label))


def _checked_names(entry: Path) -> NDArray[Any]:
    names = whole(entry, "classes")
    if names.ndim != 1 or names.dtype.kind != "U":
        raise Unfit("schema", expected="classes: text [K]", found=f"{names.dtype}{list(names.shape)}", next_step=AGAIN)
    return names


def _labels(
    entry: Path, num: int, known: tuple[str, ...], named: tuple[str, ...]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    y = whole(entry, "y")
    if y.shape != (num,) or y.dtype.kind not in "iuU":
        raise Unfit(
            "schema", expected=f"y: indices or class names [{num}]", found=f"{y.dtype}{list(y.shape)}", next_step=AGAIN
        )
    if y.dtype.kind == "U":
        return with_new(known, [str(name) for name in y])
    if num and (y.min() < UNLABELLED or y.max() >= len(named)):
        raise Unfit(
            "schema",
            expected=f"y between 0 and {len(named) - 1}, or -1",
            found=f"{y.min()}..{y.max()}",
            next_step="give names instead of indices, or `classes` beside them; " + AGAIN,
        )
    return with_new(known, ["" if label == UNLABELLED else named[label] for label in y.tolist()])


def with_new(known: tuple[str, ...], names: Sequence[str]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The classes, with new ones behind the known as they come, and the index [N] of each name; "" has none."""
    index_of = {name: index for index, name in enumerate(known)}
    labels = np.array(
        [index_of.setdefault(name, len(index_of)) if name else UNLABELLED for name in names], np.int64
    ).reshape(-1)
    return tuple(index_of), labels


def _images(entry: Path, meta: Meta, rules: WindowRules) -> Incoming:
    if len(meta.shape) != 3 or meta.dtype != "uint8" or meta.shape[-1] not in (1, 3):
        raise Unfit(
            "schema", expected=f"samples of {meta.dtype}{list(meta.shape)}, as data/meta.json says", found="images",
            next_step=f"drop them as NAME{ARRAYS}",
        )  # fmt: skip
    place = entry.resolve()
    files = listed(place, SUFFIXES)
    check_size(files.num_bytes, len(files.names), rules)
    height, width, channels = meta.shape
    source = image_folder(
        path=str(place), size=height if height == width else None, color="grey" if channels == 1 else "rgb",
        on_error="skip",
    )  # fmt: skip
    if source.test is not None:
        raise Unfit(
            "schema", expected=f"CLASS/* and {NO_CLASS}/*", found="train/ and test/",
            next_step="drop one folder for each class: the intake divides them itself",
        )  # fmt: skip
    names = ["" if name == NO_CLASS else name for name in source.classes]
    classes, labels = with_new(meta.classes, [names[label] for label in source.train.labels.tolist()])
    keys = [files.names[number] for number in range(len(files.names))]
    return Incoming(classes, labels, keys, source.train.samples)


def late_labels(entry: Path, rules: WindowRules) -> tuple[Literal["sample", "digest"], dict[str, str]]:
    """By what samples are named in a NAME.labels.csv, and the class of each.

    Raises:
        Unfit: it is no such table.

    """
    check_size(entry.stat().st_size, 0, rules)
    how = "drop a UTF-8 table with the columns sample,class or digest,class; `limbeck windows show NAME --samples` has both"
    try:
        rows = list(csv.reader(io.StringIO(entry.read_text(encoding="utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unfit("schema", expected="a UTF-8 table", found=str(error), next_step=how) from None
    head, body = (rows[0] if rows else []), [row for row in rows[1:] if row]
    if len(head) != 2 or head[0] not in ("sample", "digest") or head[1] != "class":
        raise Unfit("schema", expected="sample,class or digest,class", found=",".join(head), next_step=how)
    said: dict[str, str] = {}
    for number, row in enumerate(body, start=2):
        if len(row) != 2 or not row[0] or not row[1] or said.setdefault(row[0], row[1]) != row[1]:
            raise Unfit(
                "schema", expected="a sample and one class on each line", found=f"line {number}: {','.join(row)[:80]}",
                next_step=how,
            )  # fmt: skip
    return ("sample" if head[0] == "sample" else "digest"), said


def check_readable(error: Exception) -> Unfit:
    """What a damaged file becomes."""
    if isinstance(error, Unfit):
        return error
    return Unfit("unreadable", expected="files that can be read", found=str(error), next_step=AGAIN)


READ_ERRORS = (
    Unfit, DataError, FileNotFoundError, ValueError, KeyError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip
"""What reading files of others raises where they are damaged."""
