"""Quality and its uncertainty. A metric gives one score per sample, or per episode that it plays; their mean is the figure.

Scores one by one make every difference a paired one, over the same samples or the same episodes. No torch here: the
stages that only measure files do without. Legend: N samples, E episodes, K classes.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from limbeck.data.prepared import SplitName, read, read_meta
from limbeck.data.worlds import Answers, World, play
from limbeck.errors import ParamsError

Scores: TypeAlias = NDArray[np.float64]


class Estimate(TypedDict):
    """A figure with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float


def accuracy(logits_NK: NDArray[np.floating[Any]], labels_N: NDArray[np.int64]) -> Scores:
    """1 where the largest logit is the label's, else 0."""
    scores: Scores = (logits_NK.argmax(axis=1) == labels_N).astype(np.float64)
    return scores


def played(metric: Callable[[Answers, World, Literal["validation", "test"]], Scores]) -> Callable[..., Scores]:
    """Mark a metric that takes no samples: it plays the episodes of a split, and gives one score for each [E]."""
    metric.is_played = True  # type: ignore[attr-defined]
    return metric


@played
def episode_return(answers: Answers, world: World, split: Literal["validation", "test"]) -> Scores:
    """The return of each episode, as the share of the way from random actions (0) to the environment's goal (1).

    The likeliest action is taken, the seeds are the split's own: all that are compared begin in the same states.
    """
    return play(world, split, answers)


def places(logits_NK: NDArray[np.floating[Any]], labels_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many classes stand before the label's [N]; 0: it is the first.

    Of equal logits the label's stands last, and what is no number stands before it: a model that answers the same for
    all, or nothing, hits nothing. (Where the order within a tie is left to chance or to the order of the catalogue, the
    first places of coarse logits say more than the model knows.)
    """
    own_N1 = np.take_along_axis(logits_NK, labels_N[:, None], axis=1)
    found: NDArray[np.int64] = logits_NK.shape[1] - (logits_NK < own_N1).sum(axis=1) - 1
    return found


def hit_rate(logits_NK: NDArray[np.floating[Any]], labels_N: NDArray[np.int64], *, k: int) -> Scores:
    """HR@k: 1 where the label is among the k largest logits of the whole catalogue, else 0; ties as in `places`."""
    scores: Scores = (places(logits_NK, labels_N) < k).astype(np.float64)
    return scores


def ndcg(logits_NK: NDArray[np.floating[Any]], labels_N: NDArray[np.int64], *, k: int) -> Scores:
    """NDCG@k of one relevant item: 1 / log2(place + 2) within the first k, else 0; ties as in `places`.

    Järvelin and Kekäläinen 2002, Cumulated Gain-Based Evaluation of IR Techniques: with one relevant item the ideal gain
    is 1. Over the whole catalogue, not over sampled items, which order models in another way (Krichene and Rendle 2020,
    On Sampled Metrics for Item Recommendation).
    """
    place_N = places(logits_NK, labels_N)
    scores: Scores = np.where(place_N < k, 1 / np.log2(place_N + 2.0), 0.0)
    return scores


METRICS: dict[str, Callable[..., Scores]] = {
    "accuracy": accuracy,
    **{f"hr@{k}": partial(hit_rate, k=k) for k in (5, 10, 20)},
    **{f"ndcg@{k}": partial(ndcg, k=k) for k in (5, 10, 20)},
    "episode_return": episode_return,
}


def scorer(metric: str) -> Callable[..., Scores]:
    """The metric a params file names, by table or import path."""
    from limbeck.components import Component, check

    return check(Component(use=metric), METRICS, "metric")


def is_played(metric: str) -> bool:
    """Whether a metric plays episodes rather than score samples."""
    return getattr(scorer(metric), "is_played", False)


class Scorer:
    """A metric on prepared data: scores whatever answers raw samples, on any split.

    Raises:
        ParamsError: the metric plays, and the samples come from no world.

    """

    def __init__(self, metric: str, data: Path) -> None:
        self._metric, self._data, self._world = scorer(metric), data, read_meta(data).world
        self.is_played = is_played(metric)
        self._splits: dict[SplitName, tuple[NDArray[np.generic], NDArray[np.int64]]] = {}
        if self.is_played and self._world is None:
            raise ParamsError(
                f"metric {metric} plays episodes, but the samples of {data} come from no world (source "
                f"{read_meta(data).name!r}). Take data.source: {{use: episodes, ...}}, or metric: accuracy."
            )

    def __call__(
        self, answers: Answers, split: SplitName, logits_NK: NDArray[np.floating[Any]] | None = None
    ) -> Scores:
        """Scores [N] of a split's samples, or [E] of its episodes.

        Args:
            answers: raw samples [N, ...] -> logits [N, K].
            split: validation or test.
            logits_NK: what it answers to the split's samples, where that is known already.

        """
        if self.is_played:
            assert self._world is not None
            assert split in self._world.played, "only validation and test are played"
            return self._metric(answers, self._world, split)
        if split not in self._splits:  # reading checks every byte
            self._splits[split] = read(self._data, split)
        x, y = self._splits[split]
        return self._metric(answers(x) if logits_NK is None else logits_NK, y)


def estimate(scores_N: Scores, num_resamples: int, seed: int) -> Estimate:
    """Mean of per-sample scores with its 95 % interval.

    Scores of 0 and 1 take Wilson's interval (1927), which stays honest near 1 where a bootstrap of few errors
    collapses; any other score takes the percentile bootstrap.
    """
    mean = float(scores_N.mean())
    if _is_binary(scores_N):
        n, z = len(scores_N), NormalDist().inv_cdf(0.975)
        centre = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z * np.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
        return {"value": mean, "low": float(max(0.0, centre - half)), "high": float(min(1.0, centre + half))}
    return _bootstrap(scores_N, num_resamples, seed)


def paired_difference(
    scores_N: Scores, others_N: Scores, num_resamples: int, seed: int, *, level: float = 0.95
) -> Estimate:
    """Mean of `scores - others` over the same samples, with its interval of that level.

    Scores of 0 and 1 take the adjusted Wald interval for paired proportions (Bonett and Price 2012, J. Educ.
    Behav. Stat. 37): one sample is added to either side that disagrees. Two good files disagree on a handful of
    samples, of which a bootstrap would make too narrow an interval, and none at all of no disagreement. Any
    other score takes the percentile bootstrap.
    """
    assert scores_N.shape == others_N.shape, "paired scores belong to the same samples"
    differences = scores_N - others_N
    if not (_is_binary(scores_N) and _is_binary(others_N)):
        return _bootstrap(differences, num_resamples, seed, level)
    n = len(differences) + 2
    wins, losses = (differences > 0).sum() + 1, (differences < 0).sum() + 1
    centre = (wins - losses) / n
    half = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(((wins + losses) / n - centre**2) / n)
    return {"value": float(differences.mean()), "low": float(centre - half), "high": float(centre + half)}


def _is_binary(scores_N: Scores) -> bool:
    return bool(np.isin(scores_N, (0.0, 1.0)).all())


def _bootstrap(values_N: Scores, num_resamples: int, seed: int, level: float = 0.95) -> Estimate:
    generator = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    for index in range(num_resamples):  # one resample at a time: memory stays that of the scores
        means[index] = values_N[generator.integers(0, len(values_N), len(values_N))].mean()
    low, high = np.quantile(means, ((1 - level) / 2, (1 + level) / 2))
    return {"value": float(values_N.mean()), "low": float(low), "high": float(high)}
