"""Structured pruning by dependency graph: whole channels go, and what depends on them follows.

torch-pruning (Fang et al. 2023, DepGraph: Towards Any Structural Pruning) finds the groups; what is kept of
its work are the final widths (`cuts`), which any torch builds again.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from limbeck import models
from limbeck.checkpoint import Cut, Spec
from limbeck.components import Component, bind
from limbeck.errors import ParamsError
from limbeck.models import CUTTABLE, Network, count_macs
from limbeck.models.features import head_of
from limbeck.params import PruneParams

FINE_STEPS = 100
"""In how many small cuts a MACs budget is approached."""


def magnitude() -> Any:
    """L2 norm of a channel's weights, summed over its group (Li et al. 2017, Pruning Filters, section 3)."""
    import torch_pruning

    return torch_pruning.importance.GroupMagnitudeImportance(p=2)


def random() -> Any:
    """Channels by lot: the control that an importance has to beat."""
    import torch_pruning

    return torch_pruning.importance.RandomImportance()


IMPORTANCES: dict[str, Callable[..., Any]] = {"magnitude": magnitude, "random": random}


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


def prune_(network: Network, params: PruneParams, sample: Tensor) -> Iterator[int]:
    """Cut channels out of `network.body`, in place, in `params.steps` steps; train it back between two.

    The logits stay, and the channels that meet a module which says `keeps_channels = True` or has weights of a kind
    that no checkpoint remembers.

    Args:
        network: a float network, changed in place.
        params: the aim (share of channels, or MACs of one sample), steps, rounding.
        sample: one raw sample [1, ...].

    Yields:
        After each step, the network's MACs for one sample.

    Raises:
        ParamsError: the MACs budget cannot be reached.

    """
    import torch_pruning

    network.eval()
    before = count_macs(network, sample)
    inputs = network.preprocess(sample).detach()
    by_macs = params.max_macs is not None
    kept = [module for module in network.body.modules() if _keeps_channels(module)]
    pruner = torch_pruning.pruner.BasePruner(
        network.body,
        inputs,
        importance=bind(Component(use=params.use), IMPORTANCES, "importance")(),
        pruning_ratio=0.98 if params.ratio is None else params.ratio,
        iterative_steps=FINE_STEPS if by_macs else params.steps,
        ignored_layers=[network.body.get_submodule(head_of(network.body, inputs)), *kept],
        customized_pruners={type(module): Opaque() for module in kept},
        round_to=params.round_to,
    )
    for step in range(1, params.steps + 1):
        network.eval()
        if params.max_macs is None:
            pruner.step()
        else:
            goal = before * (min(1.0, params.max_macs / before)) ** (step / params.steps)
            while count_macs(network, sample) > goal and pruner.current_step < FINE_STEPS:
                pruner.step()
            reached = count_macs(network, sample)
            if reached > goal:
                raise ParamsError(
                    f"prune.max_macs asks for {params.max_macs:,} MACs; the narrowest this network gets with widths in "
                    f"multiples of {params.round_to} is {reached:,}. Raise it, lower round_to, or choose a smaller student."
                )
        for parameter in network.parameters():
            parameter.grad = None
        yield count_macs(network, sample)


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
