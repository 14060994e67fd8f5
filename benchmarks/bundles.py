"""Bundles of untrained networks, for what is measured of devices."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import torch

from limbeck import models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.edge import durable, golden
from limbeck.edge.manifest import NAME
from limbeck.export import run, to_onnx

VARIANT = "model.fp32"
CLASSES = tuple("0123456789")


def write(
    folder: Path, name: str, serial: int, network: Component, shape: tuple[int, ...], *, max_p95_ms: float | None
) -> str:
    """Fill a folder with a network's file, golden answers of its own and the manifest; the digest of that.

    Args:
        folder: made when missing.
        name: of the model.
        serial: of the version, and the seed of its weights.
        network: what is exported.
        shape: of one raw sample of uint8.
        max_p95_ms: the contract's clause, if it is to have one.

    """
    channels = shape[-1]
    spec = Spec(
        model=network, shape=shape, dtype="uint8", classes=CLASSES, mean=(128.0,) * channels, std=(64.0,) * channels
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{VARIANT}.onnx"
    torch.manual_seed(serial)
    to_onnx(file, models.build(spec).eval(), spec, 18, {})
    inputs = np.random.default_rng(0).integers(0, 256, (4, *shape), dtype=np.uint8)
    golden.write(folder / "golden.npz", inputs, {VARIANT: run(file, inputs)})
    files = sorted(path for path in folder.iterdir() if path.name != NAME)
    manifest = {
        "format": 2,
        "name": name,
        "serial": serial,
        "variant": VARIANT,
        "minimum_agent": "0.1.0",
        "runtime": {},
        "instructions": "any",
        "classes": CLASSES,
        "input": {"name": "input", "shape": ["batch", *shape], "dtype": "uint8"},
        "tolerance": {"max_difference": 0.001},
        "contract": {} if max_p95_ms is None else {"max_p95_ms": max_p95_ms},
        "measured": {"threads": 1, "batch_size": 1},
        "files": {
            path.name: {"bytes": path.stat().st_size, "sha256": sha256(path.read_bytes()).hexdigest()} for path in files
        },
    }
    durable.write_json(folder / NAME, manifest)
    return sha256((folder / NAME).read_bytes()).hexdigest()
