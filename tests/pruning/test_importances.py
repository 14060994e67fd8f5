"""What each importance says of a channel, held against sums by hand."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck.checkpoint import Spec
from limbeck.components import Component, bind, check
from limbeck.errors import ComponentError
from limbeck.models import Network, Preprocess
from limbeck.params import Params, PruneParams
from limbeck.pruning import IMPORTANCES, prune_
from limbeck.pruning.cutting import Graph

X = torch.randn(16, 8, 8, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(16) % 3
SPEC = Spec(
    model=Component(use="none"),
    shape=(8, 8, 3),
    dtype="float32",
    classes=("a", "b", "c"),
    mean=(0.0,) * 3,
    std=(1.0,) * 3,
)


class Chain(nn.Module):
    """Two convolutions and a head: conv1's channels end in conv2's inputs, conv2's in the head's."""

    def __init__(self, *, with_norms: bool) -> None:
        super().__init__()
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d if with_norms else lambda _: nn.Identity()
        self.conv1, self.norm1 = nn.Conv2d(3, 6, 3, bias=False), norm(6)
        self.conv2, self.norm2 = nn.Conv2d(6, 5, 3, bias=False), norm(5)
        self.relu1, self.relu2, self.head = nn.ReLU(), nn.ReLU(), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.conv1(x)))
        return self.head(self.relu2(self.norm2(self.conv2(x))).mean((2, 3)))  # type: ignore[no-any-return]


def network_of(*, with_norms: bool = False) -> Any:
    torch.manual_seed(0)
    return Network(Preprocess(SPEC), Chain(with_norms=with_norms)).eval()


def losses_of(network: nn.Module, num: int = 4) -> Iterator[Tensor]:
    for x, y in zip(X.chunk(num), Y.chunk(num), strict=True):
        yield nn.functional.cross_entropy(network(x), y)


def scores(network: Network, importance: Any) -> dict[str, Tensor]:
    return {group.root: group.scores_C for group in Graph(network, X[:1]).groups(importance)}


def make(use: str, **keywords: Any) -> Any:
    return bind(Component.model_validate({"use": use, **keywords}), IMPORTANCES, "importance")()


def over_weights(body: Chain, of: Callable[[nn.Module], Tensor]) -> dict[str, Tensor]:
    """A value for each weight, summed over the weights that go with a channel."""
    return {
        "conv1": of(body.conv1).sum((1, 2, 3)) + of(body.conv2).sum((0, 2, 3)),
        "conv2": of(body.conv2).sum((1, 2, 3)) + of(body.head).sum(0),
    }


def test_magnitude_is_the_squared_norm_over_the_mean_of_its_group() -> None:
    network = network_of()
    found = scores(network, make("magnitude"))
    by_hand = over_weights(network.body, lambda layer: layer.weight.detach().square())  # type: ignore[operator,union-attr]
    for root, expected in by_hand.items():
        torch.testing.assert_close(found[root], expected / expected.mean())


@given(st.floats(0.01, 100), st.permutations(range(6)))
def test_magnitude_asks_neither_for_the_scale_of_a_network_nor_for_the_order_of_its_channels(
    scale: float, order: list[int]
) -> None:
    plain, other = network_of(), network_of()
    with torch.no_grad():
        for weight in other.body.parameters():
            weight.mul_(scale)
        other.body.conv1.weight.copy_(other.body.conv1.weight[order])
        other.body.conv2.weight.copy_(other.body.conv2.weight[:, order])
    expected, found = scores(plain, make("magnitude")), scores(other, make("magnitude"))
    torch.testing.assert_close(found["conv1"], expected["conv1"][order])
    torch.testing.assert_close(found["conv2"], expected["conv2"])


@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6))
def test_bn_scale_asks_neither_for_signs_nor_for_the_layers_around(gammas: list[float]) -> None:
    network = network_of(with_norms=True)
    with torch.no_grad():
        network.body.conv1.weight.mul_(7)
        network.body.norm1.weight.copy_(-torch.tensor(gammas))
    torch.testing.assert_close(scores(network, make("bn_scale"))["conv1"], torch.tensor(gammas).abs())


def test_bn_scale_is_the_size_of_gamma() -> None:
    network = network_of(with_norms=True)
    with torch.no_grad():
        network.body.norm1.weight.copy_(torch.tensor([0.5, -2.0, 0.1, 1.0, -0.3, 3.0]))
    found = scores(network, make("bn_scale"))
    torch.testing.assert_close(found["conv1"], network.body.norm1.weight.detach().abs())


def test_bn_scale_leaves_alone_what_has_no_batch_norm() -> None:
    assert scores(network_of(), make("bn_scale")) == {}


def test_taylor_is_the_mean_over_batches_of_the_squares_of_gradient_times_weight() -> None:
    network = network_of()
    importance = make("taylor", num_batches=4)
    importance.observe(network, losses_of(network))
    found = scores(network, importance)
    expected = {root: torch.zeros(len(values)) for root, values in found.items()}
    for loss in losses_of(network):
        for parameter in network.parameters():
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        of_batch = over_weights(network.body, lambda layer: (layer.weight * layer.weight.grad).detach().square())  # type: ignore[operator,union-attr]
        for root, values in of_batch.items():
            expected[root] += values / 4
    for root, values in expected.items():
        torch.testing.assert_close(found[root], values)


def test_taylor_does_not_let_gradients_of_opposite_sign_cancel() -> None:
    network = network_of()
    importance = make("taylor", num_batches=2)
    loss = next(losses_of(network))
    importance.observe(network, iter([loss, -next(losses_of(network))]))
    assert all((values > 0).all() for values in scores(network, importance).values())


def test_taylor_looks_at_as_many_batches_as_it_is_told_and_changes_no_weight() -> None:
    network = network_of(with_norms=True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    seen = iter(losses := list(losses_of(network)))
    make("taylor", num_batches=3).observe(network, seen)
    assert len(list(seen)) == len(losses) - 3
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_a_channel_that_nothing_hears_is_the_first_to_go_by_taylor(tiny: Params) -> None:
    network = network_of()
    with torch.no_grad():
        network.body.conv2.weight[:, 4] = 0
    kept = network.body.conv1.weight[[0, 1, 2, 3, 5]].clone()
    taylor = prune_params(tiny, use="taylor", num_batches=2, ratio=0.16)
    list(prune_(network, taylor, X[:1], losses=lambda: losses_of(network)))
    assert torch.equal(network.body.conv1.weight, kept)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_random_goes_by_torchs_generator() -> None:
    network = network_of()

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return scores(network, make("random"))["conv1"]

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def prune_params(tiny: Params, **changes: Any) -> PruneParams:
    prune = tiny.targets["phone"].prune
    return PruneParams.model_validate({**prune.model_dump(), "round_to": 1, **changes})


class Later:
    """Somebody's own: the later a channel, the more it matters."""

    def __init__(self, sign: int) -> None:
        self.sign, self.num_losses = sign, 0

    def observe(self, network: nn.Module, losses: Iterator[Tensor]) -> None:
        self.num_losses = len(list(losses))

    def __call__(self, group: Any) -> Tensor:
        assert self.num_losses == 4
        return self.sign * torch.arange(len(group[0].idxs)).float()


def later(*, sign: int) -> Later:
    return Later(sign)


@pytest.mark.parametrize(("sign", "kept"), [(1, [3, 4, 5]), (-1, [0, 1, 2])])
def test_an_importance_of_ones_own_has_keywords_and_sees_losses(tiny: Params, sign: int, kept: list[int]) -> None:
    network = network_of()
    expected = network.body.conv1.weight[kept].clone()
    own = prune_params(tiny, use=f"{__name__}:later", sign=sign, ratio=0.5)
    list(prune_(network, own, X[:1], losses=lambda: losses_of(network)))
    assert torch.equal(network.body.conv1.weight, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"use": "taylor"}, "importance 'taylor' needs num_batches; add it beside `use`"),
        ({"use": "taylor", "num_batches": 0}, "num_batches is 0; Input should be greater than 0"),
        ({"ration": 0.5}, r"importance 'magnitude' has no keyword 'ration'; did you mean 'ratio'\?"),
        ({"use": "bn_scael"}, r"no importance 'bn_scael'; did you mean 'bn_scale'\?"),
    ],
)
def test_what_is_wrong_with_an_importance_is_told(tiny: Params, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ComponentError, match=message):
        check(prune_params(tiny, **changes), IMPORTANCES, "importance")
