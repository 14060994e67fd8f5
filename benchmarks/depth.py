"""Narrower or shallower: what ONNX Runtime makes of a ResNet-56 with half of its MACs, fp32 and int8.

Untrained; cut once by width, all layers alike, widths in multiples of 4 or of 8, and once by depth, blocks by lot, each until
as many MACs are left. Times are of interleaved rounds; ratios above 1 are gains over the whole network.
"""

import copy
from pathlib import Path
from typing import Any

import torch

from benchmarks.sparsity import by_turns, files_of, untrained
from limbeck import models
from limbeck.params import PruneParams
from limbeck.pruning import cut_spec, prune_

NETWORK = {"use": "resnet", "width": 16, "depth": 56}
SHARE = 1 / 2.1
CUTS = {
    "narrower, multiples of 4": {"use": "magnitude", "scope": "layer", "round_to": 4},
    "narrower, multiples of 8": {"use": "magnitude", "scope": "layer", "round_to": 8},
    "shallower": {"use": "random", "scope": "block", "round_to": 1},
}
KINDS = ("fp32", "int8")


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Cut, export, take turns."""
    whole, spec = untrained(NETWORK)
    sample = torch.zeros((1, *spec.shape), dtype=torch.uint8)
    before = models.count_macs(whole, sample)
    variants, macs = {"teacher": (whole, spec)}, {}
    for name, settings in CUTS.items():
        prune = PruneParams.model_validate({
            **settings, "ratio": None, "max_macs": int(before * SHARE), "latency": None, "max_ratio": 0.9, "steps": 1,
            "recover": {"epochs": 1, "lr": 0.1},
        })  # fmt: skip
        cut = copy.deepcopy(whole)
        (step,) = prune_(cut, prune, sample)
        variants[name], macs[name] = (cut, cut_spec(spec, cut)), before / step.macs
    return {**by_turns({"ResNet-56": files_of(place, "resnet56", variants)}, params), "macs_fewer": macs}


def table(result: Any) -> str:
    """Markdown: how many times fewer MACs and how many times faster."""
    lines = ["| a ResNet-56 made | fewer MACs | faster in fp32 | faster in int8 |", "|---|---|---|---|"]
    for name in CUTS:
        faster = (f"{result['ratios'][f'ResNet-56, {kind}, {name}: faster']:.2f}x" for kind in KINDS)
        lines.append(f"| {name} | {result['macs_fewer'][name]:.2f}x | {' | '.join(faster)} |")
    return "\n".join(lines)
