import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data import npy, splits
from limbeck.data.sources.digits import digits
from limbeck.data.sources.source import Broken, OnError, Part, Source, in_memory
from limbeck.errors import DataError
from limbeck.params import Params, SplitParams


@given(seed=st.integers(0, 2**31 - 1), test=st.floats(0.1, 0.5))
def test_splits_hold_every_sample_once_and_every_class(seed: int, test: float) -> None:
    y = np.repeat(np.arange(4), 50)
    parts = splits.divide(y, SplitParams(test=test, validation=0.15, calibration=0.1), seed)
    together = np.concatenate(list(parts.values()))
    assert sorted(together) == list(range(200))
    assert all(set(y[indices]) == {0, 1, 2, 3} for indices in parts.values())


def test_the_same_seed_gives_the_same_bytes_another_seed_others(tmp_path: Path, data: Path, tiny: Params) -> None:
    again = splits.write(tmp_path / "again", digits(), tiny.data.split, tiny.seed)
    other = splits.write(tmp_path / "other", digits(), tiny.data.split, tiny.seed + 1)
    assert again == splits.read_meta(data)
    assert other.digest != again.digest


def test_arrays_are_memory_mapped(data: Path) -> None:
    x, y = splits.read(data, "train")
    assert isinstance(x, np.memmap)
    assert x.shape[1:] == (8, 8, 1)
    assert x.dtype == np.uint8
    assert y.dtype == np.int64


def test_a_prepared_array_that_changed_is_refused(tmp_path: Path, data: Path) -> None:
    changed = tmp_path / "data"
    shutil.copytree(data, changed)
    x = np.load(changed / "train" / "x.npy")
    x[0, 0, 0, 0] ^= 1
    np.save(changed / "train" / "x.npy", x)
    with pytest.raises(DataError, match=r"train/x.npy has changed since it was prepared: expected sha256 .* found"):
        splits.read(changed, "train")


def source(x: int, y: list[Any], classes: int = 2, **more: Any) -> Source:
    samples = np.arange(4 * x, dtype=np.uint8).reshape(x, 4)
    return Source("made", tuple(map(str, range(classes))), Part(np.array(y), lambda: iter(samples)), **more)


QUARTERS = SplitParams(test=0.25, validation=0.25, calibration=0.25)
OWN_TEST = SplitParams(test=None, validation=0.25, calibration=0.25)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (source(0, []), "source 'made' has no samples"),
        (source(9, [0] * 4 + [1] * 8), "gave 9 samples for 12 labels"),
        (source(2, [0, 2]), "has labels 0..2; expected 0..1"),
        (source(2, [-1, 0]), "has labels -1..0; expected 0..1"),
        (
            source(8, [0] * 7 + [1]),
            r"too few samples of 1 \(1\); expected at least 4 of each class, one for each split",
        ),
        (source(8, [0.0, 1.0] * 4), r"has labels float64\[8\]; expected integers"),
        (source(8, [0, 1] * 4, test=in_memory(np.zeros((2, 4), np.uint8), [0, 1])), "set data.split.test to null"),
        (source(9, [0, 1] * 4), "gave more samples than its 8 labels"),
    ],
)
def test_a_source_that_cannot_be_split_is_refused(tmp_path: Path, made: Source, message: str) -> None:
    with pytest.raises(DataError, match=message):
        splits.write(tmp_path, made, QUARTERS, 0)


def test_without_a_test_split_of_its_own_a_source_needs_a_share(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="brings no test split of its own; give data.split.test a share"):
        splits.write(tmp_path, source(8, [0, 1] * 4), OWN_TEST, 0)


def test_a_sources_own_test_split_stays_as_it_is(tmp_path: Path) -> None:
    test = np.arange(100, 112, dtype=np.uint8).reshape(3, 4)
    meta = splits.write(tmp_path, source(8, [0, 1] * 4, test=in_memory(test, [1, 0, 1])), OWN_TEST, 0)
    assert meta.counts == {"train": 4, "validation": 2, "calibration": 2, "test": 3}
    x, y = splits.read(tmp_path, "test")
    assert (x == test).all()
    assert y.tolist() == [1, 0, 1]


def test_what_is_streamed_has_the_bytes_of_what_numpy_would_save(tmp_path: Path) -> None:
    made = source(40, [0, 1] * 20)
    meta = splits.write(tmp_path, made, QUARTERS, 0)
    x = np.stack(list(made.train.samples()))
    for name, indices in splits.divide(made.train.labels, QUARTERS, 0).items():
        stream = io.BytesIO()
        np.save(stream, x[indices])
        assert (tmp_path / name / "x.npy").read_bytes() == stream.getvalue()
    train = np.load(tmp_path / "train/x.npy")
    assert meta.mean == pytest.approx(train.mean(axis=0), abs=1e-6)
    assert meta.std == pytest.approx(train.std(axis=0), abs=1e-6)


