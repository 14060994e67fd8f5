"""Whether two samples come from one distribution: a statistic, a p-value, and an effect that does not grow with N.

Every p-value is valid: under the null hypothesis (reference and window are exchangeable) P(p <= a) <= a, for small windows
too, because it comes from permutations of the pooled sample, from an exact distribution, or, for Kolmogorov-Smirnov, from an
asymptotic one that is conservative in small samples and with ties. What is compared is assumed independent from sample to
sample: frames of one video are not, so thin them out first.

Legend: N samples of the reference, M of the window, D dimensions, K classes or bins, P permutations.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Values: TypeAlias = NDArray[np.float64]

CHUNK = 100
"""Permutations drawn at a time."""
ENOUGH = 20
"""Permuted statistics as extreme as the observed one after which no more are drawn."""
SLACK = 1e-12
"""Statistics that differ by less are equal: sums in another order round otherwise."""


class Result(NamedTuple):
    """What a test found.

    Attributes:
        statistic: as its paper defines it.
        p: the p-value.
        effect: how far apart the two are, in the unit the test's docstring names.

    """

    statistic: float
    p: float
    effect: float


def subsample(num: int, most: int, seed: int) -> NDArray[np.int64]:
    """At most `most` of `num` rows, without replacement, seeded, in their own order."""
    if num <= most:
        return np.arange(num)
    return np.sort(np.random.default_rng(seed).choice(num, most, replace=False))


def permutation_p(observed: float, draw: Callable[[int], Values], permutations: int) -> float:
    """The share of permuted statistics that are at least as large as the observed one.

    Sequential (Besag and Clifford, Biometrika 1991): once `ENOUGH` are, after L draws, p is ENOUGH / L, which is as valid as
    the whole run's (count + 1) / (P + 1) and costs what is clearly no drift a tenth of the time.

    Args:
        observed: the statistic as the data are; large is extreme.
        draw: makes so many statistics of random permutations.
        permutations: P, the most that are drawn; no p-value is below 1 / (P + 1).

    """
    count, drawn = 0, 0
    while drawn < permutations:
        as_extreme = draw(min(CHUNK, permutations - drawn)) >= observed - SLACK
        counts = count + np.cumsum(as_extreme)
        if counts[-1] >= ENOUGH:
            return ENOUGH / (drawn + 1 + int(np.argmax(counts >= ENOUGH)))
        count, drawn = int(counts[-1]), drawn + len(as_extreme)
    return (count + 1) / (permutations + 1)


def ks(reference_N: Values, window_M: Values) -> Result:
    """Kolmogorov-Smirnov: the largest distance D between two distribution functions, 0 to 1, which is the effect, too."""
    from scipy.stats import ks_2samp

    found = ks_2samp(reference_N, window_M, method="asymp")
    return Result(float(found.statistic), float(found.pvalue), float(found.statistic))


def psi(reference_N: Values, window_M: Values, *, bins: int, permutations: int, seed: int) -> Result:
    """Population stability index: the symmetrized Kullback-Leibler divergence between two histograms.

    By custom 0.1 is little and 0.25 much, but a small window reaches either by chance: hence a permutation p-value. Bins are
    quantiles of the pooled sample, which no permutation changes; half a sample is added to each, so that none is empty.
    The effect is the index itself.
    """
    pooled = np.concatenate([reference_N, window_M])
    inner = np.quantile(pooled, np.arange(1, bins) / bins, method="inverted_cdf")
    edges = np.unique(inner)
    reference_K, window_K = (
        np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
        for values in (reference_N, window_M)
    )
    statistic, p = _counts(_index, reference_K, window_K, permutations, seed)
    return Result(statistic, p, statistic)


def class_priors(
    reference_K: NDArray[np.int64], window_K: NDArray[np.int64], *, permutations: int, seed: int
) -> Result:
    """Pearson's chi-squared of two rows of counts per class, its p-value from permutations: rare classes are welcome.

    The effect is the total variation distance: the share of samples that would have to change class.
    """
    statistic, p = _counts(_chi_squared, reference_K, window_K, permutations, seed)
    shares = [counts / max(counts.sum(), 1) for counts in (reference_K, window_K)]
    return Result(statistic, p, float(np.abs(shares[0] - shares[1]).sum() / 2))


def proportions(reference_N: Values, window_M: Values) -> Result:
    """Fisher's exact test of two shares of ones, both sides; statistic and effect are window's share less reference's."""
    from scipy.stats import fisher_exact

    table = [[int(values.sum()), len(values) - int(values.sum())] for values in (reference_N, window_M)]
    difference = float(window_M.mean() - reference_N.mean())
    return Result(difference, min(float(fisher_exact(table).pvalue), 1.0), difference)


