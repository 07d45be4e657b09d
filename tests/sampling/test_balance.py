"""Voronoi balance."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from geofm_sampling.balance import Balance, voronoi_balance
from geofm_sampling.hilbert import hilbert_of_ground
from geofm_sampling.pivotal import ordered_pivotal


def _ground(side: int, groups: int = 2) -> dict[str, NDArray[np.generic]]:
    down, right = np.divmod(np.arange(side * side), side)
    return {
        "unit": np.arange(side * side, dtype=np.uint64) * np.uint64(1024),
        "group": (right * groups // side).astype(np.int64),
        "lon": 10 + right * 0.1,
        "lat": 5 - down * 0.1,
    }


def _measure(ground: dict[str, NDArray[np.generic]], chosen: NDArray[np.bool_], **more: int) -> Balance:
    found = voronoi_balance(**ground, chosen=chosen, seed=3, **{"redraws": 40, **more})  # type: ignore[arg-type]
    assert found is not None
    return found


def _random(ground: dict[str, NDArray[np.generic]], n: int, seed: int) -> NDArray[np.bool_]:
    rng, chosen = np.random.default_rng(seed), np.zeros(ground["unit"].size, dtype=bool)
    for h in np.unique(ground["group"]):
        chosen[rng.choice(np.flatnonzero(ground["group"] == h), n, replace=False)] = True
    return chosen


def test_unevenness_against_all_pairs() -> None:
    """The figure is the mean of (n/N · units nearest to it − 1)² over the sampled units, stratum by stratum."""
    ground = _ground(12)
    chosen = _random(ground, 7, 1)
    north, east = np.radians(ground["lat"]), np.radians(ground["lon"])
    xyz = np.column_stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)])
    deviations = []
    for h in (0, 1):
        mine, picked = np.flatnonzero(ground["group"] == h), np.flatnonzero((ground["group"] == h) & chosen)
        held = np.zeros(picked.size)
        for distances in cdist(xyz[mine], xyz[picked]):
            held[distances <= distances.min() + 1e-12] += 1 / (distances <= distances.min() + 1e-12).sum()
        deviations += ((held * picked.size / mine.size - 1) ** 2).tolist()
    assert _measure(ground, chosen).observed == pytest.approx(np.mean(deviations), rel=0.15)  # ties go to one side


def test_a_pivotal_draw_is_more_even_than_random_and_a_corner_is_less() -> None:
    """Ordered pivotal draws along the curve lie below nearly all redraws, a sample from one corner above all."""
    ground = _ground(40, groups=1)
    order = np.argsort(hilbert_of_ground(ground["lon"], ground["lat"]))
    spread = np.zeros(1600, dtype=bool)
    spread[order[ordered_pivotal(population=1600, draws=60, seed=1, purpose="t")]] = True
    found = _measure(ground, spread, redraws=200)
    assert found.ratio < 0.7
    assert found.rank <= 0.01
    corner = _measure(ground, np.arange(1600) < 60)
    assert corner.ratio > 3
    assert corner.rank == 1


def test_ranks_of_random_samples_are_uniform() -> None:
    """Simple random samples rank evenly among simple random redraws: over 60 of them the mean rank lies within
    0.5 ± 0.13 (3.5 standard errors, a false alarm in 1 of 2,000 runs)."""
    ground = _ground(16)
    ranks = [_measure(ground, _random(ground, 8, seed)).rank for seed in range(60)]
    assert abs(np.mean(ranks) - 0.5) < 0.13


def test_order_of_rows_does_not_matter() -> None:
    """The same units in another order give the same figures."""
    ground, turn = _ground(14), np.random.default_rng(2).permutation(196)
    chosen = _random(ground, 9, 4)
    first = _measure(ground, chosen)
    again = _measure({name: values[turn] for name, values in ground.items()}, chosen[turn])
    assert again.observed == first.observed
    assert np.array_equal(again.redraws, first.redraws)


def test_what_cannot_be_measured_is_left_out_and_counted() -> None:
    """Strata with one sampled unit or with all of them sampled prove nothing; without any other the answer is None."""
    ground = _ground(12, groups=3)
    chosen = _random(ground, 5, 1)
    chosen[ground["group"] == 2] = True
    found = _measure(ground, chosen)
    assert (found.groups, found.skipped, found.samples) == (2, 1, 10)
    alone = np.zeros(144, dtype=bool)
    alone[3] = True
    assert voronoi_balance(**ground, chosen=alone, seed=1) is None  # type: ignore[arg-type]


def test_seasons_of_one_place_share_its_polygon() -> None:
    """Two years of the same places are as even as one year of them, and one year of every place is perfectly even."""
    ground = _ground(6, groups=1)
    twice = {name: np.concatenate([values, values]) for name, values in ground.items()}
    twice["unit"] = np.arange(72, dtype=np.uint64)
    some = np.arange(36) % 3 == 0
    assert _measure(twice, np.tile(some, 2)).observed == pytest.approx(_measure(ground, some).observed)
    assert _measure(twice, np.arange(72) < 36).observed == pytest.approx(0)


def test_a_large_population_is_cut_down_to_the_bound() -> None:
    """With a bound the work is bounded, the figure stays near that of the whole, and the cut is said."""
    ground = _ground(60, groups=4)
    chosen = _random(ground, 20, 5)
    whole, cut = _measure(ground, chosen), _measure(ground, chosen, most=1200)
    assert cut.subsampled
    assert not whole.subsampled
    assert cut.units <= 1200
    assert cut.ratio == pytest.approx(whole.ratio, rel=0.35)
