"""Whole blocks go: which ones a network can do without, and the cut.

Time follows depth more closely than width: a layer of half the channels still has to be started, and moves bytes. What
lies in JUDGES says what a block matters: it is called with the network, the names of its blocks and a maker of losses,
and answers a figure for each block, the least of which goes first.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from statistics import mean
from typing import TypeAlias

import torch
from pydantic import PositiveInt
from torch import Tensor

from limbeck.errors import ParamsError
from limbeck.models import Network
from limbeck.models.skipping import residual, skip_, without
from limbeck.params import PruneParams
from limbeck.pruning.cutting import SLACK

Losses: TypeAlias = Callable[[], Iterable[Tensor]]
"""Begins an epoch of training batches and gives the loss of each."""
Count: TypeAlias = Callable[[Network], int]
"""What a budget is of: MACs, or parameters."""
Judge: TypeAlias = Callable[[Network, list[str], Losses | None], list[float]]


def loss(*, num_batches: PositiveInt) -> Judge:
    """By how much the mean loss of `num_batches` training batches rises when the block alone is skipped.

    Veit et al. 2016, Residual Networks Behave Like Ensembles of Relatively Shallow Networks, section 4.1: most single
    blocks of a trained ResNet can be left out at little cost, and this is what each of them costs.
    """

    def judge(network: Network, names: list[str], losses: Losses | None) -> list[float]:
        assert losses is not None, "the loss is looked at"
        chance = torch.get_rng_state()

        def look() -> float:
            torch.set_rng_state(chance)  # a loss that owns a network begins with an equal one
            return mean(each.item() for each in islice(losses(), num_batches))

        found = []
        with torch.no_grad():
            whole = look()
            for name in names:
                with without(network.body, name):
                    found.append(look() - whole)
        return found

    return judge


def random() -> Judge:
    """Blocks by lot: the control that a judge has to beat."""
    return lambda _, names, __: torch.rand(len(names)).tolist()


JUDGES: dict[str, Callable[..., Judge]] = {"loss": loss, "random": random}


class Blocks:
    """A network's blocks in the order of what they matter, ready to be skipped.

    Args:
        network: a float network in evaluation mode.
        judge: judges its blocks, once, now.
        params: `max_ratio`.
        losses: for a judge that looks at them.
        count: what a budget counts, of which each block saves some: the least goes first that matters for what it saves.
        whole: how many blocks there were before the first cut; None where that is now.

    Raises:
        ParamsError: none may go.

    """

    def __init__(
        self, network: Network, judge: Judge, params: PruneParams, losses: Losses | None, count: Count | None,
        whole: int | None,
    ) -> None:  # fmt: skip
        self._network = network
        names = residual(network.body)
        self.whole = len(names) if whole is None else whole
        self.most = math.floor(self.whole * params.max_ratio + SLACK)
        self.advice = "raise max_ratio"
        self.least = (
            f"the shallowest this network gets with at most {params.max_ratio:g} of its {self.whole} blocks gone"
        )
        if not self.most:
            raise ParamsError(
                f"prune.scope is block, and max_ratio {params.max_ratio:g} of the {self.whole} blocks of this network that could be "
                "skipped are none. Raise it, choose scope: layer, or a deeper student.model with shortcuts (resnet, lean_resnet, mobilenet, "
                "text_transformer; one of your own says is_residual = True)."
            )
        scores = judge(network, names, losses)
        if count is not None:
            scores = [score / saved for score, saved in zip(scores, self._saved(names, count), strict=True)]
        self._ranked = [name for _, name in sorted(zip(scores, names, strict=True), key=lambda pair: pair[0])]

    def _saved(self, names: list[str], count: Count) -> Iterator[int]:
        whole = count(self._network)
        for name in names:
            with without(self._network.body, name):
                yield max(1, whole - count(self._network))

    def doomed(self, share: float) -> list[str]:
        """The blocks that go when `share` of all is to be gone: rounded up, but no more than `max_ratio` rounded down."""
        gone = self.whole - len(self._ranked)
        return self._ranked[: max(0, min(self.most, math.ceil(self.whole * share - SLACK)) - gone)]

    def cut(self, share: float) -> Network:
        """A copy of the network without them."""
        tried = copy.deepcopy(self._network)
        skip_(tried.body, self.doomed(share))
        return tried

    def cut_(self, share: float) -> None:
        """Skip them in the network itself, in place."""
        skip_(self._network.body, self.doomed(share))
