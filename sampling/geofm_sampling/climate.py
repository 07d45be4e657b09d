"""Climate clusters and their seasons, fitted once on a hashed subsample of cells and frozen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from geofm_sampling.covariates import monthly, weather_statistics
from geofm_sampling.hashing import hashed_words
from geofm_sampling.kmeans import fit_centroids, nearest_centroid
from geofm_sampling.seasons import calendar_start, weather_start

SUBSAMPLE = 50_000
"""Cells from which clusters and seasons are fitted."""
SEPARATION = 0.5
"""Standardised distance below which two clusters are one climate; fewer are fitted then."""
LEAST_SCALES = {"t_mean": 1.0, "t_range": 1.0, "t_min": 1.0, "p_log": 0.1, "p_seasonality": 0.05, "wetness": 0.1}
"""Least standard deviation of each statistic (°C; about 10 % of the rain): smaller differences are no climates, so
a small region is not cut up by noise."""
_CHUNK = 1 << 18
_Curves = tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]


@dataclass(frozen=True, kw_only=True)
class Climate:
    """Frozen clusters; climate numbers are 0 … K − 1, and K for cells of unknown weather (0 without any weather)."""

    statistics: tuple[str, ...]
    """Names of the weather statistics in order; empty where no weather was given."""
    means: tuple[float, ...]
    """Mean of each statistic over the fitted cells."""
    scales: tuple[float, ...]
    """Standard deviation of each statistic over the fitted cells, at least LEAST_SCALES."""
    centroids: tuple[tuple[float, ...], ...]
    """Standardised centroid of each cluster, coldest first where temperature is known."""
    season_starts: tuple[tuple[int, int], ...]
    """First month (0 = January) of season 0 of each climate number, (north, south)."""

    @property
    def unknown(self) -> int:
        """Climate number of cells whose weather is unknown."""
        return len(self.centroids)


CALENDAR = Climate(
    statistics=(),
    means=(),
    scales=(),
    centroids=(),
    season_starts=((calendar_start(south=False), calendar_start(south=True)),),
)
"""No weather: one climate, calendar seasons (December-February first), shifted six months in the south."""


def fit_climate(cells: pa.Table, ids: NDArray[np.uint64], clusters: int, *, seed: int) -> Climate:
    """Fit clusters and seasons on the cells with the smallest hashes among those whose weather is known.

    `ids` are the cells' ids, shape (n,), unique; they make the result independent of the order of rows.
    """
    letters = "".join(letter for letter in "tp" if _complete_rows(monthly(cells, letter)).any())
    known = _known(_curves(cells, letters))
    if not known.any():
        return CALENDAR
    order = np.flatnonzero(known)
    order = order[np.argsort(hashed_words(seed, "climate", ids[order]))][:SUBSAMPLE]
    sample = cells.take(pa.array(order))
    temperature, precipitation = _curves(sample, letters)
    names, raw = weather_statistics(temperature, precipitation)
    means = np.round(raw.mean(axis=0), 6)
    scales = np.maximum(np.round(raw.std(axis=0), 6), [LEAST_SCALES[name] for name in names])
    centroids = _separate_centroids((raw - means) / scales, clusters, seed)
    label = nearest_centroid((raw - means) / scales, centroids)
    south = np.asarray(sample["lat"].to_numpy()) < 0
    starts = [
        _season_starts(temperature, precipitation, [(label == k) & ~south, (label == k) & south])
        for k in range(len(centroids))
    ]
    return Climate(
        statistics=tuple(names),
        means=tuple(means.tolist()),
        scales=tuple(scales.tolist()),
        centroids=tuple(tuple(row) for row in centroids.tolist()),
        season_starts=(*starts, *CALENDAR.season_starts),
    )


def climate_numbers(cells: pa.Table, climate: Climate) -> NDArray[np.int16]:
    """Climate number of each cell, shape (n,); a quarter of a million cells at a time.

    Raises
    ------
    ValueError
        When the clusters were fitted with weather that the cells do not have.
    """
    result = np.full(cells.num_rows, climate.unknown, dtype=np.int16)
    letters = "".join(letter for letter in "tp" if any(name.startswith(letter) for name in climate.statistics))
    for start in range(0, cells.num_rows if letters else 0, _CHUNK):
        curves = _curves(cells.slice(start, _CHUNK), letters)
        known = _known(curves)
        raw = weather_statistics(*curves)[1][known]
        scaled = (raw - np.array(climate.means)) / np.array(climate.scales)
        result[start : start + _CHUNK][known] = nearest_centroid(scaled, np.array(climate.centroids))
    return result


def _separate_centroids(points: NDArray[np.float64], clusters: int, seed: int) -> NDArray[np.float64]:
    """As many centroids as wanted, or as stay SEPARATION apart."""
    for wanted in range(clusters, 1, -1):
        centroids = np.round(fit_centroids(points, wanted, seed=seed), 6)
        if len(centroids) == 1 or pdist(centroids).min() >= SEPARATION:
            return centroids
    return np.asarray(np.round(points.mean(axis=0, keepdims=True), 6))


def _curves(cells: pa.Table, letters: str) -> _Curves:
    """Monthly temperature and precipitation, those named in `letters` (`t`, `p`), the other None."""
    curves = {letter: monthly(cells, letter) for letter in letters}
    absent = [letter for letter, values in curves.items() if values is None]
    if absent:
        raise ValueError(f"these strata were fitted with the weather columns wx_{absent[0]}01-12, the cells lack them")
    return curves.get("t"), curves.get("p")


def _known(curves: _Curves) -> NDArray[np.bool_]:
    """Cells whose every month of the given variables is known, shape (n,)."""
    rows = [_complete_rows(values) for values in curves if values is not None]
    return np.asarray(np.stack(rows).all(axis=0)) if rows else np.zeros(0, dtype=np.bool_)


def _complete_rows(values: NDArray[np.float32] | None) -> NDArray[np.bool_]:
    return np.zeros(0, dtype=np.bool_) if values is None else np.asarray(np.isfinite(values).all(axis=1))


def _season_starts(
    temperature: NDArray[np.float32] | None, precipitation: NDArray[np.float32] | None, halves: list[NDArray[np.bool_]]
) -> tuple[int, int]:
    """Start of season 0 in the north and south of one cluster; half a year apart where one half has no cells."""
    north, south = (
        weather_start(_mean_curve(temperature, half), _mean_curve(precipitation, half)) if half.any() else None
        for half in halves
    )
    if north is None:
        assert south is not None, "a cluster has at least one cell"
        north = (south + 6) % 12
    return north, (north + 6) % 12 if south is None else south


def _mean_curve(values: NDArray[np.float32] | None, rows: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    return None if values is None else values[rows].mean(axis=0, dtype=np.float64)
