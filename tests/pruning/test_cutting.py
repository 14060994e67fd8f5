"""How wide layers stay, as properties; and that what is cut comes back from a checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from limbeck import models
from limbeck.components import Component
from limbeck.params import Params, PruneParams
from limbeck.prediction import predict
from limbeck.pruning import cut_spec, prune_
from limbeck.pruning.cutting import Group, widths
from tests.pruning.test_importances import prune_params
from tests.test_compression import samples, seasoned, spec_of

SCORES = st.lists(st.lists(st.floats(0, 10), min_size=1, max_size=40), min_size=1, max_size=6)


def groups_of(scores: list[list[float]]) -> list[Group]:
    return [Group(f"layer{index}", torch.tensor(row), 1) for index, row in enumerate(scores)]


@given(
    SCORES, st.sampled_from(["global", "layer"]), st.sampled_from([1, 2, 3, 8]), st.sampled_from([0.9, 0.5, 0.99]),
    st.floats(0, 1), st.floats(0, 1),
)  # fmt: skip
def test_widths_are_multiples_that_shrink_with_the_share_and_never_below_the_floor(
    tiny: Params, scores: list[list[float]], scope: str, round_to: int, max_ratio: float, one: float, other: float
) -> None:
    params = prune_params(tiny, scope=scope, round_to=round_to, max_ratio=max_ratio, ratio=0.1)
    groups, whole = groups_of(scores), [len(row) for row in scores]
    little, much = (widths(groups, whole, share * max_ratio, params) for share in sorted((one, other)))
    for width, wide, narrow in zip(whole, little, much, strict=True):
        assert 1 <= narrow <= wide <= width
        assert narrow == width or narrow % round_to == 0
        assert narrow >= width * (1 - max_ratio) - 1e-6


@given(SCORES, st.floats(0, 0.9), st.sampled_from(["global", "layer"]))
def test_without_rounding_at_least_the_share_goes_unless_floors_hold_it(
    tiny: Params, scores: list[list[float]], share: float, scope: str
) -> None:
    params = prune_params(tiny, scope=scope, max_ratio=0.99)
    whole = [len(row) for row in scores]
    kept = widths(groups_of(scores), whole, share, params)
    parts = [(sum(kept), sum(whole))] if scope == "global" else zip(kept, whole, strict=True)
    for left, width in parts:
        assert left <= max(width * (1 - share) + 1e-6, len(scores))
        assert left > width * (1 - share) - 1 - 1e-6


def test_a_global_ranking_takes_from_whom_matters_least(tiny: Params) -> None:
    groups = groups_of([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    share, whole = 0.25, [4, 4]
    assert widths(groups, whole, share, prune_params(tiny, scope="global")) == [2, 4]
    assert widths(groups, whole, share, prune_params(tiny, scope="layer")) == [3, 3]


def test_the_share_is_of_the_channels_there_were_at_first(tiny: Params) -> None:
    halved = groups_of([[1.0, 2.0, 3.0, 4.0]])
    assert widths(halved, [8], 0.5, prune_params(tiny, scope="layer")) == [4]
    assert widths(halved, [8], 0.75, prune_params(tiny, scope="layer")) == [2]


@pytest.mark.parametrize("max_ratio", [0.9, 0.5])
def test_no_layer_is_cut_away_however_little_it_matters(tiny: Params, max_ratio: float) -> None:
    network = seasoned(spec_of(Component(use="convnet", width=10, depth=2)))
    first = next(name for name, m in network.named_modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():
        network.get_submodule(first).weight.mul_(1e-6)
    unscaled = {"use": f"{__name__}:unscaled", "scope": "global", "ratio": 0.45, "max_ratio": max_ratio}
    list(prune_(network, prune_params(tiny, **unscaled), torch.from_numpy(samples(1))))
    assert network.get_submodule(first).out_channels == round(10 * (1 - max_ratio))


def unscaled() -> Any:
    import torch_pruning

    return torch_pruning.importance.GroupMagnitudeImportance(group_reduction="first", normalizer=None)


class Grouped(nn.Module):
    """A convolution in two groups and a depthwise one behind it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv, self.relu1 = nn.Conv2d(3, 8, 3), nn.ReLU()
        self.paired, self.relu2 = nn.Conv2d(8, 12, 3, groups=2), nn.ReLU()
        self.deep, self.norm, self.relu3 = nn.Conv2d(12, 12, 3, groups=12), nn.BatchNorm2d(12), nn.ReLU()
        self.head = nn.Linear(12, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu2(self.paired(self.relu1(self.conv(x))))
        return self.head(self.relu3(self.norm(self.deep(x))).mean((2, 3)))  # type: ignore[no-any-return]


def grouped(shape: tuple[int, ...], num_classes: int) -> nn.Module:
    return Grouped(num_classes)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_groups_of_a_grouped_convolution_stay_equally_wide(tmp_path: Path, tiny: Params, scope: str) -> None:
    spec = spec_of(Component(use=f"{__name__}:grouped"))
    network = seasoned(spec)
    list(prune_(network, prune_params(tiny, scope=scope, ratio=0.4), torch.from_numpy(samples(1))))
    paired, deep = (network.get_submodule(f"body.{name}") for name in ("paired", "deep"))
    assert isinstance(paired, nn.Conv2d)
    assert isinstance(deep, nn.Conv2d)
    assert paired.groups == 2
    assert paired.out_channels % 2 == paired.in_channels % 2 == 0
    assert paired.out_channels < 12
    assert deep.groups == deep.out_channels == paired.out_channels
    models.save(tmp_path / "m", cut_spec(spec, network), network)
    _, again = models.load(tmp_path / "m")
    assert np.array_equal(predict(again, samples()), predict(network, samples()))


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("use", ["magnitude", "bn_scale", "random"])
def test_every_importance_cuts_in_both_scopes_and_reloads_to_the_bit(
    tmp_path: Path, tiny: Params, use: str, scope: str
) -> None:
    spec = spec_of(Component(use="resnet", width=8, depth=8))
    network = seasoned(spec)
    params: PruneParams = prune_params(tiny, use=use, scope=scope, ratio=0.4, steps=3, round_to=2)
    steps = list(prune_(network, params, torch.from_numpy(samples(1))))
    assert [step.share for step in steps] == pytest.approx([0.4 / 3, 0.8 / 3, 0.4])
    assert steps[0].macs > steps[1].macs > steps[2].macs
    models.save(tmp_path / "m", cut_spec(spec, network), network)
    _, again = models.load(tmp_path / "m")
    assert np.array_equal(predict(again, samples()), predict(network, samples()))
