"""`python -m benchmarks.figures.rows cifar10`: what a recipe's targets reached, over all seeds that were run, as a table.

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


def table(folder: Path, *recipes: str) -> str:
    """A row for each target that has been run with its teacher."""
    lines = [HEAD, "|---" * (HEAD.count("|") - 1) + "|"]
    for (recipe, target), arms in results(folder, *recipes).items():
        ours = arms[False]
        if not ours:
            continue

        fp32, int8 = ([result["by_turns"][variant] for result in ours.values()] for variant in (FP32, INT8))
        macs = mean(result["macs"][FP32] for result in ours.values())
        faster = mean(one["p50_us"] / other["p50_us"] for one, other in zip(fp32, int8, strict=True))
        cells = [
            f"`{target}` of `{recipe}`", ", ".join(map(str, sorted(ours))), f"{macs / 1e6:.1f}M",
            *(f"{100 * mean(file['accuracy'] for file in files):.2f}" for files in (fp32, int8)),
            *(f"{mean(file[key] for file in int8):,.0f}" for key in ("bytes", "p50_us")), f"{faster:.2f}x",
            gain(ours, arms[True]),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(RESULTS, *sys.argv[1:]))
