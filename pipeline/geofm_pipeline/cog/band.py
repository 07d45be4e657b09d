"""One band of one granule: opened, checked against what HLS v2.0 promises, its blocks read.

A file that is not what its granule id says (other size, origin, pixel type, coding) is refused with the value: it
would give wrong pixels. Every fault becomes a BlockReadError that names granule, band and block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.local import is_local
from geofm_pipeline.access.source import ByteSource
from geofm_pipeline.chips import ReadStats
from geofm_pipeline.cog.blocks import BlockError, check_codec, decode_block
from geofm_pipeline.cog.header import CogHeader, HeaderError, read_header, read_levels
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.hls import bands, fmask
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.hls.grid import TileGrid, tile_grid
from geofm_pipeline.scenes import SceneRef
from geofm_sampling.unit import TILE_PIXELS

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class BandFile:
    """An opened band file whose header agrees with its granule id."""

    granule_id: str
    band: str
    """Asset key as in file names, e.g. `B04` or `Fmask`."""
    href: str
    fill: int
    """What a block that is not stored holds."""
    header: CogHeader

    def fault(self, cause: str, block: tuple[int, int], fetch: FetchError | None = None) -> BlockReadError:
        """The error that names this file and a (block row, block column), with the fault of fetching it, if any."""
        return BlockReadError(
            granule=self.granule_id,
            band=self.band,
            block=block,
            cause=cause,
            transient=fetch is not None and fetch.stops_the_run,
            fault=None if fetch is None else fetch.fault,
        )

    def fault_of_file(self, cause: str) -> BlockReadError:
        """The error that names this file as a whole, a permanent one."""
        return BlockReadError(granule=self.granule_id, band=self.band, cause=cause)


def pixel_rule(band: str) -> tuple[np.dtype[np.generic], int]:
    """(type, fill) of the pixels of a canonical band or `fmask`."""
    return (np.dtype("<u1"), fmask.FILL) if band == bands.FMASK else (np.dtype("<i2"), bands.FILL)


def open_band(source: ByteSource, scene: SceneRef, band: str, stats: ReadStats) -> BandFile:
    """Read and check the header of a canonical band or `fmask`; the cost is added to `stats`.

    Raises
    ------
    BlockReadError
        When the asset is missing, cannot be fetched, is no COG or not the file its granule id names.
    """

    return doubted(source, scene.href(band), lambda: _open(scene, band, _counted(source, scene, band, stats)))


def open_levels(source: ByteSource, scene: SceneRef, band: str, stats: ReadStats) -> tuple[BandFile, ...]:
    """Full resolution and overviews of a band, finest first; otherwise as :func:`open_band`."""
    parse = partial(read_levels, _counted(source, scene, band, stats))
    return doubted(source, scene.href(band), lambda: _files(scene, band, parse))


def _counted(source: ByteSource, scene: SceneRef, band: str, stats: ReadStats) -> Callable[[int, int], bytes]:
    """(start, length) → bytes of a band file's header."""

    def read(start: int, length: int) -> bytes:
        stats.opens += 1
        stats.bytes_requested += length
        return source.read(scene.href(band), start, length)

    return read


def read_whole(source: ByteSource, scene: SceneRef, band: str) -> tuple[BandFile, bytes]:
    """One band file and all its bytes by one request; errors as :func:`open_band`."""
    with _faults(scene, band):
        data = source.read_all(_href(scene, band))
    return _open(scene, band, partial(_slice, data)), data


def _open(scene: SceneRef, band: str, read: Callable[[int, int], bytes]) -> BandFile:
    return _files(scene, band, lambda: (read_header(read),))[0]


def _files(scene: SceneRef, band: str, parse: Callable[[], tuple[CogHeader, ...]]) -> tuple[BandFile, ...]:
    """The checked images of one file, the full resolution first."""
    dtype, fill = pixel_rule(band)
    with _faults(scene, band):
        href = _href(scene, band)
        levels = parse()
        for header in levels:
            check_codec(header)
            _check_pixels(header, dtype, fill)
        _check_grid(levels[0], tile_grid(GranuleId.parse(scene.granule_id).tile))
    key = bands.band_file(scene.sensor, band)
    return tuple(
        BandFile(granule_id=scene.granule_id, band=key, href=href, fill=fill, header=header) for header in levels
    )


def _href(scene: SceneRef, band: str) -> str:
    if not scene.href(band):
        raise FetchError(Fault.MISSING, "the granule has no such asset")
    return scene.href(band)


