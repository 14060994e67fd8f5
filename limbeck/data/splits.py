"""The four splits: made once, stored as `.npy`, described and sealed by `meta.json`. `limbeck.data.prepared` reads them."""

import hashlib
import json
from array import array
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limbeck.atomic import sha256, write_json
from limbeck.data.content import fingerprint
from limbeck.data.npy import NpyWriter
from limbeck.data.prepared import NAMES as NAMES
from limbeck.data.prepared import ORIGIN, TEXTS
from limbeck.data.prepared import Meta as Meta
from limbeck.data.prepared import SplitName as SplitName
from limbeck.data.prepared import read as read
from limbeck.data.prepared import read_meta as read_meta
from limbeck.data.prepared import read_origin as read_origin
from limbeck.data.prepared import read_texts as read_texts
from limbeck.data.prepared import tokenizer_file as tokenizer_file
from limbeck.data.sources.source import Broken, Part, Source
from limbeck.edge import tokenizer as tokenizing
from limbeck.errors import DataError
from limbeck.kinds import kind_of
from limbeck.params import SplitParams

PROGRESS_EVERY = 500
SHOWN = 10
"""How many broken samples a message names."""


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


def divide_groups(
    y: NDArray[np.int64], groups: NDArray[np.int64], classes: tuple[str, ...], params: SplitParams, seed: int
) -> dict[SplitName, NDArray[np.int64]]:
    """Index sets as `divide` gives them, of whole groups: in an order drawn by seed each goes where its classes lack most.

    Args:
        y: [N] class indices.
        groups: [N] of each sample.
        classes: their names, for messages.
        params: shares; they are met as nearly as groups allow.
        seed: of the order.

    Raises:
        DataError: a class has too few groups to stand in train, validation and test.

    """
    shares = {"train": 1 - (params.test or 0) - (params.validation or 0) - params.calibration, "test": params.test,
              "validation": params.validation, "calibration": params.calibration}  # fmt: skip
    taken: list[SplitName] = [name for name in NAMES if shares[name] is not None]
    numbers, of_sample = np.unique(groups, return_inverse=True)
    num_classes = int(y.max()) + 1
    counts_GK = np.bincount(of_sample * num_classes + y, minlength=len(numbers) * num_classes).reshape(-1, num_classes)
    lack_SK = np.outer([shares[name] for name in taken], counts_GK.sum(axis=0)).astype(np.float64)
    owners = np.full(len(numbers), -1)
    order = np.random.default_rng(seed).permutation(len(numbers))
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        empty = [split for split in range(len(taken)) if split not in owners]
        allowed = empty if left <= len(empty) else range(len(taken))
        owner = max(allowed, key=lambda split: float(counts_GK[group] @ lack_SK[split]))
        owners[group] = owner
        lack_SK[owner] -= counts_GK[group]
    parts = {name: np.flatnonzero(owners[of_sample] == split) for split, name in enumerate(taken)}
    for name in (name for name in taken if name != "calibration"):
        missing = np.setdiff1d(y, y[parts[name]])
        if missing.size:
            raise DataError(
                f"class {classes[missing[0]]} has {int((counts_GK[:, missing[0]] > 0).sum())} groups (recordings, people), none of "
                f"which is left for {name}; windows of one group stay together. Add recordings, or change data.split or seed."
            )
    return parts


def deal(strata: NDArray[np.int64], params: SplitParams, seed: int) -> NDArray[np.int8]:
    """The split of each sample, as its place in `NAMES`: seeded, and stratified however small the strata are.

    Samples are shuffled, sorted by stratum, and dealt one by one to the split that is furthest behind its share: any
    run of them, so any stratum, comes out within a sample or two of the shares.

    Args:
        strata: [N] of each sample.
        params: shares; a null one takes none.
        seed: of the shuffle.
    """
    taken = {"test": params.test or 0.0, "validation": params.validation or 0.0, "calibration": params.calibration}
    shares = [taken.get(name, 1 - sum(taken.values())) for name in NAMES]
    behind = [0.0] * len(NAMES)
    owners = np.empty(len(strata), np.int8)
    for index in np.lexsort((np.random.default_rng(seed).permutation(len(strata)), strata)):
        behind = [share + before for share, before in zip(shares, behind, strict=True)]
        owner = behind.index(max(behind))
        behind[owner] -= 1
        owners[index] = owner
    return owners


