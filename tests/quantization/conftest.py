"""A network small enough to be exported, prepared and converted many times."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from limbeck import models, quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.models import Network

LAYERS = ("body.layers.0", "body.layers.3", "body.head")


@pytest.fixture(scope="session")
def spec() -> Spec:
    return Spec(
        model=Component.model_validate({"use": "convnet", "width": 4, "depth": 2}),
        shape=(6, 6, 2), dtype="uint8", classes=("a", "b", "c"), mean=(120.3, 118.7), std=(60.0,) * 2,
    )  # fmt: skip


@pytest.fixture(scope="session")
def x() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (48, 6, 6, 2), dtype=np.uint8)


@pytest.fixture(scope="session")
def network(spec: Spec, x: NDArray[np.uint8]) -> Network:
    """Its norms have seen data. One channel between the convolutions is a hundred times as loud as the others."""
    torch.manual_seed(0)
    made = models.build(spec).train()
    with torch.no_grad():
        for _ in range(5):
            made(torch.from_numpy(x))
        norm, after = made.get_submodule("body.layers.1"), made.get_submodule("body.layers.3")
        assert isinstance(norm, nn.BatchNorm2d)
        assert isinstance(after, nn.Conv2d)
        norm.weight[0] *= 100
        norm.bias[0] *= 100
        after.weight[:, 0] /= 100
    return made.eval()


@pytest.fixture(scope="session")
def calibrated(network: Network, spec: Spec, x: NDArray[np.uint8]) -> Callable[..., nn.Module]:
    """A prepared network that has seen the samples."""

    def make(arithmetic: str = "u8s7", observer: str = "min_max", **more: object) -> nn.Module:
        described = quantization.describe("static", arithmetic, Component.model_validate({"use": observer, **more}))
        prepared = quantization.prepare(network, described, spec.shape, torch.uint8)
        quantization.calibrate_(prepared, x, 16)
        return prepared

    return make
