"""When no answer is given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from limbeck.rejection import confidence, judge, threshold

SHARES = st.lists(st.integers(0, 100).map(lambda n: n / 100), min_size=1, max_size=20).map(np.array)


def test_confidence_is_the_largest_probability() -> None:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.25, 0.5]])) + 300
    assert confidence(logits) == pytest.approx([0.7, 0.5])


@given(own=SHARES, foreign=SHARES)
def test_no_other_threshold_tells_both_apart_better(own: np.ndarray, foreign: np.ndarray) -> None:  # type: ignore[type-arg]
    def sum_at(below: float) -> float:
        return float((own >= below).mean() + (foreign < below).mean())

    chosen = sum_at(threshold(own, foreign))
    assert all(sum_at(other) <= chosen + 1e-12 for other in np.linspace(0, 1, 101))


def test_a_refusal_is_no_right_answer() -> None:
    logits, foreign = np.array([[5.0, 0.0], [0.1, 0.0], [0.0, 5.0]]), np.array([[0.2, 0.0], [9.0, 0.0]])
    assert judge(logits, np.array([0, 0, 0]), foreign, below=0.9) == pytest.approx((2 / 3, 1 / 3, 0.5))
