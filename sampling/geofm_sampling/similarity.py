"""Which units look alike, and which look like data that exist already.

Distances are Euclidean between descriptors (:func:`geofm_sampling.information.descriptors`), in reflectance. Nothing
here removes a unit: both results lower its chance, by a recorded amount that never reaches zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

RADIUS = 0.03
"""Distance of descriptors, in reflectance, within which two units look alike: about the median of patches of real
Sentinel-2 scenes that share half of their pixels. Less than half a percent of the pairs from different cities lie as
near, and a sixth of the pairs that show one place at two dates (docs/evidence/coverage.md)."""
FLOOR = 0.1
"""Novelty of a unit that exists already."""
REFERENCE = 4096
"""Units of a group against which the others are held; in larger groups look-alikes are estimated from so many."""
_BLOCK = 1024
"""Units at a time: bounds the list of pairs to _BLOCK · REFERENCE, some 100 MB."""
_FAR = 6.0
"""Radii beyond which novelty is 1 to seven digits, so that nearer neighbours need not be looked for."""


def near_duplicates(
    descriptor: ArrayLike, group: ArrayLike, pi1: ArrayLike, *, radius: float = RADIUS
) -> NDArray[np.float64]:
    """Estimated number of frame units of the group that look like each unit, itself included, shape (n,).

    m_i = Σ 1/π₁_j over the units j of i's group with |d_i − d_j| ≤ radius: each unit of the first phase stands for
    1/π₁ units of the frame. In a group of more than REFERENCE different descriptors the sum over j ≠ i runs over
    REFERENCE of them, evenly spread over their sorted list, and is scaled up. The order of rows does not matter. NaN
    for a unit without a descriptor.

    Costs 6 µs a unit in groups of a thousand, 30 to 50 in groups of ten thousand; memory for _BLOCK · REFERENCE pairs.

    Parameters
    ----------
    descriptor : (n, D), NaN in a row without information
    group : (n,) split and stratum of each unit
    pi1 : (n,) first-phase inclusion probabilities, in (0, 1]
    radius : in units of the descriptor, > 0

    Raises
    ------
    ValueError
        When a probability or the radius lies outside its range.
    """
    points, weight = _points(descriptor), 1.0 / _probabilities(pi1)
    _check_radius(radius)
    result = np.full(len(points), np.nan)
    for rows in _by_group(np.asarray(group), _known(points)):
        distinct, inverse = np.unique(points[rows], axis=0, return_inverse=True)
        inverse = inverse.reshape(-1)
        order = np.lexsort((weight[rows], inverse))  # sums do not depend on the order of rows
        mass = _totals(inverse[order], weight[rows][order], len(distinct))
        result[rows] = _mass_nearby(distinct, mass, radius)[inverse]
    return result


def novelty(descriptor: ArrayLike, existing: ArrayLike, *, radius: float = RADIUS) -> NDArray[np.float64]:
    """How far each unit lies from existing data, shape (n,): FLOOR where it exists already, towards 1 far away.

    1 − (1 − FLOOR) · exp(−½ (d / radius)²) with d the distance to the nearest existing descriptor: 0.45 at one radius,
    0.88 at two, 0.99 at three. 1 without existing data; NaN for a unit without a descriptor.

    Parameters
    ----------
    descriptor : (n, D), NaN in a row without information
    existing : (k, D) of earlier waves and other data sets; rows with NaN are ignored
    radius : in units of the descriptor, > 0
    """
    points, known = _points(descriptor), _points(existing)
    _check_radius(radius)
    known, good = known[_known(known)], _known(points)
    result = np.where(good, 1.0, np.nan)
    if len(known) and good.any():
        if known.shape[1] != points.shape[1]:
            raise ValueError(
                f"existing descriptors have {known.shape[1]} numbers, those of the units {points.shape[1]}: they must "
                "come from the same bands"
            )
        distance, _ = KDTree(known).query(points[good], distance_upper_bound=_FAR * radius)
        result[good] = 1.0 - (1.0 - FLOOR) * np.exp(-0.5 * (distance / radius) ** 2)
    return result


def _mass_nearby(points: NDArray[np.float64], mass: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Σ mass within `radius` of each point of one group, shape (n,); points are distinct and sorted."""
    n = len(points)
    chosen = np.arange(n) if n <= REFERENCE else np.arange(REFERENCE) * n // REFERENCE
    own = np.zeros(n)
    own[chosen] = mass[chosen]
    tree = KDTree(points[chosen])
    near = np.concatenate([_sums(points[i : i + _BLOCK], tree, mass[chosen], radius) for i in range(0, n, _BLOCK)])
    others = np.maximum(near - own, 0.0)
    scale = (n - 1) / np.maximum(chosen.size - (own > 0), 1)
    return np.asarray(mass + others * scale)


def _sums(points: NDArray[np.float64], tree: KDTree, mass: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Σ mass of the tree's points within `radius` of each point, shape of points' rows."""
    pairs = KDTree(points).sparse_distance_matrix(tree, radius, output_type="ndarray")
    # Points are sorted, so trees, pairs and the order of summing depend on their values alone.
    return _totals(pairs["i"], mass[pairs["j"]], len(points))


def _totals(owner: NDArray[np.integer[Any]], weight: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Σ weight by owner 0 … size − 1, summed in the order of rows, shape (size,)."""
    return np.bincount(owner, weights=weight, minlength=size).astype(np.float64)


def _by_group(group: NDArray[np.generic], good: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Positions of the good rows of each group."""
    rows = np.flatnonzero(good)
    order = rows[np.argsort(group[rows], kind="stable")]
    starts = np.unique(group[order], return_index=True)[1]
    yield from np.split(order, starts[1:]) if order.size else ()


def _points(descriptor: ArrayLike) -> NDArray[np.float64]:
    points = np.asarray(descriptor, dtype=np.float64)
    if points.size == 0 and points.ndim < 2:
        return np.empty((0, 1))
    if points.ndim != 2:
        raise ValueError(f"descriptors of shape {points.shape} must be a table (units, numbers per unit)")
    return points


def _known(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows hold no NaN, shape (n,)."""
    return np.asarray(~np.isnan(points).any(axis=1))


def _probabilities(pi1: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(pi1, dtype=np.float64)
    if values.size and not (values.min() > 0 and values.max() <= 1):
        raise ValueError(f"pi1 must lie in (0, 1], got {values.min()} to {values.max()}")
    return values


def _check_radius(radius: float) -> None:
    if not 0 < radius < np.inf:
        raise ValueError(f"radius is {radius}, must be a number above 0 in units of the descriptor")
