"""Land cover of cells: the share of each class, from any class raster in any reference system.

Every cell is looked at on a lattice of points (16 to 32 along an edge, 4 where pixels are larger than cells), each
with the class of the pixel it falls in; the corners of cells are projected exactly and points between them
bilinearly, which strays by metres. About 20 µs per cell; one window per tile and raster is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from geofm_pipeline.access.remembered import Remembering
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource, ByteSource
from geofm_pipeline.cluster import Runner
from geofm_pipeline.covariates.class_bands import OPTION, ClassBand, open_band
from geofm_pipeline.covariates.class_evidence import MANY_CLASSES, continuous_message
from geofm_pipeline.covariates.class_index import ClassMap, class_map
from geofm_pipeline.covariates.cover_files import named_map
from geofm_pipeline.covariates.legends import Legend, resolve_legend, with_legend
from geofm_pipeline.covariates.named_sources import named_source
from geofm_pipeline.covariates.result import Covariates, by_tile
from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import PIXEL_M
from geofm_pipeline.hls.grid import tile_grid, unproject
from geofm_pipeline.years import Years
from geofm_sampling.tables import CELLS, LAND_COVER_PREFIX
from geofm_sampling.unit import CHIP_SIZES

_FINE, _FINEST, _COARSE = 16, 32, 4  # points along a cell's edge
_CHUNK = 1024  # cells at once: 1 million points
_LATEST = Years(years=(2100,))
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Shares = dict[int, NDArray[np.float32]]
"""Class code → share of each cell, shape (n,)."""


@dataclass(frozen=True, kw_only=True)
class CoverFacts:
    """What a land-cover map shows of some cells; facts of tiles add up."""

    cells: int
    """Cells looked at."""
    covered: int
    """Of those, cells with any land cover."""
    codes: tuple[int, ...]
    """Classes that occur, ascending."""
    pixel_m: float
    """Edge of the coarsest pixels read, metres; 0 where nothing was."""


def land_cover_fractions(
    cells: pa.Table,
    source: str,
    *,
    years: Years | None = None,
    legend: str | None = None,
    access: Access | None = None,
) -> Covariates:
    """Cells with a float32 column `lc_<code>` per class that occurs in them: its share of the cell, sum ≤ 1.

    Parameters
    ----------
    cells : CELLS
    source : raster, NetCDF or Zarr by path or URL, folder or glob pattern of rasters, or a source with a name; class 0
        and the nodata value are no land cover; where rasters overlap their shares are averaged
    years : where the rasters are of several years, the year nearest to these is used, without them the last
    legend : `worldcover`, `io-lulc` or `none`; None recognises it (geofm_pipeline.covariates.legends)

    Raises
    ------
    InputError
        When the source is missing, holds continuous values, has no reference system or covers none of the cells.
    """
    cells = CELLS.check(cells)
    size = chip_size_of(cells)
    access, tiles = access or Access(), list(by_tile(cells))
    found = map_of(source, [tile for tile, _ in tiles], years=years or _LATEST, access=access)
    columns: Shares = {}
    facts, archive = [], Remembering(ArchiveSource(access))
    for tile, rows in tiles:
        paths = [raster.path for raster in found.touching(tile)]
        here = cells.take(pa.array(rows))
        shares, seen = tile_shares(here, paths, chip_size=size, archive=archive, asked=source)
        facts.append(seen)
        for code, share in shares.items():
            columns.setdefault(code, np.zeros(cells.num_rows, dtype=np.float32))[rows] = share
    whole = sum_facts(facts)
    check_cover(whole, found)
    named = map_legend(found, whole, legend)
    table = cells
    for code, values in sorted(columns.items()):
        table = table.append_column(f"{LAND_COVER_PREFIX}{code}", pa.array(values))
    notes = (found.note, cover_note(whole, size), named.note)
    return Covariates(table=with_legend(CELLS.check(table), named), note="; ".join(filter(None, notes)))


def map_of(
    source: str,
    tiles: Sequence[str],
    *,
    years: Years,
    access: Access,
    runner: Runner | None = None,
    shelf: Path | None = None,
) -> ClassMap:
    """The map behind `--land-cover`: of a source with a name the files around the tiles, else all that are there.

    `shelf` is a folder of the user's cache for sources with a name.
    """
    named = named_source(OPTION, source)
    if named is not None:
        return named_map(named, tiles, years=years, access=access, shelf=shelf)
    return class_map(source, years=years, runner=runner, access=access)


def map_legend(found: ClassMap, facts: CoverFacts, asked: str | None) -> Legend:
    """What the codes of a map mean (geofm_pipeline.covariates.legends)."""
    name = found.source if found.record is not None else found.rasters[0].path
    return resolve_legend(facts.codes, source=name, names=found.names, asked=asked)


def tile_shares(
    cells: pa.Table,
    paths: Sequence[str],
    *,
    chip_size: int,
    archive: ByteSource | None = None,
    asked: str | None = None,
) -> tuple[Shares, CoverFacts]:
    """Shares of the classes that occur in the cells of one tile, and their facts.

    Parameters
    ----------
    cells : CELLS of one tile
    paths : rasters that may show some of it
    archive : where remote bytes come from, by default a source of its own
    asked : name of the source for messages, by default that of a raster
    """
    counted, coarsest = _Shares(cells.num_rows), 0.0
    corners = cell_corners(cells, chip_size) if cells.num_rows else np.empty((0, 2, 2, 2))
    for path in paths if cells.num_rows else ():
        with open_band(path, pixel_m=chip_size * PIXEL_M / _FINE, archive=archive, asked=asked) as band:
            coarsest = max(coarsest, band.pixel_m)
            _add_band(counted, band, corners, chip_size * PIXEL_M)
    shares = counted.columns()
    covered = np.asarray(sum(shares.values(), start=np.zeros(cells.num_rows, dtype=np.float32))) > 0
    facts = CoverFacts(cells=cells.num_rows, covered=int(covered.sum()), codes=tuple(sorted(shares)), pixel_m=coarsest)
    return shares, facts


def sum_facts(facts: Iterable[CoverFacts]) -> CoverFacts:
    """Facts of all tiles together."""
    known = list(facts)
    return CoverFacts(
        cells=sum(part.cells for part in known),
        covered=sum(part.covered for part in known),
        codes=tuple(sorted({code for part in known for code in part.codes})),
        pixel_m=max((part.pixel_m for part in known), default=0.0),
    )


def check_cover(facts: CoverFacts, found: ClassMap) -> None:
    """Raise InputError when a map shows none of the cells, or too many values to be classes."""
    if not facts.codes:
        raise InputError(
            f"{OPTION} {found.source} has no land cover in the region's cells: check that it covers the region and "
            f"that its reference system is right"
        )
    if len(facts.codes) > MANY_CLASSES and not found.listed:
        low, high = facts.codes[0], facts.codes[-1]
        why = f"it holds {len(facts.codes)} distinct values from {low} to {high} in the region"
        raise InputError(continuous_message(found.source, why))


def cover_note(facts: CoverFacts, chip_size: int) -> str:
    """What a reader of the report should know of the map's pixels and gaps."""
    notes, cell_m = [], chip_size * PIXEL_M
    if facts.pixel_m > cell_m:
        notes.append(
            f"land-cover pixels of {facts.pixel_m / 1000:.1f} km are coarser than the cells of {cell_m / 1000:.2f} "
            f"km, so most cells have one class"
        )
    if facts.covered < facts.cells:
        notes.append(f"{facts.cells - facts.covered:,} of {facts.cells:,} cells have no land cover in the map")
    return "; ".join(notes)


