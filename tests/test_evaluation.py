import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.evaluation import accuracy, estimate, paired_difference

SCORES = st.lists(st.booleans(), min_size=5, max_size=200).map(lambda values: np.array(values, np.float64))


@given(scores=SCORES)
def test_an_estimate_lies_within_its_interval_and_the_interval_within_the_range(scores: np.ndarray) -> None:
    found = estimate(scores, 200, 0)
    assert 0 <= found["low"] <= found["value"] + 1e-12
    assert found["value"] - 1e-12 <= found["high"] <= 1


def test_wilsons_interval_is_the_published_one() -> None:
    # Wilson 1927: 9 of 10 -> [0.596, 0.982]
    found = estimate(np.array([1.0] * 9 + [0.0]), 100, 0)
    assert (found["low"], found["high"]) == pytest.approx((0.5958, 0.9821), abs=1e-4)


@given(scores=SCORES)
def test_a_model_does_not_differ_from_itself(scores: np.ndarray) -> None:
    assert paired_difference(scores, scores, 200, 0) == {"value": 0, "low": 0, "high": 0}


@given(scores=SCORES, seed=st.integers(0, 1000))
def test_a_difference_is_antisymmetric(scores: np.ndarray, seed: int) -> None:
    others = np.random.default_rng(seed).permutation(scores)
    ahead, behind = paired_difference(scores, others, 200, 0), paired_difference(others, scores, 200, 0)
    assert ahead["value"] == pytest.approx(-behind["value"])
    assert ahead["low"] == pytest.approx(-behind["high"])


def test_accuracy_scores_each_sample() -> None:
    logits = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert accuracy(logits, np.array([1, 1, 1])).tolist() == [1, 0, 1]
