"""The shape of the land: heights, rivers and lakes as functions of the lattice position.

Valleys are the zero lines of warped noise, so rivers run along valley floors and leave the mountains into the plains;
where a lake field is high they widen into long lakes. Heights are metres, distances pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.simulator.noise import Field, Window, as_field, at_points, fractal, smooth, smoothstep

_VALLEY = 512  # spacing of the main valleys' noise, 15 km
_MOUNTAINS = 1024  # of mountain ranges, 31 km
_FLANK_M = 1100.0  # rise of mountain flanks per unit of valley noise, metres
_RIDGE_M = 1550.0  # mean height of ridges above their flanks, metres


@dataclass(frozen=True, kw_only=True)
class Relief:
    """Heights and waters of a window, arrays [H, W] float32."""

    elevation: Field
    """Metres."""
    mountains: Field
    """0 in plains, 1 within a range."""
    east: Field
    """Rise towards the east, metres per metre."""
    north: Field
    """Rise towards the north, metres per metre."""
    water: Field
    """Share of the pixel under a river or lake, 0-1."""
    bank: Field
    """Distance to the nearest river or lake shore in pixels, negative within."""
    stream: Field
    """Distance to the nearest brook in pixels."""


def relief(seed: int, window: Window) -> Relief:
    """The land of a window."""
    wide = window.grown(2)  # slopes of heights, which know the slope of the valley noise
    mountains = _mountains(seed, wide)
    valley = _valley_noise(seed, wide)
    bank = _bank(seed, wide, valley, mountains)
    stream = _distance(fractal(seed, "brook", wide, coarsest=256, finest=64))
    elevation = _elevation(seed, wide, mountains, valley, bank)
    rise_south, rise_east = _gradient(elevation)
    inner = (slice(2, -2), slice(2, -2))
    return Relief(
        elevation=elevation[inner],
        mountains=mountains[inner],
        east=rise_east[inner] / np.float32(30),
        north=-rise_south[inner] / np.float32(30),
        water=np.clip(np.float32(0.5) - bank[inner], 0, 1),
        bank=bank[inner],
        stream=stream[inner],
    )


def coarse_elevation(
    seed: int, zone: int, rows: NDArray[np.float64], cols: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Height in metres without fine detail and mountainness, at any lattice positions."""
    mountains = _range_shape(
        at_points(seed, "range", zone, rows, cols, _MOUNTAINS),
        at_points(seed, "range-edge", zone, rows, cols, 256),
    )
    base = _base(at_points(seed, "continent", zone, rows, cols, 4096))
    valley = at_points(seed, "valley", zone, rows, cols, _VALLEY)
    flank = _flank(valley)
    return base + mountains * (_FLANK_M * flank + _RIDGE_M * np.minimum(flank * 3, 1)), mountains.astype(np.float64)


def _range_shape(low: Field, edge: Field) -> Field:
    return smoothstep(-0.25, 0.85, low + np.float32(0.18) * edge)


def _mountains(seed: int, window: Window) -> Field:
    return _range_shape(smooth(seed, "range", window, _MOUNTAINS), smooth(seed, "range-edge", window, 256))


def _base(continent: Field) -> Field:
    return as_field(120 + 70 * (continent + 1.5).clip(0, 4))


def _valley_noise(seed: int, window: Window) -> Field:
    """Main valleys: noise of 15 km evaluated at warped positions, which makes its zero lines meander."""
    rows = np.broadcast_to(window.rows()[:, None].astype(np.float64), window.shape)
    cols = np.broadcast_to(window.cols()[None, :].astype(np.float64), window.shape)
    down = fractal(seed, "warp-down", window, coarsest=128, finest=16, roughness=0.55)
    right = fractal(seed, "warp-right", window, coarsest=128, finest=16, roughness=0.55)
    return at_points(seed, "valley", window.zone, rows + 38.0 * down, cols + 38.0 * right, _VALLEY)


def _bank(seed: int, window: Window, valley: Field, mountains: Field) -> Field:
    """Distance to the shore of the main river, whose half width grows into lakes where the lake field is high."""
    lake = smoothstep(0.9, 1.9, smooth(seed, "lake", window, 512))
    gravel = np.float32(1) + np.float32(0.35) * smooth(seed, "river-width", window, 32)
    half = (np.float32(1.6) + np.float32(0.9) * (1 - mountains)) * gravel + np.float32(34) * lake
    return as_field(_distance(valley) - half)


def _distance(field: Field) -> Field:
    """Distance in pixels to the zero line of a field, from its value and slope."""
    down, right = _gradient(field)
    slope = np.sqrt(down * down + right * right)
    return as_field(np.abs(field) / np.maximum(slope, np.float32(3e-4)))


def _elevation(seed: int, window: Window, mountains: Field, valley: Field, bank: Field) -> Field:
    """Mountains rise from the valley floors and carry ridges; plains swell gently; shores are flat."""
    base = _base(smooth(seed, "continent", window, 4096))
    flank = _flank(valley)
    rise = np.float32(_FLANK_M) * flank + np.float32(_RIDGE_M) * np.minimum(flank * 3, 1) * _ridges(seed, window)
    swell = np.float32(14) * fractal(seed, "swell", window, coarsest=128, finest=8)
    height = base + (mountains * rise + swell * (1 - mountains)) * smoothstep(0, 22, bank)
    return as_field(height)


def _flank(valley: Field) -> Field:
    """How far up from the valley floor, 0 at the river; rounded, so that valleys have floors."""
    return as_field(np.sqrt(valley * valley + np.float32(0.01)) - np.float32(0.1))


def _ridges(seed: int, window: Window) -> Field:
    """Ridged multifractal noise: crests where noise crosses zero, rougher where it is high; mean near 1."""
    total = np.zeros(window.shape, dtype=np.float32)
    weight: Field | np.float32 = np.float32(1)
    amplitude, spacing = np.float32(1), 256
    while spacing >= 8:
        crest = np.float32(1) - np.abs(smooth(seed, "ridge", window, spacing)) * np.float32(0.8)
        crest = np.maximum(crest, 0) ** 2
        total += amplitude * weight * crest
        weight = np.clip(crest * np.float32(1.7), np.float32(0.15), 1)
        amplitude *= np.float32(0.52)
        spacing //= 2
    return as_field(total * np.float32(1.05))


def _gradient(field: Field) -> tuple[Field, Field]:
    """Central differences per pixel (down, right); the outermost rows and columns are one-sided."""
    down, right = np.gradient(field)
    return as_field(down), as_field(right)
