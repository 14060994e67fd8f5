import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.data import splits
from limbeck.data.sources import Source, digits
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


def source(x: int, y: list[int], classes: int = 2) -> Source:
    return Source("made", np.zeros((x, 4), np.uint8), np.array(y, np.int64), tuple(map(str, range(classes))))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (source(0, []), "has 0 samples and 0 labels; expected equal, above 0"),
        (source(3, [0, 1]), "has 3 samples and 2 labels"),
        (source(2, [0, 2]), "has labels 0..2; expected 0..1"),
        (source(8, [0, 0, 0, 0, 0, 0, 0, 1]), "cannot take a stratified test split"),
    ],
)
def test_a_source_that_cannot_be_split_is_refused(tmp_path: Path, made: Source, message: str) -> None:
    with pytest.raises(DataError, match=message):
        splits.write(tmp_path, made, SplitParams(test=0.25, validation=0.25, calibration=0.25), 0)
