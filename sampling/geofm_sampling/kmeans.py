"""k-means with hashed seeds: the same points give the same clusters in any order of rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geofm_sampling.hashing import hashed_uniform

_CHUNK = 1 << 18
"""Rows at a time when distances are computed: bounds memory to some tens of megabytes."""


def nearest_centroid(points: NDArray[np.float64], centroids: NDArray[np.float64]) -> NDArray[np.int16]:
    """Index of the nearest centroid (Euclidean) of each point, shape (n,); points (n, S), centroids (K, S)."""
    result = np.empty(len(points), dtype=np.int16)
    for start in range(0, len(points), _CHUNK):
        part = points[start : start + _CHUNK]
        result[start : start + _CHUNK] = np.stack([_squared(part, centre) for centre in centroids]).argmin(axis=0)
    return result


def _squared(points: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances, shape (n,); summed column by column, so that no library decides the order of summing."""
    total = np.zeros(len(points))
    for column, value in zip(points.T, centre, strict=True):
        total += (column - value) ** 2
    return total


def fit_centroids(
    points: NDArray[np.float64], clusters: int, *, seed: int, starts: int = 3, iterations: int = 40
) -> NDArray[np.float64]:
    """Centroids, shape (K, S) with K ≤ clusters, of the best of some k-means++ starts, sorted by coordinates.

    Fewer distinct points than clusters give one centroid per distinct point. The caller fixes the order of points
    (here: by hash of the cell), which makes the result independent of the order of rows.
    """
    points = np.asfortranarray(points)
    distinct = np.unique(points, axis=0)
    if len(distinct) <= clusters:
        return np.asarray(distinct)
    fits = [_lloyd(points, _plus_plus(points, clusters, seed, start), iterations) for start in range(starts)]
    spreads = [((points - centres[nearest_centroid(points, centres)]) ** 2).sum() for centres in fits]
    best = fits[int(np.argmin(spreads))]
    return best[np.lexsort(best.T[::-1])]


def _plus_plus(points: NDArray[np.float64], clusters: int, seed: int, start: int) -> NDArray[np.float64]:
    """Starting centroids of Arthur & Vassilvitskii (2007): far from those chosen before."""
    uniform = hashed_uniform(seed, f"kmeans/{start}", np.arange(clusters, dtype=np.uint64))
    chosen = [points[int(uniform[0] * len(points))]]
    squared = np.full(len(points), np.inf)
    for u in uniform[1:]:
        squared = np.minimum(squared, _squared(points, chosen[-1]))
        total = np.cumsum(squared)
        chosen.append(points[min(int(np.searchsorted(total, u * total[-1], side="right")), len(points) - 1)])
    return np.stack(chosen)


def _lloyd(points: NDArray[np.float64], centres: NDArray[np.float64], iterations: int) -> NDArray[np.float64]:
    """Lloyd's iterations; a centroid that loses all its points stays where it is."""
    for _ in range(iterations):
        label = nearest_centroid(points, centres)
        count = np.bincount(label, minlength=len(centres))
        sums = np.stack([np.bincount(label, weights=column, minlength=len(centres)) for column in points.T], axis=1)
        moved = np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres
