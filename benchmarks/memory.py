"""What a training step gains where the process keeps the memory it frees (`limbeck.models.memory`).

The compiled steps of `benchmarks.parts`, with freed memory kept and without, in processes of their own that take turns.
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import arm
from benchmarks.parts import NETWORKS, WAYS, rates_of, settle
from limbeck.models.memory import keep_freed

NAMES = ("ResNet-8", "ResNet-20")
ROUNDS, TURNS = 3, 3


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Every network; `params` other than the default's means quick."""
    quick = params.name == "tiny.yaml"
    result: dict[str, Any] = {"seconds": {}, "ratios": {}, "limits": {}, "samples_per_second": {}, "peak_mb": {}}
    for name in [next(iter(NETWORKS))] if quick else NAMES:
        found = [_both(place, name, 1 if quick else TURNS) for _ in range(1 if quick else ROUNDS)]
        for way in WAYS:
            kept, not_kept = ([median(arms[keeps]["rates"][way]) for arms in found] for keeps in (True, False))
            result["ratios"][f"{name}, {way}: faster"] = median(
                one / other for one, other in zip(kept, not_kept, strict=True)
            )
            result["samples_per_second"][f"{name}, {way}"] = {"kept": median(kept), "not kept": median(not_kept)}
        peaks = [median(arms[keeps]["peak_mb"] for arms in found) for keeps in (True, False)]
        result["ratios"][f"{name}: peak memory"] = peaks[0] / peaks[1]
        result["peak_mb"][name] = dict(zip(("kept", "not kept"), peaks, strict=True))
    return result


def _both(place: Path, name: str, turns: int) -> dict[bool, Any]:
    found = {}
    for keeps in (True, False):
        spec = place / f"memory-{keeps}.json"
        spec.write_text(json.dumps({"place": str(place), "network": name, "turns": turns, "keeps": keeps}))
        found[keeps] = arm.run(sys.executable, "benchmarks.memory", spec)
    return found


def table(result: Any) -> str:
    """Markdown: how many times faster."""
    lines = ["| network | " + " | ".join(WAYS) + " | peak memory |", "|---" * (len(WAYS) + 2) + "|"]
    for name in result["peak_mb"]:
        cells = [f"{result['ratios'][f'{name}, {way}: faster']:.2f}x" for way in WAYS]
        lines.append(f"| {name} | {' | '.join(cells)} | {result['ratios'][f'{name}: peak memory']:.2f}x |")
    return "\n".join(lines)


def main() -> None:
    """An arm."""
    spec, _ = arm.read_spec()
    if spec["keeps"]:
        keep_freed()
    settle()
    _, rates = rates_of(NETWORKS[spec["network"]], compile=True, turns=spec["turns"])
    arm.done(rates=rates)


if __name__ == "__main__":
    main()
