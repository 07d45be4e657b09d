"""What people draw on the land: farm districts with their parcels, towns and roads, on the lattice.

Districts are the cells of a jittered grid (2 km apart); each lays its parcels out along its own direction. Towns sit
at the nodes of a coarser jittered grid and roads join neighbouring ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.simulator.noise import Field, Window, as_field, fractal, lattice_uniform, smooth
from geofm_sampling.hashing import splitmix64, stream_key

_DISTRICT = 72  # spacing of farm districts in pixels
_TOWN = 176  # spacing of towns in pixels, 5.3 km
_REACH = 56  # a town's outermost pixel from its centre


@dataclass(frozen=True, kw_only=True)
class Parcels:
    """Parcels of a window, arrays [H, W]."""

    number: NDArray[np.uint16]
    """A hash of the parcel's identity; two parcels may share one, neighbours hardly ever do."""
    edge: Field
    """Distance to the parcel's boundary in pixels."""
    district_edge: Field
    """Distance to the district's boundary in pixels."""


def parcels(seed: int, window: Window) -> Parcels:
    """Lay out the parcels of a window."""
    row, col = _warped(seed, "district", window, 9.0)
    first, second, cell_row, cell_col = _nearest_two(seed, window, row, col)
    angle = _cell_uniform(seed, "angle", window.zone, cell_row, cell_col) * np.float32(np.pi)
    depth = 4.5 + 8.5 * _cell_uniform(seed, "depth", window.zone, cell_row, cell_col)
    length = 9 + 19 * _cell_uniform(seed, "length", window.zone, cell_row, cell_col)
    along = row * np.sin(angle) + col * np.cos(angle)
    across = row * np.cos(angle) - col * np.sin(angle)
    strip = as_field(np.floor(across / depth))
    # every strip starts its parcels at an offset of its own, as in a brick wall
    offset = _fraction(strip * np.float32(0.61803))
    place = along / length + offset
    number = _hash4(seed, cell_row, cell_col, strip.astype(np.int64), np.floor(place).astype(np.int64))
    edge = np.minimum(_to_edge(as_field(across / depth)) * depth, _to_edge(as_field(place)) * length)
    return Parcels(
        number=(number >> np.uint64(48)).astype(np.uint16),
        edge=edge.astype(np.float32),
        district_edge=((second - first) * np.float32(0.5)).astype(np.float32),
    )


def built_up(seed: int, window: Window) -> tuple[Field, Field]:
    """(town, road): density of building 0-1, and the share of each pixel under a road, shapes of the window."""
    town = np.zeros(window.shape, dtype=np.float32)
    distance = np.full(window.shape, 9, dtype=np.float32)
    row, col = _warped(seed, "town", window, 5.0)
    outline = fractal(seed, "outline", window, coarsest=16, finest=2)
    for node_row, node_col in _nodes(window):
        centre = _town_centre(seed, window.zone, node_row, node_col)
        _add_town(seed, window, town, (row, col, outline), centre, (node_row, node_col))
        for step_row, step_col, chance in ((0, 1, 0.9), (1, 0, 0.9), (1, 1, 0.3)):
            if _one(seed, f"road{step_row}{step_col}", window.zone, node_row, node_col) < chance:
                other = _town_centre(seed, window.zone, node_row + step_row, node_col + step_col)
                _add_road(window, distance, row, col, centre, other)
    return town, np.clip(np.float32(0.95) - distance, 0, np.float32(0.6))


def _warped(seed: int, what: str, window: Window, pixels: float) -> tuple[Field, Field]:
    """Lattice positions bent by smooth noise, relative to a corner that all windows share, [H, W] each."""
    row = window.rows().astype(np.float64)[:, None] + pixels * smooth(seed, f"{what}-down", window, 64)
    col = window.cols().astype(np.float64)[None, :] + pixels * smooth(seed, f"{what}-right", window, 64)
    # float32 would lose the fraction of a pixel at |row| ~ 3e5; a multiple of 2^16 keeps it and all windows agree
    return np.remainder(row, 65536.0).astype(np.float32), np.remainder(col, 65536.0).astype(np.float32)


