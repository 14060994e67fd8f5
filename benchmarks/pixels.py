"""What int8 files gain that take the pixels of an image as they come, without arithmetic before the first layer.

The same networks twice, untrained: normalized about one whole number, as fresh students are, and about means of the channels' own.
Times are of interleaved rounds; ratios above 1 are gains.
"""

from pathlib import Path
from typing import Any

from benchmarks.sparsity import by_turns, files_of, untrained
from limbeck import models
from limbeck.distillation import on_one_scale

NETWORKS: dict[str, dict[str, Any]] = {
    "`lean_resnet`, as `sensor` of `cifar10`": {"use": "lean_resnet", "width": [16, 32, 40, 56], "depth": [0, 1, 1, 1]},
    "`convnet`, `width: 16, depth: 2`": {"use": "convnet", "width": 16, "depth": 2},
}


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Export both, take turns."""
    files = {}
    for number, (name, keywords) in enumerate(NETWORKS.items()):
        network, spec = untrained(keywords)
        mean, std = on_one_scale(spec.mean, spec.std)
        whole = spec.model_copy(update={"mean": mean, "std": std})
        other = models.build(whole).eval()
        other.load_state_dict(network.state_dict())
        variants = {"teacher": (network, spec), "as they come": (other, whole)}
        files[name] = {"int8": files_of(place, f"pixels {number}", variants)["int8"]}
    return by_turns(files, params)


def table(result: Any) -> str:
    """Markdown: how many times faster, how many bytes."""
    lines = ["| untrained, 32 x 32 pixels in colour | faster | bytes before | bytes |", "|---|---|---|---|"]
    for name in NETWORKS:
        before, after = (result["bytes"][f"{name}, int8, {kind}"] for kind in ("dense", "as they come"))
        lines.append(
            f"| {name} | {result['ratios'][f'{name}, int8, as they come: faster']:.2f}x | {before:,} | {after:,} |"
        )
    return "\n".join(lines)
