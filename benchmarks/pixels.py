"""What int8 files of images gain before and in their first layer: from pixels taken as they come, and from blocks of them.

The same networks three times, untrained: normalized about means of the channels' own; about one whole number, as fresh students are,
which leaves no arithmetic before the first layer; and with that layer on blocks of four pixels, as files are.
Times are of interleaved rounds; ratios above 1 are gains over the first.
"""

from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.sparsity import by_turns, files_of, untrained
from limbeck import graphs, models
from limbeck.distillation import on_one_scale

NETWORKS: dict[str, dict[str, Any]] = {
    "`lean_resnet`, as `sensor` of `cifar10`": {"use": "lean_resnet", "width": [8, 48, 48], "depth": [0, 1, 2]},
    "`resnet`, `width: 16, depth: 20`": {"use": "resnet", "width": 16, "depth": 20},
    "`convnet`, `width: 16, depth: 2`": {"use": "convnet", "width": 16, "depth": 2},
}
KINDS = {"normalized": "dense", "as they come": "as they come", "in blocks": "in blocks"}
"""What a file does with its pixels, and what its times are called."""


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Export each, take turns."""
    files = {}
    for number, (name, keywords) in enumerate(NETWORKS.items()):
        network, spec = untrained(keywords)
        mean, std = on_one_scale(spec.mean, spec.std)
        whole = spec.model_copy(update={"mean": mean, "std": std})
        other = models.build(whole).eval()
        other.load_state_dict(network.state_dict())
        with patch.object(graphs, "take_blocks", lambda model: model):
            found = files_of(place, f"pixels {number}", {"teacher": (network, spec), "as they come": (other, whole)})[
                "int8"
            ]
        found |= files_of(place, f"pixels {number}", {"in blocks": (other, whole)})["int8"]
        files[name] = {"int8": found}
    return by_turns(files, params)


def table(result: Any) -> str:
    """Markdown: how many times faster than with pixels normalized, how many bytes."""
    lines = ["| untrained, 32 x 32 pixels in colour | pixels | p50, µs | faster | bytes |", "|---|---|---|---|---|"]
    for name in NETWORKS:
        for kind, label in KINDS.items():
            file = f"{name}, int8, {label}"
            faster = result["ratios"].get(f"{file}: faster")
            lines.append(
                f"| {name} | {kind} | {1000 * result['p50_ms'][file]:.0f} | {f'{faster:.2f}x' if faster else ''} | "
                f"{result['bytes'][file]:,} |"
            )
    return "\n".join(lines)
