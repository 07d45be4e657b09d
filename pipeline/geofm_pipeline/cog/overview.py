"""Cells of a granule as its overviews show them: a small look at all bands, one or two requests per band.

Reads of each file the header and the blocks of one overview that hold wanted cells, each block once and blocks that lie
beside each other in the file by one request. An overview shows every f-th pixel (HLS overviews are nearest
neighbours), so bands and Fmask show the same pixels. Its edge is rounded (3660 / 16 = 228.75 → 229 px), which shifts a
cell by less than one overview pixel towards the far edge of the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.access.source import ByteSource
from geofm_pipeline.chips import ReadStats
from geofm_pipeline.cog.band import BandFile, doubted, open_levels, pixel_rule, put_block
from geofm_pipeline.cog.blocks import paste
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.hls.bands import BANDS, FMASK
from geofm_pipeline.scenes import SceneRef
from geofm_sampling.unit import TILE_PIXELS

LEAST_EDGE = 16
"""Overview pixels that a cell's edge must have: 256 pixels hold a histogram, and a cell of 256 px costs 7 blocks of
which 64 cells have a share."""
_GAP = 4096
"""Bytes between two blocks that are rather read than skipped."""
Block = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Overview:
    """Overview pixels of n cells of one granule."""

    image: NDArray[np.int16]
    """[n, B, h, h], reflectance × 10⁴, −9999 where missing and in every cell with a fault."""
    fmask: NDArray[np.uint8]
    """[n, h, h], the raw HLS byte, 255 likewise."""
    faults: dict[int, BlockReadError] = field(default_factory=dict)
    """Position of a cell → why some of its pixels can never be had."""


def read_overview(
    source: ByteSource, scene: SceneRef, *, rows: Sequence[int], cols: Sequence[int], chip_size: int, stats: ReadStats
) -> Overview:
    """Read cells of the chip grid from the coarsest overview that gives them at least LEAST_EDGE pixels an edge.

    Parameters
    ----------
    rows, cols : cell row and column of each cell, n each
    chip_size : edge of a cell in pixels of full resolution
    stats : the cost is added here

    Raises
    ------
    BlockReadError
        With `transient` set for a fault that may pass. A permanent one of a file as a whole (missing, no COG, no such
        overview) is raised, too; one of a block becomes the fault of the cells that need it.
    """
    levels = {band: _by_factor(open_levels(source, scene, band, stats)) for band in (*BANDS, FMASK)}
    factor = _coarsest(levels, chip_size)
    edge = chip_size // factor
    corners = [(row * edge, col * edge) for row, col in zip(rows, cols, strict=True)]
    shape = (len(corners), len(BANDS), edge, edge)
    found = Overview(
        image=np.full(shape, pixel_rule(BANDS[0])[1], dtype=np.int16),
        fmask=np.full((shape[0], edge, edge), pixel_rule(FMASK)[1], dtype=np.uint8),
    )
    for index, band in enumerate(BANDS):
        _read_band(source, levels[band][factor], corners, found.image[:, index], found.faults, stats)
    _read_band(source, levels[FMASK][factor], corners, found.fmask, found.faults, stats)
    for cell in found.faults:
        found.image[cell], found.fmask[cell] = pixel_rule(BANDS[0])[1], pixel_rule(FMASK)[1]
    return found


def _by_factor(files: tuple[BandFile, ...]) -> dict[int, BandFile]:
    """Decimation factor → level, for those whose edges are 3660 / factor rounded up or down."""
    result = {}
    for file in files:
        factor = max(round(TILE_PIXELS / file.header.width), 1)
        sides = (file.header.height, file.header.width)
        if all(abs(side - TILE_PIXELS / factor) < 1 for side in sides):
            result[factor] = file
    return result


def _coarsest(levels: dict[str, dict[int, BandFile]], chip_size: int) -> int:
    """The largest factor that all files have, that divides a cell and leaves it LEAST_EDGE pixels; 1 does not count."""
    good = [factor for factor in range(2, chip_size // LEAST_EDGE + 1) if chip_size % factor == 0]
    for factor in reversed(good):
        if all(factor in of_band for of_band in levels.values()):
            return factor
    poorest = min(levels.values(), key=lambda of_band: sum(factor in of_band for factor in good))
    raise poorest[1].fault_of_file(
        f"no overview that all bands have, of a factor among {good}: it has {sorted(set(poorest) - {1}) or 'none'}"
    )


def _read_band(
    source: ByteSource,
    file: BandFile,
    corners: list[tuple[int, int]],
    out: NDArray[np.generic],
    faults: dict[int, BlockReadError],
    stats: ReadStats,
) -> None:
    """Fill `out` [n, h, h] with the windows at (row, column) corners of one level."""
    size_y, size_x = file.header.block_height, file.header.block_width
    users: dict[Block, list[int]] = {}
    for cell, corner in enumerate(corners):
        for block in _blocks_of(corner, out.shape[1], file):
            users.setdefault(block, []).append(cell)
    for block, pixels in _read_blocks(source, file, list(users), stats):
        for cell in users[block]:
            if isinstance(pixels, BlockReadError):
                faults.setdefault(cell, pixels)
            else:
                row, col = corners[cell]
                paste(pixels, out[cell], block[0] * size_y - row, block[1] * size_x - col)


def _blocks_of(corner: tuple[int, int], edge: int, file: BandFile) -> Iterator[Block]:
    """The blocks that hold a window of `edge` pixels at a (row, column) corner."""
    header = file.header
    row, col = corner
    assert max(row, col) + edge <= min(header.height, header.width), "whole cells lie inside every overview"
    for block_row in range(row // header.block_height, -(-(row + edge) // header.block_height)):
        for block_col in range(col // header.block_width, -(-(col + edge) // header.block_width)):
            yield block_row, block_col


def _read_blocks(
    source: ByteSource, file: BandFile, blocks: list[Block], stats: ReadStats
) -> Iterator[tuple[Block, NDArray[np.generic] | BlockReadError]]:
    """Pixels of each block, or why they can never be had."""
    header = file.header
    pixels = np.empty((header.block_height, header.block_width), dtype=header.dtype)
    for start, length, together in _requests(file, blocks):
        data = _Request(source, file.href, start, length, stats)
        for block in together:
            begin, size = header.span(*block)
            try:
                ways = iter((partial(data.part, begin - start, size), partial(source.read, file.href, begin, size)))
                doubted(source, file.href, partial(_put_next, file, block, ways, pixels))
            except BlockReadError as error:
                if error.transient:
                    raise
                yield block, error
            else:
                yield block, pixels


def _put_next(file: BandFile, block: Block, ways: Iterator[Callable[[], bytes]], pixels: NDArray[np.generic]) -> None:
    """Decode a block from the next way to its bytes: the request shared with others, then one of its own."""
    put_block(file, block, next(ways), pixels)


def _requests(file: BandFile, blocks: list[Block]) -> list[tuple[int, int, list[Block]]]:
    """(first byte, bytes, blocks) of each request; a block that is not stored is in one of no bytes."""
    requests: list[tuple[int, int, list[Block]]] = []
    for block in sorted(blocks, key=lambda block: file.header.span(*block)):
        start, length = file.header.span(*block)
        if requests:
            first, size, together = requests[-1]
            if size and length and start - (first + size) <= _GAP:
                requests[-1] = (first, max(size, start + length - first), [*together, block])
                continue
        requests.append((start, length, [block]))
    return requests


class _Request:
    """One range of a file, fetched when first asked for."""

    def __init__(self, source: ByteSource, href: str, start: int, length: int, stats: ReadStats) -> None:
        self._source, self._href, self._start, self._length, self._stats = source, href, start, length, stats
        self._data: bytes | None = None

    def part(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` in the range, fewer at the end of the file; FetchError where none can be had."""
        if self._data is None:
            self._stats.requests += 1
            self._stats.bytes_requested += self._length
            self._data = self._source.read(self._href, self._start, self._length)
        return self._data[offset : offset + length]
