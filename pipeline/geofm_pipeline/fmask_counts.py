"""Screening of one granule: what its Fmask says of every cell of the chip grid, by one whole-file read.

Counts are exact integers of pixels. Cost: 60 ms and 30 MB per granule besides the read; the same read serves all
cells (57² of 64 px, 28² of 128 px, 14² of 256 px).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.access.source import ArchiveSource, ByteSource, reading_threads
from geofm_pipeline.cog.band import decode_whole, doubted, read_whole
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.hls import fmask
from geofm_pipeline.hls.bands import BLOCK, FMASK
from geofm_pipeline.scenes import SceneRef
from geofm_sampling.contract import Column, TableContract
from geofm_sampling.unit import cells_per_side

OK = "ok"
"""State of a granule whose Fmask was read and makes sense."""
COUNTS = ("data", "clear", "snow", "water")
"""The per-cell columns, see :data:`SCREENING`."""
_CELLS = pa.list_(pa.uint32())
COUNTERS = 4
"""Threads that count, with 30 MB each: many more may be waiting for the network, and each would keep its memory."""

SCREENING = TableContract(
    name="screening",
    columns={
        "granule_id": Column(type=pa.string(), meaning="HLS granule id"),
        "tile": Column(type=pa.string(), meaning="MGRS tile"),
        "date": Column(type=pa.int32(), meaning="sensing day (UTC), days since 1970-01-01"),
        "state": Column(type=pa.string(), meaning="'ok', or why the Fmask cannot be used"),
        "read": Column(type=pa.bool_(), meaning="the Fmask could be read; if its content was refused, state says why"),
        "bytes": Column(type=pa.int64(), meaning="size of the Fmask file, 0 if it could not be read"),
        "cloud_cover": Column(type=pa.float32(), meaning="measured: cloud or shadow, percent of valid pixels, or NaN"),
        "spatial_coverage": Column(type=pa.float32(), meaning="measured: percent of the tile with data, or NaN"),
        "data": Column(type=_CELLS, meaning="pixels with data per cell, by rows from the north; empty unless ok"),
        "clear": Column(type=_CELLS, meaning="pixels per cell that pass the mask rule"),
        "snow": Column(type=_CELLS, meaning="data pixels per cell with the snow bit"),
        "water": Column(type=_CELLS, meaning="data pixels per cell with the water bit"),
    },
)
"""One row per granule; chip size and mask rule are the same in one table."""


@dataclass(frozen=True, kw_only=True)
class ScreenRow:
    """What screening found in one granule; fields as in :data:`SCREENING`."""

    granule_id: str
    tile: str
    date: int
    state: str
    read: bool
    bytes: int = 0
    cloud_cover: float = float("nan")
    spatial_coverage: float = float("nan")
    counts: dict[str, NDArray[np.int64]] | None = None
    """COUNTS → pixels per cell, shape (cells,); None unless the state is ok."""


def screen_granule(
    scene: SceneRef, *, tile: str, chip_size: int, rule: fmask.MaskRule, source: ByteSource
) -> ScreenRow:
    """Count the pixels of every cell by one read of the granule's Fmask.

    Raises
    ------
    BlockReadError
        With `transient` set, for a fault that may pass. A permanent one becomes the row's state.
    """
    row = partial(ScreenRow, granule_id=scene.granule_id, tile=tile, date=scene.date)
    try:
        size, whole, cells = doubted(source, scene.fmask, lambda: _counts(source, scene, chip_size))
    except BlockReadError as error:
        if error.transient:
            raise
        return row(state=str(error.cause), read=False)
    measured = partial(row, read=True, bytes=size, spatial_coverage=fmask.spatial_coverage_of(whole))
    impossible = fmask.impossible_share_of(whole)
    if impossible > 0:
        return measured(
            state=f"refused: {100 * impossible:.3g} % of the data pixels have codes that HLS v2.0 never writes; "
            "the Fmask was interpolated by another program"
        )
    cloud = fmask.cloud_cover_of(whole)
    return measured(
        state=OK,
        cloud_cover=float("nan") if cloud is None else cloud,
        counts=fmask.flag_counts(cells, rule),
    )


def _counts(source: ByteSource, scene: SceneRef, chip_size: int) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """(bytes of the file, code counts of the whole image, of each cell)."""
    file, data = read_whole(source, scene, FMASK)
    counted = _counters().submit(lambda: cell_code_counts(decode_whole(file, data).view(np.uint8), chip_size))
    return len(data), *counted.result()


@cache
def _counters() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(COUNTERS, thread_name_prefix="geofm-count")


def screen_granules(
    scenes: Sequence[SceneRef],
    *,
    tile: str,
    chip_size: int,
    rule: fmask.MaskRule = fmask.DEFAULT_RULE,
    source: ByteSource | None = None,
    threads: int = 4,
) -> pa.Table:
    """SCREENING rows of granules of one tile, in their order, `threads` reads at a time."""
    source = source or ArchiveSource()
    screen = partial(screen_granule, tile=tile, chip_size=chip_size, rule=rule, source=source)
    with reading_threads(source, threads, "screen") as pool:
        return rows_table(pool.map(screen, scenes))


def rows_table(rows: Iterator[ScreenRow]) -> pa.Table:
    """A SCREENING table of rows."""
    records = [{**vars(row), **_lists(row)} for row in rows]
    columns = SCREENING.schema()
    return SCREENING.check(pa.Table.from_pydict({n: [r[n] for r in records] for n in columns.names}, schema=columns))


def _lists(row: ScreenRow) -> dict[str, NDArray[np.uint32]]:
    if row.counts is None:
        return dict.fromkeys(COUNTS, np.empty(0, dtype=np.uint32))
    return {name: row.counts[name].astype(np.uint32) for name in COUNTS}


def cell_code_counts(pixels: NDArray[np.uint8], chip_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(code counts of the whole image (256,), of each whole cell (cells, 256)) of an Fmask [H, W].

    Cells are chip_size × chip_size px from the upper-left corner, numbered by rows; pixels beyond the last whole cell
    count for the image only. Worked in blocks of 256 px, which whole cells divide, to stay in the processor's cache.
    """
    side_y, side_x = pixels.shape[0] // chip_size, pixels.shape[1] // chip_size
    cells = np.zeros((side_y, side_x, 256), dtype=np.int64)
    whole = np.zeros(256, dtype=np.int64)
    per_block = BLOCK // chip_size
    for row, col in np.ndindex(-(-pixels.shape[0] // BLOCK), -(-pixels.shape[1] // BLOCK)):
        block = pixels[row * BLOCK : (row + 1) * BLOCK, col * BLOCK : (col + 1) * BLOCK]
        inside = (block.shape[0] // chip_size, block.shape[1] // chip_size)
        index = _labels(block.shape, chip_size) + block
        counts = np.bincount(index.ravel(), minlength=(inside[0] * inside[1] + 1) * 256).reshape(-1, 256)
        whole += counts.sum(axis=0)
        top, left = row * per_block, col * per_block
        cells[top : top + inside[0], left : left + inside[1]] = counts[:-1].reshape(*inside, 256)
    return whole, cells.reshape(-1, 256)


@cache
def _labels(shape: tuple[int, int], chip_size: int) -> NDArray[np.int64]:
    """256 × number of each pixel's cell in a block, cells by rows; the last number is for pixels in no whole cell."""
    rows, cols = shape[0] // chip_size, shape[1] // chip_size
    row, col = np.arange(shape[0])[:, None] // chip_size, np.arange(shape[1])[None, :] // chip_size
    return np.where((row < rows) & (col < cols), row * cols + col, rows * cols) * 256


def cell_matrix(screening: pa.Table, name: str, chip_size: int) -> NDArray[np.uint32]:
    """A COUNTS column of rows that are all ok as a matrix (rows, cells)."""
    values = screening[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values.reshape(screening.num_rows, cells_per_side(chip_size) ** 2), dtype=np.uint32)
