"""How far to cut: to a share of the channels, to a budget of MACs or parameters, or until the measured p95 is short enough."""

import math
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from limbeck.components import bind
from limbeck.errors import ParamsError
from limbeck.models import Network, count_macs, num_params
from limbeck.params import PruneParams
from limbeck.pruning.blocks import JUDGES, Blocks, Count, Losses
from limbeck.pruning.cutting import Channels
from limbeck.pruning.importances import IMPORTANCES, Observing
from limbeck.training import Progress

FINEST = 100
"""Budgets are approached in shares of one in so many."""

P95 = Callable[[Network], float]
"""A network's measured p95 in ms: the bound of its interval that speaks against it."""


@dataclass(frozen=True)
class Step:
    """One step of pruning: the share of channels or blocks that is gone, MACs of one sample, and whether it cut anything."""

    share: float
    macs: int
    has_cut: bool


@dataclass(frozen=True)
class Budget:
    """At most so many of what is counted; its key in the settings."""

    key: str
    limit: int
    unit: str
    count: Count


class Ranking(Protocol):
    """A network's channels or blocks, judged: what goes for a share, a copy without it, and the cut in place.

    whole: what was there before the first cut. least: how far it goes, and advice: what would let it go further.
    """

    whole: Any
    least: str
    advice: str

    def doomed(self, share: float) -> Sized:
        """What goes when `share` of all is to be gone."""

    def cut(self, share: float) -> Network:
        """A copy without it."""

    def cut_(self, share: float) -> None:
        """The network itself, without it."""


def prune_(
    network: Network,
    params: PruneParams,
    sample: Tensor,
    *,
    losses: Losses | None = None,
    p95_ms: P95 | None = None,
    report: Progress | None = None,
) -> Iterator[Step]:
    """Cut channels or blocks out of `network.body`, in place, in `params.steps` steps; train it back between two.

    Each step ranks them anew. A share grows evenly from step to step, what a budget counts shrinks by equal factors. For a
    latency the share is found on the uncut network; the last step measures again, and cuts further where a new ranking
    made the network slower.

    Args:
        network: a float network, changed in place.
        params: importance, scope, aim, steps, rounding.
        sample: one raw sample [1, ...].
        losses: for an importance or a judge that looks at the training data.
        p95_ms: for a latency.
        report: told how many blocks are ranked; its scratch folder holds which ones.

    Yields:
        What was done, after each step.

    Raises:
        ParamsError: the budget or the latency cannot be reached, or no block may go.

    """
    budget = _budget(params, sample)
    count = None if budget is None else budget.count
    rank = _blocks(params, losses, count, report) if params.scope == "block" else _channels(params, sample, losses)
    before = 0 if budget is None else budget.count(network)
    whole: Any = None
    share = found = 0.0
    for step in range(1, params.steps + 1):
        network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # training may leave another
        ranking = rank(network, whole)
        whole = ranking.whole
        if params.ratio is not None:
            share = params.ratio * step / params.steps
        elif budget is not None:
            goal = max(
                budget.limit, before * min(1.0, budget.limit / before) ** (step / params.steps)
            )  # not an ulp below it
            share = _by_count(ranking, share, goal, budget, params)
        else:
            assert p95_ms is not None, "a latency is measured"
            if step in (1, params.steps):
                found = _by_latency(ranking, found, p95_ms, params)
            share = found * step / params.steps
        has_cut = bool(ranking.doomed(share))
        ranking.cut_(share)
        yield Step(share, count_macs(network, sample), has_cut)


def _budget(params: PruneParams, sample: Tensor) -> Budget | None:
    if params.max_macs is not None:
        return Budget("max_macs", params.max_macs, "MACs", lambda network: count_macs(network, sample))
    if params.max_parameters is not None:
        return Budget("max_parameters", params.max_parameters, "parameters", num_params)
    return None


def _channels(
    params: PruneParams, sample: Tensor, losses: Losses | None
) -> Callable[[Network, dict[str, int] | None], Ranking]:
    importance = bind(params, IMPORTANCES, "importance")()

    def rank(network: Network, whole: dict[str, int] | None) -> Ranking:
        if isinstance(importance, Observing):
            assert losses is not None, f"importance {params.use} observes losses"
            importance.observe(network, losses())
        return Channels(network, sample, importance, params, whole)

    return rank


def _blocks(
    params: PruneParams, losses: Losses | None, count: Count | None, report: Progress | None
) -> Callable[[Network, int | None], Ranking]:
    judge = bind(params, JUDGES, "judge of blocks")()

    def rank(network: Network, whole: int | None) -> Ranking:
        return Blocks(network, judge, params, losses, count, whole, report)

    return rank


def smallest(keeps: Callable[[float], bool], low: float, high: float) -> float | None:
    """The smallest share from `low` to `high` that keeps something, in hundredths or `high` itself; None when that does not.

    Found by bisection: whatever a larger cut loses again by chance, what is answered was seen to keep it.
    """
    first, last = math.ceil(low * FINEST - 1e-9), math.floor(high * FINEST + 1e-9)
    if keeps(first / FINEST):
        return first / FINEST
    if first >= last or not keeps(last / FINEST):
        return high if high > last / FINEST and keeps(high) else None
    while last - first > 1:
        middle = (first + last) // 2
        if keeps(middle / FINEST):
            last = middle
        else:
            first = middle
    return last / FINEST


def _by_count(ranking: Ranking, low: float, goal: float, budget: Budget, params: PruneParams) -> float:
    share = smallest(lambda share: budget.count(ranking.cut(share)) <= goal, low, params.max_ratio)
    if share is None:
        reached = budget.count(ranking.cut(params.max_ratio))
        raise ParamsError(
            f"prune.{budget.key} asks for {budget.limit:,} {budget.unit}; {ranking.least} is {reached:,}. Raise it, {ranking.advice}, "
            "or choose a smaller student."
        )
    return share


def _by_latency(ranking: Ranking, low: float, p95_ms: P95, params: PruneParams) -> float:
    assert params.latency is not None
    limit = params.latency.max_p95_ms
    share = smallest(lambda share: p95_ms(ranking.cut(share)) <= limit, low, params.max_ratio)
    if share is None:
        reached = p95_ms(ranking.cut(params.max_ratio))
        raise ParamsError(
            f"prune.latency asks for a p95 of {limit:g} ms; {ranking.least} takes up to {reached:.4g} ms. Choose a "
            "shallower or narrower student.model, allow more threads, or raise contract.max_p95_ms with it."
        )
    return share