def chip_size_of(cells: pa.Table) -> int:
    """Edge of the cells in pixels, from their area; 256 for an empty table."""
    if not cells.num_rows:
        return CHIP_SIZES[-1]
    edge = float(np.sqrt(np.median(cells["area_km2"].to_numpy()))) * 1000 / PIXEL_M
    return min(CHIP_SIZES, key=lambda size: abs(size - edge))


def cell_corners(cells: pa.Table, size: int) -> Floats:
    """Longitude and latitude of the corners of cells, shape (n, 2, 2, 2): row edge, column edge, (lon, lat)."""
    tiles = cells["tile"].combine_chunks().dictionary_encode()
    grids = [tile_grid(name) for name in tiles.dictionary.to_pylist()]
    which = np.asarray(tiles.indices)
    row, col = (np.asarray(cells[name], dtype=np.float64) for name in ("cell_row", "cell_col"))
    edge = np.arange(2)
    x0, y0, zones = (np.array([getattr(grid, name) for grid in grids])[which] for name in ("x0", "y0", "zone"))
    x = x0[:, None, None] + (col[:, None, None] + edge[None, None, :]) * size * PIXEL_M
    y = y0[:, None, None] - (row[:, None, None] + edge[None, :, None]) * size * PIXEL_M
    x, y = np.broadcast_arrays(x, y)
    corners = np.empty((*x.shape, 2))
    for zone in np.unique(zones):
        here = zones == zone
        corners[here, ..., 0], corners[here, ..., 1] = unproject(int(zone), x[here], y[here])
    first = corners[:, :1, :1, 0]
    corners[..., 0] -= 360.0 * np.round((corners[..., 0] - first) / 360.0)  # a cell may straddle the antimeridian
    return corners


