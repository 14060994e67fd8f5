"""Whether zeros among the weights make ONNX Runtime faster or its files smaller: 2:4 and unstructured, fp32 and int8.

The same network four times over, untrained: dense, with 2 zeros in every 4 weights (N:M as GPUs like it), with nine
in ten weights zero, and with half of its channels cut. Times are of interleaved rounds; ratios above 1 are gains.
"""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from limbeck import models, quantization
from limbeck import params as params_file
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.edge import measure as edge
from limbeck.export import to_onnx
from limbeck.models import Network
from limbeck.params import PruneParams
from limbeck.pruning import cut_spec, prune_
from limbeck.quantization.arithmetic import arithmetic_of

OPSET = 18
NETWORKS = {
    "convolutions": {"use": "resnet", "width": 32, "depth": 8},
    "matrices": {"use": "mlp", "width": 512, "depth": 3},
}
LIMITS: dict[str, float] = {}


def two_of_four(weight: Tensor) -> Tensor:
    """The two smaller of every four neighbours along the inputs, zeroed."""
    flat = weight.flatten(1)
    whole = flat[:, : flat.shape[1] // 4 * 4].reshape(-1, 4)
    mask = torch.ones_like(whole).scatter_(1, whole.abs().topk(2, dim=1, largest=False).indices, 0)
    kept = torch.ones_like(flat)
    kept[:, : flat.shape[1] // 4 * 4] = mask.reshape(flat.shape[0], -1)
    return (flat * kept).reshape(weight.shape)


def nine_in_ten(weight: Tensor) -> Tensor:
    """All but the largest tenth, zeroed."""
    return weight * (weight.abs() >= weight.abs().flatten().quantile(0.9))


def zeroed(network: Network, rule: Callable[[Tensor], Tensor]) -> Network:
    """A copy with the rule applied to every convolution and linear layer."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for layer in network.body.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.copy_(rule(layer.weight))
    return network


def with_sparse_initializers(dense: Path, sparse: Path) -> None:
    """The file with weights that are mostly zero stored as values and indices, as ONNX allows."""
    model = onnx.load(dense)
    for tensor in list(model.graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.size > 1000 and (values == 0).mean() > 0.5:
            (indices,) = np.nonzero(values.ravel())
            stored = numpy_helper.from_array(values.ravel()[indices], tensor.name)
            where = numpy_helper.from_array(indices.astype(np.int64))
            model.graph.sparse_initializer.append(helper.make_sparse_tensor(stored, where, values.shape))
            model.graph.initializer.remove(tensor)
    onnx.save(model, sparse)


def untrained(keywords: dict[str, Any]) -> tuple[Network, Spec]:
    """A network for small images in colour."""
    spec = Spec(
        model=Component.model_validate(keywords), shape=(32, 32, 3), dtype="uint8", classes=tuple("abcdefghij"),
        mean=(125.3, 123.0, 113.9), std=(60.0,) * 3,  # means of their own, as of a published network
    )  # fmt: skip
    torch.manual_seed(0)
    return models.build(spec).eval(), spec


def variants_of(keywords: dict[str, Any]) -> dict[str, tuple[Network, Spec]]:
    """A network dense, with zeros, and cut."""
    dense, spec = untrained(keywords)
    half = PruneParams.model_validate(
        {
            "use": "magnitude", "scope": "layer", "ratio": 0.5, "max_macs": None, "latency": None, "max_ratio": 0.9,
            "steps": 1, "round_to": 8, "recover": {"epochs": 1, "lr": 0.1},
        }
    )  # fmt: skip
    cut = copy.deepcopy(dense)
    list(prune_(cut, half, torch.zeros((1, *spec.shape), dtype=torch.uint8)))
    return {
        "teacher": (dense, spec),
        "2:4": (zeroed(dense, two_of_four), spec),
        "nine in ten": (zeroed(dense, nine_in_ten), spec),
        "half the channels": (cut, cut_spec(spec, cut)),
    }


def files_of(place: Path, stem: str, variants: dict[str, tuple[Network, Spec]]) -> dict[str, dict[str, Path]]:
    """Every variant's file in fp32 and int8; `teacher` is what `limbeck.edge` holds the others to."""
    found: dict[str, dict[str, Path]] = {"fp32": {}, "int8": {}}
    how = quantization.describe("static", arithmetic_of("auto", "any"), Component(use="min_max"))
    _, (_, spec) = next(iter(variants.items()))
    samples = np.random.default_rng(0).integers(0, 256, (64, *spec.shape), dtype=np.uint8)
    for name, (network, described) in variants.items():
        for kind, files in found.items():
            files[name] = place / f"{stem} {name.replace(':', ' of ')} {kind}.onnx"
            exported: nn.Module = network
            if kind == "int8":
                exported = quantization.calibrated(network, described, how, samples, 32)
            to_onnx(files[name], exported, described, OPSET, {})
    return found


def measure(place: Path, params: Path) -> dict[str, Any]:
    """Measure every variant beside its dense network, as `measure` of the params file says."""
    groups = {}
    for network, keywords in NETWORKS.items():
        groups[network] = files_of(place, network, variants_of(keywords))
        for files in groups[network].values():
            files["nine in ten, stored sparse"] = place / f"{files['nine in ten'].stem} sparse.onnx"
            with_sparse_initializers(files["nine in ten"], files["nine in ten, stored sparse"])
    return by_turns(groups, params)


def by_turns(groups: dict[str, dict[str, dict[str, Path]]], params: Path) -> dict[str, Any]:
    """Files of one network and kind, taking turns, as `measure` of the params file says; ratios above 1 are gains."""
    how = params_file.load(params).measure.model_dump()
    result: dict[str, Any] = {
        "niceness": os.nice(0), "load": os.getloadavg()[0], "seconds": {}, "p50_ms": {}, "bytes": {}, "ratios": {},
        "intervals": {}, "limits": LIMITS,
    }  # fmt: skip
    for network, kinds in groups.items():
        for kind, files in kinds.items():
            answer = edge.measure(files, threads=1, batch_size=1, **how)
            for name, row in answer["variants"].items():
                label = f"{network}, {kind}, {'dense' if name == 'teacher' else name}"
                result["p50_ms"][label], result["bytes"][label] = row["p50_ms"]["value"], row["bytes"]
            for pair, ratio in answer["ratios"].items():
                label = f"{network}, {kind}, {pair.partition('/')[2]}: faster"
                result["ratios"][label] = ratio["value"]
                result["intervals"][label] = [ratio["low"], ratio["high"]]
    return result
