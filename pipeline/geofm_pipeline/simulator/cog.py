"""Encodes one band of a granule as the COG that NASA writes: 3660² pixels, DEFLATE, predictor 2, 256-px blocks.

The layout is that of real v2.0 files, checked field by field in the tests: the five directories (full resolution and
overviews 2-16 with 128-px blocks) come first and end before byte 8,100, so one 16 KB read opens
a file; then the overviews' blocks, coarsest first, then the full resolution row by row. Blocks of fill are encoded,
never sparse. A fill block costs nothing here because it is compressed once, so a small extent is fast to write.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import cast
from xml.sax.saxutils import escape

import deflate
import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.hls.bands import BLOCK
from geofm_pipeline.hls.grid import TileGrid
from geofm_sampling.unit import TILE_PIXELS

OVERVIEW_BLOCK = 128
OVERVIEWS = (2, 4, 8, 16)
_LEVEL = 6
_SHORT, _LONG, _DOUBLE, _ASCII = 3, 4, 12, 2
_FORMATS = {_SHORT: "H", _LONG: "I", _DOUBLE: "d"}
Pixels = NDArray[np.int16] | NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """The part of a tile that holds data; everything else is fill."""

    row: int
    """First pixel row in the tile."""
    col: int
    pixels: Pixels
    """[H, W], int16 or uint8."""


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One resolution of the file: its size and its compressed blocks, row by row."""

    size: int
    block: int
    blocks: list[bytes]


def encode_cog(patch: Patch, *, grid: TileGrid, fill: int, tags: Mapping[str, str], scale: float | None) -> bytes:
    """The file's bytes; `scale` (with offset 0) is tagged on the band unless None, `tags` on the data set."""
    levels = [_encode_level(patch, factor, fill) for factor in (1, *OVERVIEWS)]
    return _assemble(levels, patch.pixels.dtype, grid, fill, tags, scale)


def nearest(patch: Patch, factor: int) -> Patch:
    """The patch as an overview shows it; it may be empty."""
    samples = overview_samples(factor)
    height, width = patch.pixels.shape
    rows = np.flatnonzero((samples >= patch.row) & (samples < patch.row + height))
    cols = np.flatnonzero((samples >= patch.col) & (samples < patch.col + width))
    pixels = patch.pixels[np.ix_(samples[rows] - patch.row, samples[cols] - patch.col)]
    return Patch(row=int(rows[0]) if rows.size else 0, col=int(cols[0]) if cols.size else 0, pixels=pixels)