class _Shares:
    """Counts of lattice points per cell and class."""

    def __init__(self, cells: int) -> None:
        self._counts: Shares = {}
        self._cells = cells

    def add(self, cells: Ints, codes: Ints, points: int) -> None:
        """Count the codes [n, points] of n cells; 0 is no land cover."""
        unique, inverse = _unique(codes)
        table = np.arange(cells.size)[:, None] * unique.size + inverse.reshape(cells.size, points)
        counts = np.bincount(table.ravel(), minlength=cells.size * unique.size).reshape(cells.size, unique.size)
        for code, column in zip(unique.tolist(), counts.T, strict=True):
            if code != 0 and column.any():
                share = self._counts.setdefault(code, np.zeros(self._cells, dtype=np.float32))
                share[cells] += (column / points).astype(np.float32)

    def columns(self) -> Shares:
        """Shares by class; where rasters overlap they are scaled to sum to one."""
        if self._counts:
            total = np.maximum(sum(self._counts.values()), np.float32(1))
            for share in self._counts.values():
                share /= total
        return self._counts


def _unique(codes: Ints) -> tuple[Ints, Ints]:
    """np.unique with its inverse, without a sort for the small non-negative codes of most maps."""
    if codes.min() < 0 or codes.max() > 4096:
        unique, inverse = np.unique(codes, return_inverse=True)
        return unique, inverse
    present = np.bincount(codes.ravel()) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[codes]


def _add_band(shares: _Shares, band: ClassBand, corners: Floats, cell_m: float) -> None:
    to_band = None if band.crs.is_geographic else Transformer.from_crs(CRS.from_epsg(4326), band.crs, always_xy=True)
    points = _COARSE if band.pixel_m >= cell_m else int(np.clip(np.ceil(cell_m / band.pixel_m), _FINE, _FINEST))
    for cells in _chunks(corners):
        rows, cols = _pixels(band, corners[cells], points, to_band)
        codes, found = _lookup(band, rows, cols)
        if found:
            shares.add(cells, codes, points * points)


def _chunks(corners: Floats) -> Iterator[Ints]:
    """Cells in runs that lie close together (tables are sorted by tile), so that windows stay small."""
    start = 0
    while start < len(corners):
        end = min(start + _CHUNK, len(corners))
        near = np.abs(corners[start:end, 0, 0, :] - corners[start, 0, 0, :]).max(axis=1) < 3.0
        stop = start + (int(np.argmin(near)) if not near.all() else end - start)
        yield np.arange(start, max(stop, start + 1))
        start = max(stop, start + 1)


def _pixels(band: ClassBand, corners: Floats, points: int, to_band: Transformer | None) -> tuple[Ints, Ints]:
    """Pixel (rows, columns) of the lattice of cells, each (n, points²); outside the band where out of range."""
    x, y = corners[..., 0], corners[..., 1]
    if to_band is not None:
        x, y = to_band.transform(x, y)
    else:
        a, _, c, *_ = band.transform
        middle = c + a * band.width / 2
        x = x + 360.0 * np.round((middle - x[:, :1, :1]) / 360.0)
    a, b, c, d, e, f = band.transform
    determinant = a * e - b * d
    col = (e * (x - c) - b * (y - f)) / determinant
    row = (a * (y - f) - d * (x - c)) / determinant
    weights = (np.arange(points) + 0.5) / points
    both = np.stack([1 - weights, weights])
    grid = [(both.T @ axis @ both).reshape(len(corners), -1) for axis in (row, col)]
    rows, cols = (np.where(np.isfinite(axis), np.floor(axis), -1.0).astype(np.int64) for axis in grid)
    return rows, cols % band.width if band.cyclic else cols


def _lookup(band: ClassBand, rows: Ints, cols: Ints) -> tuple[Ints, bool]:
    """Codes at pixels, 0 outside the band and for nodata; False when none is inside."""
    inside = (rows >= 0) & (rows < band.height) & (cols >= 0) & (cols < band.width)
    codes = np.zeros(rows.shape, dtype=np.int64)
    if not inside.any():
        return codes, False
    west = inside & (cols < band.width // 2)
    split = band.cyclic and np.ptp(cols[inside]) > band.width // 2  # the chunk crosses the map's own edge
    for part in (west, inside & ~west) if split else (inside,):
        if part.any():
            r, c = rows[part], cols[part]
            row, col = int(r.min()), int(c.min())
            pixels = band.read(row, col, int(r.max()) - row + 1, int(c.max()) - col + 1)
            values = pixels[r - row, c - col].astype(np.int64)
            codes[part] = np.where(values == band.nodata, 0, values) if band.nodata is not None else values
    return codes, True