def test_a_split_too_small_for_every_class_is_refused(tmp_path: Path) -> None:
    shares = SplitParams(test=0.02, validation=0.25, calibration=0.25)
    with pytest.raises(DataError, match=r"cannot take a stratified test split of 0.02 from 40 samples"):
        splits.write(tmp_path, source(40, [0, 1] * 20), shares, 0)


def test_values_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    x = np.ones((40, 4), np.float32)
    x[7, 2] = np.nan
    made = Source("made", ("a", "b"), in_memory(x, np.array([0, 1] * 20)))
    with pytest.raises(DataError, match="stands a value that is no finite number"):
        splits.write(tmp_path, made, QUARTERS, 0, max_overlap=1)


@pytest.mark.parametrize("num_bytes", [4, 12])  # samples of four: a last block that is full, one that is not
def test_a_split_larger_than_a_block_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int
) -> None:
    whole = splits.write(tmp_path / "whole", source(40, [0, 1] * 20), QUARTERS, 0)
    monkeypatch.setattr(npy, "BLOCK_BYTES", num_bytes)
    assert splits.write(tmp_path / "blocks", source(40, [0, 1] * 20), QUARTERS, 0) == whole


@given(st.lists(st.integers(0, 255), min_size=8, max_size=60))
def test_mean_and_spread_are_those_of_all_values_however_they_come(values: list[int]) -> None:
    samples = np.array(values[: len(values) // 4 * 4], np.uint8).reshape(-1, 2, 2)
    with tempfile.TemporaryDirectory() as folder:
        writer = splits._Writer(Path(folder) / "train")
        for sample in samples:
            writer.add("made", sample, 0)
        writer.close()
    assert writer.mean == pytest.approx(samples.reshape(-1, 2).mean(axis=0))
    assert writer.std == pytest.approx(samples.reshape(-1, 2).std(axis=0), abs=1e-9)


def test_samples_of_two_kinds_are_refused(tmp_path: Path) -> None:
    part = Part(np.array([0, 1] * 4), lambda: iter([np.zeros(4, np.uint8)] * 4 + [np.zeros(5, np.uint8)] * 4))
    with pytest.raises(DataError, match=r"samples of uint8\[4\] and of uint8\[5\]; expected one kind"):
        splits.write(tmp_path, Source("made", ("a", "b"), part), QUARTERS, 0, max_overlap=1)


def with_broken(on_error: OnError) -> Source:
    def samples() -> Iterator[Any]:
        for number in range(40):
            yield Broken(f"{number}.png", "cut short") if number % 4 == 3 else np.full(4, number, np.uint8)

    return Source("made", ("a", "b"), Part(np.array([0, 1] * 20), samples), on_error=on_error)


def test_every_broken_sample_is_counted_and_the_first_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"(?s)10 of 40 samples cannot be read:\n  3.png: cut short.*on_error: skip"):
        splits.write(tmp_path, with_broken("fail"), QUARTERS, 0)


def test_broken_samples_can_be_left_out_with_their_labels(tmp_path: Path) -> None:
    told: list[str] = []
    meta = splits.write(tmp_path, with_broken("skip"), QUARTERS, 0, warn=told.append)
    assert told[0].startswith("10 of 40 samples cannot be read and are left out:\n  3.png: cut short\n")
    assert (meta.skipped, sum(meta.counts.values())) == (10, 30)
    for name in splits.NAMES:
        x, y = splits.read(tmp_path, name)
        assert (x[:, 0] % 2 == y).all()


def test_test_samples_that_stand_in_another_split_are_refused_above_a_share(tmp_path: Path) -> None:
    doubled = np.zeros((3, 4), np.uint8), [0, 1, 0]
    made = source(
        8, [0, 1] * 4, test=in_memory(np.concatenate([doubled[0], np.arange(4, dtype=np.uint8)[None]]), [0, 1, 0, 1])
    )
    with pytest.raises(
        DataError, match=r"1 of 4 test samples stand in another split, too \(data.max_overlap allows 0.2"
    ):
        splits.write(tmp_path, made, OWN_TEST, 0, max_overlap=0.2)
    assert splits.write(tmp_path, made, OWN_TEST, 0, max_overlap=0.25).overlap == 1
