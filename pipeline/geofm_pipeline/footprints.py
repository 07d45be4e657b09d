"""Footprints of cells: their polygons in longitude and latitude."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geofm_pipeline.hls.grid import tile_grid, unproject
from geofm_sampling.unit import unpack_units


def footprints(units: NDArray[np.uint64]) -> NDArray[np.object_]:
    """Lon/lat polygon of each unit's cell, shape (n,); a cell across the antimeridian keeps longitudes beyond ±180."""
    fields = unpack_units(units)
    polygons = np.empty(len(units), dtype=object)
    for tile in np.unique(fields.tile):
        here = np.flatnonzero(fields.tile == tile)
        grid, size = tile_grid(str(tile)), fields.chip_size[here]
        top, left = fields.cell_row[here] * size, fields.cell_col[here] * size
        rows = np.stack([top, top, top + size, top + size, top], axis=1)
        cols = np.stack([left, left + size, left + size, left, left], axis=1)
        lon, lat = unproject(grid.zone, *grid.xy(rows, cols))
        lon = lon[:, :1] + (lon - lon[:, :1] + 180.0) % 360.0 - 180.0
        polygons[here] = shapely.polygons(np.stack([lon, lat], axis=2))
    return polygons
