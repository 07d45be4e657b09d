"""Who owns a point: the rule that gives every piece of ground to one tile, although tiles overlap.

The tile whose nominal 100 km square and UTM zone hold the point, if that tile is among the tiles present; else the
nearest tile present whose 3660 × 3660 pixels hold it. Tiles are matched by (zone, e, n) of their squares, never by
letters; zones have the exceptions of Norway and Svalbard, as the tile grid has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from geofm_pipeline.hls.bands import PIXEL_M
from geofm_pipeline.hls.grid import SQUARE_M, TILE_M, project, square, tile_grid, unproject, utm_zone

EARTH_KM = 6371.0
_REACH_KM = 170.0  # tiles further apart than this share no ground: the half diagonals of two tiles are 155 km
Floats = NDArray[np.float64]


def home_zone(lon: Floats, lat: Floats) -> NDArray[np.int64]:
    """UTM zone of MGRS for each point, with the widened zones 32V (Norway) and 31X, 33X, 35X, 37X (Svalbard)."""
    zone = utm_zone(lon)
    zone = np.where((lat >= 56) & (lat < 64) & (lon >= 3) & (lon < 6), 32, zone)
    arctic = np.select([lon < 9, lon < 21, lon < 33], [31, 33, 35], 37)
    return np.where((lat >= 72) & (lon >= 0) & (lon < 42), arctic, zone)


@dataclass(frozen=True)
class Present:
    """The tiles present, with what the ownership rule needs of them."""

    names: tuple[str, ...]

    @cached_property
    def zones(self) -> NDArray[np.int64]:
        return np.array([tile_grid(name).zone for name in self.names], dtype=np.int64)

    @cached_property
    def corners(self) -> Floats:
        """Upper-left (x, y) of each tile, metres."""
        return np.array([(tile_grid(name).x0, tile_grid(name).y0) for name in self.names], dtype=np.float64)

    @cached_property
    def home(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sorted keys of the nominal squares, and the tile of each."""
        keys = np.array([_square_key(*square(name)) for name in self.names], dtype=np.int64)
        unique, first = np.unique(keys, return_index=True)
        return unique, first

    @cached_property
    def middles(self) -> Floats:
        """Unit vectors to the tiles' middles, shape (tiles, 3)."""
        lon, lat = np.empty(len(self.names)), np.empty(len(self.names))
        for zone in np.unique(self.zones):
            here = self.zones == zone
            x, y = self.corners[here, 0] + TILE_M / 2, self.corners[here, 1] - TILE_M / 2
            lon[here], lat[here] = unproject(int(zone), x, y)
        return _vectors(lon, lat)

    def owners(self, lon: Floats, lat: Floats) -> NDArray[np.int64]:
        """Index of the tile that owns each point, -1 where no tile present holds it."""
        zone = home_zone(lon, lat)
        keys = np.empty(lon.shape, dtype=np.int64)
        for number in np.unique(zone):
            here = zone == number
            x, y = project(int(number), lon[here], lat[here])
            keys[here] = _square_key(
                int(number), np.floor(x / SQUARE_M).astype(np.int64), np.floor(y / SQUARE_M).astype(np.int64)
            )
        squares, tiles = self.home
        at = np.minimum(np.searchsorted(squares, keys), squares.size - 1)
        owner = np.where(squares[at] == keys, tiles[at], -1)
        orphans = np.flatnonzero(owner < 0)
        owner[orphans] = self._nearest(lon[orphans], lat[orphans])
        return owner

    def holders(self, lon: Floats, lat: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
        """All (point, tile) pairs where the tile's pixels hold the point, with the pixel row and column."""
        tree = KDTree(_vectors(lon, lat))
        near = tree.query_ball_point(self.middles, _chord(_REACH_KM / 2))
        point = np.concatenate([np.asarray(found, dtype=np.int64) for found in near])
        tile = np.repeat(np.arange(len(self.names)), [np.size(found) for found in near])
        row, col = np.empty(point.shape), np.empty(point.shape)
        for zone in np.unique(self.zones):
            here = self.zones[tile] == zone
            x, y = project(int(zone), lon[point[here]], lat[point[here]])
            row[here] = (self.corners[tile[here], 1] - y) / PIXEL_M
            col[here] = (x - self.corners[tile[here], 0]) / PIXEL_M
        held = (row >= 0) & (col >= 0) & (row * PIXEL_M < TILE_M) & (col * PIXEL_M < TILE_M)
        return point[held], tile[held], row[held], col[held]

    def _nearest(self, lon: Floats, lat: Floats) -> NDArray[np.int64]:
        """The tile with the nearest middle among those that hold each point, -1 if none; ties go to the first."""
        nearest = np.full(lon.shape, -1, dtype=np.int64)
        if not lon.size:
            return nearest
        point, tile, _, _ = self.holders(lon, lat)
        away = np.linalg.norm(_vectors(lon, lat)[point] - self.middles[tile], axis=1)
        order = np.lexsort((tile, away, point))
        first = np.unique(point[order], return_index=True)[1]
        nearest[point[order][first]] = tile[order][first]
        return nearest


def neighbours(tiles: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each tile with the tiles that may share ground with it, itself included, sorted by name.

    Among its neighbours alone the rule gives every point of a tile the same owner as among all tiles.
    """
    present = Present(names=tuple(sorted(set(tiles))))
    tree = KDTree(present.middles)
    near = [tree.query_ball_point(middle, _chord(_REACH_KM)) for middle in present.middles]
    return {
        name: tuple(present.names[int(i)] for i in np.sort(found))
        for name, found in zip(present.names, near, strict=True)
    }


def _chord(km: float) -> np.float64:
    """Length of the chord of a distance on the unit sphere."""
    return np.float64(2 * np.sin(km / EARTH_KM / 2))


def _square_key(zone: object, e: object, n: object) -> NDArray[np.int64]:
    """One number of a square; e is 0-15, n from -100 to 99."""
    key = (np.asarray(zone, dtype=np.int64) * 64 + np.asarray(e, dtype=np.int64)) * 256
    return np.asarray(key + np.asarray(n, dtype=np.int64) + 128)


def _vectors(lon: Floats, lat: Floats) -> Floats:
    theta, phi = np.radians(lon), np.radians(lat)
    return np.column_stack([np.cos(phi) * np.cos(theta), np.cos(phi) * np.sin(theta), np.sin(phi)])
