"""Allocation to strata."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from geofm_sampling.allocation import allocate

SIZES = st.lists(st.integers(0, 500), min_size=1, max_size=12)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[int], int, float, int]:
    sizes, floor = draw(SIZES), draw(st.integers(0, 6))
    low, high = sum(min(n, floor) for n in sizes), sum(sizes)
    return sizes, draw(st.integers(low, high)), draw(st.sampled_from([0.0, 0.3, 0.5, 1.0])), floor


@given(problems())
def test_exact_total_within_floors_and_caps(problem: tuple[list[int], int, float, int]) -> None:
    """The total is met exactly; no stratum gets more than it has, or less than the floor or its size."""
    sizes, total, power, floor = problem
    n = allocate(sizes, total, power=power, floor=floor)
    assert n.sum() == total
    assert np.all(n <= sizes)
    assert np.all(n >= np.minimum(sizes, floor))


@given(problems())
def test_larger_strata_never_get_less(problem: tuple[list[int], int, float, int]) -> None:
    """With one floor for all, allocation is monotone in size; equal sizes differ by at most one."""
    sizes, total, power, floor = problem
    n = allocate(sizes, total, power=power, floor=floor)
    for i, j in itertools.permutations(range(len(sizes)), 2):
        assert n[i] >= n[j] - (sizes[i] == sizes[j] or power == 0) or sizes[i] < sizes[j]


@given(problems())
def test_agrees_with_a_plain_search_for_the_constant(problem: tuple[list[int], int, float, int]) -> None:
    """Every n_h is one of the two whole numbers around clip(c · N ** q, floor, N) with the c that meets the total."""
    sizes, total, power, floor = problem
    size = np.array(sizes, dtype=float)
    scale = np.where(size > 0, size**power, 0)
    low, c_low, c_high = np.minimum(size, floor), 0.0, 1e4
    for _ in range(200):
        c = (c_low + c_high) / 2
        c_low, c_high = (c, c_high) if np.clip(c * scale, low, size).sum() < total else (c_low, c)
    wanted = np.clip(c_high * scale, low, size)
    assert np.all(np.abs(allocate(sizes, total, power=power, floor=floor) - wanted) < 1 + 1e-6)


def test_worked_example() -> None:
    """Square roots of 100, 400, 2500 share 80 as 10 : 20 : 50; a floor of 15 takes from the others."""
    assert allocate([100, 400, 2500], 80).tolist() == [10, 20, 50]
    assert allocate([100, 400, 2500], 80, floor=15).tolist() == [15, 19, 46]
    assert allocate([100, 400, 2500], 80, power=0).tolist() == [27, 27, 26]
    assert allocate([100, 400, 2500], 300, power=1).tolist() == [10, 40, 250]
    assert allocate([0, 4, 2500], 80).tolist() == [0, 3, 77]
    assert allocate([100, 100], 50, caps=[10, 90]).tolist() == [10, 40]


def variance(n: np.ndarray, sizes: list[float], spread: list[float], power: float = 1.0) -> np.ndarray:
    """Σ (N_h^power · S_h)² / n_h of allocations along the last axis."""
    return (np.square(np.power(sizes, power) * spread) / n).sum(axis=-1)


def every_split(total: int, strata: int) -> np.ndarray:
    """All ways to give `total` to `strata`, each at least 1, shape (ways, strata)."""
    cuts = itertools.combinations(range(1, total), strata - 1)
    return np.array([np.diff([0, *cut, total]) for cut in cuts])


def test_neyman_on_the_cities_of_cochran() -> None:
    """Cochran (1977), ch. 5: 16 large and 48 small cities with S² of 53,843 and 5,581 share 24 as 12 : 12.

    The variance of the total is then 1,090,827, against 1,882,293 with proportional allocation (6 : 18).
    """
    sizes, spread = [16, 48], np.sqrt([53_843, 5_581]).tolist()
    neyman = allocate(sizes, 24, power=1, spread=spread)
    proportional = allocate(sizes, 24, power=1)
    assert neyman.tolist() == [12, 12]
    assert proportional.tolist() == [6, 18]
    finite = np.dot(sizes, np.square(spread))
    assert variance(neyman, sizes, spread) - finite == pytest.approx(1_090_827, abs=1)
    assert variance(proportional, sizes, spread) - finite == pytest.approx(1_882_293, abs=1)
    ways = every_split(24, 2)
    ways = ways[np.all(ways <= sizes, axis=1)]
    assert neyman.tolist() == ways[variance(ways, sizes, spread).argmin()].tolist()


@pytest.mark.parametrize("power", [1.0, 0.5, 0.0])
@given(st.lists(st.tuples(st.integers(40, 5_000), st.floats(0.2, 5)), min_size=3, max_size=3), st.integers(20, 40))
def test_no_other_allocation_has_a_smaller_variance(power: float, strata: list[tuple[int, float]], total: int) -> None:
    """Neyman (power 1) and Bankier (1988): Σ (N^q S)² / n is within 2 % of the best of all whole allocations.

    Rounding by largest remainders is not the exact whole optimum, hence the 2 % (or a floor of 1 that binds, 10 %).
    """
    sizes, spread = [float(n) for n, _ in strata], [s for _, s in strata]
    n = allocate(sizes, total, power=power, spread=spread)
    best = variance(every_split(total, 3), sizes, spread, power).min()
    assert variance(n, sizes, spread, power) <= best * (1.02 if n.min() > 2 else 1.10)


def test_cost_is_the_least_for_the_variance() -> None:
    """With costs 1, 4, 9 the allocation is the one that scipy finds to minimise Σ N² S² / n at the same cost."""
    sizes, spread, cost = np.array([2e5, 3e5, 1e5]), np.array([2.0, 1.0, 5.0]), np.array([1.0, 4.0, 9.0])
    n = allocate(sizes, 100_000, power=1, spread=spread, cost=cost)
    found = optimize.minimize(
        lambda x: (np.square(sizes * spread / 1e5) / x).sum(),  # x in units of 10⁵
        np.full(3, 0.3),
        constraints={"type": "eq", "fun": lambda x: x @ cost - n @ cost / 1e5},
        bounds=[(1e-3, None)] * 3,
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    assert n == pytest.approx(found.x * 1e5, rel=1e-3)


@given(problems(), st.data())
def test_spread_and_cost_act_as_factors(problem: tuple[list[int], int, float, int], data: st.DataObject) -> None:
    """Every n_h is one of the whole numbers around clip(c · N^q S / √c_h, floor, N), found by plain search."""
    sizes, total, power, floor = problem
    floats = st.lists(st.floats(1e-3, 1e3), min_size=len(sizes), max_size=len(sizes))
    spread, cost = data.draw(floats), data.draw(floats)
    n = allocate(sizes, total, power=power, floor=floor, spread=spread, cost=cost)
    assert n.sum() == total
    size = np.array(sizes, dtype=float)
    scale = np.where(size > 0, size**power * spread / np.sqrt(cost), 0)
    low = np.minimum(size, max(floor, 1))
    low = low if low.sum() <= total else np.minimum(size, floor)
    below, above = 0.0, 1e12
    for _ in range(300):
        c = (below + above) / 2
        below, above = (c, above) if np.clip(c * scale, low, size).sum() < total else (below, c)
    assert np.all(np.abs(n - np.clip(above * scale, low, size)) < 1 + 1e-6)


def test_a_tiny_spread_keeps_its_chance() -> None:
    """However small its spread or large its cost, a stratum gets one unit if the total suffices for all."""
    assert allocate([1000, 1000, 1000], 30, spread=[1, 1, 1e-300]).tolist() == [15, 14, 1]
    assert allocate([1000, 1000, 1000], 30, cost=[1, 1, 1e300]).tolist() == [15, 14, 1]
    assert allocate([10, 1000], 1000, power=1, spread=[1, 1e-200]).tolist() == [10, 990]
    assert allocate([1000, 1000, 0], 30, spread=[1, 2, float("nan")]).tolist() == [10, 20, 0]
    # Fewer units than strata: some must get none; the largest shares win.
    assert allocate([1000, 1000, 1000], 2, spread=[3, 2, 1]).tolist() == [1, 1, 0]


def test_equal_spread_and_cost_change_nothing() -> None:
    """A spread or cost that all strata share leaves the allocation as it is without them, above a floor of 1."""
    sizes = [100, 400, 2500, 7]
    plain = allocate(sizes, 80, floor=1)
    assert allocate(sizes, 80, spread=[0.3] * 4).tolist() == plain.tolist()
    assert allocate(sizes, 80, cost=[1e9] * 4).tolist() == plain.tolist()


@pytest.mark.parametrize(
    ("sizes", "total", "options", "words"),
    [
        ([10, 10], 21, {}, "hold at most 20"),
        ([10, 10], 5, {"floor": 3}, "at least 6"),
        ([10, -1], 5, {}, "≥ 0"),
        ([10, float("nan")], 5, {}, "finite"),
        ([10], -1, {}, "cannot allocate -1"),
        ([10], 5, {"power": 1.5}, "power 1.5"),
        ([10], 5, {"floor": -1}, "negative"),
        ([[10]], 5, {}, "list"),
        ([], 1, {}, "cannot allocate 1"),
        ([10, 10], 5, {"spread": [1, 0]}, "the spread of 1 strata is not a finite number above 0, the first is 0"),
        ([10, 10], 5, {"spread": [1, -1]}, "-1.0 in stratum 1"),
        ([10, 10], 5, {"spread": [1, float("nan")]}, "nan in stratum 1"),
        ([10, 10], 5, {"cost": [float("inf"), 1]}, "the cost of 1 strata"),
        ([10, 10], 5, {"cost": [0, 1]}, "the cost of 1 strata"),
        ([10, 10], 5, {"cost": [1]}, "one number per stratum, 2"),
    ],
)
def test_impossible_allocations_are_refused(sizes: list[float], total: int, options: dict, words: str) -> None:
    """What cannot be met is an error with the numbers, never a wrong total."""
    with pytest.raises(ValueError, match=words):
        allocate(sizes, total, **options)


def test_a_floor_above_a_stratum_takes_all_of_it() -> None:
    """A stratum smaller than the floor is taken whole."""
    assert allocate([3, 1000], 20, floor=10).tolist() == [3, 17]
    assert allocate([], 0).tolist() == []
