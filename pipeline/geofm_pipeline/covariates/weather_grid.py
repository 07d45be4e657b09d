"""Latitude-longitude grids: where a point lies on them, which part a run needs, and values between grid points.

Latitudes may ascend or descend, longitudes run 0-360 or ±180, begin anywhere and go round the Earth. Rows and columns
here are positions on the axes, fractional for points between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

COAST_STEPS = 2.0
"""Grid steps within which a missing value takes the nearest valid one."""
MARGIN = 4
"""Grid points around the points asked for, so that coasts find their neighbours."""
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class LatLonAxes:
    """The axes of a grid, as its file has them."""

    lat: Floats
    """Degrees north, monotonic, shape (H,)."""
    lon: Floats
    """Degrees east, monotonic when turns of 360 are undone, shape (W,)."""

    @property
    def cyclic(self) -> bool:
        """The grid runs round the Earth in longitude."""
        step = _step(self.lon)
        return bool(abs(self.lon.size * step - 360.0) < step / 2)

    def rows(self, lat: Floats) -> Floats:
        """Fractional rows of latitudes, continued beyond the ends."""
        return _position(self.lat, lat)

    def cols(self, lon: Floats) -> Floats:
        """Fractional columns of longitudes, continued beyond the ends; of a cyclic grid in [-0.5, W - 0.5)."""
        axis = unturned(self.lon)
        west = float(axis.min()) - _step(axis) / 2
        return _position(axis, west + (lon - west) % 360.0)

    def inside(self, row: Floats, col: Floats) -> NDArray[np.bool_]:
        """Whether positions lie on the grid, half a step beyond its outer points included."""
        on_rows = np.abs(row - (self.lat.size - 1) / 2) <= self.lat.size / 2
        return np.asarray(on_rows & (self.cyclic | (np.abs(col - (self.lon.size - 1) / 2) <= self.lon.size / 2)))


def unturned(lon: Floats) -> Floats:
    """A longitude axis without its jump by a turn: 0 … 180, -179 … -1 becomes 0 … 359."""
    return np.asarray(np.unwrap(lon, period=360.0)) if lon.size > 1 else lon


def span(positions: Floats, size: int) -> tuple[int, int]:
    """(first, stop) of the whole positions around fractional ones, with a margin, within an axis of `size`."""
    if not positions.size:
        return 0, 0
    first = min(max(int(np.floor(positions.min())) - MARGIN, 0), size)
    return first, max(first, min(int(np.ceil(positions.max())) + MARGIN + 1, size))


def local_cols(col: Floats, axes: LatLonAxes) -> tuple[Ints, Floats]:
    """Columns of the grid around some near points, and the points' fractional places among them.

    An example: on a cyclic grid of 144 columns points at 143.2 and 0.5 get columns 139 … 143, 0 … 5.
    """
    width = axes.lon.size
    if not axes.cyclic:
        first, stop = span(np.clip(col, 0, width - 1), width)
        return np.arange(first, stop), np.clip(col, 0, width - 1) - first
    near = col[0] + (col - col[0] + width / 2) % width - width / 2
    first, stop = int(np.floor(near.min())) - MARGIN, int(np.ceil(near.max())) + MARGIN + 1
    return np.arange(first, stop) % width, near - first


def between(grid: Floats, row: Floats, col: Floats) -> Floats:
    """Bilinear values of a grid [h, w] at positions, shape (n,); missing neighbours are left out.

    Where all four are missing the nearest valid grid point within COAST_STEPS stands in, else the value is NaN.
    """
    height, width = grid.shape
    r0, c0 = np.floor(row).astype(np.int64), np.floor(col).astype(np.int64)
    total, weight = np.zeros(r0.shape), np.zeros(r0.shape)
    for dr in (0, 1):
        for dc in (0, 1):
            share = np.abs(1 - dr - (row - r0)) * np.abs(1 - dc - (col - c0))
            value = grid[np.clip(r0 + dr, 0, height - 1), np.clip(c0 + dc, 0, width - 1)]
            valid = np.isfinite(value)
            total += np.where(valid, share * value, 0.0)
            weight += np.where(valid, share, 0.0)
    known = weight > 1e-9
    values = np.where(known, total / np.where(known, weight, 1.0), np.nan)
    return _from_coast(values, grid, row, col)


def _from_coast(values: Floats, grid: Floats, row: Floats, col: Floats) -> Floats:
    gaps = np.isnan(values)
    if not gaps.any() or not np.isfinite(grid).any():
        return values
    away, nearest = distance_transform_edt(~np.isfinite(grid), return_indices=True)
    r = np.clip(np.round(row[gaps]).astype(np.int64), 0, grid.shape[0] - 1)
    c = np.clip(np.round(col[gaps]).astype(np.int64), 0, grid.shape[1] - 1)
    values[gaps] = np.where(away[r, c] <= COAST_STEPS, grid[nearest[0][r, c], nearest[1][r, c]], np.nan)
    return values


def _step(axis: Floats) -> float:
    return float(np.median(np.abs(np.diff(unturned(axis))))) if axis.size > 1 else 360.0


def _position(axis: Floats, values: Floats) -> Floats:
    """Fractional index of values on a monotonic axis, continued beyond its ends with the outer steps."""
    index = np.arange(axis.size, dtype=np.float64)
    if axis.size > 1 and axis[0] > axis[-1]:
        axis, index = axis[::-1], index[::-1]
    inner = np.interp(values, axis, index)
    if axis.size < 2:
        return np.asarray(inner)
    low, high = (values - axis[0]) / (axis[1] - axis[0]), (values - axis[-1]) / (axis[-1] - axis[-2])
    inner = np.where(values < axis[0], index[0] + low * (index[1] - index[0]), inner)
    return np.where(values > axis[-1], index[-1] + high * (index[-1] - index[-2]), inner)
