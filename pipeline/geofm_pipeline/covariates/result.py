"""What a covariate source gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.hls.grid import tile_grid, unproject
from geofm_sampling.unit import TILE_PIXELS

_EDGE = 17  # points along the edge of a tile, 7 km apart


@dataclass(frozen=True, kw_only=True)
class Covariates:
    """Cells with the columns of one source."""

    table: pa.Table
    """CELLS with new columns, rows and order unchanged."""
    note: str
    """What a reader of the report should know (coarse pixels, gaps, other years); '' when there is nothing."""


def by_tile(cells: pa.Table) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Each tile of cells by name with its rows, ascending."""
    encoded = cells["tile"].combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    which = np.asarray(encoded.indices.to_numpy(zero_copy_only=False))
    order = np.argsort(which, kind="stable")
    names = [str(name) for name in encoded.dictionary.to_pylist()]
    starts = np.searchsorted(which[order], np.arange(len(names) + 1))
    for number in sorted(range(len(names)), key=names.__getitem__):
        if starts[number] < starts[number + 1]:
            yield names[number], order[starts[number] : starts[number + 1]]


def tile_points(tile: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitudes and latitudes of 17 × 17 points all over a tile, its edges included; longitudes run on beyond ±180."""
    grid = tile_grid(tile)
    row, col = np.meshgrid(np.linspace(0, TILE_PIXELS, _EDGE), np.linspace(0, TILE_PIXELS, _EDGE), indexing="ij")
    lon, lat = unproject(grid.zone, *grid.xy(row.ravel(), col.ravel()))
    return lon - 360.0 * np.round((lon - lon[0]) / 360.0), lat
