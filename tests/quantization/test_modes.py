"""Graphs that are quantized train and answer as their networks do: chance is asked for where a layer asks for it."""

import pytest
import torch
from torch import Tensor, nn

from limbeck import quantization
from limbeck.components import Component

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))


class Dropping(nn.Module):
    """A linear layer behind a dropout and a norm that nothing folds away."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.norm, self.drop, self.head = nn.BatchNorm1d(8), nn.Dropout(share), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 8] -> [B, 3]."""
        return self.head(self.drop(torch.relu(self.norm(x))))  # type: ignore[no-any-return]


def prepared(share: float) -> nn.Module:
    torch.manual_seed(0)
    described = quantization.describe("static", "u8s8", Component(use="mse"), trained=True)
    network = Dropping(share)
    for _ in range(3):
        network(X)
    return quantization.prepare(network, described, (8,), torch.float32)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_a_dropout_forgets_the_share_that_it_was_given_in_training_alone(share: float) -> None:
    graph = prepared(share)
    graph(X)  # ranges
    shares: list[float] = []
    for mode in (True, False, True):
        assert graph.train(mode) is graph
        assert graph.training == mode
        nodes = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.dropout.default)  # type: ignore[operator, union-attr]
        shares += [node.args[1] for node in nodes]
        with torch.no_grad(), quantization.settled(graph):
            same = torch.equal(graph(X), graph(X))
        assert same == (not mode or share == 0.0)
    assert shares == [share] * 3


def test_norms_take_statistics_from_the_batch_in_training_alone() -> None:
    graph = prepared(0.0)
    graph.eval()
    means = [value for name, value in graph.named_buffers() if name.endswith("running_mean")]
    (mean,) = means
    before = mean.clone()
    with torch.no_grad():
        alone = graph(X[:2] + 5)[:1]
        assert torch.equal(mean, before)
        beside = graph(torch.cat([X[:1] + 5, X[1:]]))[:1]
    torch.testing.assert_close(alone, beside, atol=0.2, rtol=0)
    graph.train()
    graph(X + 5)
    assert not torch.equal(mean, before)


def test_turning_it_over_draws_nothing() -> None:
    graph = prepared(0.3)
    chance = torch.get_rng_state()
    for mode in (True, False, True):
        graph.train(mode)
    assert torch.equal(torch.get_rng_state(), chance)


def test_what_was_trained_answers_without_chance() -> None:
    graph = prepared(0.3)
    graph.train()
    with torch.no_grad():
        graph(X)
        converted = quantization.convert(graph)
        assert torch.equal(converted(X), converted(X))
        assert torch.equal(quantization.convert(graph.eval())(X), converted(X))
