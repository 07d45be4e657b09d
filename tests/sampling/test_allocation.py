"""Allocation to strata."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofm_sampling import allocate

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
