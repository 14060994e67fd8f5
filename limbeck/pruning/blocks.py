"""Whole blocks go: which ones a network can do without, and the cut.

Time follows depth more closely than width: a layer of half the channels still has to be started, and moves bytes. What
lies in JUDGES says what a block matters: it is called with the network, the names of its blocks and a maker of losses,
and answers a cost for each block, below zero where the network does better without it. The least goes first.
"""

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from statistics import mean
from typing import Annotated, TypeAlias

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from limbeck.atomic import write_json
from limbeck.errors import ParamsError
from limbeck.models import Network
from limbeck.models.skipping import residual, skip_, skipped, without
from limbeck.params import PruneParams
from limbeck.pruning.cutting import SLACK
from limbeck.training import Progress

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


def listed(*, blocks: Annotated[tuple[str, ...], Field(min_length=1)]) -> Judge:
    """In this order, whatever they save; blocks that are not listed go after those that are, in the network's own order.

    For a cut that was found elsewhere: the loss right after a cut says little of what training gets back.
    """

    def judge(network: Network, names: list[str], _: Losses | None) -> list[float]:
        if strange := [name for name in blocks if name not in {*names, *skipped(network.body)}]:
            raise ParamsError(
                f"prune.blocks lists {', '.join(strange)}; blocks of this network that may go are {', '.join(names)}."
            )
        first = next((name for name in blocks if name in names), names[0])
        return [-math.inf if name == first else math.inf for name in names]

    return judge


JUDGES: dict[str, Callable[..., Judge]] = {"loss": loss, "random": random, "listed": listed}


class Blocks:
    """A network's blocks in the order in which they go, ready to be skipped.

    One goes at a time, and those that stay are judged again without it: of two that do each other's work either can go,
    which a single look takes for two that can. This asks a judge n + (n - 1) + ... times about n blocks.

    Args:
        network: a float network in evaluation mode.
        judge: judges its blocks, now or when more of them are asked for.
        params: `max_ratio`.
        losses: for a judge that looks at them.
        count: what a budget counts, of which each block saves some: the least goes first that matters for what it saves.
        whole: how many blocks there were before the first cut; None where that is now.
        report: told how many blocks are ranked; its scratch folder holds which ones, for the same run after a kill.

    Raises:
        ParamsError: none may go.

    """

    def __init__(
        self, network: Network, judge: Judge, params: PruneParams, losses: Losses | None, count: Count | None,
        whole: int | None, report: Progress | None,
    ) -> None:  # fmt: skip
        self._network, self._judge, self._losses, self._count = network, judge, losses, count
        names = residual(network.body)
        self.whole = len(names) if whole is None else whole
        self._gone = self.whole - len(names)
        self._report = report
        self._file = None if report is None else report.scratch / f"ranked-{self._gone}.json"
        self._ranked: list[str] = json.loads(self._file.read_text()) if self._file and self._file.exists() else []
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

    def _first(self, num: int) -> list[str]:
        """The blocks that go when `num` are to go."""
        while len(self._ranked) < num:
            with ExitStack() as gone:
                for name in self._ranked:
                    gone.enter_context(without(self._network.body, name))
                self._ranked.append(self._next())
            if self._report is not None and self._file is not None:
                write_json(self._file, self._ranked)
                self._report.progress(len(self._ranked), self.most - self._gone, "blocks ranked")
        return self._ranked[:num]

    def _next(self) -> str:
        """The block that is missed least by the network as it is now."""
        names = residual(self._network.body)
        with torch.random.fork_rng(devices=[]):  # training draws the same whether this was done now or before a kill
            number = self._gone + len(self._ranked)
            torch.manual_seed(int(np.random.SeedSequence([torch.initial_seed(), number]).generate_state(1)[0]))
            costs = self._judge(self._network, names, self._losses)
        if self._count is not None:
            saved = _saved(self._network, names, self._count)
            costs = [_weighed(*pair) for pair in zip(costs, saved, strict=True)]
        known = [math.inf if math.isnan(cost) else cost for cost in costs]
        return min(zip(known, names, strict=True), key=lambda pair: pair[0])[1]

    def doomed(self, share: float) -> list[str]:
        """The blocks that go when `share` of all is to be gone: rounded up, but no more than `max_ratio` rounded down."""
        return self._first(max(0, min(self.most, math.ceil(self.whole * share - SLACK)) - self._gone))

    def cut(self, share: float) -> Network:
        """A copy of the network without them."""
        tried = copy.deepcopy(self._network)
        skip_(tried.body, self.doomed(share))
        return tried

    def cut_(self, share: float) -> None:
        """Skip them in the network itself, in place."""
        skip_(self._network.body, self.doomed(share))


def _saved(network: Network, names: list[str], count: Count) -> Iterator[int]:
    whole = count(network)
    for name in names:
        with without(network.body, name):
            yield max(1, whole - count(network))


def _weighed(cost: float, saved: int) -> float:
    """A cost for each unit saved; what costs nothing goes first where it saves most."""
    return cost / saved if cost > 0 else cost * saved