@contextmanager
def _faults(scene: SceneRef, band: str) -> Iterator[None]:
    """Turns the faults of a file as a whole into BlockReadErrors."""
    name = bands.band_file(scene.sensor, band)
    try:
        yield
    except FetchError as error:
        raise BlockReadError(
            granule=scene.granule_id, band=name, cause=error.cause, transient=error.stops_the_run, fault=error.fault
        ) from None
    except (HeaderError, BlockError) as error:
        raise BlockReadError(granule=scene.granule_id, band=name, cause=str(error)) from None


def _check_pixels(header: CogHeader, dtype: np.dtype[np.generic], fill: int) -> None:
    if header.dtype != dtype:
        raise HeaderError(f"pixels of type {header.dtype}, must be {dtype}")
    if header.nodata is not None and header.nodata != fill:
        raise HeaderError(f"nodata value {header.nodata:g}, must be {fill}: not an HLS v2.0 file")


def _check_grid(header: CogHeader, grid: TileGrid) -> None:
    if (header.height, header.width) != (TILE_PIXELS, TILE_PIXELS):
        raise HeaderError(f"{header.height} rows × {header.width} columns, must be {TILE_PIXELS} × {TILE_PIXELS}")
    if header.pixel_scale != (float(bands.PIXEL_M), float(bands.PIXEL_M)):
        raise HeaderError(f"pixel size {header.pixel_scale} m, must be {bands.PIXEL_M} m")
    if header.origin != (float(grid.x0), float(grid.y0)):
        raise HeaderError(
            f"upper-left corner at (easting, northing) {header.origin}, tile {grid.tile} has ({grid.x0}, {grid.y0}): "
            "the file belongs to another tile"
        )


def read_block(
    source: ByteSource, file: BandFile, block: tuple[int, int], out: NDArray[np.generic], stats: ReadStats
) -> None:
    """Read one whole (block row, block column) into `out` by one range request, or fill it if it is not stored.

    Raises
    ------
    BlockReadError
        When the bytes cannot be had, end early or do not decode to exactly one block.
    """
    start, length = file.header.span(*block)

    def fetch() -> bytes:
        stats.requests += 1
        stats.bytes_requested += length
        return source.read(file.href, start, length)

    doubted(source, file.href, lambda: put_block(file, block, fetch, out))


_NO_SENSE = "bytes that made no sense"


def doubted(source: ByteSource, href: str, read: Callable[[], T]) -> T:
    """What `read` gives; bytes that came over a network and make no sense are fetched once more before they condemn a
    file: a proxy or a cut connection may have spoilt them on the way."""
    try:
        return read()
    except BlockReadError as error:
        if error.transient or error.fault is not None or is_local(href):
            raise
        source.tally.retried(_NO_SENSE)
        try:
            return read()
        except BlockReadError as lasting:
            if lasting.fault is None:
                source.tally.failed(_NO_SENSE)
            raise


def put_block(file: BandFile, block: tuple[int, int], fetch: Callable[[], bytes], out: NDArray[np.generic]) -> None:
    """Decode the bytes that `fetch` gives into `out` [block_height, block_width]; errors as :func:`read_block`."""
    start, length = file.header.span(*block)
    if length == 0:
        out[...] = _sparse_fill(file, block)
        return
    try:
        data = fetch()
        if len(data) < length:
            raise BlockError(
                f"the file is truncated: the block needs bytes {start} to {start + length}, "
                f"{len(data)} of these {length} are there"
            )
        decode_block(data, file.header, out)
    except FetchError as error:
        raise file.fault(error.cause, block, error) from None
    except BlockError as error:
        raise file.fault(str(error), block) from None


def _sparse_fill(file: BandFile, block: tuple[int, int]) -> int:
    if file.header.nodata is None:
        raise file.fault(f"the block is not stored and the file names no nodata value, must be {file.fill}", block)
    return file.fill


def decode_whole(file: BandFile, data: bytes) -> NDArray[np.generic]:
    """All pixels [height, width] of a band file from its bytes; errors as :func:`read_block`."""
    header = file.header
    rows, cols = header.offsets.shape
    size_y, size_x = header.block_height, header.block_width
    image = np.empty((rows * size_y, cols * size_x), dtype=header.dtype)
    for row, col in np.ndindex(rows, cols):
        start, length = header.span(row, col)
        out = image[row * size_y : (row + 1) * size_y, col * size_x : (col + 1) * size_x]
        put_block(file, (row, col), partial(_slice, data, start, length), out)
    return image[: header.height, : header.width]


def _slice(data: bytes, start: int, length: int) -> bytes:
    return data[start : start + length]
