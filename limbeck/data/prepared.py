"""What `prepare` wrote, read back: splits memory-mapped, `meta.json`, and where new samples came from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from limbeck.data.content import intact
from limbeck.data.window import Origin
from limbeck.data.worlds import World
from limbeck.edge.tokenizer import NAME as TOKENIZER
from limbeck.errors import DataError

SplitName: TypeAlias = Literal["train", "validation", "calibration", "test"]
NAMES: tuple[SplitName, ...] = ("train", "validation", "calibration", "test")
ORIGIN = "origin.npy"
TEXTS = "text.jsonl"
"""Beside `x.npy` and `y.npy` of texts: the texts themselves, one JSON string a line, in the order of the samples."""


class Meta(BaseModel):
    """What `data/meta.json` says.

    Attributes:
        mean: of the training split, per channel, in raw units; of codes there is none.
        std: likewise.
        overlap: how many test samples stand in another split, too, byte for byte.
        skipped: how many samples could not be read and were left out.
        windows: where new samples came from, when they stand beside old ones: `origin.npy` of a split says i for a
            sample of the i-th (counted from 1), 0 for an old one.
        learned: windows that the models before have learned from, the oldest first: -i for a sample of the i-th.
        world: of decisions: the world that they are made in, where a metric may play.

    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    counts: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    overlap: int
    skipped: int
    sha256: dict[str, str]
    digest: str
    windows: tuple[Origin, ...] = ()
    learned: tuple[Origin, ...] = ()
    world: World | None = None

    @model_serializer(mode="wrap")
    def _without_what_there_is_not(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        written: dict[str, Any] = dump(self)
        # younger than the format: a file that does not use them stays as it was
        for key in ("windows", "learned", "world"):
            if not getattr(self, key):
                del written[key]
        return written


def read_meta(folder: Path) -> Meta:
    """Read `meta.json`.

    Raises:
        DataError: it is missing or not what `prepare` writes.

    """
    try:
        raw: Any = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return Meta.model_validate(raw)
    except FileNotFoundError:
        raise DataError(f"{folder}/meta.json is missing; run `dvc repro prepare`.") from None
    except (ValueError, ValidationError) as error:
        raise DataError(
            f"{folder}/meta.json is not what prepare writes: {error}. Run `dvc repro -f prepare`."
        ) from None


def read(folder: Path, name: SplitName) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Memory-map one split: x [N, ...] raw and y [N], after checking both against `meta.json`.

    Raises:
        DataError: an array is missing or its bytes are not the ones that were prepared.

    """
    x = np.load(_checked(folder, f"{name}/x.npy"), mmap_mode="r", allow_pickle=False)
    y = np.load(_checked(folder, f"{name}/y.npy"), mmap_mode="r", allow_pickle=False)
    return x, y


def read_origin(folder: Path, name: SplitName) -> NDArray[np.int16]:
    """Where each sample of a split came from, [N].

    0 for old ones, i for the i-th of `meta.windows`, counted from 1, and -i for the i-th of `meta.learned`.

    Raises:
        DataError: the array is missing or its bytes are not the ones that were prepared.

    """
    meta = read_meta(folder)
    if not meta.windows:
        return np.zeros(meta.counts[name], np.int16)
    origin: NDArray[np.int16] = np.load(_checked(folder, f"{name}/{ORIGIN}"), allow_pickle=False)
    return origin


def tokenizer_file(folder: Path) -> Path | None:
    """The `tokenizer.json` that made the codes of prepared texts; None of other data.

    Raises:
        DataError: it is missing, or is not the one that was prepared.

    """
    return _checked(folder, TOKENIZER) if TOKENIZER in read_meta(folder).sha256 else None


def read_texts(folder: Path, name: SplitName) -> Iterator[str | None]:
    """The texts of a split, one by one, None where one is not known.

    Raises:
        DataError: the data hold none, or their bytes are not the ones that were prepared.

    """
    with _checked(folder, f"{name}/{TEXTS}").open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _checked(folder: Path, file: str) -> Path:
    """The path of a prepared array, once its bytes are those that `meta.json` tells."""
    return intact(
        folder / file, read_meta(folder).sha256.get(file),
        since="it was prepared", restore="data", other=", or run `dvc repro prepare`",
    )  # fmt: skip
