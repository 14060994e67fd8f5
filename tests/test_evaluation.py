import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

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
def test_a_model_does_not_differ_from_itself_but_that_is_not_proven_for_ever(scores: np.ndarray) -> None:
    found = paired_difference(scores, scores, 200, 0)
    assert found["value"] == 0
    assert -found["low"] == found["high"] == pytest.approx(1.96 * np.sqrt(2) / (len(scores) + 2), rel=1e-4)


@pytest.mark.parametrize(("wins", "losses", "beyond"), [(4, 0, False), (7, 1, False), (8, 2, False), (10, 1, True)])
def test_a_difference_is_beyond_the_noise_where_the_exact_sign_test_says_so(
    wins: int, losses: int, beyond: bool
) -> None:
    scores, others = np.ones(719), np.ones(719)
    others[:wins], scores[wins : wins + losses] = 0, 0
    assert (binomtest(wins, wins + losses).pvalue < 0.05) == beyond
    assert (paired_difference(scores, others, 100, 0)["low"] > 0) == beyond


def test_the_interval_of_a_rare_difference_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    truth, held = 0.01, 0
    for _ in range(1000):
        drawn = generator.random(234)
        scores, others = np.ones(234), np.ones(234)
        others[drawn < 0.015], scores[drawn > 1 - 0.005] = 0, 0
        found = paired_difference(scores, others, 100, 0)
        held += found["low"] <= truth <= found["high"]
    assert held >= 940


def test_other_scores_take_the_bootstrap_of_their_differences() -> None:
    generator = np.random.default_rng(0)
    others = generator.random(400)
    found = paired_difference(others + generator.normal(0.1, 0.1, 400), others, 1000, 0)
    assert found["low"] == pytest.approx(found["value"] - 1.96 * 0.1 / 20, abs=0.003)


@given(scores=SCORES, seed=st.integers(0, 1000))
def test_a_difference_is_antisymmetric(scores: np.ndarray, seed: int) -> None:
    others = np.random.default_rng(seed).permutation(scores)
    ahead, behind = paired_difference(scores, others, 200, 0), paired_difference(others, scores, 200, 0)
    assert ahead["value"] == pytest.approx(-behind["value"])
    assert ahead["low"] == pytest.approx(-behind["high"])


def test_accuracy_scores_each_sample() -> None:
    logits = np.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]])
    assert accuracy(logits, np.array([1, 1, 1])).tolist() == [1, 0, 1]
