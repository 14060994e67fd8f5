"""Which channels hang together, how many each layer keeps, and the cut.

torch-pruning (Fang et al. 2023, DepGraph: Towards Any Structural Pruning) finds the groups and cuts them. What is
kept of its work are the final widths (`cuts_of`), which any torch builds again. Legend: C channels of a group.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from limbeck import models
from limbeck.checkpoint import Cut, Spec
from limbeck.models import CUTTABLE, Network
from limbeck.models.features import head_of
from limbeck.models.skipping import skipped
from limbeck.params import PruneParams
from limbeck.pruning.importances import Importance

SLACK = 1e-9
"""A share of 0.9 leaves a tenth: rounding errors of floats take no channel and give none."""


@dataclass(frozen=True)
class Group:
    """Channels that come and go together in every layer that they meet.

    root: the first of these layers, which names the group.
    scores_C: what its channels matter.
    num_tied: how many of the root's channels share a score: its convolution's groups, else 1.
    """

    root: str
    scores_C: Tensor
    num_tied: int


class Graph:
    """A network's groups, traced with one raw `sample` [1, ...]; it stays true while channels go.

    The logits stay, and the channels that meet a module which says `keeps_channels = True` or has weights of a kind
    that no checkpoint remembers.
    """

    def __init__(self, network: Network, sample: Tensor) -> None:
        import torch_pruning

        inputs = network.preprocess(sample).detach()
        kept = [module for module in network.body.modules() if _keeps_channels(module)]
        self._stays = [network.body.get_submodule(head_of(network.body, inputs))]
        self._stays += [inner for module in kept for inner in module.modules()]
        self._body = network.body
        self._library = torch_pruning.DependencyGraph().build_dependency(
            network.body, example_inputs=inputs, customized_pruners={type(module): Opaque() for module in kept}
        )

    def groups(self, importance: Importance) -> list[Group]:
        """The groups that may be cut, in the graph's order, judged; those the importance cannot judge are left out."""
        names = {module: name for name, module in self._body.named_modules()}
        found = []
        for group in self._library.get_all_groups(ignored_layers=self._stays):
            scores = importance(group)
            if scores is not None:
                num_tied = self._num_tied(group)
                found.append(
                    Group(names[group[0].dep.target.module], scores.cpu().view(num_tied, -1).mean(0), num_tied)
                )
        return found

    def cut_(self, doomed: Mapping[str, Sequence[int]]) -> None:
        """Remove channels, given by the root of their group, from every layer that they meet."""
        for root, channels in doomed.items():
            module = self._body.get_submodule(root)
            remove = self._library.get_pruner_of_module(module).prune_out_channels
            self._library.get_pruning_group(module, remove, list(channels)).prune()

    def _num_tied(self, group: Any) -> int:
        """The groups of a grouped convolution that is met (of a depthwise one, each channel goes alone)."""
        nums = [1]
        for dep, _ in group:
            module = dep.target.module
            if isinstance(module, nn.Conv1d | nn.Conv2d) and module.groups < module.out_channels:
                nums.append(module.groups)
        return max(nums)


def widths(groups: Sequence[Group], whole: Sequence[int], share: float, params: PruneParams) -> list[int]:
    """How many channels each group keeps when `share` of those it all began with is gone.

    With `scope: layer` every group loses the same share; with `global` the least important channels go, whichever
    group they are in. What a group keeps is rounded down to a multiple of `round_to`, and is never less than
    1 - `max_ratio` of its first width, rounded up to such a multiple: no layer is cut away.

    Args:
        groups: as they are now.
        whole: their widths before the first cut.
        share: from 0 to `max_ratio`.
        params: `scope`, `round_to` and `max_ratio`.

    """
    now = [len(group.scores_C) for group in groups]
    floors = [min(n, _floor(width, params)) for n, width in zip(now, whole, strict=True)]
    if params.scope == "layer":
        kept = [min(n, math.floor(width * (1 - share) + SLACK)) for n, width in zip(now, whole, strict=True)]
    else:
        kept = list(now)
        excess = sum(now) - math.floor(sum(whole) * (1 - share) + SLACK)
        ranked = sorted((score, index) for index, group in enumerate(groups) for score in group.scores_C.tolist())
        for _, index in ranked:
            if excess > 0 and kept[index] > floors[index]:
                kept[index] -= 1
                excess -= 1
    return [
        n if keep >= n else max(floor, keep - keep % params.round_to)
        for n, keep, floor in zip(now, kept, floors, strict=True)
    ]