@cache
def overview_samples(factor: int) -> NDArray[np.int64]:
    """Tile row (or column) that each row of an overview shows.

    Each overview is the nearest neighbour of the next finer one, as in real files: 915 rows become 458 by rounding
    i · 915 / 458, so that overview 8 does not simply show every eighth pixel.
    """
    if factor == 1:
        return np.arange(TILE_PIXELS)
    finer = overview_samples(factor // 2)
    size = level_size(factor)
    return np.asarray(finer[(0.5 + np.arange(size) * finer.size / size).astype(np.int64)])


def level_size(factor: int) -> int:
    """Edge of an overview in pixels: 3660 / factor, rounded up."""
    return -(-TILE_PIXELS // factor)


def _encode_level(patch: Patch, factor: int, fill: int) -> _Level:
    size = level_size(factor)
    part = patch if factor == 1 else nearest(patch, factor)
    block = BLOCK if factor == 1 else OVERVIEW_BLOCK
    blocks = [
        _encode_block(part, row, col, block, fill) for row in range(0, size, block) for col in range(0, size, block)
    ]
    return _Level(size=size, block=block, blocks=blocks)


def _encode_block(patch: Patch, row: int, col: int, block: int, fill: int) -> bytes:
    height, width = patch.pixels.shape
    top, bottom = max(row, patch.row), min(row + block, patch.row + height)
    left, right = max(col, patch.col), min(col + block, patch.col + width)
    if top >= bottom or left >= right:
        return _fill_block(block, patch.pixels.dtype.str, fill)
    inside = patch.pixels[top - patch.row : bottom - patch.row, left - patch.col : right - patch.col]
    around = ((top - row, row + block - bottom), (left - col, col + block - right))
    return _compress(cast("Pixels", np.pad(inside, around, constant_values=fill)))


@lru_cache(maxsize=16)
def _fill_block(block: int, dtype: str, fill: int) -> bytes:
    return _compress(np.full((block, block), fill, dtype=dtype))


def _compress(pixels: Pixels) -> bytes:
    """DEFLATE of the horizontal differences (TIFF predictor 2), which wrap around as integers do."""
    differences = pixels.copy()
    differences[:, 1:] -= pixels[:, :-1]
    return bytes(deflate.zlib_compress(differences.tobytes(), _LEVEL))


# --- The container -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Tag:
    code: int
    kind: int
    values: tuple[int | float, ...] | bytes

    def payload(self) -> bytes:
        """The value's bytes, little-endian."""
        if isinstance(self.values, bytes):
            return self.values
        return struct.pack(f"<{len(self.values)}{_FORMATS[self.kind]}", *self.values)


def _assemble(
    levels: list[_Level],
    dtype: np.dtype[np.int16] | np.dtype[np.uint8],
    grid: TileGrid,
    fill: int,
    tags: Mapping[str, str],
    scale: float | None,
) -> bytes:
    """Two passes: lay the directories out with offsets of zero to learn the header's length, then for good."""

    def header(offsets: list[list[int]]) -> bytes:
        parts, position = [struct.pack("<2sHI", b"II", 42, 8)], 8
        for number, level in enumerate(levels):
            entries = _level_tags(level, dtype, offsets[number], fill, overview=number > 0)
            if number == 0:
                entries += [*_geo_tags(grid), _metadata_tag(tags, scale)]
            directory = _directory(entries, position, last=number == len(levels) - 1)
            parts.append(directory)
            position += len(directory)
        return b"".join(parts)

    start = len(header([[0] * len(level.blocks) for level in levels]))
    offsets, order = _place(levels, start)
    return header(offsets) + b"".join(levels[number].blocks[index] for number, index in order)


def _place(levels: list[_Level], start: int) -> tuple[list[list[int]], list[tuple[int, int]]]:
    """Byte offset of every block and the order of writing: coarsest overview first."""
    offsets: list[list[int]] = [[] for _ in levels]
    order = [(number, index) for number in reversed(range(len(levels))) for index in range(len(levels[number].blocks))]
    for number, index in order:
        offsets[number].append(start)
        start += len(levels[number].blocks[index])
    return offsets, order


def _level_tags(
    level: _Level, dtype: np.dtype[np.int16] | np.dtype[np.uint8], offsets: list[int], fill: int, *, overview: bool
) -> list[_Tag]:
    entries = [
        _short(256, level.size),
        _short(257, level.size),
        _short(258, dtype.itemsize * 8),
        _short(259, 8),  # compression: Adobe deflate
        _short(262, 1),  # photometric: black is zero
        _short(277, 1),  # samples per pixel
        _short(284, 1),  # planar configuration: contiguous
        _short(317, 2),  # predictor: horizontal differences
        _short(322, level.block),
        _short(323, level.block),
        _Tag(code=324, kind=_LONG, values=tuple(offsets)),
        _Tag(code=325, kind=_LONG, values=tuple(len(block) for block in level.blocks)),
        _short(339, 2 if dtype.kind == "i" else 1),  # sample format: signed or unsigned integer
        _Tag(code=42113, kind=_ASCII, values=str(fill).encode() + b"\0"),  # GDAL's nodata
    ]
    return ([_Tag(code=254, kind=_LONG, values=(1,))] if overview else []) + entries


def _short(code: int, value: int) -> _Tag:
    return _Tag(code=code, kind=_SHORT, values=(value,))


def _geo_tags(grid: TileGrid) -> list[_Tag]:
    """Georeference of the tile as NASA writes it: EPSG:326zz by number, citation in words."""
    citation = f"UTM Zone {grid.zone}, Northern Hemisphere|".encode()
    geographic = b"WGS 84|\0"
    keys = (
        (1024, 0, 1, 1),  # model: projected
        (1025, 0, 1, 1),  # raster: pixel is area
        (1026, 34737, len(citation), 0),
        (2049, 34737, len(geographic) - 1, len(citation)),
        (2054, 0, 1, 9102),  # degrees
        (3072, 0, 1, grid.epsg),
        (3076, 0, 1, 9001),  # metres
    )
    directory = (1, 1, 0, len(keys), *(number for key in keys for number in key))
    return [
        _Tag(code=33550, kind=_DOUBLE, values=(30.0, 30.0, 0.0)),
        _Tag(code=33922, kind=_DOUBLE, values=(0.0, 0.0, 0.0, float(grid.x0), float(grid.y0), 0.0)),
        _Tag(code=34735, kind=_SHORT, values=directory),
        _Tag(code=34737, kind=_ASCII, values=citation + geographic),
    ]


def _metadata_tag(tags: Mapping[str, str], scale: float | None) -> _Tag:
    # GDAL undoes the escapes of a value twice, those of a name once
    items = [f'  <Item name="{escape(name)}">{escape(escape(value))}</Item>\n' for name, value in tags.items()]
    if scale is not None:
        items.append('  <Item name="OFFSET" sample="0" role="offset">0</Item>\n')
        items.append(f'  <Item name="SCALE" sample="0" role="scale">{scale:g}</Item>\n')
    text = "<GDALMetadata>\n" + "".join(items) + "</GDALMetadata>\n"
    return _Tag(code=42112, kind=_ASCII, values=text.encode() + b"\0")


def _directory(entries: list[_Tag], position: int, *, last: bool) -> bytes:
    """One image directory at byte `position` followed by its long values; its link points right behind itself."""
    entries = sorted(entries, key=lambda tag: tag.code)
    records, overflow = [], b""
    behind = position + 2 + 12 * len(entries) + 4
    for tag, payload in ((tag, tag.payload()) for tag in entries):
        count = len(payload) if isinstance(tag.values, bytes) else len(tag.values)
        if len(payload) <= 4:
            value = payload.ljust(4, b"\0")
        else:
            value = struct.pack("<I", behind + len(overflow))
            overflow += payload + b"\0" * (len(payload) % 2)
        records.append(struct.pack("<HHI", tag.code, tag.kind, count) + value)
    link = 0 if last else behind + len(overflow)
    return struct.pack("<H", len(entries)) + b"".join(records) + struct.pack("<I", link) + overflow
