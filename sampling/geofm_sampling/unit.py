"""The sampling unit: a chip-sized ground cell of one HLS tile in one anchor season, as a packed 64-bit id.

Layout from the low bit: season 2, year 8 (since 1970), cell column 6, cell row 6, chip size 3, tile 21, zeros 18.
The packing is collision-free and reversible; ids sort by tile, chip size, row, column, year, season. They are
names, never random numbers: random streams hash them (:mod:`geofm_sampling.hashing`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

CHIP_SIZES = (64, 128, 256)
"""Chip edges in pixels of 30 m that divide a 256-px COG block."""
TILE_PIXELS = 3660
"""Edge of an HLS tile in pixels (HLS v2.0 user guide)."""
SEASONS = 4
NO_UNIT = np.uint64(2**64 - 1)
"""Fill value of unit ids in stores."""

_BANDS = "CDEFGHJKLMNPQRSTUVWX"  # MGRS latitude bands
_COLUMNS = "ABCDEFGHJKLMNPQRSTUVWXYZ"  # MGRS 100 km column letters
_ROWS = "ABCDEFGHJKLMNPQRSTUV"  # MGRS 100 km row letters
_FIRST_YEAR = 1970


@dataclass(frozen=True, kw_only=True)
class Units:
    """Unpacked unit ids; every field has the ids' shape (n,)."""

    tile: NDArray[np.str_]
    """MGRS tile, five characters, e.g. `10SFE`."""
    chip_size: NDArray[np.int64]
    """Chip edge in pixels."""
    cell_row: NDArray[np.int64]
    """Row of the cell in the tile's chip grid, from the north."""
    cell_col: NDArray[np.int64]
    """Column of the cell in the tile's chip grid, from the west."""
    year: NDArray[np.int64]
    """Year of the first month of the anchor season (UTC)."""
    season: NDArray[np.int64]
    """Anchor season, 0-3."""


def cells_per_side(chip_size: int) -> int:
    """Whole chips along a tile's edge: 57, 28 or 14; raises ValueError for any other chip size."""
    if chip_size not in CHIP_SIZES:
        raise ValueError(f"chip size {chip_size} px is not one of {CHIP_SIZES}: chips must divide a 256-px COG block")
    return TILE_PIXELS // chip_size


def pack_tile(tile: str) -> int:
    """The 21-bit number of an MGRS tile id such as `10SFE`; raises ValueError when it is not one."""
    try:
        zone, band, column, row = int(tile[:2]), _BANDS.index(tile[2]), _COLUMNS.index(tile[3]), _ROWS.index(tile[4])
        if len(tile) != 5 or not 1 <= zone <= 60:
            raise ValueError(tile)
    except (ValueError, IndexError):
        raise ValueError(
            f"{tile!r} is not an MGRS tile id: zone 01-60, latitude band C-X and two 100 km letters, as in 10SFE"
        ) from None
    return ((zone << 5 | band) << 5 | column) << 5 | row


def unpack_tile(number: int) -> str:
    """Inverse of :func:`pack_tile`."""
    return f"{number >> 15:02d}{_BANDS[number >> 10 & 31]}{_COLUMNS[number >> 5 & 31]}{_ROWS[number & 31]}"


def pack_units(
    *, tile: str, chip_size: int, cell_row: ArrayLike, cell_col: ArrayLike, year: ArrayLike, season: ArrayLike
) -> NDArray[np.uint64]:
    """Unit ids of one tile; the four arrays broadcast together.

    Raises
    ------
    ValueError
        When a cell lies outside the tile's chip grid, a year outside 1970-2225 or a season outside 0-3.
    """
    return pack_units_of_tiles(
        tile_number=pack_tile(tile), chip_size=chip_size, cell_row=cell_row, cell_col=cell_col, year=year, season=season
    )


def pack_units_of_tiles(
    *,
    tile_number: ArrayLike,
    chip_size: int,
    cell_row: ArrayLike,
    cell_col: ArrayLike,
    year: ArrayLike,
    season: ArrayLike,
) -> NDArray[np.uint64]:
    """Like :func:`pack_units` for many tiles at once, given by their numbers (:func:`pack_tile`)."""
    side = cells_per_side(chip_size)
    tiles, row, col, yr, sea = np.broadcast_arrays(
        tile_number, *(np.asarray(a, dtype=np.int64) for a in (cell_row, cell_col, year, season))
    )
    for name, values, low, high in (
        ("cell_row", row, 0, side - 1),
        ("cell_col", col, 0, side - 1),
        ("year", yr, _FIRST_YEAR, _FIRST_YEAR + 255),
        ("season", sea, 0, SEASONS - 1),
    ):
        if values.size and (values.min() < low or values.max() > high):
            raise ValueError(f"{name} must lie in {low}-{high}, got {values.min()}-{values.max()}")
    word = tiles.astype(np.uint64) << np.uint64(3) | np.uint64(CHIP_SIZES.index(chip_size))
    for values, bits in ((row, 6), (col, 6), (yr - _FIRST_YEAR, 8), (sea, 2)):
        word = word << np.uint64(bits) | values.astype(np.uint64)
    return word


def unpack_units(units: NDArray[np.uint64]) -> Units:
    """Inverse of :func:`pack_units` for ids of any tiles, shape (n,)."""
    word = np.asarray(units, dtype=np.uint64)

    def field(shift: int, bits: int) -> NDArray[np.int64]:
        return ((word >> np.uint64(shift)) & np.uint64((1 << bits) - 1)).astype(np.int64)

    numbers, inverse = np.unique(field(25, 21), return_inverse=True)
    names = np.array([unpack_tile(int(n)) for n in numbers], dtype="U5")
    return Units(
        tile=names[inverse] if names.size else np.empty(word.shape, dtype="U5"),
        chip_size=np.array(CHIP_SIZES, dtype=np.int64)[field(22, 3)],
        cell_row=field(16, 6),
        cell_col=field(10, 6),
        year=field(2, 8) + _FIRST_YEAR,
        season=field(0, 2),
    )


def ground_cells(units: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The part of each id that names the ground: equal for two units exactly when they are the same cell."""
    return np.asarray(units, dtype=np.uint64) >> np.uint64(10)


def cell_ids(tile: pa.ChunkedArray, *, chip_size: int, cell_row: ArrayLike, cell_col: ArrayLike) -> NDArray[np.uint64]:
    """Id of each cell's unit of year 1970 and season 0, so that ids sort and name the ground; shape (n,).

    `tile` is a column of MGRS tile ids, dictionary-encoded or not; each distinct one is parsed once.
    """
    encoded = tile.combine_chunks() if isinstance(tile, pa.ChunkedArray) else tile
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    numbers = np.array([pack_tile(name) for name in encoded.dictionary.to_pylist()], dtype=np.int64)
    return pack_units_of_tiles(
        tile_number=numbers[encoded.indices.to_numpy(zero_copy_only=False)],
        chip_size=chip_size,
        cell_row=cell_row,
        cell_col=cell_col,
        year=_FIRST_YEAR,
        season=0,
    )
