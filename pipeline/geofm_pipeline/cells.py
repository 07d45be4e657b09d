"""Owned ground cells: chip-sized squares of a tile's chip grid, each piece of ground in one of them.

A cell belongs to the tile that owns its centre (geofm_pipeline.ownership). The rule loses and doubles a little ground
where block grids meet; how much is measured and reported (geofm_pipeline.ground_coverage). About 2 s for 1,000 tiles
of 196 cells; one tile alone needs only its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geofm_pipeline.ground_coverage import Coverage, ground_coverage
from geofm_pipeline.hls.bands import PIXEL_M
from geofm_pipeline.hls.grid import unproject
from geofm_pipeline.ownership import EARTH_KM, Present
from geofm_pipeline.region import Region
from geofm_sampling.tables import CELLS
from geofm_sampling.unit import cells_per_side

_UTM_SCALE = 0.9996
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class OwnershipReport:
    """What ownership did with the tiles present."""

    tiles: int
    """Tiles that own at least one cell of the region."""
    cells: int
    """Cells of the region that their tile owns."""
    area_km2: float
    """Summed area of those cells."""
    cells_of_tiles: int
    """All cells of the tiles present, before ownership and region."""
    owned_of_tiles: int
    """Of those, the ones owned by their tile."""
    coverage: Coverage
    """Over- and under-coverage of the ownership rule, whether or not a cell's centre lies in the region."""

    def as_dict(self) -> dict[str, object]:
        """The report as plain values for card.json."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class OwnedCells:
    """The cells of a region and how they came about."""

    table: pa.Table
    """CELLS without covariates, sorted by (tile, cell_row, cell_col)."""
    report: OwnershipReport


@dataclass(frozen=True, kw_only=True)
class TileCells:
    """The cells of one tile."""

    table: pa.Table
    """CELLS of the region without covariates, sorted by (cell_row, cell_col)."""
    owned: int
    """Cells that the tile owns, inside the region or not."""


def owned_cells(tiles: Sequence[str], region: Region, *, chip_size: int) -> OwnedCells:
    """Cells of the tiles present that their tile owns and whose centre lies in the region.

    Parameters
    ----------
    tiles : MGRS ids of the tiles in the catalogue; repeats are ignored
    chip_size : edge of a cell in pixels, 64, 128 or 256; cells lie wholly inside the tile

    Raises
    ------
    ValueError
        When there is no tile, or when a tile id or the chip size is not valid.
    """
    if not tiles:
        raise ValueError("no tiles are present: ownership needs at least one tile")
    present = Present(names=tuple(sorted(set(tiles))))
    table, owned = _owned_table(present, _centres(present, chip_size), region, chip_size)
    names = table["tile"].unique()
    report = OwnershipReport(
        tiles=len(names),
        cells=table.num_rows,
        area_km2=float(np.asarray(table["area_km2"]).sum(dtype=np.float64)),
        cells_of_tiles=len(present.names) * cells_per_side(chip_size) ** 2,
        owned_of_tiles=owned,
        coverage=ground_coverage(present.names, region, chip_size=chip_size),
    )
    return OwnedCells(table=table, report=report)


def tile_cells(tile: str, present: Sequence[str], region: Region, *, chip_size: int) -> TileCells:
    """The rows that `tile` has in owned_cells, from the tiles near it alone.

    Parameters
    ----------
    present : the tile and every tile of the catalogue near it (geofm_pipeline.ownership.neighbours)
    """
    around = Present(names=tuple(sorted(set(present))))
    centres = _centres(around, chip_size, only=around.names.index(tile))
    table, owned = _owned_table(around, centres, region, chip_size)
    return TileCells(table=table, owned=owned)


def _owned_table(present: Present, centres: _Centres, region: Region, chip_size: int) -> tuple[pa.Table, int]:
    """CELLS whose tile owns them in the region, and how many are owned anywhere."""
    owned = present.owners(centres.lon, centres.lat) == centres.tile
    shapely.prepare(region.geometry)
    inside = np.zeros(owned.shape, dtype=bool)
    inside[owned] = shapely.contains_xy(region.geometry, centres.lon[owned], centres.lat[owned])
    return _table(present, centres, inside, chip_size), int(owned.sum())


@dataclass(frozen=True, kw_only=True)
class _Centres:
    """Centres of all cells of all tiles, flattened tile by tile, row by row."""

    tile: NDArray[np.int64]  # index into the tiles present
    row: NDArray[np.int64]
    col: NDArray[np.int64]
    x: Floats
    lon: Floats
    lat: Floats


def _centres(present: Present, chip_size: int, only: int | None = None) -> _Centres:
    """Centres of all cells of the tiles present, or of one of them."""
    side = cells_per_side(chip_size)
    row, col = (axis.ravel() for axis in np.mgrid[:side, :side])
    tiles = np.arange(len(present.names)) if only is None else np.array([only])
    tile = np.repeat(tiles, side * side)
    rows, cols = np.tile(row, tiles.size), np.tile(col, tiles.size)
    x = present.corners[tile, 0] + (cols + 0.5) * chip_size * PIXEL_M
    y = present.corners[tile, 1] - (rows + 0.5) * chip_size * PIXEL_M
    lon, lat = np.empty(x.shape), np.empty(x.shape)
    for zone in np.unique(present.zones):
        here = present.zones[tile] == zone
        lon[here], lat[here] = unproject(int(zone), x[here], y[here])
    return _Centres(tile=tile, row=rows, col=cols, x=x, lon=lon, lat=lat)


def _table(present: Present, centres: _Centres, keep: NDArray[np.bool_], chip_size: int) -> pa.Table:
    names = pa.array(present.names, type=pa.string())
    columns = {
        "tile": names.take(pa.array(centres.tile[keep])),
        "cell_row": pa.array(centres.row[keep], type=pa.int16()),
        "cell_col": pa.array(centres.col[keep], type=pa.int16()),
        "lon": pa.array(centres.lon[keep]),
        "lat": pa.array(centres.lat[keep]),
        "area_km2": pa.array(cell_area_km2(centres.x[keep], chip_size).astype(np.float32)),
    }
    return CELLS.check(pa.table(columns, schema=CELLS.schema()))


def cell_area_km2(x: Floats, chip_size: int) -> Floats:
    """Ground area of a cell whose centre has easting x: the grid area over the square of UTM's scale factor.

    The scale is k0 (1 + d²/2), d the distance from the central meridian in Earth radii: good to 10⁻⁴ within a tile.
    """
    distance = (x - 500_000.0) / 1000.0 / EARTH_KM
    scale = _UTM_SCALE * (1.0 + distance**2 / 2.0)
    return np.asarray((chip_size * PIXEL_M / 1000.0) ** 2 / scale**2)
