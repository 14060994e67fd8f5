"""`python -m benchmarks.figures.rows cifar10`: what a recipe's targets reached, over all seeds that were run, as a table.

Means over seeds, but for times; what distillation gained is that of the float network, over its twin without a teacher, on the same test
samples, with an interval for other seeds and samples (`limbeck.comparison.gain_over`).
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.figures.__main__ import RESULTS
from limbeck.comparison import gain_over, verdict_of
from limbeck.evaluation import Scores
from limbeck.selection import FP32, INT8

HEAD = (
    "| target | seeds | MACs | fp32 % | int8 % | int8 bytes | int8, p50 µs | published file | faster than fp32 "
    "| distillation gains, points |"
)
"""Times by seed, each beside the published file's in the same run: machines differ."""
PUBLISHED = "MLPerf Tiny, LiteRT"


def results(folder: Path, *recipes: str) -> dict[tuple[str, str], dict[bool, dict[int, Any]]]:
    """What was written of some recipes, or of all, by recipe and target, by whether it is a control, by seed."""
    found: dict[tuple[str, str], dict[bool, dict[int, Any]]] = defaultdict(lambda: {False: {}, True: {}})
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if not recipes or result["recipe"] in recipes:
            found[result["recipe"], result["target"]][result.get("control", False)][result["seed"]] = result
    return dict(found)


def scores(result: Any, variant: str) -> Scores:
    """Which of the test samples [N] a file answered right."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(result["by_turns"][variant]["right"]), np.uint8))
    num = round(bits.sum() / result["by_turns"][variant]["accuracy"])  # whole bytes were stored: the rest is padding
    return bits[:num].astype(np.float64)


def gain(ours: dict[int, Any], theirs: dict[int, Any]) -> str:
    """What distillation gained, or that no control was run."""
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return "no control"
    found = gain_over(*([scores(arm[seed], FP32) for seed in seeds] for arm in (ours, theirs)), 2000, 0)
    value, low, high = (100 * found[key] for key in ("value", "low", "high"))
    said = "" if verdict_of(found) != "none" else ", none beyond the noise"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]{said}"


def int8_beside_fp32(ours: dict[int, Any]) -> tuple[float, float]:
    """Points of accuracy that int8 costs, and how many times faster it is: means over seeds."""
    pairs = [[result["by_turns"][variant] for variant in (FP32, INT8)] for result in ours.values()]
    cost = mean(100 * (fp32["accuracy"] - int8["accuracy"]) for fp32, int8 in pairs)
    return cost, mean(fp32["p50_us"] / int8["p50_us"] for fp32, int8 in pairs)


def in_the_mean(folder: Path, *recipes: str) -> str:
    """What int8 costs and gains, over all rows."""
    found = [int8_beside_fp32(arms[False]) for arms in results(folder, *recipes).values() if arms[False]]
    cost, faster = (mean(each) for each in zip(*found, strict=True))
    return f"In the mean of {len(found)} rows int8 costs {cost:.2f} points and is {faster:.2f} times as fast as fp32."


def table(folder: Path, *recipes: str) -> str:
    """A row for each target that has been run with its teacher."""
    lines = [HEAD, "|---" * (HEAD.count("|") - 1) + "|"]
    for (recipe, target), arms in results(folder, *recipes).items():
        ours = arms[False]
        if not ours:
            continue

        by_turns = [result["by_turns"] for _, result in sorted(ours.items())]
        fp32, int8 = ([files[variant] for files in by_turns] for variant in (FP32, INT8))
        macs = mean(result["macs"][FP32] for result in ours.values())
        _, faster = int8_beside_fp32(ours)
        times = [
            ", ".join(f"{files[name]['p50_us']:,.0f}" if name in files else "-" for files in by_turns)
            for name in (INT8, PUBLISHED)
        ]
        cells = [
            f"`{target}` of `{recipe}`", ", ".join(map(str, sorted(ours))), f"{macs / 1e6:.1f}M",
            *(f"{100 * mean(file['accuracy'] for file in files):.2f}" for files in (fp32, int8)),
            f"{mean(file['bytes'] for file in int8):,.0f}", *times, f"{faster:.2f}x",
            gain(ours, arms[True]),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(RESULTS, *sys.argv[1:]), in_the_mean(RESULTS, *sys.argv[1:]), sep="\n\n")
