"""Sensor series that arrive later are taken in and compared as pictures are."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from limbeck.data import splits
from limbeck.data.sources.recordings import Recording, part_of
from limbeck.data.sources.source import Source
from limbeck.data.window import read_about, read_window
from limbeck.drift.signals import coarse, statistics
from limbeck.params import SplitParams
from limbeck.windows import shelf
from limbeck.windows.intake import take_in
from tests.windows.conftest import RULES


def swings(num: int, seed: int, size: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Windows [N, 40, 2] of two tempi, and which."""
    chance = np.random.default_rng(seed)
    y = np.arange(num) % 2
    phase = 2 * np.pi * (chance.random((num, 1)) + np.array([0.05, 0.15])[y][:, None] * np.arange(40))
    x = size * np.stack([np.sin(phase), np.cos(phase)], axis=2) + chance.normal(0, 0.1, (num, 40, 2))
    return x.astype(np.float32), y


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x, y = swings(100, 0)
    recordings = [Recording(str(number), label, number // 2, 40) for number, label in enumerate(y.tolist())]
    source = Source("swings", ("slow", "fast"), part_of(recordings, lambda: x, 40, 40))
    folder = tmp_path_factory.mktemp("series") / "data"
    splits.write(folder, source, SplitParams(test=0.2, validation=0.2, calibration=0.1), seed=0)
    return folder


def dropped(place: Path, base: Path, **arrays: NDArray[np.generic]) -> Path:
    """The folder that an entry becomes."""
    (place / "drop").mkdir()
    np.savez(place / "drop/day.npz", **arrays)  # type: ignore[arg-type]
    (arrived,) = take_in(place / "drop", place / "windows", base, RULES, now=2e9).arrived
    return arrived.folder


def test_labelled_series_become_a_window_without_those_that_hold_no_number(base: Path, tmp_path: Path) -> None:
    x, y = swings(60, 1)
    x[5, 7, 1] = np.nan
    folder = dropped(tmp_path, base, x=x, y=y)
    assert read_about(folder).counts.not_finite == 1
    window = read_window(folder)
    assert (window.x == np.delete(x, 5, axis=0)).all()
    assert (window.y == np.delete(y, 5)).all()


def test_series_of_another_length_are_set_aside(base: Path, tmp_path: Path) -> None:
    (reason,) = shelf.read_why(dropped(tmp_path, base, x=swings(60, 1)[0][:, :30])).reasons
    assert (reason.check, reason.expected) == ("schema", "x: float32[N, 40, 2], as data/meta.json says")


def test_a_looser_strap_shows_in_what_is_compared() -> None:
    (old, _), (new, _) = swings(60, 0), swings(60, 1, size=3)
    before, after = statistics(old), statistics(new)
    assert set(before) == {"mean 0", "std 0", "mean 1", "std 1"}
    assert after["std 1"].min() > before["std 1"].max()
    assert coarse(old).shape == (60, 16)
