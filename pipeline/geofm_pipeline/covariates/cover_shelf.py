"""Land-cover shares of whole tiles, kept in the user's cache: another dataset of the same ground reads no raster.

Shares of a cell depend on the map, its year and the chip size only, not on region or catalogue: a tile's whole lattice
of cells is looked at once and kept, 196 to 3,249 cells in some kilobytes. The cache may be deleted at any time; a
damaged file (Zip files have checksums) is made anew. Each place that a source is read from has a folder of its own
(geofm_pipeline.stages.cells).
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from geofm_pipeline.access.source import ByteSource
from geofm_pipeline.covariates.land_cover import CoverFacts, Shares, tile_shares
from geofm_pipeline.digests import short_digest
from geofm_pipeline.errors import ResourceError
from geofm_pipeline.store.files import replacing
from geofm_sampling.unit import cells_per_side

_LAYOUT = 1  # of the files: another number makes them anew


def kept_shares(
    cells: pa.Table, paths: Sequence[str], *, chip_size: int, archive: ByteSource, asked: str, shelf: Path | None
) -> tuple[Shares, CoverFacts]:
    """As tile_shares, by way of the cache in `shelf`; None reads without it."""
    if shelf is None or not cells.num_rows:
        return tile_shares(cells, paths, chip_size=chip_size, archive=archive, asked=asked)
    tile, side = str(cells["tile"][0].as_py()), cells_per_side(chip_size)
    path = shelf / f"{tile}-{chip_size}-{short_digest([_LAYOUT, list(paths)])}.npz"
    found = _loaded(path, side * side)
    if found is None:
        whole, facts = tile_shares(_lattice(tile, side), paths, chip_size=chip_size, archive=archive, asked=asked)
        found = whole, facts.pixel_m
        _save(path, whole, facts.pixel_m)
    rows = np.asarray(cells["cell_row"], dtype=np.int64) * side + np.asarray(cells["cell_col"], dtype=np.int64)
    here = {code: share[rows] for code, share in found[0].items()}
    shares = {code: share for code, share in here.items() if share.any()}
    covered = np.asarray(sum(shares.values(), start=np.zeros(rows.size, dtype=np.float32))) > 0
    codes = tuple(sorted(shares))
    return shares, CoverFacts(cells=rows.size, covered=int(covered.sum()), codes=codes, pixel_m=found[1])


def _lattice(tile: str, side: int) -> pa.Table:
    """All cells of a tile, whoever owns them, in rows of rows."""
    row, col = np.divmod(np.arange(side * side), side)
    return pa.table({"tile": [tile] * row.size, "cell_row": row, "cell_col": col})


def _loaded(path: Path, cells: int) -> tuple[Shares, float] | None:
    try:
        with np.load(path) as found:
            codes, shares, pixel_m = found["codes"], found["shares"], float(found["pixel_m"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
        return None
    if shares.shape != (codes.size, cells):
        return None
    return dict(zip(codes.tolist(), shares, strict=True)), pixel_m


def _save(path: Path, shares: Shares, pixel_m: float) -> None:
    """Keep shares; not where the folder cannot be written, which costs nothing but the next run's reading."""
    codes = np.array(sorted(shares), dtype=np.int64)
    values = np.array([shares[code] for code in codes.tolist()], dtype=np.float32)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, path.parent) as fd, os.fdopen(fd, "wb", closefd=False) as stream:
            np.savez_compressed(stream, codes=codes, shares=values, pixel_m=np.float64(pixel_m))
    except (OSError, ResourceError):
        return
