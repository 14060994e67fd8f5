"""`python -m benchmarks.figures.rows cifar10`: what the targets of recipes reached, over all seeds that were run, as a table.

Means over seeds; what distillation gained is that of the float network, over its twin without a teacher, on the same test
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

HEAD = "| target | seeds | MACs | fp32 % | int8 % | int8 bytes | int8, p50 µs | faster than fp32 | distillation gains, points |"


def results(folder: Path, *recipes: str) -> dict[tuple[str, str], dict[bool, dict[int, Any]]]:
    """What was written, by recipe and target, by whether it is a control, by seed."""
    found: dict[tuple[str, str], dict[bool, dict[int, Any]]] = defaultdict(lambda: {False: {}, True: {}})
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result["recipe"] in recipes:
            found[result["recipe"], result["target"]][result.get("control", False)][result["seed"]] = result
    return dict(found)


def scores(result: Any, variant: str) -> Scores:
    """Which of the test samples [N] a file answered right."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(result["by_turns"][variant]["right"]), np.uint8))
    num = round(bits.sum() / result["by_turns"][variant]["accuracy"])
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


def table(folder: Path, *recipes: str) -> str:
    """A row for each target."""
    lines = [HEAD, "|---" * (HEAD.count("|") - 1) + "|"]
    for (recipe, target), arms in results(folder, *recipes).items():
        ours = arms[False]
        if not ours:
            continue

        def average(variant: str, key: str, of: dict[int, Any] = ours) -> float:
            return mean(result["by_turns"][variant][key] for result in of.values())

        faster = mean(
            result["by_turns"][FP32]["p50_us"] / result["by_turns"][INT8]["p50_us"] for result in ours.values()
        )
        macs = mean(result["macs"][FP32] for result in ours.values())
        cells = [
            f"`{target}` of `{recipe}`", ", ".join(map(str, sorted(ours))), f"{macs / 1e6:.1f}M",
            *(f"{100 * average(variant, 'accuracy'):.2f}" for variant in (FP32, INT8)), f"{average(INT8, 'bytes'):,.0f}",
            f"{average(INT8, 'p50_us'):.0f}", f"{faster:.2f}x", gain(ours, arms[True]),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(RESULTS, *sys.argv[1:]))
