"""HR@k and NDCG@k of one relevant item, over the whole catalogue."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import ndcg_score

from limbeck.components import Component
from limbeck.errors import ComponentError
from limbeck.evaluation import METRICS, accuracy, estimate, hit_rate, ndcg, places, scorer

LOGITS = st.integers(0, 10**6).map(
    lambda seed: np.random.default_rng(seed).permutation(60 * 7).astype(np.float64).reshape(7, 60)
)
LABELS = np.arange(7) * 8


@given(LOGITS)
def test_a_place_is_that_of_a_sorted_catalogue(logits: NDArray[np.float64]) -> None:
    order = np.argsort(-logits, axis=1)
    assert places(logits, LABELS).tolist() == [
        row.tolist().index(label) for row, label in zip(order, LABELS, strict=True)
    ]


@given(LOGITS)
def test_the_first_place_is_accuracy_and_all_places_are_hits(logits: NDArray[np.float64]) -> None:
    assert np.array_equal(hit_rate(logits, LABELS, k=1), accuracy(logits, LABELS))
    assert hit_rate(logits, LABELS, k=60).all()


@given(LOGITS)
def test_ndcg_is_scikit_learns(logits: NDArray[np.float64]) -> None:
    relevant = np.eye(60)[LABELS]
    assert ndcg(logits, LABELS, k=10).mean() == pytest.approx(ndcg_score(relevant, logits, k=10))


def test_a_model_that_answers_the_same_for_all_items_hits_nothing() -> None:
    same = np.zeros((7, 60), np.float32)
    assert not hit_rate(same, LABELS, k=10).any()
    assert not ndcg(same, LABELS, k=10).any()


def test_of_a_tie_the_label_stands_last() -> None:
    logits = np.array([[3.0, 2.0, 2.0, 2.0, 1.0]])
    assert places(logits, np.array([1])).tolist() == [3]
    assert places(logits, np.array([0])).tolist() == [0]


@pytest.mark.parametrize("label", [0, 1])
def test_what_is_no_number_is_no_hit_and_stands_in_front(label: int) -> None:
    assert places(np.array([[np.nan, 5.0, 1.0]]), np.array([label])).tolist() == [[2], [1]][label]


def test_both_are_metrics_by_name_and_a_typo_is_told() -> None:
    assert {"hr@10", "ndcg@10"} <= set(METRICS)
    logits = np.arange(60.0)[None, ::-1]
    assert scorer("hr@10")(logits, np.array([9])).tolist() == [1]
    assert scorer("hr@10")(logits, np.array([10])).tolist() == [0]
    assert scorer("ndcg@10")(logits, np.array([2])).tolist() == [0.5]
    with pytest.raises(ComponentError, match="no metric 'hr@100'; did you mean 'hr@10'?"):
        scorer(Component(use="hr@100").use)


def test_hits_take_the_interval_of_shares() -> None:
    found = estimate(hit_rate(np.arange(600.0).reshape(10, 60)[:, ::-1], np.full(10, 9), k=10), 100, 0)
    assert (found["value"], found["high"]) == pytest.approx((1, 1))
    assert found["low"] == pytest.approx(0.7225, abs=1e-4), "Wilson's of 10 of 10"