def complete(source: Source, params: SplitParams, seed: int) -> dict[SplitName, NDArray[np.int64]]:
    """Index sets as `divide` gives them, for a source whose samples have splits already, less those to be divided.

    Raises:
        DataError: a class that is new has too few samples to reach train, validation and test.

    """
    part = source.train
    assert part.assigned is not None
    owners = part.assigned.copy()
    is_new = owners < 0
    origin = np.zeros(len(owners), np.int64) if part.origin is None else part.origin.astype(np.int64)
    strata = part.labels * (origin.max(initial=0) + 1) + origin
    owners[is_new] = deal(strata[is_new], params, seed)
    if params.validation is None:  # the source has split itself; what is left trains, whatever it is of
        return {name: np.flatnonzero(owners == place) for place, name in enumerate(NAMES)}
    for label in np.setdiff1d(part.labels[is_new], part.labels[~is_new]):
        reached = set(owners[part.labels == label].tolist())
        missing = [name for name in NAMES if NAMES.index(name) not in reached and name != "calibration"]
        if missing:
            raise DataError(
                f"source {source.name!r} has {int((part.labels == label).sum())} samples of the new class "
                f"{source.classes[label]}, too few to reach {', '.join(missing)}. Wait for more, or give data.split "
                "larger shares."
            )
    return {name: np.flatnonzero(owners == place) for place, name in enumerate(NAMES)}


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

    Samples that have a split already keep it. A source with windows gets `origin.npy` beside `x` and `y`, too, one of
    texts `text.jsonl`, and `tokenizer.json` beside `meta.json`.
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
    is_assigned = source.train.assigned is not None
    if not is_assigned and source.train.groups is None:
        _check_classes(source, params)
    if (source.test is None) == (params.test is None):
        raise DataError(
            f"source {source.name!r} brings no test split of its own; give data.split.test a share."
            if source.test is None
            else f"source {source.name!r} brings its own test split; set data.split.test to null."
        )
    assigned = source.train.assigned
    has_validation = assigned is not None and bool(np.isin(NAMES.index("validation"), assigned))
    if params.validation is None and not has_validation:
        raise DataError(
            f"source {source.name!r} brings no validation split of its own; give data.split.validation a share."
        )
    if is_assigned:
        parts = complete(source, params, seed)
    elif source.train.groups is not None:
        _check_groups(source)
        parts = divide_groups(source.train.labels, source.train.groups, source.classes, params, seed)
    else:
        parts = divide(source.train.labels, params, seed)
    passes = [(source.train, parts)]
    if source.test is not None:
        passes.append((source.test, {"test": np.arange(len(source.test.labels))}))
    if source.tokenizer is not None:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizing.write(folder / tokenizing.NAME, source.tokenizer)
    writers = {name: _Writer(folder / name, with_texts=source.tokenizer is not None) for name in NAMES}
    broken = _BrokenSamples()
    total = sum(len(part.labels) for part, _ in passes)
    done = 0
    try:
        for part, owned in passes:
            owner = np.empty(len(part.labels), np.int8)
            for name, indices in owned.items():
                owner[indices] = NAMES.index(name)
            origin = _origin_of(part)
            samples = part.samples()
            texts = repeat(None) if part.texts is None else part.texts()
            for position, label in enumerate(part.labels):
                sample, text = next(samples, None), next(texts, None)
                if sample is None:
                    raise DataError(f"source {source.name!r} gave {position} samples for {len(part.labels)} labels.")
                if isinstance(sample, Broken):
                    broken.add(sample)
                else:
                    writers[NAMES[owner[position]]].add(source.name, sample, int(label), int(origin[position]), text)
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
        counts = {name: writer.close(with_origin=bool(source.windows)) for name, writer in writers.items()}
    finally:
        for writer in writers.values():
            writer.abandon()
    empty = [name for name, number in counts.items() if not number]
    if empty:
        raise DataError(f"no sample is left for {', '.join(empty)}; the source gave {sum(counts.values())} in all.")
    return _seal(folder, source, writers, counts, broken.num, max_overlap)


