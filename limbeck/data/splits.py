"""The four splits: made once, stored as `.npy`, described and sealed by `meta.json`, read memory-mapped."""

import hashlib
import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from limbeck.atomic import sha256, write_json
from limbeck.data.sources.source import Broken, Source
from limbeck.errors import DataError
from limbeck.params import SplitParams

SplitName: TypeAlias = Literal["train", "validation", "calibration", "test"]
NAMES: tuple[SplitName, ...] = ("train", "validation", "calibration", "test")
PROGRESS_EVERY = 500
BLOCK_BYTES = 1 << 18
"""About how much of a split waits to be written."""

SHOWN = 10
"""How many broken samples a message names."""


class Meta(BaseModel):
    """What `data/meta.json` says.

    Attributes:
        mean: of the training split, per channel, in raw units.
        std: likewise.
        overlap: how many test samples stand in another split, too, byte for byte.
        skipped: how many samples could not be read and were left out.

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


def divide(y: NDArray[np.int64], params: SplitParams, seed: int) -> dict[SplitName, NDArray[np.int64]]:
    """Stratified, seeded index sets, each ascending; together every sample once. A null share takes none.

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


def write(
    folder: Path,
    source: Source,
    params: SplitParams,
    seed: int,
    *,
    max_overlap: float = 0.0,
    progress: Callable[[int, int, str], None] = lambda *_: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Meta:
    """Split a source and write `folder/{train,validation,calibration,test}/{x,y}.npy` and `meta.json`.

    Samples pass through one by one: memory holds labels, 8 bytes of digest per sample, and no sample.

    Args:
        folder: where to.
        source: what to split.
        params: shares. With a test split of the source's own, `test` is null and the shares are of the rest.
        seed: of the split.
        max_overlap: which share of the test samples may stand in another split, too.
        progress: told of samples written.
        warn: told of samples that are left out.

    Raises:
        DataError: no samples, labels outside the classes, a split that cannot be stratified, samples of different
            shapes, broken samples (all of them counted), or too many test samples that other splits hold, too.

    """
    for part in filter(None, (source.train, source.test)):
        _check_labels(source, part.labels)
    _check_classes(source, params)
    if (source.test is None) == (params.test is None):
        raise DataError(
            f"source {source.name!r} brings no test split of its own; give data.split.test a share."
            if source.test is None
            else f"source {source.name!r} brings its own test split; set data.split.test to null."
        )
    parts = divide(source.train.labels, params, seed)
    passes = [(source.train, parts)]
    if source.test is not None:
        passes.append((source.test, {"test": np.arange(len(source.test.labels))}))
    writers = {name: _Writer(folder / name) for name in NAMES}
    broken = _BrokenSamples()
    total = sum(len(part.labels) for part, _ in passes)
    done = 0
    try:
        for part, owned in passes:
            owner = np.empty(len(part.labels), np.int8)
            for name, indices in owned.items():
                owner[indices] = NAMES.index(name)
            samples = part.samples()
            for position, label in enumerate(part.labels):
                sample = next(samples, None)
                if sample is None:
                    raise DataError(f"source {source.name!r} gave {position} samples for {len(part.labels)} labels.")
                if isinstance(sample, Broken):
                    broken.add(sample)
                else:
                    writers[NAMES[owner[position]]].add(source.name, sample, int(label))
                done += 1
                if done % PROGRESS_EVERY == 0 or done == total:
                    progress(done, total, f"{done:,} of {total:,} samples")
            if next(samples, None) is not None:
                raise DataError(f"source {source.name!r} gave more samples than its {len(part.labels)} labels.")
        if broken.num and source.on_error == "fail":
            raise DataError(
                f"{broken.num:,} of {total:,} samples cannot be read:{broken.listed()}\n"
                "Mend or remove them, or give the data source on_error: skip."
            )
        if broken.num:
            warn(f"{broken.num:,} of {total:,} samples cannot be read and are left out:{broken.listed()}")
        counts = {name: writer.close() for name, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.abandon()
    empty = [name for name, number in counts.items() if not number]
    if empty:
        raise DataError(f"no sample is left for {', '.join(empty)}; the source gave {sum(counts.values())} in all.")
    return _seal(folder, source, writers, counts, broken.num, max_overlap)


def _check_labels(source: Source, labels: NDArray[Any]) -> None:
    if len(labels) == 0:
        raise DataError(f"source {source.name!r} has no samples.")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(f"source {source.name!r} has labels {labels.dtype}{list(labels.shape)}; expected integers [N].")
    if labels.min() < 0 or labels.max() >= len(source.classes):
        raise DataError(
            f"source {source.name!r} has labels {labels.min()}..{labels.max()}; expected 0..{len(source.classes) - 1}."
        )


def _check_classes(source: Source, params: SplitParams) -> None:
    """A class has to reach every split that is taken of it; one that has no sample at all is left alone."""
    expected = 3 + (params.test is not None)
    counts = np.bincount(source.train.labels, minlength=len(source.classes))
    short = [
        f"{source.classes[label]} ({counts[label]})" for label in np.flatnonzero((counts > 0) & (counts < expected))
    ]
    if short:
        more = f" and {len(short) - SHOWN} more" if len(short) > SHOWN else ""
        raise DataError(
            f"source {source.name!r} has too few samples of {', '.join(short[:SHOWN])}{more}; expected at least "
            f"{expected} of each class, one for each split that is taken. Add some, or leave the class out."
        )


class _BrokenSamples:
    """How many, and the first ones."""

    def __init__(self) -> None:
        self.num, self._first = 0, list[Broken]()

    def add(self, sample: Broken) -> None:
        self.num += 1
        if len(self._first) < SHOWN:
            self._first.append(sample)

    def listed(self) -> str:
        """A line for each of the first."""
        shown = "".join(f"\n  {each.path}: {each.reason}" for each in self._first)
        more = self.num - len(self._first)
        return shown + (f"\n  and {more:,} more" if more else "")


class _Writer:
    """One split on its way to the disk, with what has to be known of it: digests, mean and spread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.labels, self.digests = array("q"), array("Q")  # lists of int take eight times as much
        self.shape: tuple[int, ...] | None = None
        self.dtype = np.dtype(np.uint8)
        self._stream = (folder / "x.npy").open("wb")
        self._header_size, self._block = 0, bytearray()
        self._count, self._mean, self._spread = 0, np.zeros(1), np.zeros(1)

    def add(self, source: str, sample: NDArray[Any], label: int) -> None:
        """Write one sample and learn from it."""
        if self.shape is None:
            self.shape, self.dtype = sample.shape, sample.dtype
            self._write_header(0)
            self._header_size = self._stream.tell()
        if (sample.shape, sample.dtype) != (self.shape, self.dtype):
            raise DataError(
                f"source {source!r} gives samples of {self.dtype}{list(self.shape)} and of "
                f"{sample.dtype}{list(sample.shape)}; expected one kind."
            )
        raw = sample.tobytes()
        self.labels.append(label)
        self.digests.append(int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little"))
        self._block += raw
        if len(self._block) >= BLOCK_BYTES:
            self._write_block()

    def _write_block(self) -> None:
        self._stream.write(self._block)
        if self.shape is not None and (self.folder.name == "train" or self.dtype.kind == "f"):
            values_NC = np.frombuffer(self._block, self.dtype).reshape(-1, self.shape[-1] if self.shape else 1)
            self._learn(values_NC.T.astype(np.float64, order="C"))  # sums along rows in memory: 15 times as fast
        self._block = bytearray()

    def _learn(self, values_CN: NDArray[np.float64]) -> None:
        """Mean and sum of squared differences per channel (Chan, Golub and LeVeque 1983, eq. 2.1)."""
        if not np.isfinite(values_CN).all():
            raise DataError(
                f"among the last of {len(self.labels):,} {self.folder.name} samples stands a value that is no finite "
                "number; expected none (NaN, infinity)."
            )
        count, mean = values_CN.shape[1], values_CN.mean(axis=1)
        values_CN -= mean[:, None]
        delta, total = mean - self._mean, self._count + count
        self._spread = (
            self._spread + np.einsum("cn,cn->c", values_CN, values_CN) + delta**2 * self._count * count / total
        )
        self._mean = self._mean + delta * count / total
        self._count = total

    @property
    def mean(self) -> NDArray[np.float64]:
        """Of the samples so far, per channel."""
        return self._mean

    @property
    def std(self) -> NDArray[np.float64]:
        """Of the samples so far, per channel."""
        deviation: NDArray[np.float64] = np.sqrt(self._spread / max(1, self._count))
        return deviation

    def _write_header(self, count: int) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False,
                  "shape": (count, *(self.shape or ()))}  # fmt: skip
        np.lib.format.write_array_header_1_0(self._stream, header)

    def close(self) -> int:
        """Finish both files; how many samples they hold."""
        if self.shape is not None:
            if self._block:
                self._write_block()
            self._stream.seek(0)
            self._write_header(len(self.labels))  # numpy's header leaves room for any count
            assert self._stream.tell() == self._header_size
        self._stream.close()
        np.save(self.folder / "y.npy", np.array(self.labels, np.int64), allow_pickle=False)
        return len(self.labels)

    def abandon(self) -> None:
        """Let go of the file, finished or not."""
        self._stream.close()


def _seal(
    folder: Path, source: Source, writers: dict[SplitName, _Writer], counts: dict[SplitName, int], skipped: int,
    max_overlap: float,
) -> Meta:  # fmt: skip
    """Hold test against the rest, then describe and seal what was written."""
    rest = np.concatenate([np.array(writers[name].digests, np.uint64) for name in NAMES if name != "test"])
    overlap = int(np.isin(np.array(writers["test"].digests, np.uint64), rest).sum())
    if overlap > max_overlap * counts["test"]:
        raise DataError(
            f"{overlap} of {counts['test']} test samples stand in another split, too (data.max_overlap allows "
            f"{max_overlap:g} of them): a model may know them by heart. Remove the doubles, or raise data.max_overlap."
        )
    train = writers["train"]
    assert train.shape is not None
    paths = [f"{name}/{key}.npy" for name in NAMES for key in ("x", "y")]
    digests = {path: sha256(folder / path) for path in paths}
    meta = Meta(
        name=source.name,
        classes=source.classes,
        shape=train.shape,
        dtype=str(train.dtype),
        counts={str(name): count for name, count in counts.items()},
        mean=tuple(round(float(value), 6) for value in train.mean),
        std=tuple(round(max(float(value), 1e-3), 6) for value in train.std),
        overlap=overlap,
        skipped=skipped,
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
