"""The tile grid of HLS in closed form: an MGRS tile id says where its 3660 × 3660 pixels of 30 m lie.

Every tile is in UTM *north* (EPSG:326zz) with negative northings south of the equator, as HLS v2.0 has it; 327zz
would shift the 30 m grid by 10 to 20 m. Checked against all 20,430 land tiles of the Sentinel-2 grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pyproj import Transformer

from geofm_pipeline.hls.bands import PIXEL_M
from geofm_sampling.unit import TILE_PIXELS, pack_tile

SQUARE_M = 100_000
"""Edge of an MGRS square in metres; neighbouring tiles overlap by 9,800 m because a tile measures 109,800 m."""
TILE_M = TILE_PIXELS * PIXEL_M
_SNAP_M = 60  # upper-left corners are multiples of 60 m, so that 10, 20, 30 and 60 m grids nest
_BAND_LETTERS = "CDEFGHJKLMNPQRSTUVWX"
_COLUMN_LETTERS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")  # by (zone - 1) modulo 3
_ROW_LETTERS = "ABCDEFGHJKLMNPQRSTUV"
_ROW_CYCLE = len(_ROW_LETTERS)  # row letters repeat every 2,000 km
_SQUARES_PER_DEGREE = 1.111  # northing of one degree of latitude, in squares, good to a few squares at the poles


@dataclass(frozen=True, kw_only=True)
class TileGrid:
    """Where the pixels of one tile lie."""

    tile: str
    """MGRS tile, e.g. `10SFE`."""
    epsg: int
    """326zz, also south of the equator."""
    x0: int
    """Easting of the upper-left corner, metres."""
    y0: int
    """Northing of the upper-left corner in UTM north, metres; negative in the south."""

    @property
    def zone(self) -> int:
        """UTM zone, 1-60."""
        return self.epsg - 32600

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """(a, b, c, d, e, f) of x = a·col + b·row + c, y = d·col + e·row + f, from pixel corners."""
        return (float(PIXEL_M), 0.0, float(self.x0), 0.0, -float(PIXEL_M), float(self.y0))

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """(west, south, east, north) in metres."""
        return (self.x0, self.y0 - TILE_M, self.x0 + TILE_M, self.y0)

    def xy(self, row: ArrayLike, col: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Easting and northing of fractional pixel positions (0 = upper or left edge), shapes kept."""
        x = self.x0 + PIXEL_M * np.asarray(col, dtype=np.float64)
        y = self.y0 - PIXEL_M * np.asarray(row, dtype=np.float64)
        return x, y

    def row_col(self, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Fractional pixel row and column of positions in metres: the inverse of :meth:`xy`."""
        row = (self.y0 - np.asarray(y, dtype=np.float64)) / PIXEL_M
        col = (np.asarray(x, dtype=np.float64) - self.x0) / PIXEL_M
        return row, col


@cache
def tile_grid(tile: str) -> TileGrid:
    """Grid of a tile; raises ValueError when `tile` is no MGRS tile id.

    Upper-left x = ⌊E/60⌋·60 and y = ⌈(N + 100,000)/60⌉·60 for the square (E, N) of the tile's letters.
    """
    zone, east, north = square(tile)
    x0 = east * SQUARE_M // _SNAP_M * _SNAP_M
    y0 = -(-(north + 1) * SQUARE_M // _SNAP_M) * _SNAP_M
    return TileGrid(tile=tile, epsg=32600 + zone, x0=x0, y0=y0)


def square(tile: str) -> tuple[int, int, int]:
    """(zone, e, n) of a tile's nominal 100 km square: easting in [e, e + 1) and UTM-north northing in [n, n + 1)
    times 100 km, n negative in the south; raises ValueError when `tile` is no MGRS tile id."""
    pack_tile(tile)
    zone = int(tile[:2])
    columns = _COLUMN_LETTERS[(zone - 1) % 3]
    if tile[3] not in columns:
        raise ValueError(
            f"{tile!r} is not an MGRS tile id: in UTM zone {zone} the 100 km column letter is one of {columns}"
        )
    first_row = 5 if zone % 2 == 0 else 0  # row letters start at F in even zones
    cycle_row = (_ROW_LETTERS.index(tile[4]) - first_row) % _ROW_CYCLE
    middle = _band_middle(tile[2]) * _SQUARES_PER_DEGREE
    cycles = round((middle - cycle_row - 0.5) / _ROW_CYCLE)
    return zone, columns.index(tile[3]) + 1, cycle_row + cycles * _ROW_CYCLE


def project(zone: int, lon: ArrayLike, lat: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Easting and northing (metres, EPSG:326zz on both hemispheres) of longitudes and latitudes, shapes kept."""
    x, y = _transformer(zone).transform(np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64))
    return np.asarray(x), np.asarray(y)


def unproject(zone: int, x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude (degrees, WGS 84) of EPSG:326zz positions in metres: the inverse of :func:`project`."""
    lon, lat = _transformer(zone).transform(
        np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64), direction="INVERSE"
    )
    return np.asarray(lon), np.asarray(lat)


def utm_zone(lon: ArrayLike) -> NDArray[np.int64]:
    """Nominal UTM zone (1-60) of longitudes, without the exceptions of Norway and Svalbard, shape kept."""
    return (np.floor((np.asarray(lon, dtype=np.float64) + 180.0) / 6.0).astype(np.int64) % 60) + 1


@cache
def _transformer(zone: int) -> Transformer:
    if not 1 <= zone <= 60:
        raise ValueError(f"UTM zone {zone} does not exist: zones are 1 to 60")
    return Transformer.from_crs("EPSG:4326", f"EPSG:{32600 + zone}", always_xy=True)


def _band_middle(letter: str) -> float:
    """Latitude of the middle of an MGRS latitude band; X is 12° high, the others 8°."""
    south = -80.0 + 8.0 * _BAND_LETTERS.index(letter)
    return south + (6.0 if letter == "X" else 4.0)
