"""Local images of any layout, read by GDAL through rasterio: several bands, any type, any georeference.

The archive's own files go through raster.py and cog/; this is the one file that reads a user's images. Arrays are
[n, H, W] in the order of the bands asked for. What is missing comes as a mask beside the values, never inside them.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

Transform = tuple[float, float, float, float, float, float]
"""(a, b, c, d, e, f) of pixel corners: x = a·col + b·row + c, y = d·col + e·row + f."""
Pixels: TypeAlias = "NDArray[np.integer] | NDArray[np.floating]"
"""Rows or columns, whole or in parts."""
_SAME = 0.01
"""Part of a pixel by which corners of equal grids may differ: rounded numbers in headers."""
OPEN_FILES = 128
"""Rasters that one reader holds open: twenty images of six bands in single files."""


class RasterReadError(Exception):
    """A file that GDAL cannot open or read; the text is GDAL's."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the pixels of an image lie."""

    height: int
    width: int
    crs: str
    """WKT of the reference system; '' where the file has none."""
    transform: Transform

    def same(self, other: Grid) -> bool:
        """Whether both have the same pixels on the ground."""
        if (self.height, self.width) != (other.height, other.width) or not _same_crs(self.crs, other.crs):
            return False
        a, b, _, d, e, _ = self.transform
        pixel = max(abs(a) + abs(b), abs(d) + abs(e))
        return bool(np.abs(self.corners() - other.corners()).max() <= _SAME * pixel)

    def corners(self) -> NDArray[np.float64]:
        """(x, y) of the upper left, upper right, lower right and lower left corner, shape (4, 2)."""
        cols, rows = np.array([0, self.width, self.width, 0]), np.array([0, 0, self.height, self.height])
        return np.stack(self.xy(rows, cols), axis=1)

    def xy(self, row: Pixels, col: Pixels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x and y, in the reference system, of fractional pixel positions (0 = upper or left edge), shapes kept."""
        a, b, c, d, e, f = self.transform
        rows, cols = np.asarray(row, dtype=np.float64), np.asarray(col, dtype=np.float64)
        return a * cols + b * rows + c, d * cols + e * rows + f

    def text(self) -> str:
        """For messages: size, first corner and pixel."""
        a, b, c, d, e, f = self.transform
        pixel = f"{np.hypot(a, d):g} × {np.hypot(b, e):g}"
        return f"{self.height} × {self.width} px of {pixel} from ({c:.10g}, {f:.10g}), {_crs_name(self.crs)}"


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a raster says of itself without its pixels."""

    grid: Grid
    dtypes: tuple[str, ...]
    """Of each band."""
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    """Declared: meaning = value × scale + offset; 1 and 0 where the file declares none."""
    tags: Mapping[str, str]


def read_header(path: str) -> Header:
    """Header of a raster; raises RasterReadError when GDAL cannot open it."""
    with _opened(path) as dataset:
        grid = Grid(
            height=int(dataset.height),
            width=int(dataset.width),
            crs=dataset.crs.to_wkt() if dataset.crs else "",
            transform=tuple(dataset.transform)[:6],
        )
        return Header(
            grid=grid,
            dtypes=tuple(dataset.dtypes),
            scales=tuple(dataset.scales),
            offsets=tuple(dataset.offsets),
            tags=dict(dataset.tags()),
        )


class Rasters:
    """Windows of local rasters, of which some stay open; for one thread."""

    def __init__(self, *, most: int = OPEN_FILES) -> None:
        self.opens = 0
        """Files opened so far."""
        self._most = most
        self._open: OrderedDict[str, rasterio.DatasetReader] = OrderedDict()

    def read(
        self, path: str, bands: Sequence[int], *, row: int, col: int, height: int, width: int
    ) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Values [n, height, width] of bands (counted from 1) from (row, col) on, and True where a value is there.

        A value is missing where it is the file's nodata value, or the file's own mask says so.

        Raises
        ------
        RasterReadError
            When the file is gone, damaged or ends too early.
        """
        window = Window.from_slices((row, row + height), (col, col + width))
        try:
            dataset = self._dataset(path)
            values = np.asarray(dataset.read(list(bands), window=window))
            present = np.ones(values.shape, dtype=np.bool_)
            for at, band in enumerate(bands):
                if dataset.mask_flag_enums[band - 1] != [MaskFlags.all_valid]:
                    present[at] = dataset.read_masks(band, window=window) != 0
        except (OSError, RasterioError) as error:
            raise RasterReadError(str(error.__cause__ or error)) from error
        return values, present

    def forget(self, path: str) -> None:
        """Close one file, so that it is opened anew when it is read again."""
        found = self._open.pop(path, None)
        if found is not None:
            found.close()

    def close(self) -> None:
        """Release all files."""
        while self._open:
            self._open.popitem()[1].close()

    def _dataset(self, path: str) -> rasterio.DatasetReader:
        found = self._open.pop(path, None)
        if found is None:
            found, self.opens = _opened(path), self.opens + 1
        self._open[path] = found
        if len(self._open) > self._most:
            self._open.popitem(last=False)[1].close()
        return found


def _opened(path: str) -> rasterio.DatasetReader:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # told by whoever needs a georeference
            return rasterio.open(path)
    except (OSError, RasterioError) as error:
        raise RasterReadError(str(error)) from error


def _same_crs(one: str, other: str) -> bool:
    """Whether two texts mean one reference system: programs word the same system in many ways."""
    return one == other or bool(one and other and rasterio.CRS.from_wkt(one) == rasterio.CRS.from_wkt(other))


def _crs_name(wkt: str) -> str:
    if not wkt:
        return "no reference system"
    code = rasterio.CRS.from_wkt(wkt).to_epsg()
    return f"EPSG:{code}" if code else "a reference system of its own"
