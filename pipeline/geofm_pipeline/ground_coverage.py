"""How much ground the ownership rule covers how often, measured on a lattice of points of equal area."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry import MultiPolygon, Polygon

from geofm_pipeline.hls.bands import PIXEL_M
from geofm_pipeline.hls.grid import unproject
from geofm_pipeline.lonlat import polygons, tile_polygon, union
from geofm_pipeline.ownership import Present
from geofm_pipeline.region import Region
from geofm_sampling.unit import cells_per_side

LATTICE_POINTS = 200_000
"""Points of the coverage lattice on the region's ground that tiles hold; shares are good to about 0.1 %."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much ground the ownership rule covers how often: of the region's ground that any tile present holds."""

    never: float
    """Share that no owned cell covers: where block grids do not meet, and the catalogue's outer rim."""
    once: float
    """Share that exactly one owned cell covers."""
    twice: float
    """Share that two or more owned cells cover."""
    points: int
    """Lattice points that the shares rest on; the standard error of a share p is at most √(p (1 − p) / points)."""
    outside: float
    """Share of the region's ground that no tile present holds at all."""


def ground_coverage(tiles: Sequence[str], region: Region, *, chip_size: int) -> Coverage:
    """Coverage of the region by the owned cells of the tiles present; time and memory go with the lattice."""
    present = Present(names=tuple(sorted(set(tiles))))
    ground = polygons(shapely.intersection(region.geometry, union([tile_polygon(name) for name in present.names])))
    lon, lat = _lattice(ground, LATTICE_POINTS)
    side = cells_per_side(chip_size)
    point, tile, row, col = present.holders(lon, lat)
    held = np.bincount(point, minlength=lon.size) > 0
    cell_row, cell_col = (row // chip_size).astype(np.int64), (col // chip_size).astype(np.int64)
    whole = (cell_row < side) & (cell_col < side)
    owned = _owned(present, tile[whole], cell_row[whole], cell_col[whole], chip_size)
    covers = np.bincount(point[whole][owned], minlength=lon.size)[held]
    total = max(int(held.sum()), 1)
    return Coverage(
        never=float((covers == 0).sum() / total),
        once=float((covers == 1).sum() / total),
        twice=float((covers > 1).sum() / total),
        points=int(held.sum()),
        outside=max(0.0, 1.0 - sphere_area(ground) / sphere_area(region.geometry)),
    )


def _owned(
    present: Present, tile: NDArray[np.int64], row: NDArray[np.int64], col: NDArray[np.int64], chip_size: int
) -> NDArray[np.bool_]:
    """Whether cells are owned by their tile, at their centres; shape (n,), each distinct cell looked at once."""
    side = cells_per_side(chip_size)
    cells, inverse = np.unique((tile * side + row) * side + col, return_inverse=True)
    of_tile, place = np.divmod(cells, side * side)
    rows, cols = np.divmod(place, side)
    x = present.corners[of_tile, 0] + (cols + 0.5) * chip_size * PIXEL_M
    y = present.corners[of_tile, 1] - (rows + 0.5) * chip_size * PIXEL_M
    lon, lat = np.empty(x.shape), np.empty(x.shape)
    for zone in np.unique(present.zones):
        here = present.zones[of_tile] == zone
        lon[here], lat[here] = unproject(int(zone), x[here], y[here])
    return np.asarray((present.owners(lon, lat) == of_tile)[inverse])


def sphere_area(geometry: MultiPolygon) -> float:
    """Area in steradians: in the cylindrical equal-area projection the plane's area is the sphere's."""
    flat = shapely.transform(geometry, lambda xy: np.column_stack([np.radians(xy[:, 0]), np.sin(np.radians(xy[:, 1]))]))
    return float(flat.area)


def _lattice(ground: MultiPolygon, wanted: int) -> tuple[Floats, Floats]:
    """About `wanted` points of equal area: rows of equal height in latitude, each shifted by the golden ratio."""
    step = np.degrees(np.sqrt(max(sphere_area(ground), 1e-14) / wanted))
    found = [_part_lattice(part, step) for part in ground.geoms]
    empty = np.empty(0)
    return np.concatenate([empty, *(lon for lon, _ in found)]), np.concatenate([empty, *(lat for _, lat in found)])


def _part_lattice(part: Polygon, step: float) -> tuple[Floats, Floats]:
    """The points of one global lattice that lie in a polygon."""
    west, south, east, north = part.bounds
    rows = np.arange(np.floor(south / step), np.ceil(north / step))
    lats = (rows + 0.5) * step
    spacing = step / np.maximum(np.cos(np.radians(lats)), 1e-3)
    shift = rows * 0.6180339887 % 1.0
    first = np.floor(west / spacing)
    counts = (np.ceil(east / spacing) - first + 1).astype(np.int64)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    lon, lat = (np.repeat(first + shift, counts) + place) * np.repeat(spacing, counts), np.repeat(lats, counts)
    shapely.prepare(part)
    inside = shapely.contains_xy(part, lon, lat)
    return lon[inside], lat[inside]
