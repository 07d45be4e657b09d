"""The frame on disk: one Parquet file per tile with the covariates of its cells."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_pipeline.stages.cells import covariate_names
from geofm_pipeline.workspace import Workspace, check_frame, write_parquet
from geofm_sampling.tables import FRAME
from geofm_sampling.unit import TILE_PIXELS


def read_frame(space: Workspace) -> pa.Table:
    """FRAME of the wave's part, without covariates, in order of unit."""
    check_frame(space)
    return FRAME.check(pq.read_table([str(part) for part in space.frame_parts()], columns=[*FRAME.columns]))


def write_frame(space: Workspace, frame: pa.Table, cells: pa.Table) -> None:
    """One file per tile with the cells' covariates; rows are in order of the unit id, so a tile's rows lie together."""
    tiles = frame["tile"].to_numpy(zero_copy_only=False)
    cell_tiles = cells["tile"].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.r_[True, tiles[1:] != tiles[:-1]])
    for old in space.frame_parts():
        old.unlink()
    for start, stop in zip(starts, np.r_[starts[1:], len(tiles)], strict=True):
        tile = str(tiles[start])
        part = _with_covariates(frame.slice(start, stop - start), cells.filter(pa.array(cell_tiles == tile)))
        write_parquet(space.frame / f"{tile}.parquet", FRAME.describe(part))


def _with_covariates(frame: pa.Table, cells: pa.Table) -> pa.Table:
    """Frame rows of one tile with the covariates of their cells."""

    def places(table: pa.Table) -> NDArray[np.int64]:
        row, col = (table[name].to_numpy().astype(np.int64) for name in ("cell_row", "cell_col"))
        return np.asarray(row * TILE_PIXELS + col)

    order = np.argsort(places(cells))
    at = pa.array(order[np.searchsorted(places(cells)[order], places(frame))])
    for name in covariate_names(cells):
        frame = frame.append_column(name, cells[name].take(at))
    return frame
