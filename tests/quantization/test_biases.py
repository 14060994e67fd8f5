"""Rounded logits have float's means."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from limbeck import quantization
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.evaluation import predict
from limbeck.models import Network
from limbeck.quantization.biases import correct_bias_


def shift(prepared: nn.Module, network: Network, x: NDArray[np.generic]) -> float:
    moved_K = (predict(network, x) - predict(quantization.convert(prepared), x)).mean(0)
    return float(np.abs(moved_K).max())


@pytest.mark.parametrize("arithmetic", ["u8s7", "s8s8"])
def test_means_of_logits_that_rounding_moved_come_back(
    tmp_path: Path,
    network: Network,
    spec: Spec,
    x: NDArray[np.uint8],
    calibrated: Callable[..., nn.Module],
    arithmetic: str,
) -> None:
    prepared = calibrated(arithmetic)
    before = shift(prepared, network, x)
    correct_bias_(prepared, network, x)
    assert shift(prepared, network, x) < before / 5
    described = quantization.describe("static", arithmetic, Component(use="min_max"))
    quantization.save(tmp_path / "q", spec.model_copy(update={"quantization": described}), prepared)
    loaded = quantization.load(tmp_path / "q")[1]
    assert np.array_equal(predict(loaded, x), predict(quantization.convert(prepared), x)), "it is in the checkpoint"


@pytest.mark.parametrize("ending", [nn.Linear(4, 3, bias=False), nn.Sequential(nn.Linear(4, 3), nn.ReLU())])
def test_logits_that_no_bias_is_added_to_last_stay(ending: nn.Module, network: Network) -> None:
    example = torch.ones(2, 4)
    graph = torch.export.export(ending, (example,)).module()
    before = graph(example)
    correct_bias_(graph, network, np.zeros((0, 6, 6, 2), np.uint8))
    assert torch.equal(graph(example), before)
