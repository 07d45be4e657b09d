"""The q-frontier."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geofm_sampling.allocation import allocate
from geofm_sampling.diagnostics import effective_strata
from geofm_sampling.frontier import ENOUGH, frontier


@settings(max_examples=40)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=30), st.integers(1, 2000), st.integers(0, 12))
def test_every_point_is_the_allocation_it_stands_for(sizes: list[int], samples: int, floor: int) -> None:
    """Effective strata, smallest stratum and covered share are those of the allocation with that exponent."""
    total = min(samples, sum(sizes))
    for point in frontier(sizes, samples, floor=floor, powers=(0.0, 0.5, 1.0)):
        n = allocate(sizes, total, power=point.power, floor=min(floor, total // len(sizes)))
        assert point.effective == effective_strata(n)
        assert (point.smallest, point.empty) == (n.min(), (n == 0).sum())
        assert point.enough == np.mean(n >= np.minimum(ENOUGH, sizes))


def test_the_trade() -> None:
    """Towards q = 0 strata are filled more evenly and averages get less precise; q = 1 costs next to nothing."""
    points = frontier([100_000, 20_000, 3_000, 400, 100], 600)
    effective, inflation = [p.effective for p in points], [p.inflation for p in points]
    assert effective == sorted(effective, reverse=True)
    assert inflation == sorted(inflation, reverse=True)
    assert points[0].effective > 4.9
    assert inflation[-1] == pytest.approx(1, abs=0.01)
    assert inflation[0] > 1.4


def test_the_error_against_a_simulation() -> None:
    """Over 2,000 stratified draws the ratio of standard errors is within 8 % of the expected one (5 standard
    errors)."""
    rng, sizes = np.random.default_rng(5), np.array([2000, 500, 50])
    values = [rng.normal(mean, sd, size) for mean, sd, size in zip((1, 5, 9), (1, 2, 4), sizes, strict=True)]
    spread = [v.std(ddof=1) for v in values]
    point = frontier(sizes, 102, spread=spread, powers=(0.0,))[0]

    def error(n: np.ndarray) -> float:
        means = [
            sum(w * rng.choice(v, k, replace=False).mean() for w, v, k in zip(sizes / 2550, values, n, strict=True))
            for _ in range(2000)
        ]
        return float(np.std(means))

    assert error(np.array([34, 34, 34])) / error(np.array([80, 20, 2])) == pytest.approx(point.inflation, rel=0.08)


def test_empty_strata_and_impossible_spreads() -> None:
    """Strata without units take no part, strata without samples are counted, an impossible spread is refused."""
    assert frontier([10, 0, 30], 8, spread=[1.0, np.nan, 1.0]) == frontier([10, 30], 8)
    assert frontier([10_000, 1], 5, powers=(1.0,))[0].empty == 1
    with pytest.raises(ValueError, match="spread"):
        frontier([10, 20], 5, spread=[1.0, -1.0])
    with pytest.raises(ValueError, match="no stratum"):
        frontier([0], 5)
