"""The table of what recipes reached: means over seeds, and a gain only beside a control."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.figures.rows import HEAD, PUBLISHED, in_the_mean, results, scores, table
from limbeck.selection import FP32, INT8

NUM = 1003
"""Test samples: not whole bytes."""


def written(folder: Path, target: str, seed: int, num_right: int, *, control: bool = False) -> None:
    """A result in which as many samples were answered right, another part of them for each seed."""
    right = np.roll(np.arange(NUM) < num_right, 100 * seed)
    file = {
        "accuracy": num_right / NUM, "right": np.packbits(right).tobytes().hex(), "bytes": 1000 + seed, "p50_us": 50.0,
    }  # fmt: skip
    result: dict[str, Any] = {
        "recipe": "some", "target": target, "seed": seed, "control": control, "macs": {FP32: 2e6},
        "by_turns": {FP32: {**file, "p50_us": 100.0}, INT8: file},
    }  # fmt: skip
    if target == "phone" and seed < 2:
        result["by_turns"][PUBLISHED] = {"bytes": 900, "accuracy": 0.5, "p50_us": 60.0 + seed}
    name = f"some-{target}-{seed}{'-control' if control else ''}.json"
    (folder / name).write_text(json.dumps(result), encoding="utf-8")


def rows(folder: Path, *recipes: str) -> list[str]:
    head, _, *found = table(folder, *recipes).splitlines()
    assert head == HEAD
    return found


@pytest.mark.parametrize("num_right", [1, 700, NUM])
def test_which_samples_were_right_comes_back(tmp_path: Path, num_right: int) -> None:
    written(tmp_path, "phone", 0, num_right)
    found = scores(results(tmp_path)["some", "phone"][False][0], FP32)
    assert (found.sum(), len(found)) == (num_right, NUM)


def test_a_row_is_the_mean_over_seeds_and_its_gain_that_over_the_controls(tmp_path: Path) -> None:
    for seed in range(3):
        written(tmp_path, "phone", seed, 700 + seed)
        written(tmp_path, "phone", seed, 600 + seed, control=True)
    (row,) = rows(tmp_path, "some")
    assert row.startswith(
        "| `phone` of `some` | 0, 1, 2 | 2.0M | 69.89 | 69.89 | 1,001 | 50, 50, 50 | 60, 61, - | 2.00x | 9.97 ["
    )
    assert "none" not in row


def test_what_int8_costs_and_gains_is_the_mean_over_rows(tmp_path: Path) -> None:
    for target, num_right in (("phone", 700), ("sensor", 600)):
        written(tmp_path, target, 0, num_right)
    assert in_the_mean(tmp_path) == "In the mean of 2 rows int8 costs 0.00 points and is 2.00 times as fast as fp32."


def test_a_gain_inside_the_noise_is_called_none(tmp_path: Path) -> None:
    written(tmp_path, "phone", 0, 700)
    written(tmp_path, "phone", 0, 698, control=True)
    (row,) = rows(tmp_path)
    assert row.endswith(", none beyond the noise |")


def test_without_a_control_no_gain_is_told_and_a_control_alone_is_no_row(tmp_path: Path) -> None:
    written(tmp_path, "phone", 0, 700)
    written(tmp_path, "sensor", 0, 700, control=True)
    (row,) = rows(tmp_path, "some")
    assert row.startswith("| `phone`")
    assert row.endswith("| no control |")
    assert rows(tmp_path, "another") == []
