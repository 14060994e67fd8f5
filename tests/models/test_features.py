import pytest
import torch
from torch import nn

from limbeck import models
from limbeck.checkpoint import Spec
from limbeck.components import Component
from limbeck.models.features import head_of, tapped, width_of

ZOO = {
    "resnet": (Component(use="resnet", width=4, depth=8), "head", 16),
    "pad": (Component(use="resnet", width=4, depth=8, shortcut="pad"), "head", 16),
    "convnet": (Component(use="convnet", width=4, depth=2), "head", 32),
    "foreign": (Component(use="tests.models.foreign:Backbone"), "fc", 8),
}


def network(model: Component) -> models.Network:
    torch.manual_seed(0)
    return models.build(
        Spec(model=model, shape=(8, 8, 3), dtype="uint8", classes=("a", "b", "c"), mean=(1.0,) * 3, std=(2.0,) * 3)
    ).eval()


RAW = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ZOO)
def test_the_head_is_the_last_layer_to_run_and_features_are_what_enters_it(name: str) -> None:
    model, head, width = ZOO[name]
    built = network(model)
    assert head_of(built.body, built.preprocess(RAW[:1])) == head
    with torch.no_grad(), tapped(built) as tap:
        logits = built(RAW)
    assert tap.features is not None
    assert tap.features.shape == (5, width)
    layer = built.body.get_submodule(head)
    assert torch.allclose(layer(tap.features), logits, atol=1e-6)


def test_a_tap_changes_no_answer_and_leaves_no_hook() -> None:
    built = network(ZOO["resnet"][0])
    with torch.no_grad():
        before = built(RAW)
        with tapped(built):
            within = built(RAW)
    assert torch.equal(before, within)
    assert not any(layer._forward_pre_hooks for layer in built.modules())


def test_a_graph_without_layers_as_modules_has_no_features() -> None:
    graph = torch.export.export(network(ZOO["convnet"][0]), (RAW,)).module()
    with tapped(graph) as tap:
        graph(RAW)
    assert tap.features is None


def test_a_convolution_may_be_the_head() -> None:
    body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 4, 1), nn.Flatten())
    assert head_of(body, torch.zeros(1, 3, 8, 8)) == "2"
    with tapped(body) as tap:
        body(torch.zeros(2, 3, 8, 8))
    assert tap.features is not None
    assert tap.features.shape == (2, 6)


def test_convolutions_over_time_have_features_and_may_be_the_head() -> None:
    over_time = nn.Sequential(nn.Conv1d(3, 6, 3), nn.ReLU(), nn.Conv1d(6, 5, 3), nn.AdaptiveAvgPool1d(1))
    series = torch.randn(2, 3, 9, generator=torch.Generator().manual_seed(0))
    last = nn.Sequential(over_time, nn.Conv1d(5, 4, 1), nn.Flatten())
    assert head_of(last, series[:1]) == "1"
    assert width_of(last, series) == 5
    assert head_of(nn.Sequential(over_time, nn.Flatten()), series[:1]) == "0.2"
    with torch.no_grad(), tapped(last) as tap:
        logits = last(series)
    assert tap.features is not None
    assert torch.allclose(last[1:](tap.features.unsqueeze(2)), logits, atol=1e-6)
