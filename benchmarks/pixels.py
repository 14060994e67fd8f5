"""What int8 files gain that take the pixels of an image as they come, without arithmetic before the first layer.

The same networks twice, untrained: normalized about a whole number, which int8 leaves out, and half a step beside it, which it cannot.
Times are of interleaved rounds; ratios above 1 are gains.
"""

from pathlib import Path
from typing import Any

from benchmarks.sparsity import by_turns, files_of, untrained
from limbeck import models

NETWORKS: dict[str, dict[str, Any]] = {
    "`lean_resnet`, `width: [16, 32, 44, 44]`": {
        "use": "lean_resnet",
        "width": [16, 32, 44, 44],
        "depth": [0, 1, 1, 1],
    },
    "`convnet`, `width: 16, depth: 2`": {"use": "convnet", "width": 16, "depth": 2},
}


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Export both, take turns."""
    files, sizes = {}, {}
    for number, (name, keywords) in enumerate(NETWORKS.items()):
        network, spec = untrained(keywords)
        beside = spec.model_copy(update={"mean": tuple(mean + 0.5 for mean in spec.mean)})
        other = models.build(beside).eval()
        other.load_state_dict(network.state_dict())
        variants = {"teacher": (other, beside), "as they come": (network, spec)}
        files[name] = {"int8": files_of(place, f"pixels {number}", variants)["int8"]}
        sizes[name] = {variant: path.stat().st_size for variant, path in files[name]["int8"].items()}
    return {**by_turns(files, params), "bytes": sizes}


def table(result: Any) -> str:
    """Markdown: how many times faster, how many bytes."""
    lines = ["| untrained, 32 x 32 pixels in colour | faster | bytes before | bytes |", "|---|---|---|---|"]
    for name in NETWORKS:
        faster = result["ratios"][f"{name}, int8, as they come: faster"]
        before, after = result["bytes"][name].values()
        lines.append(f"| {name} | {faster:.2f}x | {before:,} | {after:,} |")
    return "\n".join(lines)
