"""River's detectors say where something changed."""

import numpy as np
import pytest

from limbeck.drift import DriftRules
from limbeck.drift.streams import adwin, changes_within, page_hinkley


def coins(share: float, num: int, seed: int = 0) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return (np.random.default_rng(seed).random(num) < share).astype(np.float64)


@pytest.mark.parametrize("detect", [adwin, page_hinkley])
def test_a_change_of_the_mean_is_found_and_placed(detect: object, rules: DriftRules) -> None:
    (change,) = detect(np.concatenate([coins(0.95, 500), coins(0.5, 300, seed=1)]), rules.streams)  # type: ignore[operator]
    assert change.found >= 500
    assert 450 <= change.began <= 520


@pytest.mark.parametrize("detect", [adwin, page_hinkley])
def test_a_stream_that_stays_as_it_is_has_no_change(detect: object, rules: DriftRules) -> None:
    assert detect(coins(0.95, 1500), rules.streams) == []  # type: ignore[operator]


def test_changes_count_from_the_windows_start(rules: DriftRules) -> None:
    window = np.concatenate([coins(0.95, 200, seed=1), coins(0.4, 300, seed=2)])
    changes = changes_within(coins(0.95, 500), window, rules.streams)
    assert {change.detector for change in changes} == {"adwin", "page-hinkley"}
    assert all(150 <= change.began <= 220 <= change.found + 20 for change in changes)
    assert (
        changes_within(window, coins(0.4, 200, seed=3), rules.streams) == []
    )  # the reference's own are not the window's
