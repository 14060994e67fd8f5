"""How far a network is cut: the smallest share that keeps a budget, or a latency that a stopwatch says."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from limbeck import models
from limbeck.components import Component
from limbeck.errors import ParamsError
from limbeck.models import Network
from limbeck.params import Params, PruneParams
from limbeck.pruning import prune_
from limbeck.pruning.aims import smallest
from tests.pruning.test_importances import prune_params
from tests.test_compression import samples, seasoned, spec_of

SPEC = spec_of(Component(use="resnet", width=16, depth=8))
SAMPLE = torch.from_numpy(samples(1))


@given(st.integers(0, 99), st.integers(0, 89), st.integers(1, 90))
def test_the_smallest_share_that_keeps_it_is_found(least: int, low: int, span: int) -> None:
    high = min(99, low + span)
    found = smallest(lambda share: round(share * 100) >= least, low / 100, high / 100)
    assert found == (None if least > high else max(low, least) / 100)


@given(st.floats(0, 0.99))
def test_the_largest_share_is_tried_as_it_is_given(high: float) -> None:
    assert smallest(lambda share: share >= high, 0, high) == pytest.approx(high, abs=1e-9)


@given(st.sets(st.integers(0, 90)))
def test_what_is_found_was_seen_to_keep_it_whatever_chance_does(keeping: set[int]) -> None:
    found = smallest(lambda share: round(share * 100) in keeping, 0, 0.9)
    assert round(found * 100) in keeping if found is not None else 90 not in keeping


class ByMACs:
    """A stopwatch that a count of MACs drives: one microsecond for a thousand."""

    def __init__(self) -> None:
        self.said: list[float] = []

    def __call__(self, network: Network) -> float:
        self.said.append(models.count_macs(network, SAMPLE) / 1e6)
        return self.said[-1]


def until(tiny: Params, max_p95_ms: float, **changes: Any) -> PruneParams:
    latency = {"variant": "model.fp32", "max_p95_ms": max_p95_ms, "rounds": 3, "runs_per_round": 1}
    return prune_params(tiny, ratio=None, latency=latency, **changes)


def test_a_network_is_cut_until_the_stopwatch_says_it_is_fast_enough(tiny: Params) -> None:
    network, stopwatch = seasoned(SPEC), ByMACs()
    before = models.count_macs(network, SAMPLE) / 1e6
    (step,) = prune_(network, until(tiny, before / 2), SAMPLE, p95_ms=stopwatch)
    assert before / 2.3 < step.macs / 1e6 <= before / 2
    assert step.macs / 1e6 in stopwatch.said, "the cut that stays is one that was measured"
    assert len(stopwatch.said) < 10


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_share_that_was_found_gives_the_same_cut_as_a_ratio(tiny: Params, scope: str, steps: int) -> None:
    measured, pinned = seasoned(SPEC), seasoned(SPEC)
    limit = models.count_macs(measured, SAMPLE) / 2e6
    *_, last = prune_(measured, until(tiny, limit, scope=scope, steps=steps), SAMPLE, p95_ms=ByMACs())
    list(prune_(pinned, prune_params(tiny, ratio=last.share, scope=scope, steps=steps), SAMPLE))
    state = pinned.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in measured.state_dict().items())


def test_the_last_step_cuts_further_where_the_network_became_slower(tiny: Params) -> None:
    class Tiring(ByMACs):
        def __call__(self, network: Network) -> float:
            return super().__call__(network) * (1.2 if tired else 1)

    tired, network = False, seasoned(SPEC)
    limit = models.count_macs(network, SAMPLE) / 2e6
    shares = []
    for step in prune_(network, until(tiny, limit, steps=2), SAMPLE, p95_ms=Tiring()):
        shares.append(step.share)
        tired = True
    assert shares[1] > 2 * shares[0]
    assert models.count_macs(network, SAMPLE) / 1e6 * 1.2 <= limit


def test_a_network_that_is_fast_enough_is_left_whole(tiny: Params) -> None:
    network = seasoned(SPEC)
    (step,) = prune_(network, until(tiny, 50), SAMPLE, p95_ms=ByMACs())
    assert (step.share, step.has_cut) == (0, False)
    assert models.num_params(network) == models.num_params(models.build(SPEC))


def test_a_latency_that_cannot_be_reached_says_how_short_it_gets(tiny: Params) -> None:
    with pytest.raises(ParamsError, match=r"asks for a p95 of 1e-06 ms; the narrowest .* takes up to 0\.0.* Choose a"):
        list(prune_(seasoned(SPEC), until(tiny, 1e-6), SAMPLE, p95_ms=ByMACs()))
