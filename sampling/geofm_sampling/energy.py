"""Energy distance: how far the covariates of a sample are from those of the frame, all variables together.

E(X, Y) = 2 E‖X − Y‖ − E‖X − X′‖ − E‖Y − Y′‖ (Székely & Rizzo 2013) is 0 exactly where both distributions are the same;
E / (2 E‖X − Y‖) lies between 0 and 1. A small sample never reaches 0, so figures are read against those of simple
random samples of the same size. Costs O(n · m) distances; :meth:`Cloud.even` bounds n and m.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from geofm_sampling.hashing import hashed_uniform

MOST = 800
"""Rows of a sample that distances are computed for; more are cut down, and populations to twice as many."""
REDRAWS = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class Cloud:
    """Weighted points: a sample or a population in the space of its covariates."""

    unit: NDArray[np.uint64]
    """Ids, shape (n,)."""
    values: NDArray[np.float64]
    """Covariates, shape (n, d)."""
    weight: NDArray[np.float64]
    """Not negative, shape (n,); only ratios count."""

    def even(self, most: int, *, mixed: bool = False) -> Cloud:
        """At most `most` points of equal weight: systematic by weight, a point as often as it is met.

        Along the ids, which keeps a sample's spread over the ground, or in an order by hash if `mixed`. All points as
        they are where they are few enough and weigh the same.
        """
        if self.unit.size <= most and np.ptp(self.weight) <= 1e-9 * self.weight.max():
            return self.weighing(np.ones(self.unit.size))
        order = np.argsort(hashed_uniform(0, "energy/mixed", self.unit) if mixed else self.unit)
        ends = np.cumsum(self.weight[order])
        at = np.minimum(np.searchsorted(ends, (np.arange(most) + 0.5) / most * ends[-1]), order.size - 1)
        return self.take(order[at]).weighing(np.ones(most))

    def take(self, rows: NDArray[np.int64]) -> Cloud:
        """Some of the points."""
        return Cloud(unit=self.unit[rows], values=self.values[rows], weight=self.weight[rows])

    def weighing(self, weight: NDArray[np.float64]) -> Cloud:
        """The same points with other weights."""
        return Cloud(unit=self.unit, values=self.values, weight=weight)


def standardise(values: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """(mean, standard deviation) of each covariate of a weighted population, both shape (d,); NaN left out."""
    known = np.isfinite(values) * weight[:, None]
    total = np.maximum(known.sum(axis=0), np.finfo(np.float64).tiny)
    filled = np.where(np.isfinite(values), values, 0.0)
    mean = (filled * known).sum(axis=0) / total
    spread = np.sqrt((np.where(np.isfinite(values), values - mean, 0.0) ** 2 * known).sum(axis=0) / total)
    return mean, spread


def scaled(values: NDArray[np.float64], mean: NDArray[np.float64], spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """(values − mean) / spread of the covariates that vary; an unknown value lies at the mean, shape (n, ≤ d)."""
    varies = spread > 1e-9 * np.maximum(np.abs(mean), 1.0)
    result = (values[:, varies] - mean[varies]) / spread[varies]
    return np.asarray(np.where(np.isfinite(result), result, 0.0))


def energy_distance(sample: Cloud, population: Cloud) -> float:
    """E / (2 E‖X − Y‖) of two weighted clouds of the same covariates, 0 (same) to 1; NaN where one is empty.

    >>> points = Cloud(unit=np.arange(2, dtype=np.uint64), values=np.array([[0.0], [1.0]]), weight=np.ones(2))
    >>> energy_distance(points, points)
    0.0
    """
    if not sample.weight.any() or not population.weight.any():
        return float("nan")
    p, q = (cloud.weight / cloud.weight.sum() for cloud in (sample, population))
    between = float(p @ cdist(sample.values, population.values) @ q)
    within = float(p @ cdist(sample.values, sample.values) @ p + q @ cdist(population.values, population.values) @ q)
    return max(0.0, 1.0 - within / (2.0 * between)) if between > 0 else 0.0


def redraw_distances(
    pool: Cloud, populations: Sequence[Cloud], size: int, *, seed: int, redraws: int = REDRAWS
) -> NDArray[np.float64]:
    """Energy distances of simple random samples of `size` units of the pool to some populations.

    The pool is the population itself, or an equal-probability part of it that is several times larger than `size`;
    weights of the pool are not used. Distances are computed once for all redraws.

    Returns
    -------
    Shape (populations, redraws), each row ascending.
    """
    size = min(size, pool.unit.size)
    share = [cloud.weight / cloud.weight.sum() for cloud in populations]
    towards = np.stack([cdist(pool.values, c.values) @ q for c, q in zip(populations, share, strict=True)])
    inside = [float(q @ cdist(c.values, c.values) @ q) for c, q in zip(populations, share, strict=True)]
    within_pool = cdist(pool.values, pool.values)
    found = np.zeros((len(populations), redraws))
    for turn in range(redraws):
        rows = np.argsort(hashed_uniform(seed, f"energy/redraw/{turn}", pool.unit), kind="stable")[:size]
        within = float(within_pool[np.ix_(rows, rows)].mean()) + np.array(inside)
        between = towards[:, rows].mean(axis=1)
        found[:, turn] = np.where(between > 0, np.maximum(0.0, 1.0 - within / np.where(between > 0, 2 * between, 1)), 0)
    return np.sort(found, axis=1)
