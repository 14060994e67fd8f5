"""When to give no answer: what a classifier is asked that belongs to none of its classes. Legend: N samples, K classes.

The largest probability is lower for what a network never learned (Hendrycks and Gimpel 2017, A Baseline for Detecting
Misclassified and Out-of-Distribution Examples in Neural Networks). `limbeck.edge.Agent.classify` gives it as `confidence`; who
asks compares it with a threshold chosen here.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rejection(NamedTuple):
    """What a threshold does.

    Attributes:
        answered: share of samples of the classes that get an answer.
        right: share of them that get the right one; a refusal is none.
        refused: share of foreign samples that get no answer.

    """

    answered: float
    right: float
    refused: float


def confidence(logits_NK: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The largest probability [N], as an agent gives it."""
    shifted = logits_NK.astype(np.float64) - logits_NK.max(axis=1, keepdims=True)
    largest: NDArray[np.float64] = 1 / np.exp(shifted).sum(axis=1)
    return largest


def threshold(own_N: NDArray[np.float64], foreign_N: NDArray[np.float64]) -> float:
    """The confidence below which nothing is answered: where `answered` and `refused` are the largest in sum (Youden 1950).

    Args:
        own_N: confidences on validation samples of the classes; not empty.
        foreign_N: on samples of none of them; not empty.

    """
    candidates = np.unique(np.concatenate([own_N, foreign_N]))
    missed = np.searchsorted(np.sort(own_N), candidates) / len(own_N)  # strictly below: not answered
    refused = np.searchsorted(np.sort(foreign_N), candidates) / len(foreign_N)
    return float(candidates[np.argmax(refused - missed)])


def judge(
    logits_NK: NDArray[np.floating[Any]],
    labels_N: NDArray[np.int64],
    foreign_MK: NDArray[np.floating[Any]],
    below: float,
) -> Rejection:
    """What a threshold does on samples that did not choose it.

    Args:
        logits_NK: of samples of the classes.
        labels_N: their classes.
        foreign_MK: logits of samples of none.
        below: the threshold.

    """
    answered = confidence(logits_NK) >= below
    right = answered & (logits_NK.argmax(axis=1) == labels_N)
    return Rejection(float(answered.mean()), float(right.mean()), float((confidence(foreign_MK) < below).mean()))
