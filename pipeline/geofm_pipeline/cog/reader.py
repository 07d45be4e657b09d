"""The pipeline's chip reader: one range request per block, straight into the chip.

A chip that is exactly one block costs one request per band and date and is decoded into its place without a copy.
Smaller chips share decoded blocks through a bounded cache, so that siblings cost one request together. Headers are
read once per file and call. Threads do reading and decoding, both without the GIL. A task is one date of one chip where
files are local, and one file of it behind a network, so that as many requests are under way as there are threads.
Memory: the chips in flight, about 2 × threads tasks; the block cache; 4 KB per open file.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.access.local import is_local
from geofm_pipeline.access.source import ArchiveSource, ByteSource, reading_threads
from geofm_pipeline.chips import Chip, ChipFailure, ChipRequest, ReadStats
from geofm_pipeline.cog.band import BandFile, open_band, read_block
from geofm_pipeline.cog.blocks import paste
from geofm_pipeline.cog.once import OnceCache
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.hls.bands import BANDS, FMASK
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.scenes import SceneRef
from geofm_sampling.unit import TILE_PIXELS

_Bands = tuple[str, ...]
"""Canonical bands and `fmask`."""


class BlockChipReader:
    """Implements :class:`geofm_pipeline.chips.ChipReader` for archives of HLS COGs.

    Parameters
    ----------
    threads : reads at once of local files; behind a network it is the source that says how many
    source : where hrefs are read, with the usual settings by default. Each read counts with a twin of it
    cache_bytes : decoded blocks kept for chips smaller than a block
    open_files : headers kept
    """

    def __init__(
        self,
        *,
        threads: int = 4,
        source: ByteSource | None = None,
        cache_bytes: int = 256 << 20,
        open_files: int = 16_384,
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.stats = ReadStats()
        self._source = source or ArchiveSource()
        self._threads, self._cache_bytes, self._open_files = threads, cache_bytes, open_files

    def read(self, requests: Sequence[ChipRequest]) -> Iterator[Chip | ChipFailure]:
        """Read all requests, in order; see :class:`geofm_pipeline.chips.ChipReader` for what is promised.

        Raises
        ------
        ValueError
            At once, when a window leaves its tile or a granule belongs to another one.
        BlockReadError
            While iterating, with `transient` set: a fault that outlived the source's retries.
        """
        for request in requests:
            _check(request)
        return self._read(requests, self._source.twin()) if requests else iter(())

    def _read(self, requests: Sequence[ChipRequest], source: ByteSource) -> Iterator[Chip | ChipFailure]:
        blocks = WindowReader(source, cache_bytes=self._cache_bytes, open_files=self._open_files)
        threads, pieces = self._plan(requests[0])
        pending: deque[_Pending] = deque()
        ahead = 0
        try:
            with reading_threads(source, threads, "read") as pool:
                for request in requests:
                    pending.append(_submit(pool, blocks, request, pieces))
                    ahead += len(pending[-1].parts)
                    while ahead > 2 * threads:
                        ahead -= len(pending[0].parts)
                        yield self._finish(pending.popleft())
                while pending:
                    yield self._finish(pending.popleft())
        finally:
            self.stats.tally = self.stats.tally + source.tally

    def _plan(self, request: ChipRequest) -> tuple[int, tuple[_Bands, ...]]:
        """Threads, and the files of a date that one task reads: all where they are local, else one each."""
        hrefs = [href for scene in request.scenes for href in (*scene.bands, scene.fmask) if href]
        threads = self._source.at_once(hrefs[0] if hrefs else "", local=self._threads)
        if all(is_local(href) for href in hrefs):
            return threads, ((*BANDS, FMASK),)
        return threads, tuple((band,) for band in (*BANDS, FMASK))

    def _finish(self, pending: _Pending) -> Chip | ChipFailure:
        started = time.perf_counter()
        outcomes = [part.result() for part in pending.parts]
        self.stats.seconds += time.perf_counter() - started
        for outcome in outcomes:
            self.stats = self.stats + outcome.stats
        errors = [outcome.error for outcome in outcomes if outcome.error is not None]
        for error in errors:
            if error.transient:
                raise error
        return ChipFailure(unit=pending.chip.unit, error=errors[0]) if errors else pending.chip


class WindowReader:
    """Pixel windows of granule bands, with the headers and decoded blocks of one piece of work; thread-safe."""

    def __init__(self, source: ByteSource, *, cache_bytes: int, open_files: int) -> None:
        self._source = source
        self._files: OnceCache[tuple[str, str, str], BandFile] = OnceCache(open_files, weight=lambda file: 1)
        self._blocks: OnceCache[tuple[str, tuple[int, int]], NDArray[np.generic]] = OnceCache(
            cache_bytes, weight=lambda block: block.nbytes
        )

    def read(
        self, scene: SceneRef, band: str, row_off: int, col_off: int, out: NDArray[np.generic], stats: ReadStats
    ) -> None:
        """Fill `out` [H, W] with the window of a canonical band or `fmask` that starts at (row_off, col_off)."""
        key = (scene.granule_id, band, scene.href(band))
        file = self._files.get(key, lambda: open_band(self._source, scene, band, stats))
        size_y, size_x = file.header.block_height, file.header.block_width
        height, width = out.shape
        for row in range(row_off // size_y, -(-(row_off + height) // size_y)):
            for col in range(col_off // size_x, -(-(col_off + width) // size_x)):
                stats.bytes_needed += file.header.span(row, col)[1]
                if (row * size_y, col * size_x, size_y, size_x) == (row_off, col_off, height, width):
                    read_block(self._source, file, (row, col), out, stats)
                else:
                    block = self._block(file, (row, col), stats)
                    paste(block, out, row * size_y - row_off, col * size_x - col_off)

    def _block(self, file: BandFile, block: tuple[int, int], stats: ReadStats) -> NDArray[np.generic]:
        def read() -> NDArray[np.generic]:
            pixels = np.empty((file.header.block_height, file.header.block_width), dtype=file.header.dtype)
            read_block(self._source, file, block, pixels, stats)
            return pixels

        return self._blocks.get((file.href, block), read)


@dataclass(frozen=True, kw_only=True)
class _Outcome:
    stats: ReadStats
    error: BlockReadError | None


@dataclass(frozen=True, kw_only=True)
class _Pending:
    chip: Chip
    parts: tuple[Future[_Outcome], ...]


def _check(request: ChipRequest) -> None:
    last = max(request.row_off, request.col_off) + request.size
    if min(request.row_off, request.col_off) < 0 or request.size < 1 or last > TILE_PIXELS:
        raise ValueError(
            f"the window of unit {request.unit} starts at row {request.row_off}, column {request.col_off} and is "
            f"{request.size} px wide: it must lie inside the {TILE_PIXELS} px of tile {request.tile}"
        )
    for scene in request.scenes:
        tile = GranuleId.parse(scene.granule_id).tile
        if tile != request.tile:
            raise ValueError(f"unit {request.unit} lies in tile {request.tile}, but {scene.granule_id} in {tile}")


def _submit(
    pool: ThreadPoolExecutor, blocks: WindowReader, request: ChipRequest, pieces: tuple[_Bands, ...]
) -> _Pending:
    shape = (len(request.scenes), len(BANDS), request.size, request.size)
    chip = Chip(
        unit=request.unit,
        image=np.empty(shape, dtype=np.int16),
        fmask=np.empty((shape[0], *shape[2:]), dtype=np.uint8),
    )
    parts = tuple(
        pool.submit(_read_part, blocks, request, chip, date, bands) for date in range(shape[0]) for bands in pieces
    )
    return _Pending(chip=chip, parts=parts)


def _read_part(blocks: WindowReader, request: ChipRequest, chip: Chip, date: int, bands: _Bands) -> _Outcome:
    """Fill some files of one date of a chip; an error is returned, so that the cost until then is counted."""
    stats = ReadStats()
    scene = request.scenes[date]
    try:
        for band in bands:
            out = chip.fmask[date] if band == FMASK else chip.image[date, BANDS.index(band)]
            blocks.read(scene, band, request.row_off, request.col_off, out, stats)
    except BlockReadError as error:
        return _Outcome(stats=stats, error=error)
    return _Outcome(stats=stats, error=None)
