"""Polygons in longitude and latitude that stay right at the antimeridian, at the poles and when badly drawn.

Everything here returns a MultiPolygon in EPSG:4326 with longitudes in [-180, 180], split at the antimeridian,
valid, exteriors counter-clockwise. Edges are straight in (longitude, latitude), as GeoJSON (RFC 7946) has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import translate
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from geofm_pipeline.hls.grid import TILE_M, tile_grid, unproject

Box = tuple[float, float, float, float]
"""(west, south, east, north) in degrees with west < east."""
_EDGE_POINTS = 9  # of a tile outline per side: the chord then strays less than 60 m from the curve at 84° north
_WIDE = 180.0  # degrees: no edge of a footprint and no gap inside one region is wider


def polygons(geometry: BaseGeometry) -> MultiPolygon:
    """The polygonal part of a geometry, made valid and oriented; empty when it has none."""
    if not geometry.is_valid:
        geometry = shapely.make_valid(geometry)
    parts = [part for part in _leaves(geometry) if isinstance(part, Polygon) and not part.is_empty]
    if len(parts) > 1 and not MultiPolygon(parts).is_valid:
        parts = [part for part in _leaves(shapely.union_all(parts)) if isinstance(part, Polygon)]
    return MultiPolygon([shapely.orient_polygons(part) for part in parts])


def wrapped(geometry: BaseGeometry) -> MultiPolygon:
    """Polygons with longitudes in [-180, 180]: what lies beyond ±180 is cut off and moved by whole turns.

    An example: a square from 170 to 190 gives one from 170 to 180 and one from -180 to -170.
    """
    whole = polygons(geometry)
    if whole.is_empty:
        return whole
    west, _, east, _ = whole.bounds
    turns = range(int(np.floor((west + 180) / 360)), int(np.ceil((east - 180) / 360)) + 1)
    if list(turns) == [0]:
        return whole
    strips = [(turn, shapely.intersection(whole, box(-180 + 360 * turn, -90, 180 + 360 * turn, 90))) for turn in turns]
    parts = [translate(strip, xoff=-360.0 * turn) for turn, strip in strips]
    return polygons(shapely.union_all(parts))


def unrolled(geometry: BaseGeometry) -> MultiPolygon:
    """Polygons whose edges were meant to take the short way round: an edge wider than 180° crosses the antimeridian.

    For footprints and reprojected outlines; a ring that runs round a pole is closed over that pole.
    """
    if geometry.is_empty or geometry.bounds[2] - geometry.bounds[0] <= _WIDE:
        return wrapped(geometry)
    parts = [part for part in _leaves(geometry) if isinstance(part, Polygon) and not part.is_empty]
    return wrapped(shapely.union_all([shapely.make_valid(_unrolled_polygon(part)) for part in parts]))


def search_boxes(geometry: MultiPolygon) -> tuple[Box, ...]:
    """One box, or two that do not cross the antimeridian, that hold the geometry and leave out its widest gap.

    The United States reach from 172° E over the antimeridian to 67° W; one plain box would search the whole Earth.
    """
    spans = sorted((part.bounds[0], part.bounds[2]) for part in geometry.geoms)
    gap_start, gap_end, reach = 0.0, 0.0, spans[0][1]
    for west, east in spans[1:]:
        if west - reach > gap_end - gap_start:
            gap_start, gap_end = reach, west
        reach = max(reach, east)
    outer_gap = spans[0][0] + 360.0 - reach
    if gap_end - gap_start <= max(outer_gap, 0.0):
        return (_bounds(geometry),)
    western = [part for part in geometry.geoms if part.bounds[2] <= gap_start]
    eastern = [part for part in geometry.geoms if part.bounds[0] >= gap_end]
    return (_bounds(MultiPolygon(western)), _bounds(MultiPolygon(eastern)))


def tile_polygon(tile: str) -> MultiPolygon:
    """Outline of a tile's 3660 × 3660 pixels; raises ValueError when `tile` is no MGRS tile id."""
    grid = tile_grid(tile)
    west, south, _, north = grid.bounds
    steps = np.linspace(0.0, TILE_M, _EDGE_POINTS)[:-1]
    x = west + np.concatenate([steps, np.full_like(steps, TILE_M), TILE_M - steps, np.zeros_like(steps)])
    y = south + np.concatenate([np.zeros_like(steps), steps, np.full_like(steps, TILE_M), TILE_M - steps])
    lon, lat = unproject(grid.zone, x, np.minimum(y, north))
    return unrolled(Polygon(np.column_stack([lon, lat])))


def union(geometries: Sequence[BaseGeometry]) -> MultiPolygon:
    """Union of several polygons."""
    return polygons(shapely.union_all(list(geometries)))


def _bounds(geometry: MultiPolygon) -> Box:
    west, south, east, north = (float(value) for value in geometry.bounds)
    return west, south, east, north


def _leaves(geometry: BaseGeometry) -> Iterable[BaseGeometry]:
    return (leaf for leaf in shapely.get_parts(shapely.get_parts([geometry])))


def _unrolled_polygon(polygon: Polygon) -> Polygon:
    shell = _unrolled_ring(np.asarray(polygon.exterior.coords))
    middle = float(shell[:, 0].mean())
    holes = []
    for ring in polygon.interiors:
        hole = _unrolled_ring(np.asarray(ring.coords))
        hole[:, 0] += 360.0 * round((middle - float(hole[:, 0].mean())) / 360.0)
        holes.append(hole)
    return Polygon(shell, holes)


def _unrolled_ring(ring: NDArray[np.float64]) -> NDArray[np.float64]:
    lon, lat = np.unwrap(ring[:, 0], period=360.0), ring[:, 1]
    if abs(lon[-1] - lon[0]) > _WIDE:
        pole = 90.0 if lat.mean() > 0 else -90.0
        lon, lat = np.append(lon, [lon[-1], lon[0]]), np.append(lat, [pole, pole])
    return np.column_stack([lon, lat])
