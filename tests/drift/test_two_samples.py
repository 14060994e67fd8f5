"""Every p-value is valid; statistics depend on what they should depend on and on nothing else."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist, squareform

from limbeck.drift.two_samples import (
    ENOUGH,
    Result,
    Values,
    class_priors,
    holm,
    ks,
    mmd,
    permutation_p,
    proportions,
    psi,
    subsample,
)

SEEDS = st.integers(0, 10_000)
Tested = Callable[[Values, Values, int], Result]


def vectors(values: Values) -> Values:
    return values.reshape(-1, 2)


def as_counts(values: Values) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.bincount(np.digitize(values, (-1, 0, 1)), minlength=4)


ALL: dict[str, Tested] = {
    "ks": lambda x, y, _: ks(x, y),
    "psi": lambda x, y, seed: psi(x, y, bins=5, permutations=199, seed=seed),
    "mmd": lambda x, y, seed: mmd(vectors(x), vectors(y), permutations=199, seed=seed),
    "class priors": lambda x, y, seed: class_priors(as_counts(x), as_counts(y), permutations=199, seed=seed),
    "proportions": lambda x, y, _: proportions((x > 0).astype(np.float64), (y > 0).astype(np.float64)),
}
each = pytest.mark.parametrize("test", ALL.values(), ids=ALL)


def p_values(test: Tested, num: int, shift: float, window: int = 30) -> Values:
    found = []
    for seed in range(num):
        generator = np.random.default_rng(seed)
        found.append(test(generator.normal(size=60), generator.normal(shift, size=window), seed).p)
    return np.array(found)


@each
def test_where_nothing_moved_a_p_value_is_below_a_no_more_often_than_a(test: Tested) -> None:
    num = 120
    p = p_values(test, num, shift=0.0)
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() <= level + 3 * (level * (1 - level) / num) ** 0.5


@pytest.mark.parametrize("name", ["psi", "mmd"])
def test_p_values_of_permutations_are_uniform_where_nothing_moved(name: str) -> None:
    p = p_values(ALL[name], 120, shift=0.0)
    assert np.abs(np.sort(p) - np.linspace(0, 1, 120)).max() < 1.63 / 120**0.5  # Kolmogorov's distance at 1 %


@each
def test_power_rises_with_the_shift(test: Tested) -> None:
    shares = [(p_values(test, 20, shift) <= 0.05).mean() for shift in (0.0, 0.7, 1.5)]
    assert shares == sorted(shares)
    assert shares[0] <= 0.2
    assert shares[-1] >= 0.9


@each
@given(seed=SEEDS)
def test_p_is_a_share_and_the_same_each_time(test: Tested, seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = (generator.normal(size=2 * int(generator.integers(2, 20))) for _ in range(2))
    assert test(x, y, seed) == test(x, y, seed)
    assert 0 < test(x, y, seed).p <= 1


@given(seed=SEEDS)
def test_ks_and_psi_see_ranks_only(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=40), generator.normal(0.5, size=30)
    stretched = [3 * values**3 + values + 7 for values in (x, y)]
    assert ks(x, y) == ks(*stretched)
    assert ALL["psi"](x, y, seed) == ALL["psi"](*stretched, seed)


@given(seed=SEEDS)
def test_no_order_of_samples_matters(seed: int) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(40, 2)), generator.normal(0.5, size=(30, 2))
    shuffled = generator.permutation(x), generator.permutation(y)
    assert ks(x[:, 0], y[:, 0]) == ks(*(values[:, 0] for values in shuffled))
    assert ALL["psi"](x[:, 0], y[:, 0], seed) == ALL["psi"](*(values[:, 0] for values in shuffled), seed)
    (one, *_), (other, *_) = (mmd(*pair, permutations=1, seed=0) for pair in ((x, y), shuffled))
    assert one == pytest.approx(other)


@given(seed=SEEDS, scale=st.floats(0.01, 100), shift=st.floats(-1000, 1000))
def test_mmd_knows_no_unit_no_origin_and_no_direction(seed: int, scale: float, shift: float) -> None:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(20, 3)), generator.normal(0.5, size=(15, 3))
    turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    moved = [scale * values @ turn + shift for values in (x, y)]
    assert mmd(*moved, permutations=1, seed=0).statistic == pytest.approx(
        mmd(x, y, permutations=1, seed=0).statistic, abs=1e-6
    )


def test_mmd_is_the_unbiased_estimate_of_the_paper() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(7, 3)), generator.normal(1, size=(5, 3))
    distances = squareform(pdist(np.concatenate([x, y])))
    kernel = np.exp(-(distances**2) / (2 * np.median(pdist(np.concatenate([x, y]))) ** 2))
    within = [
        (part.sum() - np.trace(part)) / (len(part) * (len(part) - 1)) for part in (kernel[:7, :7], kernel[7:, 7:])
    ]
    found = mmd(x, y, permutations=1, seed=0)
    assert found.statistic == pytest.approx(sum(within) - 2 * kernel[:7, 7:].mean())
    assert found.effect == pytest.approx(found.statistic**0.5)


def test_chi_squared_is_pearsons() -> None:
    from scipy.stats import chi2_contingency

    counts = np.array([[30, 10, 5], [10, 20, 5]])
    found = class_priors(*counts, permutations=19, seed=0)
    assert found.statistic == pytest.approx(chi2_contingency(counts, correction=False).statistic)
    assert found.effect == pytest.approx(30 / 45 - 10 / 35)


@each
def test_samples_that_are_all_the_same_are_no_drift(test: Tested) -> None:
    assert test(np.full(30, 2.0), np.full(20, 2.0), 0).p == 1


def test_classes_that_nobody_saw_do_not_count() -> None:
    seen = class_priors(np.array([10, 20]), np.array([20, 10]), permutations=99, seed=0)
    assert class_priors(np.array([0, 10, 20, 0]), np.array([0, 20, 10, 0]), permutations=99, seed=0) == seen


def test_permutations_end_when_enough_of_them_are_as_extreme() -> None:
    drawn: list[int] = []

    def draw(num: int) -> Values:
        drawn.append(num)
        return np.arange(num) % 2 * 1.0

    assert permutation_p(1.0, draw, 10_000) == 0.5
    assert drawn == [100]
    assert permutation_p(2.0, draw, 999) == 1 / 1000
    assert permutation_p(0.0, draw, 999) == ENOUGH / ENOUGH


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_corrects_no_less_than_nothing_and_no_more_than_bonferroni(p: list[float]) -> None:
    values = np.array(p)
    corrected = holm(values)
    assert (corrected >= values).all()
    assert (corrected <= np.minimum(1, values * len(values)) + 1e-12).all()
    assert (np.diff(corrected[np.argsort(values, kind="stable")]) >= 0).all()


def test_holm_steps_down() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(num=st.integers(0, 50), most=st.integers(1, 50), seed=SEEDS)
def test_a_subsample_keeps_the_order_and_the_limit(num: int, most: int, seed: int) -> None:
    rows = subsample(num, most, seed)
    assert len(rows) == min(num, most)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert rows.tolist() == subsample(num, most, seed).tolist()
