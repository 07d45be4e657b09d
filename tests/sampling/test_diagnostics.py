"""Small figures about a sample, and the self-test."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import cdist

from geofm_sampling.diagnostics import (
    binomial_limits,
    deff_weights,
    effective_strata,
    near_duplicate_share,
    rarefaction,
    repeats,
    weighted_ecdf,
)
from geofm_sampling.energy import Cloud, energy_distance, redraw_distances, scaled, standardise
from geofm_sampling.pivotal import ordered_pivotal
from geofm_sampling.selftest import Sums, phase1_checks, phase2_checks

counts = st.lists(st.integers(0, 40), min_size=1, max_size=12)


@given(counts)
def test_effective_strata_lie_between_one_and_the_filled_strata(n: list[int]) -> None:
    """exp of the entropy: 1 for a single stratum, their number for equal counts, order and empty strata no matter."""
    found, filled = effective_strata(n), sum(count > 0 for count in n)
    assert found == 0 if not filled else 1 - 1e-9 <= found <= filled + 1e-9
    assert effective_strata([*n[::-1], 0]) == found
    assert effective_strata([7] * len(n)) == pytest.approx(len(n))
    if filled:
        assert found == pytest.approx(np.exp(stats.entropy(np.array(n) / sum(n))))


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30))
def test_kish_is_one_plus_the_squared_variation_of_the_weights(w: list[float]) -> None:
    """n Σw² / (Σw)² = 1 + cv², at least 1, whatever the scale; zero weights do not count."""
    assert deff_weights(w) == pytest.approx(1 + (np.std(w) / np.mean(w)) ** 2)
    assert deff_weights([*(3 * x for x in w), 0.0]) == pytest.approx(deff_weights(w))


@pytest.mark.parametrize(
    "call", [lambda: effective_strata([-1]), lambda: deff_weights([np.nan]), lambda: deff_weights([-1])]
)
def test_impossible_counts_and_weights_are_refused(call: object) -> None:
    """Negative or unknown values are an error, not a figure."""
    with pytest.raises(ValueError, match="negative"):
        call()  # type: ignore[operator]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_rarefaction_is_the_mean_over_all_subsets(n: list[int]) -> None:
    """Expected strata met by a subset equal the mean over every subset of that size."""
    label = np.repeat(np.arange(len(n)), n)
    sizes = range(len(label) + 1)
    expected = [
        np.mean([np.unique(label[list(rows)]).size for rows in combinations(range(len(label)), size)]) for size in sizes
    ]
    assert rarefaction(n, list(sizes)) == pytest.approx(expected)


def test_rarefaction_of_many_units_ends_at_all_strata() -> None:
    """Large counts neither overflow nor round past the number of strata; a subset larger than the sample is refused."""
    curve = rarefaction([100_000, 300, 20, 1, 0], [0, 1, 1000, 100_321])
    assert curve[0] == 0
    assert curve[-1] == 4
    assert np.all(np.diff(curve) >= 0)
    with pytest.raises(ValueError, match="must lie between"):
        rarefaction([3], [4])


@given(st.lists(st.tuples(st.floats(-5, 5) | st.just(np.nan), st.floats(0, 3)), max_size=20))
def test_weighted_ecdf_is_the_share_of_the_weight(rows: list[tuple[float, float]]) -> None:
    """At each value the curve is the share of the known weight at or below it; it ends at 1."""
    values, weights = np.array(rows).reshape(-1, 2).T
    x, share = weighted_ecdf(values, weights)
    known = np.isfinite(values) & (weights > 0)
    assert x.size == known.sum()
    for i in range(x.size):
        if i + 1 == x.size or x[i + 1] > x[i]:
            assert share[i] == pytest.approx(weights[known & (values <= x[i])].sum() / weights[known].sum())


@given(st.integers(1, 25), st.floats(0.05, 3), st.integers(0, 1000))
def test_near_duplicates_against_all_pairs(n: int, radius: float, seed: int) -> None:
    """A unit counts when another of its group lies within the radius; groups never meet, unknown rows are left out."""
    rng = np.random.default_rng(seed)
    points, group = rng.normal(size=(n, 3)), rng.integers(0, 3, n)
    points[rng.random(n) < 0.2] = np.nan
    found = near_duplicate_share(points, group, radius)
    known = np.isfinite(points).all(axis=1)
    if not known.any():
        assert found is None
        return
    far = cdist(points[known], points[known]) + np.where(group[known][:, None] == group[known], 0, np.inf)
    np.fill_diagonal(far, np.inf)
    assert found is not None
    assert found == (pytest.approx(np.mean(far.min(axis=1) <= radius)), known.sum())


def test_repeats_count_places_by_how_often_they_occur() -> None:
    """Three places once, one place four times."""
    assert repeats(np.array([1, 2, 3, 9, 9, 9, 9], dtype=np.uint64)) == {1: 3, 4: 1}
    assert repeats(np.zeros(0, dtype=np.uint64)) == {}


@given(st.integers(1, 60), st.floats(0.02, 0.5), st.sampled_from([0.9, 0.95, 0.99]))
def test_binomial_limits_against_scipy(trials: int, chance: float, coverage: float) -> None:
    """Each tail beyond the limits holds at most half of what is not covered, and the limits are the tightest such."""
    low, high = binomial_limits(trials, chance, coverage)
    tail = (1 - coverage) / 2
    law = stats.binom(trials, chance)
    assert law.cdf(low - 1) <= tail + 1e-9
    assert law.sf(high) <= tail + 1e-9
    assert law.cdf(low) > tail - 1e-9
    assert high == 0 or law.sf(high - 1) > tail - 1e-9


def _cloud(values: NDArray[np.float64], weight: NDArray[np.float64] | None = None) -> Cloud:
    n = len(values)
    return Cloud(unit=np.arange(n, dtype=np.uint64), values=values, weight=np.ones(n) if weight is None else weight)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_energy_distance_against_the_plain_sums(n: int, m: int, seed: int) -> None:
    """The weighted V-statistic of Székely and Rizzo over all pairs; symmetric, 0 against itself, weights as repeats."""
    rng = np.random.default_rng(seed)
    x, y, w = rng.normal(size=(n, 2)), rng.normal(size=(m, 2)) + 1, rng.integers(1, 4, n)
    p, q = w / w.sum(), np.full(m, 1 / m)

    def mean(a: NDArray[np.float64], b: NDArray[np.float64], u: NDArray[np.float64], v: NDArray[np.float64]) -> float:
        return sum(u[i] * v[j] * float(np.linalg.norm(a[i] - b[j])) for i in range(len(a)) for j in range(len(b)))

    plain = (2 * mean(x, y, p, q) - mean(x, x, p, p) - mean(y, y, q, q)) / (2 * mean(x, y, p, q))
    found = energy_distance(_cloud(x, w.astype(float)), _cloud(y))
    assert found == pytest.approx(plain, abs=1e-9)
    assert energy_distance(_cloud(y), _cloud(x, w.astype(float))) == pytest.approx(found)
    assert energy_distance(_cloud(np.repeat(x, w, axis=0)), _cloud(y)) == pytest.approx(found)
    assert energy_distance(_cloud(x), _cloud(x)) == pytest.approx(0, abs=1e-12)


def test_redraws_of_the_population_lie_close_to_it_and_another_place_does_not() -> None:
    """Distances of random samples shrink with their size and do not depend on the order of rows; a shifted sample is
    further than all redraws, and so is a shifted population from them."""
    rng = np.random.default_rng(1)
    population = _cloud(rng.normal(size=(400, 3)))
    shifted = _cloud(population.values + 1)
    small, far = redraw_distances(population, [population, shifted], 20, seed=2)
    large = redraw_distances(population, [population], 200, seed=2)[0]
    assert np.all(np.diff(small) >= 0)
    assert large.mean() < small.mean() / 5
    assert far.min() > small.max()
    assert redraw_distances(population, [population], 400, seed=2).max() == pytest.approx(0, abs=1e-12)
    turned = population.take(np.arange(400)[::-1])
    assert redraw_distances(turned, [turned], 20, seed=2)[0] == pytest.approx(small)
    assert energy_distance(_cloud(rng.normal(size=(20, 3)) + 1), population) > small.max()


def test_a_redraw_is_the_energy_distance_of_its_units() -> None:
    """A redraw of all units but none left out is the distance of the pool itself."""
    rng = np.random.default_rng(8)
    pool, population = _cloud(rng.normal(size=(30, 2))), _cloud(rng.normal(size=(50, 2)), rng.random(50))
    found = redraw_distances(pool, [population], 30, seed=1, redraws=2)
    assert found == pytest.approx(np.full((1, 2), energy_distance(pool, population)))


def test_standardised_covariates_have_mean_0_and_spread_1() -> None:
    """Weighted mean and spread; unknown values lie at the mean, and what does not vary is left out."""
    rng = np.random.default_rng(3)
    values = np.column_stack([rng.normal(5, 3, 50), np.full(50, 7.0), rng.normal(0, 1, 50), np.full(50, np.nan)])
    values[::7, 2] = np.nan
    weight = rng.random(50)
    result = scaled(values, *standardise(values, weight))
    assert result.shape == (50, 2)
    assert np.average(result[:, 0], weights=weight) == pytest.approx(0, abs=1e-9)
    assert np.average(result[:, 0] ** 2, weights=weight) == pytest.approx(1)
    assert not result[::7, 1].any()


def test_even_points_stand_for_the_weighted_ones() -> None:
    """Every point is met as often as its share of the weight says, to within one; the order of rows does not matter."""
    rng = np.random.default_rng(4)
    cloud = _cloud(np.arange(50.0)[:, None], rng.integers(0, 5, 50) * 1.0)
    even = cloud.even(40)
    times = np.bincount(even.unit.astype(int), minlength=50)
    assert even.weight.tolist() == [1.0] * 40
    assert np.abs(times - 40 * cloud.weight / cloud.weight.sum()).max() < 1
    assert np.array_equal(cloud.take(np.arange(50)[::-1]).even(40).unit, even.unit)
    alike = _cloud(np.arange(5.0)[:, None])
    assert np.array_equal(alike.even(10).unit, alike.unit)


@settings(max_examples=30)
@given(st.integers(0, 1000))
def test_known_sums_in_parts_are_those_of_the_whole(seed: int) -> None:
    """Sums add up over parts of the frame; S² is that of numpy with divisor N − 1, unknown values counting as 0."""
    rng = np.random.default_rng(seed)
    group, values = rng.integers(0, 3, 40), rng.normal(3, 2, (40, 2))
    values[0, 0] = np.nan
    sums = Sums.none(4, 2).add(group[:15], values[:15]).add(group[15:], values[15:])
    filled = np.nan_to_num(values)
    means = rng.random(2)
    around = Sums.none(4, 2).add(group, filled - means * filled[:, :1])
    for name, expected in vars(sums.around(means)).items():
        if name != "products":
            assert expected == pytest.approx(getattr(around, name))
    for h in range(4):
        mine = filled[group == h]
        assert sums.units[h] == len(mine)
        assert sums.total[h] == pytest.approx(mine.sum(axis=0))
        if len(mine) > 1:
            assert sums.variance[h] == pytest.approx(mine.var(axis=0, ddof=1))


def _frame(seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    group = np.repeat([0, 1, 2, 3], [400, 120, 40, 6])
    area = 50 + rng.random(group.size)
    values = np.column_stack([np.ones(group.size), rng.gamma(2, 1, group.size) + group, rng.random(group.size), group])
    return group, values * area[:, None]


NAMES = ("area", "smooth", "noise", "stratum")


def test_a_variable_that_is_constant_within_strata_proves_nothing() -> None:
    """Variables that every stratified sample recovers by construction are left out; so is a complete look."""
    group, values = _frame(1)
    values = values / values[:, :1] * 59.0
    frame = Sums.none(4, 4).add(group, values)
    rows = np.flatnonzero(np.arange(group.size) % 4 == 0)
    assert [c.name for c in phase1_checks(NAMES, values[rows], group[rows], frame)] == ["smooth", "noise"]
    assert phase1_checks(NAMES, values, group, frame) == []


def test_averages_are_known_and_deviations_are_those_of_the_weighted_sample() -> None:
    """Known are the area and averages per area; the estimate is off by the expanded Σ a (x − x̄) over the area."""
    group, values = _frame(6)
    frame = Sums.none(4, 4).add(group, values)
    rows = np.flatnonzero(np.arange(group.size) % 5 < 2)
    area, smooth = phase1_checks(NAMES, values[rows], group[rows], frame)[:2]
    expand = (np.bincount(group) / np.bincount(group[rows]))[group[rows]]
    assert area.known == pytest.approx(values[:, 0].sum())
    assert area.estimate == pytest.approx((expand * values[rows, 0]).sum())
    mean = values[:, 1].sum() / values[:, 0].sum()
    assert smooth.known == pytest.approx(mean)
    off = (expand * (values[rows, 1] - mean * values[rows, 0])).sum() / area.known
    assert smooth.estimate == pytest.approx(mean + off)


def test_phase_1_intervals_cover_and_wrong_weights_do_not() -> None:
    """Over 600 stratified simple random looks the z of each variable has mean 0 and spread 1: its mean is within 0.16
    and its spread within 12 % (a false alarm in fewer than 1 of 1,000 runs). A look that favours large values is
    found."""
    rng, z = np.random.default_rng(7), []
    group, values = _frame(2)
    frame, k = Sums.none(4, 4).add(group, values), (60, 30, 12, 3)
    for _ in range(600):
        rows = np.concatenate([rng.choice(np.flatnonzero(group == h), k[h], replace=False) for h in range(4)])
        z.append([check.z for check in phase1_checks(NAMES, values[rows], group[rows], frame)])
    assert np.abs(np.mean(z, axis=0)).max() < 0.16
    assert np.abs(np.std(z, axis=0) - 1).max() < 0.12
    best = np.concatenate([np.flatnonzero(group == h)[np.argsort(-values[group == h, 1])[: k[h]]] for h in range(4)])
    check = phase1_checks(NAMES, values[best], group[best], frame)[1]
    assert check.misses
    assert check.z > 5


def test_phase_2_intervals_cover_for_unequal_probabilities() -> None:
    """Over 600 Poisson-like fixed-size draws (randomised systematic) the spread of z is within 15 % of 1 and its mean
    within 0.16 (a false alarm in fewer than 1 of 1,000 runs)."""
    rng, z = np.random.default_rng(11), []
    group, values = _frame(4)
    pi1 = np.array([0.2, 0.4, 0.5, 1.0])[group]
    size = rng.random(group.size) + 0.5
    pi2 = np.concatenate([n * size[group == h] / size[group == h].sum() for h, n in enumerate((40, 20, 10, 3))])
    for _ in range(600):
        drawn = np.zeros(group.size, dtype=bool)
        for h in range(4):
            rows = rng.permutation(np.flatnonzero(group == h))
            ends = np.cumsum(pi2[rows])
            drawn[rows[np.unique(np.searchsorted(ends, np.arange(round(ends[-1])) + rng.random()))]] = True
        z.append([check.z for check in phase2_checks(NAMES, values, group, pi1, pi2, drawn)])
    assert np.abs(np.mean(z, axis=0)).max() < 0.16
    assert np.abs(np.std(z, axis=0) - 1).max() < 0.15


def test_phase_2_without_any_draw_has_no_checks() -> None:
    """Groups that nothing was drawn from are not judged."""
    group, values = _frame(5)
    zero = np.zeros(group.size)
    assert phase2_checks(NAMES, values, group, np.ones(group.size), zero, zero > 0) == []


def test_equal_probabilities_are_simple_random_sampling() -> None:
    """With equal π₂ Hájek's variance is that of simple random sampling, o²(1 − n/o) S²/n."""
    rng = np.random.default_rng(9)
    y, drawn = rng.random((30, 1)), np.zeros(30, dtype=bool)
    drawn[ordered_pivotal(population=30, draws=6, seed=1, purpose="t")] = True
    check = phase2_checks(("y",), y, np.zeros(30, dtype=np.int64), np.ones(30), np.full(30, 0.2), drawn)[0]
    assert check.error == pytest.approx(np.sqrt(30**2 * (1 - 0.2) * y.var(ddof=1) / 6))
    assert check.estimate == pytest.approx(y[drawn].sum() / 0.2)