def _floor(width: int, params: PruneParams) -> int:
    least = math.ceil(width * (1 - params.max_ratio) - SLACK)
    return math.ceil(least / params.round_to) * params.round_to


class Channels:
    """A network's channels in the order of their importance, ready to be cut.

    Args:
        network: a float network in evaluation mode.
        sample: one raw sample [1, ...].
        importance: judges the groups, once, now.
        params: how widths are chosen.
        whole: each group's width before the first cut, by root; None where that is now.

    """

    def __init__(
        self,
        network: Network,
        sample: Tensor,
        importance: Importance,
        params: PruneParams,
        whole: dict[str, int] | None,
    ) -> None:
        self._network, self._sample, self._params = network, sample, params
        self._graph = Graph(network, sample)
        self.groups = self._graph.groups(importance)
        self.whole = whole or {group.root: len(group.scores_C) for group in self.groups}
        self.least = (
            f"the narrowest this network gets with widths in multiples of {params.round_to} and at most "
            f"{params.max_ratio:g} of a layer gone"
        )
        self.advice = "lower round_to, raise max_ratio"

    def doomed(self, share: float) -> dict[str, list[int]]:
        """The channels that go, by the root of their group, when `share` of all is to be gone."""
        kept = widths(self.groups, [self.whole[group.root] for group in self.groups], share, self._params)
        found = {}
        for group, keep in zip(self.groups, kept, strict=True):
            size = len(group.scores_C)
            if keep < size:
                least = torch.argsort(group.scores_C, stable=True)[: size - keep].tolist()
                found[group.root] = sorted(index + size * tied for tied in range(group.num_tied) for index in least)
        return found

    def cut(self, share: float) -> Network:
        """A copy of the network, cut."""
        tried = copy.deepcopy(self._network)
        Graph(tried, self._sample).cut_(self.doomed(share))
        return tried

    def cut_(self, share: float) -> None:
        """Cut the network itself, in place."""
        self._graph.cut_(self.doomed(share))
        for parameter in self._network.parameters():
            parameter.grad = None


def _keeps_channels(module: nn.Module) -> bool:
    """Whether the channels that meet a module must stay: it says so, or no checkpoint could remember its cut."""
    has_weights = next(module.parameters(recurse=False), None) is not None
    return getattr(module, "keeps_channels", False) or (has_weights and not isinstance(module, CUTTABLE))


class Opaque:
    """What torch-pruning is told of a module whose channels stay: one node, whatever lies inside."""

    def prune_out_channels(self, layer: nn.Module, idxs: list[int]) -> nn.Module:
        """Never called: a group that holds an ignored layer is not cut."""
        raise AssertionError(f"{type(layer).__name__} keeps its channels")

    prune_in_channels = prune_out_channels  # equal: what enters is tied to what leaves

    def get_out_channels(self, layer: nn.Module) -> None:
        """Unknown."""

    def get_in_channels(self, layer: nn.Module) -> None:
        """Unknown."""

    def get_out_channel_groups(self, layer: nn.Module) -> int:
        """One."""
        return 1

    get_in_channel_groups = get_out_channel_groups


def cut_spec(spec: Spec, network: Network) -> Spec:
    """The spec of a network that was cut: its widths, and the blocks that it skips."""
    return spec.model_copy(update={"cuts": cuts_of(spec, network), "skipped": skipped(network.body)})


def cuts_of(spec: Spec, network: Network) -> dict[str, Cut]:
    """The widths that differ from the network that `spec` builds without cuts, by module name below `body`."""
    whole = dict(models.build(spec.model_copy(update={"cuts": {}})).body.named_modules())
    cuts: dict[str, Cut] = {}
    for name, module in network.body.named_modules():
        if (width := _width(module)) is not None and width != _width(whole[name]):
            cuts[name] = width
    return cuts


def _width(module: nn.Module) -> Cut | None:
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return Cut(inputs=module.in_channels, outputs=module.out_channels, groups=module.groups)
    if isinstance(module, nn.Linear):
        return Cut(inputs=module.in_features, outputs=module.out_features)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return Cut(inputs=module.num_features, outputs=module.num_features)
    return None