def _nearest_two(
    seed: int, window: Window, row: Field, col: Field
) -> tuple[Field, Field, NDArray[np.int64], NDArray[np.int64]]:
    """Distances to the nearest two district centres and the nearest one's cell (row, column)."""
    home_row, home_col = (row // _DISTRICT).astype(np.int64), (col // _DISTRICT).astype(np.int64)
    first = np.full(row.shape, 1e9, dtype=np.float32)
    second = first.copy()
    best = np.zeros(row.shape, dtype=np.int64)
    neighbours = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    for index, (down, right) in enumerate(neighbours):
        cell_row, cell_col = home_row + down, home_col + right
        dy = (cell_row + _cell_uniform(seed, "y", window.zone, cell_row, cell_col)) * _DISTRICT - row
        dx = (cell_col + _cell_uniform(seed, "x", window.zone, cell_row, cell_col)) * _DISTRICT - col
        distance = np.sqrt(dy * dy + dx * dx).astype(np.float32)
        closer = distance < first
        second = np.where(closer, first, np.minimum(second, distance))
        first = np.where(closer, distance, first)
        best[closer] = index
    steps = np.array(neighbours)
    return first, second, home_row + steps[best, 0], home_col + steps[best, 1]


def _cell_uniform(seed: int, what: str, zone: int, cell_row: NDArray[np.int64], cell_col: NDArray[np.int64]) -> Field:
    """A uniform number per district, looked up for every pixel."""
    top, left = int(cell_row.min()), int(cell_col.min())
    height, width = int(cell_row.max()) - top + 1, int(cell_col.max()) - left + 1
    key = stream_key(seed, f"district/{what}")
    table = lattice_uniform(key, zone, np.arange(top, top + height)[:, None], np.arange(left, left + width)[None, :])
    return as_field(table.ravel()[(cell_row - top) * width + (cell_col - left)])


def _hash4(seed: int, *parts: NDArray[np.int64]) -> NDArray[np.uint64]:
    word = np.full(parts[0].shape, stream_key(seed, "parcel"), dtype=np.uint64)
    for part in parts:
        word = splitmix64(word ^ part.astype(np.uint64))
    return word


def _fraction(x: Field) -> Field:
    return x - np.floor(x)


def _to_edge(x: Field) -> Field:
    """Distance to the nearest integer."""
    return as_field(np.float32(0.5) - np.abs(_fraction(x) - np.float32(0.5)))


def _nodes(window: Window) -> Iterator[tuple[int, int]]:
    """Town nodes whose town or roads may reach the window."""
    for node_row in range(window.row // _TOWN - 2, (window.row + window.height) // _TOWN + 3):
        for node_col in range(window.col // _TOWN - 2, (window.col + window.width) // _TOWN + 3):
            yield node_row, node_col


def _one(seed: int, what: str, zone: int, row: int, col: int) -> float:
    return float(lattice_uniform(stream_key(seed, what), zone, np.array([row]), np.array([col]))[0])


def _town_centre(seed: int, zone: int, node_row: int, node_col: int) -> tuple[float, float]:
    """Lattice (row, column) of a town."""
    down = 0.15 + 0.7 * _one(seed, "town-row", zone, node_row, node_col)
    right = 0.15 + 0.7 * _one(seed, "town-col", zone, node_row, node_col)
    return (node_row + down) * _TOWN, (node_col + right) * _TOWN


def _add_town(
    seed: int,
    window: Window,
    town: Field,
    ground: tuple[Field, Field, Field],
    centre: tuple[float, float],
    node: tuple[int, int],
) -> None:
    """Raise `town` around a centre to a density that falls with distance along a ragged outline."""
    box = _box(window, centre[0] - _REACH, centre[0] + _REACH, centre[1] - _REACH, centre[1] + _REACH)
    if box is None:
        return
    row, col, outline = (part[box] for part in ground)
    radius = 4.5 + 24 * _one(seed, "town-size", window.zone, *node) ** 4
    distance = np.hypot(row - centre[0] % 65536.0, col - centre[1] % 65536.0) / radius
    density = np.clip(1.45 - distance + np.float32(0.42) * outline, 0, 1)
    town[box] = np.maximum(town[box], density * (distance < _REACH / radius))


def _add_road(
    window: Window, distance: Field, row: Field, col: Field, start: tuple[float, float], end: tuple[float, float]
) -> None:
    """Lower `distance` to that from the straight (on the warped lattice) road between two towns."""
    top, bottom = sorted((start[0], end[0]))
    left, right = sorted((start[1], end[1]))
    box = _box(window, top - 12, bottom + 12, left - 12, right + 12)
    if box is None:
        return
    dy, dx = end[0] - start[0], end[1] - start[1]
    length = float(np.hypot(dy, dx))
    y, x = row[box] - start[0] % 65536.0, col[box] - start[1] % 65536.0
    along = np.clip((y * dy + x * dx) / length**2, 0, 1)
    away = np.hypot(y - along * dy, x - along * dx)
    distance[box] = np.minimum(distance[box], away.astype(np.float32))


def _box(window: Window, top: float, bottom: float, left: float, right: float) -> tuple[slice, slice] | None:
    """The part of the window within lattice limits, as array slices; None if there is none."""
    first_row, last_row = max(int(top) - window.row, 0), min(int(bottom) + 1 - window.row, window.height)
    first_col, last_col = max(int(left) - window.col, 0), min(int(right) + 1 - window.col, window.width)
    if first_row >= last_row or first_col >= last_col:
        return None
    return slice(first_row, last_row), slice(first_col, last_col)
