"""Noise on the pixel lattice of a UTM zone: every value is a function of (seed, purpose, zone, row, column) alone.

A lattice point is a 30 m pixel: column = easting / 30 m, row = −northing / 30 m, so rows run south and all tiles of a
zone share one lattice. Interpolation uses elementwise float32 arithmetic only (no sums whose order depends on the
window), therefore a pixel's value is the same bit for bit in whatever window it is evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofm_pipeline.hls.bands import PIXEL_M
from geofm_pipeline.hls.grid import TileGrid
from geofm_sampling.hashing import splitmix64, stream_key

Field = NDArray[np.float32]
_OFFSET = 1 << 24  # makes row and column words non-negative: |row| < 3.4e5 on Earth
_SPLINE_STD = 151 / 315  # of a 2-D cubic B-spline through white noise of unit variance, averaged over positions


@dataclass(frozen=True, kw_only=True)
class Window:
    """A rectangle of the pixel lattice of one zone."""

    zone: int
    row: int
    """First lattice row, from the north; negative northings give positive rows."""
    col: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return (self.height, self.width)

    def grown(self, margin: int) -> Window:
        """The window with `margin` pixels more on every side."""
        return self.padded(margin, margin, margin, margin)

    def padded(self, top: int, bottom: int, left: int, right: int) -> Window:
        """The window with so many pixels more on each side."""
        return Window(
            zone=self.zone,
            row=self.row - top,
            col=self.col - left,
            height=self.height + top + bottom,
            width=self.width + left + right,
        )

    def rows(self) -> NDArray[np.int64]:
        """Lattice rows, shape (height,)."""
        return np.arange(self.row, self.row + self.height)

    def cols(self) -> NDArray[np.int64]:
        """Lattice columns, shape (width,)."""
        return np.arange(self.col, self.col + self.width)


def tile_window(grid: TileGrid, row: int, col: int, height: int, width: int) -> Window:
    """The lattice window of `height` × `width` pixels at pixel (row, col) of a tile."""
    return Window(
        zone=grid.zone, row=-grid.y0 // PIXEL_M + row, col=grid.x0 // PIXEL_M + col, height=height, width=width
    )


def lattice_uniform(key: np.uint64, zone: int, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Field:
    """Uniform numbers in [0, 1) of lattice points; `rows` and `cols` broadcast."""
    words = (
        (rows + _OFFSET).astype(np.uint64) << np.uint64(32)
        | (cols + _OFFSET).astype(np.uint64) << np.uint64(6)
        | np.uint64(zone)
    )
    return (splitmix64(words ^ key) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def white(seed: int, purpose: str, window: Window) -> Field:
    """Uniform numbers in [0, 1), independent from pixel to pixel, shape of the window."""
    return lattice_uniform(stream_key(seed, purpose), window.zone, window.rows()[:, None], window.cols()[None, :])


def smooth(seed: int, purpose: str, window: Window, spacing: int) -> Field:
    """Noise of mean 0 and variance 1 with features of `spacing` pixels (a power of two), shape of the window."""
    key = stream_key(seed, f"{purpose}/{spacing}")
    row_base, row_weights = _taps(window.rows(), spacing)
    col_base, col_weights = _taps(window.cols(), spacing)
    knot_rows = np.arange(row_base[0], row_base[-1] + 4)
    knot_cols = np.arange(col_base[0], col_base[-1] + 4)
    knots = lattice_uniform(key, window.zone, knot_rows[:, None], knot_cols[None, :])
    knots = (knots - np.float32(0.5)) * np.float32(12**0.5 / _SPLINE_STD)
    across = _interpolate(knots.T, col_base - col_base[0], col_weights)  # (W, knot rows)
    return _interpolate(np.ascontiguousarray(across.T), row_base - row_base[0], row_weights)


def at_points(
    seed: int, purpose: str, zone: int, rows: NDArray[np.float64], cols: NDArray[np.float64], spacing: int
) -> Field:
    """The same noise as :func:`smooth` at any positions (fractions of pixels allowed), shape of `rows`."""
    key = stream_key(seed, f"{purpose}/{spacing}")
    row_base, row_weights = _taps(rows, spacing)
    col_base, col_weights = _taps(cols, spacing)
    first_row, first_col = int(row_base.min()), int(col_base.min())
    knots = lattice_uniform(
        key,
        zone,
        np.arange(first_row, row_base.max() + 4)[:, None],
        np.arange(first_col, col_base.max() + 4)[None, :],
    )
    knots = (knots - np.float32(0.5)) * np.float32(12**0.5 / _SPLINE_STD)
    flat, width = knots.ravel(), knots.shape[1]
    corner = (row_base - first_row) * width + (col_base - first_col)
    total = np.zeros(rows.shape, dtype=np.float32)
    for down in range(4):
        across = np.zeros(rows.shape, dtype=np.float32)
        for right in range(4):
            across += flat[corner + (down * width + right)] * col_weights[right]
        total += across * row_weights[down]
    return total


def fractal(
    seed: int, purpose: str, window: Window, *, coarsest: int, finest: int = 1, roughness: float = 0.5
) -> Field:
    """Sum of octaves from `coarsest` down to `finest` pixels, amplitude × `roughness` per octave, variance 1."""
    total = np.zeros(window.shape, dtype=np.float32)
    amplitude, power, spacing = 1.0, 0.0, coarsest
    while spacing >= finest:
        total += np.float32(amplitude) * smooth(seed, purpose, window, spacing)
        power += amplitude**2
        amplitude *= roughness
        spacing //= 2
    return total * np.float32(power**-0.5)


def _taps(positions: NDArray[np.int64] | NDArray[np.float64], spacing: int) -> tuple[NDArray[np.int64], Field]:
    """First knot of each position and its four cubic B-spline weights, shapes of `positions` and (4, …)."""
    base = np.floor_divide(positions, spacing).astype(np.int64)
    t = ((positions - base * spacing).astype(np.float32) + np.float32(0.5)) / np.float32(spacing)
    one = np.float32(1)
    weights = np.stack(
        [
            (one - t) * (one - t) * (one - t),
            3 * t * t * t - 6 * t * t + 4,
            -3 * t * t * t + 3 * t * t + 3 * t + 1,
            t * t * t,
        ]
    ) / np.float32(6)
    return base - 1, weights.astype(np.float32)


def _interpolate(knots: Field, base: NDArray[np.int64], weights: Field) -> Field:
    """Weighted sum of four neighbouring knot rows for each output row: (k, m) → (n, m)."""
    out = knots[base] * weights[0][:, None]
    for tap in range(1, 4):
        out += knots[base + tap] * weights[tap][:, None]
    return as_field(out)


def as_field(values: ArrayLike) -> Field:
    """The values as float32."""
    return np.asarray(values, dtype=np.float32)


def smoothstep(low: float, high: float, x: Field | NDArray[np.float64]) -> Field:
    """0 below `low`, 1 above `high`, a smooth ramp between, shape kept."""
    t = np.clip((x - np.float32(low)) * np.float32(1.0 / (high - low)), 0, 1)
    return as_field(t * t * (3 - 2 * t))
