"""A training step on two cores: one thread, two that share each operator, two that have half of the batch each.

Forward and backward of a batch of 128 noise images by networks of growing size, eager in float32 and compiled in what
`precision: auto` takes; by turns in one process. `limbeck.models.parallel.LEAST_MACS` is chosen by it.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.sparsity import untrained
from limbeck import models
from limbeck.models.compiled import compiled
from limbeck.models.memory import keep_freed
from limbeck.models.parallel import DataParallel
from limbeck.models.precision import uses_bf16

NETWORKS: dict[str, dict[str, Any]] = {
    "convnet of 8": {"use": "convnet", "width": 8, "depth": 3},
    "lean_resnet of 8": {"use": "lean_resnet", "width": [8, 16, 32], "depth": [0, 0, 1]},
    "lean_resnet of 16": {"use": "lean_resnet", "width": [16, 32, 64], "depth": [0, 0, 1]},
    "ResNet-8": {"use": "resnet", "width": 16, "depth": 8},
    "ResNet-20": {"use": "resnet", "width": 16, "depth": 20},
}
BATCH, THREADS = 128, 2
WAYS = ("one thread", "two share operators", "two have half each")
TURNS, LEAST_S = 5, 0.5


def settle() -> None:
    """As the loop does."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def rates_of(component: dict[str, Any], *, compile: bool, turns: int) -> tuple[float, dict[str, list[float]]]:
    """MACs of a sample; samples per second of each way, turn by turn."""
    bf16 = compile and uses_bf16("auto", torch.device("cpu"))
    network, spec = untrained(component)
    network.train().to(memory_format=torch.channels_last if bf16 else torch.contiguous_format)  # type: ignore[call-overload]
    x, y = torch.randint(0, 256, (BATCH, *spec.shape), dtype=torch.uint8), torch.arange(BATCH) % len(spec.classes)

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast("cpu", torch.bfloat16, enabled=bf16)

    def run(model: nn.Module, part: slice) -> None:
        with autocast():
            loss = functional.cross_entropy(model(x[part]).float(), y[part])
        loss.backward()  # type: ignore[no-untyped-call]

    parts = DataParallel(network, THREADS)
    steps: dict[str, Callable[[], None]] = {}
    for way, threads in (("one thread", 1), ("two share operators", THREADS)):
        torch.set_num_threads(threads)
        model = compiled(network, lambda trial: run(trial, slice(None))) if compile else network
        steps[way] = lambda model=model: run(model, slice(None))  # type: ignore[misc]
        steps[way]()
    if compile:
        parts.compile_(lambda trial: run(trial, slice(BATCH // THREADS)))
    steps["two have half each"] = lambda: run(parts, slice(None))
    steps["two have half each"]()
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(turns):
        for way, step in steps.items():
            torch.set_num_threads(1 if way == "one thread" else THREADS)
            step()
            began, count = time.perf_counter(), 0
            while (took := time.perf_counter() - began) < LEAST_S:
                step()
                count += 1
            found[way].append(count * BATCH / took)
    return models.count_macs(network, x[:1]), found


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Every network, eager and compiled; `params` other than the default's means quick."""
    quick = params.name == "tiny.yaml"
    networks = dict(list(NETWORKS.items())[:1]) if quick else NETWORKS
    keep_freed()
    settle()
    result: dict[str, Any] = {"seconds": {}, "ratios": {}, "limits": {}, "samples_per_second": {}, "macs": {}}
    for name, component in networks.items():
        for kind in ("eager", "compiled"):
            macs, found = rates_of(component, compile=kind == "compiled", turns=1 if quick else TURNS)
            result["macs"][name] = macs
            result["samples_per_second"][f"{name}, {kind}"] = {way: median(rates) for way, rates in found.items()}
            halves, *others = (found[way] for way in reversed(WAYS))
            for way, rates in zip(reversed(WAYS[:-1]), others, strict=True):
                result["ratios"][f"{name}, {kind}: over {way}"] = median(
                    half / rate for half, rate in zip(halves, rates, strict=True)
                )
    return result


def table(result: Any) -> str:
    """Markdown: how many times faster two halves are."""
    lines = [
        "| network | MMACs of half a batch | | over one thread | over two that share operators |",
        "|---|---|---|---|---|",
    ]
    for name, macs in result["macs"].items():
        for kind in ("eager", "compiled"):
            ratios = (f"{result['ratios'][f'{name}, {kind}: over {way}']:.2f}x" for way in WAYS[:-1])
            lines.append(f"| {name} | {macs * BATCH / THREADS / 1e6:,.0f} | {kind} | {' | '.join(ratios)} |")
    return "\n".join(lines)
