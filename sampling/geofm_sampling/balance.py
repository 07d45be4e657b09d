"""Spatial balance of a sample: how evenly its Voronoi polygons share the ground of each stratum.

Stevens & Olsen (2004): give every unit of the population to its nearest sampled unit. In a sample of n of N units each
polygon should hold N / n of them; the mean of (n/N · held − 1)² is 0 for a perfectly even sample and about 0.3 for
simple random sampling in the plane. What counts is the comparison with simple random redraws of the same size in the
same strata. Costs about 20 ms per redraw of 20,000 units on one core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from geofm_sampling.hashing import hashed_uniform

REDRAWS = 200
MOST = 20_000
"""Units that polygons are measured with; a larger population is cut down by hash."""
_PER_SAMPLE = 10
"""Units per sampled one that a cut-down stratum keeps, so that its polygons can still be measured."""
_APART = 10.0
"""Distance between strata on the fourth axis: further than any two points of the unit sphere."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Balance:
    """Voronoi balance of a sample and of simple random redraws of the same size."""

    observed: float
    """Mean squared relative deviation of the polygons, 0 for perfectly even."""
    redraws: NDArray[np.float64]
    """The same for each redraw, ascending."""
    samples: int
    """Sampled units that were measured."""
    groups: int
    """Strata that were measured: those with at least two sampled units and more that were not."""
    skipped: int
    """Strata with sampled units that were left out: fewer than two, all taken, or beyond the bound."""
    units: int
    """Units of the population that the polygons were measured with."""
    subsampled: bool
    """Whether the population was cut down by hash."""

    @property
    def ratio(self) -> float:
        """Observed over the mean of the redraws: below 1 is more even than simple random."""
        return self.observed / float(self.redraws.mean())

    @property
    def rank(self) -> float:
        """Share of the redraws that are at least as even as the sample, 0 to 1."""
        return float(np.mean(self.redraws <= self.observed))


def voronoi_balance(
    *,
    unit: NDArray[np.uint64],
    group: NDArray[np.int64],
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    seed: int,
    redraws: int = REDRAWS,
    most: int = MOST,
) -> Balance | None:
    """Balance of the chosen units within their groups against simple random redraws; None where none can be measured.

    The result depends on ids, not on the order of rows. Units of one place (other years of a cell) share its polygon.

    Parameters
    ----------
    unit : ids of the population, or of a hashed part of it together with all chosen units, shape (n,)
    group : stratum number of each unit
    lon, lat : degrees
    chosen : whether the unit is in the sample
    seed : of the redraws and of what is cut down
    redraws : simple random samples to compare with
    most : units to measure with
    """
    order = np.argsort(unit)
    unit, group, chosen = unit[order], group[order], chosen[order]
    kept = _kept(unit, group, chosen, seed, most)
    if not kept.any():
        return None
    _, number = np.unique(group[kept], return_inverse=True)
    ground = _Ground.of(number, lon[order][kept], lat[order][kept], np.bincount(number[chosen[kept]]))
    values = [ground.unevenness(_redraw(unit[kept], number, ground.wanted, seed, i)) for i in range(redraws)]
    return Balance(
        observed=ground.unevenness(np.flatnonzero(chosen[kept])),
        redraws=np.sort(np.array(values)),
        samples=int(ground.wanted.sum()),
        groups=int(ground.wanted.size),
        skipped=int(np.unique(group[chosen]).size - ground.wanted.size),
        units=int(kept.sum()),
        subsampled=bool(unit.size > most),
    )


def _kept(
    unit: NDArray[np.uint64], group: NDArray[np.int64], chosen: NDArray[np.bool_], seed: int, most: int
) -> NDArray[np.bool_]:
    """Rows to measure with: groups that can be measured, whole, or cut down and as many of them as fit."""
    names, number = np.unique(group, return_inverse=True)
    size, wanted = np.bincount(number), np.bincount(number, weights=chosen).astype(np.int64)
    usable = (wanted >= 2) & (wanted < size)
    if unit.size <= most:
        return np.asarray(usable[number])
    usable &= size >= (_PER_SAMPLE // 2) * wanted
    share = np.minimum(size, np.maximum(_PER_SAMPLE * wanted, (size * (most / unit.size)).astype(np.int64)))
    turn = np.argsort(hashed_uniform(seed, "balance/groups", names.astype(np.uint64)))
    turn = turn[usable[turn]]
    fits = turn[np.cumsum(share[turn]) <= most]
    limit = np.zeros(names.size, dtype=np.int64)
    limit[fits] = share[fits]
    # The sampled units come first, then the others by hash.
    key = np.where(chosen, -1.0, hashed_uniform(seed, "balance/cut", unit))
    return _first_of_groups(number, key, limit)


def _first_of_groups(
    number: NDArray[np.int64], key: NDArray[np.float64], limit: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """The `limit` rows with the smallest key of each group, as a mask, shape (n,)."""
    order = np.lexsort((key, number))
    size = np.bincount(number, minlength=limit.size)
    place = np.arange(number.size) - np.repeat(np.cumsum(size) - size, size)
    taken = np.zeros(number.size, dtype=np.bool_)
    taken[order[place < limit[number[order]]]] = True
    return taken


def _redraw(
    unit: NDArray[np.uint64], number: NDArray[np.int64], wanted: NDArray[np.int64], seed: int, turn: int
) -> NDArray[np.int64]:
    """Rows of a simple random sample of `wanted` units of each group."""
    key = hashed_uniform(seed, f"balance/redraw/{turn}", unit)
    return np.flatnonzero(_first_of_groups(number, key, wanted))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ground:
    """The distinct places of the groups and how much of the sample each should stand for."""

    xyz: NDArray[np.float64]
    """Place on the unit sphere and group, shape (places, 4)."""
    place: NDArray[np.int64]
    """Place of each row."""
    mass: NDArray[np.float64]
    """n_h / N_h per unit, summed over the units of a place: the polygons' masses sum to n_h."""
    wanted: NDArray[np.int64]
    """n_h, sampled units of each group."""

    @classmethod
    def of(
        cls, number: NDArray[np.int64], lon: NDArray[np.float64], lat: NDArray[np.float64], wanted: NDArray[np.int64]
    ) -> _Ground:
        east, north = np.radians(lon), np.radians(lat)
        points = np.column_stack(
            [np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north), _APART * number]
        )
        first, place = np.unique(points, axis=0, return_index=True, return_inverse=True)[1:]
        share = wanted / np.bincount(number)
        mass = np.bincount(place.ravel(), weights=share[number]).astype(np.float64)
        return cls(xyz=np.asarray(points[first], dtype=np.float64), place=place.ravel(), mass=mass, wanted=wanted)

    def unevenness(self, rows: NDArray[np.int64]) -> float:
        """Mean of (v − 1)² over the sampled rows; rows of one place divide its polygon among them."""
        times = np.bincount(self.place[rows], minlength=len(self.xyz))
        at = np.flatnonzero(times)
        nearest = np.asarray(cKDTree(self.xyz[at]).query(self.xyz)[1])
        v = np.bincount(nearest, weights=self.mass, minlength=at.size) / times[at]
        return float((times[at] * (v - 1.0) ** 2).sum() / rows.size)
