"""The four splits: made once, stored as `.npy`, described and sealed by `meta.json`, read memory-mapped."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from limbeck.atomic import sha256, write_json
from limbeck.data.sources import Source
from limbeck.errors import DataError
from limbeck.params import SplitParams

SplitName: TypeAlias = Literal["train", "validation", "calibration", "test"]
NAMES: tuple[SplitName, ...] = ("train", "validation", "calibration", "test")


class Meta(BaseModel):
    """What `data/meta.json` says. `mean` and `std` are of the training split, per channel, in raw units."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    counts: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sha256: dict[str, str]
    digest: str


def divide(y: NDArray[np.int64], params: SplitParams, seed: int) -> dict[SplitName, NDArray[np.int64]]:
    """Stratified, seeded index sets, each ascending; together every sample once.

    Raises:
        DataError: a class is too small to stand in every split.

    """
    from sklearn.model_selection import train_test_split

    left = np.arange(len(y))
    parts: dict[SplitName, NDArray[np.int64]] = {}
    for name, share in (("test", params.test), ("validation", params.validation), ("calibration", params.calibration)):
        if share is None:
            continue
        try:
            left, taken = train_test_split(
                left, test_size=round(share * len(y)), random_state=seed, stratify=y[left], shuffle=True
            )
        except ValueError as error:
            raise DataError(
                f"cannot take a stratified {name} split of {share:g} from {len(y)} samples: {error} "
                "Give data.split larger shares, or the source more samples."
            ) from None
        parts[name] = np.sort(taken)  # type: ignore[index]
    parts["train"] = np.sort(left)
    return parts


def write(folder: Path, source: Source, params: SplitParams, seed: int) -> Meta:
    """Split a source and write `folder/{train,validation,calibration,test}/{x,y}.npy` and `meta.json`.

    Raises:
        DataError: empty source, labels outside the classes, or a split that cannot be stratified.

    """
    if len(source.x) == 0 or len(source.x) != len(source.y):
        raise DataError(
            f"source {source.name!r} has {len(source.x)} samples and {len(source.y)} labels; expected equal, above 0."
        )
    if source.y.min() < 0 or source.y.max() >= len(source.classes):
        raise DataError(
            f"source {source.name!r} has labels {source.y.min()}..{source.y.max()}; expected 0..{len(source.classes) - 1}."
        )
    if params.test is None:
        raise DataError(f"source {source.name!r} brings no test split of its own; give data.split.test a share.")
    parts = divide(source.y, params, seed)
    digests = {}
    for name in NAMES:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for key, values in (("x", source.x), ("y", source.y)):
            path = folder / name / f"{key}.npy"
            np.save(path, np.ascontiguousarray(values[parts[name]]), allow_pickle=False)
            digests[f"{name}/{key}.npy"] = sha256(path)
    train = source.x[parts["train"]]
    axes = tuple(range(train.ndim - 1))
    meta = Meta(
        name=source.name,
        classes=source.classes,
        shape=source.x.shape[1:],
        dtype=str(source.x.dtype),
        counts={name: len(parts[name]) for name in NAMES},
        mean=tuple(round(float(value), 6) for value in train.mean(axis=axes, dtype=np.float64)),
        std=tuple(round(max(float(value), 1e-3), 6) for value in train.std(axis=axes, dtype=np.float64)),
        sha256=digests,
        digest=hashlib.sha256(json.dumps([source.classes, sorted(digests.items())]).encode()).hexdigest(),
    )
    write_json(folder / "meta.json", meta.model_dump(mode="json"))
    return meta


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
    meta = read_meta(folder)
    arrays = []
    for key in ("x", "y"):
        path = folder / name / f"{key}.npy"
        if not path.exists():
            raise DataError(f"{path} is missing; `dvc checkout data` restores it, or run `dvc repro prepare`.")
        expected, found = meta.sha256[f"{name}/{key}.npy"], sha256(path)
        if found != expected:
            raise DataError(
                f"{path} has changed since it was prepared: expected sha256 {expected[:16]}..., found {found[:16]}.... "
                "`dvc checkout --force data` restores it."
            )
        arrays.append(np.load(path, mmap_mode="r", allow_pickle=False))
    return arrays[0], arrays[1]
