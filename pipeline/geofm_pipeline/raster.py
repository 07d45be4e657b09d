"""The rasterio user for archives and maps (importing/rasters.py reads a user's images): GeoTIFFs for everybody else.

Arrays are [H, W] with row 0 in the north; a transform is six floats (a, b, c, d, e, f) of pixel corners:
x = a·col + b·row + c, y = d·col + e·row + f. Remote rasters are decoded by GDAL too, but their bytes come through a
byte source: with its login, pace, retries and counts, one request for the size, one for the header, one per block.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import MemoryFile
from rasterio.shutil import copy as gdal_copy
from rasterio.windows import Window

from geofm_pipeline.access.faults import FetchError
from geofm_pipeline.access.local import is_local
from geofm_pipeline.access.remembered import HEAD
from geofm_pipeline.access.remote_file import RemoteFile
from geofm_pipeline.access.source import ArchiveSource, ByteSource

Transform = tuple[float, float, float, float, float, float]
_GTIFF = {"TILED": "YES", "COPY_SRC_OVERVIEWS": "YES", "COMPRESS": "DEFLATE", "PREDICTOR": 2}


def write_cog(
    path: Path,
    pixels: NDArray[np.generic],
    *,
    epsg: int,
    transform: Transform,
    nodata: float | None = None,
    tags: Mapping[str, str] | None = None,
    block: int = 256,
    overviews: tuple[int, ...] = (2, 4, 8, 16),
    colormap: Mapping[int, tuple[int, int, int]] | None = None,
) -> None:
    """Write one integer band [H, W] as a cloud-optimised GeoTIFF, atomically.

    DEFLATE with predictor 2, square blocks of `block` pixels, overviews by nearest neighbour (right for classes),
    directories before data. `colormap` gives class value → (red, green, blue) for uint8. Costs about 40 ns per pixel
    and twice the array's memory.
    """
    profile = {
        "driver": "GTiff",
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "count": 1,
        "dtype": pixels.dtype.name,
        "crs": rasterio.CRS.from_epsg(epsg),
        "transform": rasterio.Affine(*transform),
        "nodata": nodata,
    }
    temporary = _temporary_beside(path)
    try:
        with MemoryFile() as memory, memory.open(**profile) as dataset:
            dataset.write(pixels, 1)
            dataset.update_tags(**dict(tags or {}))
            if colormap is not None:
                dataset.write_colormap(1, dict(colormap))
            dataset.build_overviews(list(overviews), Resampling.nearest)
            gdal_copy(dataset, temporary, driver="GTiff", BLOCKXSIZE=block, BLOCKYSIZE=block, **_GTIFF)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class RasterInfo:
    """What a raster says of its first band without reading pixels."""

    height: int
    width: int
    transform: Transform
    crs_wkt: str | None
    """None where the file declares no reference system."""
    dtype: str
    nodata: float | None
    overviews: tuple[int, ...]
    """Decimation factors, ascending; index i is overview level i."""
    classes: bool
    """The band has a colour table or category names, so its values are classes."""
    unit: str
    """Unit of the values, '' where the file declares none."""
    legend: str
    """The file's tag `legend`, as WorldCover has it; '' where there is none."""


def raster_info(href: str, *, source: ByteSource | None = None) -> RasterInfo:
    """Facts of the first band of a raster; two requests where it is remote.

    Parameters
    ----------
    href : path or URL
    source : where remote bytes come from, by default a source of its own

    Raises
    ------
    OSError
        When GDAL cannot open it.
    FetchError
        When its bytes cannot be had.
    """
    with _opened(href, source) as (dataset, _):
        indexed = ColorInterp.palette in dataset.colorinterp[:1]
        return RasterInfo(
            height=dataset.height,
            width=dataset.width,
            transform=tuple(dataset.transform)[:6],
            crs_wkt=dataset.crs.to_wkt() if dataset.crs else None,
            dtype=dataset.dtypes[0],
            nodata=dataset.nodatavals[0],
            overviews=tuple(dataset.overviews(1)),
            classes=indexed or bool(dataset.tags(1, ns="CATEGORY_NAMES")),
            unit=str(dataset.units[0] or ""),
            legend=str(dataset.tags().get("legend", "")),
        )


