"""Sound that arrives later is taken in and compared as pictures are."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from limbeck.data import splits
from limbeck.data.sources.source import Source, in_memory
from limbeck.data.window import read_window
from limbeck.drift.signals import coarse, statistics
from limbeck.params import SplitParams
from limbeck.windows import shelf
from limbeck.windows.intake import take_in
from tests.windows.conftest import RULES

CLASSES = ("low", "high")


def tones(num: int, seed: int, loudness: float = 4000) -> tuple[NDArray[np.int16], NDArray[np.int64]]:
    """Tones [N, 400, 1] of two pitches under noise, and which."""
    chance = np.random.default_rng(seed)
    y = np.arange(num) % 2
    phase = 2 * np.pi * (chance.random((num, 1)) + np.array([0.02, 0.1])[y][:, None] * np.arange(400))
    x = loudness * np.sin(phase) + chance.normal(0, 100, (num, 400))
    return x.round().astype(np.int16)[..., None], y


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "data"
    shares = SplitParams(test=0.2, validation=0.2, calibration=0.1)
    splits.write(folder, Source("tones", CLASSES, in_memory(*tones(200, 0))), shares, seed=0)
    return folder


def dropped(place: Path, base: Path, **arrays: NDArray[np.generic]) -> Path:
    """The folder that an entry becomes."""
    (place / "drop").mkdir()
    np.savez(place / "drop/night.npz", **arrays)  # type: ignore[arg-type]
    (arrived,) = take_in(place / "drop", place / "windows", base, RULES, now=2e9).arrived
    return arrived.folder


def test_labelled_sound_becomes_a_window(base: Path, tmp_path: Path) -> None:
    x, y = tones(60, 1)
    window = read_window(dropped(tmp_path, base, x=x, y=y))
    assert (window.x == x).all()
    assert (window.y == y).all()


@pytest.mark.parametrize("wrong", ["length", "type"])
def test_sound_of_another_length_or_type_is_set_aside(base: Path, tmp_path: Path, wrong: str) -> None:
    x, _ = tones(60, 1)
    folder = dropped(tmp_path, base, x=x[:, :300] if wrong == "length" else x.astype(np.float32))
    (reason,) = shelf.read_why(folder).reasons
    assert (reason.check, reason.expected) == ("schema", "x: int16[N, 400, 1], as data/meta.json says")


def test_a_quieter_microphone_shows_in_what_is_compared() -> None:
    (old, _), (new, _) = tones(60, 0), tones(60, 1, loudness=1000)
    before, after = statistics(old), statistics(new)
    assert set(before) == {"mean 0", "std 0"}
    assert after["std 0"].max() < before["std 0"].min()
    assert coarse(old).shape[0] == 60
    assert np.isfinite(coarse(old)).all()
