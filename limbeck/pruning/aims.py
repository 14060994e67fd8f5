"""How far to cut: to a share of the channels, to a budget of MACs, or until the measured p95 is short enough."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from limbeck.components import bind
from limbeck.errors import ParamsError
from limbeck.models import Network, count_macs
from limbeck.params import PruneParams
from limbeck.pruning.cutting import Ranking
from limbeck.pruning.importances import IMPORTANCES, Observing

FINEST = 100
"""Budgets are approached in shares of one in so many."""

Losses = Callable[[], Iterable[Tensor]]
"""Begins an epoch of training batches and gives the loss of each."""

P95 = Callable[[Network], float]
"""A network's measured p95 in ms: the bound of its interval that speaks against it."""


@dataclass(frozen=True)
class Step:
    """One step of pruning: the share of channels that is gone, MACs of one sample, and whether it cut anything."""

    share: float
    macs: int
    has_cut: bool


def prune_(
    network: Network,
    params: PruneParams,
    sample: Tensor,
    *,
    losses: Losses | None = None,
    p95_ms: P95 | None = None,
) -> Iterator[Step]:
    """Cut channels out of `network.body`, in place, in `params.steps` steps; train it back between two.

    Each step ranks the channels anew. A share grows evenly from step to step, MACs shrink by equal factors. For a
    latency the share is found on the uncut network; the last step measures again, and cuts further where channels
    ranked anew made the network slower.

    Args:
        network: a float network, changed in place.
        params: importance, scope, aim, steps, rounding.
        sample: one raw sample [1, ...].
        losses: for an importance that observes the training data.
        p95_ms: for a latency.

    Yields:
        What was done, after each step.

    Raises:
        ParamsError: the MACs or the latency cannot be reached.

    """
    importance = bind(params, IMPORTANCES, "importance")()
    before = count_macs(network, sample)
    whole: dict[str, int] | None = None
    share = found = 0.0
    for step in range(1, params.steps + 1):
        network.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # training may leave another
        if isinstance(importance, Observing):
            assert losses is not None, f"importance {params.use} observes losses"
            importance.observe(network, losses())
        ranking = Ranking(network, sample, importance, params, whole)
        whole = ranking.whole
        if params.ratio is not None:
            share = params.ratio * step / params.steps
        elif params.max_macs is not None:
            goal = before * min(1.0, params.max_macs / before) ** (step / params.steps)
            share = _by_macs(ranking, share, goal, sample, params)
        else:
            assert p95_ms is not None, "a latency is measured"
            if step in (1, params.steps):
                found = _by_latency(ranking, found, p95_ms, params)
            share = found * step / params.steps
        has_cut = bool(ranking.doomed(share))
        ranking.cut_(share)
        yield Step(share, count_macs(network, sample), has_cut)


def smallest(keeps: Callable[[float], bool], low: float, high: float) -> float | None:
    """The smallest share from `low` to `high` that keeps something, in hundredths; None when `high` does not.

    Found by bisection: whatever a larger cut loses again by chance, what is answered was seen to keep it.
    """
    first, last = math.ceil(low * FINEST - 1e-9), math.floor(high * FINEST + 1e-9)
    if keeps(first / FINEST):
        return first / FINEST
    if first >= last or not keeps(last / FINEST):
        return None
    while last - first > 1:
        middle = (first + last) // 2
        if keeps(middle / FINEST):
            last = middle
        else:
            first = middle
    return last / FINEST


def _by_macs(ranking: Ranking, low: float, goal: float, sample: Tensor, params: PruneParams) -> float:
    share = smallest(lambda share: count_macs(ranking.cut(share), sample) <= goal, low, params.max_ratio)
    if share is None:
        reached = count_macs(ranking.cut(params.max_ratio), sample)
        raise ParamsError(
            f"prune.max_macs asks for {params.max_macs:,} MACs; the narrowest this network gets with widths in multiples "
            f"of {params.round_to} and at most {params.max_ratio:g} of a layer gone is {reached:,}. Raise it, lower "
            "round_to, raise max_ratio, or choose a smaller student."
        )
    return share


def _by_latency(ranking: Ranking, low: float, p95_ms: P95, params: PruneParams) -> float:
    assert params.latency is not None
    limit = params.latency.max_p95_ms
    share = smallest(lambda share: p95_ms(ranking.cut(share)) <= limit, low, params.max_ratio)
    if share is None:
        reached = p95_ms(ranking.cut(params.max_ratio))
        raise ParamsError(
            f"prune.latency asks for a p95 of {limit:g} ms; the narrowest this network gets with widths in multiples of "
            f"{params.round_to} and at most {params.max_ratio:g} of a layer gone takes up to {reached:.4g} ms. Choose a "
            "shallower or narrower student.model, allow more threads, or raise contract.max_p95_ms with it."
        )
    return share