def mmd(reference_ND: NDArray[Any], window_MD: NDArray[Any], *, permutations: int, seed: int) -> Result:
    """Maximum mean discrepancy, unbiased, with an RBF kernel (Gretton et al., JMLR 2012, lemma 6).

    The bandwidth is the median distance of the pooled sample. The effect is the square root of the estimate, 0 where that
    is negative: a distance between 0 and about 1.4, whatever the unit of the samples. Memory is of (N + M)^2 numbers: both
    sides are to be subsampled.
    """
    pooled = np.concatenate([reference_ND, window_MD]).astype(np.float64)
    pooled -= pooled.mean(0)  # distances of large numbers close together lose digits
    norms = (pooled**2).sum(1)
    squares = np.maximum(norms[:, None] + norms[None, :] - 2 * (pooled @ pooled.T), 0.0)
    distances = squares[np.triu_indices(len(pooled), 1)]
    width = float(np.median(distances)) or float(distances.mean())  # of more than half duplicates the median is 0
    if width == 0.0:
        return Result(0.0, 1.0, 0.0)
    kernel = np.exp(-squares / (2 * width))
    np.fill_diagonal(kernel, 0.0)
    n, m, total = len(reference_ND), len(window_MD), kernel.sum()

    def estimates(members_NP: Values) -> Values:
        """Of P ways to call n of the pooled samples the reference (1, else 0)."""
        to_reference = kernel @ members_NP
        within_reference = (members_NP * to_reference).sum(0)
        between = to_reference.sum(0) - within_reference
        within_window = total - within_reference - 2 * between
        found: Values = within_reference / (n * (n - 1)) + within_window / (m * (m - 1)) - 2 * between / (n * m)
        return found

    members = np.repeat([1.0, 0.0], (n, m))
    observed = float(estimates(members[:, None])[0])
    generator = np.random.default_rng(seed)
    p = permutation_p(
        observed, lambda num: estimates(generator.permuted(np.tile(members, (num, 1)), axis=1).T), permutations
    )
    return Result(observed, p, max(observed, 0.0) ** 0.5)


def holm(p: Values) -> Values:
    """p-values corrected for being several (Holm, Scand. J. Statist. 1979): the chance of any false one stays the level.

    It needs no independence between the tests.
    """
    order = np.argsort(p, kind="stable")
    stepped = np.minimum(1.0, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    corrected = np.empty(len(p))
    corrected[order] = stepped
    return corrected


def _index(reference_PK: Values, window_PK: Values) -> Values:
    reference, window = ((counts + 0.5) / (counts + 0.5).sum(-1, keepdims=True) for counts in (reference_PK, window_PK))
    found: Values = ((window - reference) * np.log(window / reference)).sum(-1)
    return found


def _chi_squared(reference_PK: Values, window_PK: Values) -> Values:
    pooled = reference_PK + window_PK
    reference, window = (counts.sum(-1, keepdims=True) for counts in (reference_PK, window_PK))
    # sum over cells of (observed - expected)^2 / expected, for two rows in closed form
    found: Values = ((window * reference_PK - reference * window_PK) ** 2 / (reference * window * pooled)).sum(-1)
    return found


def _counts(
    statistic: Callable[[Values, Values], Values],
    reference_K: NDArray[np.int64],
    window_K: NDArray[np.int64],
    permutations: int,
    seed: int,
) -> tuple[float, float]:
    """A statistic of two histograms and its p-value: permuting samples draws the window's counts from the pooled ones."""
    pooled = reference_K + window_K
    seen = pooled > 0
    reference_K, window_K, pooled = reference_K[seen], window_K[seen], pooled[seen]
    observed = float(statistic(reference_K.astype(np.float64), window_K.astype(np.float64)))
    generator = np.random.default_rng(seed)

    def draw(num: int) -> Values:
        drawn = generator.multivariate_hypergeometric(pooled, int(window_K.sum()), size=num, method="marginals")
        return statistic((pooled - drawn).astype(np.float64), drawn.astype(np.float64))

    return observed, permutation_p(observed, draw, permutations)
