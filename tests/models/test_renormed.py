"""Norms that saw other samples."""

import numpy as np
import pytest
import torch
from torch import nn

from limbeck.models.renormed import BATCH_NORM, renormed

SAMPLES = np.random.default_rng(0).normal(3.0, 2.0, (40, 2, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("batch_size", [40, 20, 13])
def test_norms_take_their_statistics_from_the_samples_and_nothing_else_changes(batch_size: int) -> None:
    network = nn.Sequential(nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(32, 3)).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    made = renormed(network, SAMPLES, batch_size)
    assert made is not None
    assert not any(module.training for module in made.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    (norm,) = (module for module in made.modules() if isinstance(module, BATCH_NORM))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean.numpy() == pytest.approx(SAMPLES.mean((0, 2, 3)), abs=0.2)
    assert norm.running_var.numpy() == pytest.approx(SAMPLES.var((0, 2, 3)), rel=0.1)
    learned = {
        name: tensor for name, tensor in made.state_dict().items() if "running" not in name and "batches" not in name
    }
    assert all(torch.equal(tensor, before[name]) for name, tensor in learned.items())


def test_a_network_without_batch_norms_has_none_to_take_anew() -> None:
    assert renormed(nn.Sequential(nn.Flatten(), nn.LayerNorm(32)), SAMPLES, 20) is None