class RasterLevel:
    """The first band of a raster, opened once at full resolution or at one overview, read by windows.

    Parameters
    ----------
    href : path or URL
    level : index into RasterInfo.overviews, None for full resolution; pixels come from that level as they are,
        never interpolated
    source : where remote bytes come from, by default a source of its own

    Raises
    ------
    OSError
        When GDAL cannot open it.
    FetchError
        When its bytes cannot be had.
    """

    def __init__(self, href: str, *, level: int | None, source: ByteSource | None = None) -> None:
        self._closing = contextlib.ExitStack()
        self._source, self._check = self._closing.enter_context(_opened(href, source, level))
        self.height, self.width = int(self._source.height), int(self._source.width)
        self.transform: Transform = tuple(self._source.transform)[:6]

    def read(self, *, row: int, col: int, height: int, width: int) -> NDArray[np.generic]:
        """Pixels [height, width] from (row, col) of this level; the window must lie inside it.

        Raises
        ------
        OSError
            When the file is damaged or ends too early.
        FetchError
            When its bytes cannot be had.
        """
        window = Window.from_slices((row, row + height), (col, col + width))
        with self._check():
            return np.asarray(self._source.read(1, window=window))

    def close(self) -> None:
        """Release the file."""
        self._closing.close()


def read_window(href: str, *, row: int, col: int, height: int, width: int) -> NDArray[np.generic]:
    """Pixels [height, width] from (row, col) of a raster's full resolution: opens, reads, closes."""
    level = RasterLevel(href, level=None)
    try:
        return level.read(row=row, col=col, height=height, width=width)
    finally:
        level.close()


_numbers = itertools.count()
Check = Callable[[], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def _opened(
    href: str, source: ByteSource | None, level: int | None = None
) -> Iterator[tuple[rasterio.DatasetReader, Check]]:
    """An opened raster, and what to read it in, so that a read that failed is an error whatever GDAL makes of it."""
    options: dict[str, Any] = {} if level is None else {"overview_level": level}
    if is_local(href):
        with rasterio.open(href, **options) as dataset:
            yield dataset, contextlib.nullcontext
        return
    file = _ForGdal(source or ArchiveSource(), href)
    name = f"{next(_numbers)}-{urlsplit(href).path.rpartition('/')[2]}"  # GDAL knows open files by their names
    with contextlib.ExitStack() as closing:
        with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"), file.checked():
            dataset = closing.enter_context(rasterio.open(name, opener=file.opener, **options))
        yield dataset, file.checked


class _ForGdal:
    """A remote file for GDAL, which cannot pass a Python error on: it is kept, GDAL gets no bytes, and it is raised
    when GDAL is done."""

    def __init__(self, source: ByteSource, href: str) -> None:
        self._source, self._href = source, href
        self.failed: FetchError | None = None

    def opener(self, name: str, mode: str = "rb") -> io.RawIOBase | io.BytesIO:
        """What rasterio calls for every file that GDAL looks for; it tries an opener with the name `test`."""
        if name == "test":
            return io.BytesIO()
        try:
            return _Quiet(self, RemoteFile(self._source, self._href, least=HEAD))
        except FetchError as error:
            self.failed = error
            raise OSError(error.cause) from None

    @contextlib.contextmanager
    def checked(self) -> Iterator[None]:
        """Raise what went wrong inside, in place of GDAL's words for it."""
        self.failed = None
        try:
            yield
        except OSError as error:
            raise self.failed or error from None
        if self.failed is not None:
            raise self.failed


class _Quiet(io.RawIOBase):
    """A file whose reads never raise."""

    def __init__(self, owner: _ForGdal, file: RemoteFile) -> None:
        self._owner, self._file = owner, file

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        try:
            return self._file.read(size)
        except FetchError as error:
            self._owner.failed = error
            return b""


def _temporary_beside(path: Path) -> Path:
    """An unused name in the same folder, so that the final rename is atomic."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    return Path(name)