def _origin_of(part: Part) -> NDArray[np.int16]:
    return np.zeros(len(part.labels), np.int16) if part.origin is None else part.origin


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


def _check_groups(source: Source) -> None:
    """What trains must not be examined."""
    own = None if source.test is None else source.test.groups
    both = np.intersect1d([] if own is None else own, [] if source.train.groups is None else source.train.groups)
    if both.size:
        raise DataError(
            f"source {source.name!r} has {both.size} groups (recordings, people) in train and in its own test split; expected "
            "none. Move each to one side."
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


class _Writer(NpyWriter):
    """One split on its way to the disk, with what has to be known of it: digests, mean and spread."""

    def __init__(self, folder: Path, *, with_texts: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._texts = (folder / TEXTS).open("w", encoding="utf-8", newline="\n") if with_texts else None
        super().__init__(folder / "x.npy")
        self.folder = folder
        self.labels, self.digests = array("q"), array("Q")  # lists of int take eight times as much
        self.origins = array("h")
        self._count, self._mean, self._spread = 0, np.zeros(1), np.zeros(1)

    def add(self, source: str, sample: NDArray[Any], label: int, origin: int = 0, text: str | None = None) -> None:
        """Write one sample and learn from it."""
        if not self.takes(sample):
            raise DataError(
                f"source {source!r} gives samples of {self.dtype}{list(self.shape or ())} and of "
                f"{sample.dtype}{list(sample.shape)}; expected one kind."
            )
        raw = sample.tobytes()
        self.labels.append(label)
        self.origins.append(origin)
        if self._texts is not None:
            self._texts.write(json.dumps(text, ensure_ascii=False) + "\n")
        self.digests.append(fingerprint(raw))
        self.append(raw, sample.shape, sample.dtype)

    def look(self, block: bytearray) -> None:
        """Learn mean and spread of what is about to be written."""
        if self.shape is None or kind_of(self.shape, str(self.dtype)) == "codes":
            return
        if self.folder.name == "train" or self.dtype.kind == "f":
            values_NC = np.frombuffer(block, self.dtype).reshape(-1, self.shape[-1] if self.shape else 1)
            self._learn(values_NC.T.astype(np.float64, order="C"))  # sums along rows in memory: 15 times as fast

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
        """Of the samples so far, per channel; empty for codes."""
        return self._mean if self._count else np.zeros(0)

    @property
    def std(self) -> NDArray[np.float64]:
        """Of the samples so far, per channel; empty for codes."""
        deviation: NDArray[np.float64] = np.sqrt(self._spread / self._count) if self._count else np.zeros(0)
        return deviation

    def close(self, *, with_origin: bool = False) -> int:
        """Finish the files; how many samples they hold."""
        self.finish()
        if self._texts is not None:
            self._texts.close()
        np.save(self.folder / "y.npy", np.array(self.labels, np.int64), allow_pickle=False)
        if with_origin:
            np.save(self.folder / ORIGIN, np.array(self.origins, np.int16), allow_pickle=False)
        return self.count

    def abandon(self) -> None:
        """Let go of the files, finished or not."""
        super().abandon()
        if self._texts is not None:
            self._texts.close()


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
    files = ["x.npy", "y.npy", *[ORIGIN] * bool(source.windows), *[TEXTS] * (source.tokenizer is not None)]
    paths = [f"{name}/{file}" for name in NAMES for file in files]
    for name, fill in source.beside.items():
        fill(folder / name)
        paths += sorted(path.relative_to(folder).as_posix() for path in (folder / name).rglob("*") if path.is_file())
    paths += [tokenizing.NAME] * (source.tokenizer is not None)
    digests = {path: sha256(folder / path) for path in paths}
    identity: list[Any] = [source.classes, sorted(digests.items())]
    if source.world is not None:
        identity.append(source.world.model_dump(mode="json"))
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
        digest=hashlib.sha256(json.dumps(identity).encode()).hexdigest(),
        windows=source.windows,
        learned=source.learned,
        world=source.world,
    )
    write_json(folder / "meta.json", meta.model_dump(mode="json"))
    return meta
