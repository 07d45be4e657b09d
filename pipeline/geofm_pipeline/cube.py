"""A lazy cube of one tile's granules, for exploring and for whoever wants xarray. The only stackstac user.

Same blocks, same checks and same bits as the pipeline's reader, behind stackstac's Reader protocol. Nothing is read
before a value is asked for; a Dask chunk is one block of one band and date, so any part of the cube costs only its
blocks. A missing asset or damaged file raises; nothing becomes nodata silently.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, TypedDict, cast

import numpy as np
import stackstac
import xarray as xr
from numpy.typing import NDArray

from geofm_pipeline.access.source import ArchiveSource, ByteSource
from geofm_pipeline.chips import ReadStats
from geofm_pipeline.cog.band import pixel_rule
from geofm_pipeline.cog.reader import WindowReader
from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import BANDS, BLOCK, FMASK, PIXEL_M
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.hls.grid import TileGrid, tile_grid
from geofm_pipeline.scenes import SceneRef

if TYPE_CHECKING:
    from rasterio.enums import Resampling
    from rasterio.windows import Window
    from stackstac.raster_spec import RasterSpec
    from stackstac.reader_protocol import Reader
    from stackstac.rio_env import LayeredEnv

_CACHE_BYTES = 8 << 20
"""Decoded blocks a reader keeps: chunks that are no whole blocks ask for a block up to four times in a row."""


class CubeReader:
    """Implements `stackstac.reader_protocol.Reader` for one band file of an HLS archive; thread-safe.

    Parameters
    ----------
    url : the asset's address as :func:`tile_cube` builds it
    spec : grid of the cube, which must be the tile's own
    dtype, fill_value : checked against what the band holds
    resampling, scale_offset, gdal_env : part of the protocol; pixels are never resampled or scaled here
    errors_as_nodata : must be empty
    source : where the href is read
    """

    def __init__(
        self,
        *,
        url: _Address,
        spec: RasterSpec,
        resampling: Resampling,
        dtype: np.dtype[np.generic],
        fill_value: float,
        scale_offset: tuple[float, float],
        gdal_env: LayeredEnv | None = None,
        errors_as_nodata: tuple[Exception, ...] = (),
        source: ByteSource | None = None,
    ) -> None:
        if errors_as_nodata:
            raise ValueError("errors_as_nodata must be empty: a fault is never turned into fill")
        self._address, self._source, self._lock = url, source or ArchiveSource(), threading.Lock()
        self._dtype = np.dtype(dtype)
        self._offset = _pixel_offset(spec, tile_grid(GranuleId.parse(url.scene.granule_id).tile))
        self._windows: WindowReader | None = None

    def read(self, window: Window) -> NDArray[np.generic]:
        """Pixels [height, width] of a rasterio window of the cube's grid; BlockReadError as the pipeline's reader."""
        out = np.empty((int(window.height), int(window.width)), dtype=self._dtype)
        row, col = int(window.row_off) + self._offset[0], int(window.col_off) + self._offset[1]
        self._open().read(self._address.scene, self._address.band, row, col, out, ReadStats())
        return out

    def close(self) -> None:
        """Forget header and blocks; a further read opens the file again."""
        with self._lock:
            self._windows = None

    def _open(self) -> WindowReader:
        with self._lock:
            if self._windows is None:
                self._windows = WindowReader(self._source, cache_bytes=_CACHE_BYTES, open_files=1)
            return self._windows

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "_lock": None, "_windows": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()


class _Address(str):
    """What stackstac carries as an asset's URL: the href, and the granule and band that it belongs to."""

    scene: SceneRef
    band: str

    def __new__(cls, scene: SceneRef, band: str) -> _Address:
        address = super().__new__(cls, scene.href(band) or f"missing:{scene.granule_id}/{band}")
        address.scene, address.band = scene, band
        return address

    def __reduce__(self) -> tuple[object, ...]:
        return (_Address, (self.scene, self.band))


def tile_cube(
    scenes: Sequence[SceneRef],
    *,
    bands: Sequence[str] = BANDS,
    source: ByteSource | None = None,
    chunk: int = BLOCK,
) -> xr.DataArray:
    """Cube [time, band, y, x] of granules of one tile, lazy, coordinates at pixel centres in the tile's EPSG:326zz.

    Parameters
    ----------
    scenes : granules of one tile; ordered by sensing time in the cube
    bands : canonical bands, int16 with fill −9999, or only `fmask`, uint8 with fill 255
    source : where hrefs are read, picklable; local files and http(s) by default
    chunk : edge of a Dask chunk in pixels; multiples of 256 read no byte twice

    Raises
    ------
    InputError
        When there is no granule, several tiles are mixed, or `fmask` with spectral bands.
    """
    grid = _one_grid(scenes)
    dtype, fill = _one_rule(bands)
    cube = stackstac.stack(
        [_item(scene, bands, grid) for scene in scenes],
        assets=list(bands),
        epsg=grid.epsg,
        resolution=PIXEL_M,
        bounds=grid.bounds,
        snap_bounds=False,
        chunksize=chunk,
        dtype=dtype,
        fill_value=cast("int", dtype.type(fill)),  # stackstac wants the very type
        rescale=False,
        xy_coords="center",
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
        reader=cast("type[Reader]", partial(CubeReader, source=source)),  # it is only ever called
    )
    assert isinstance(cube, xr.DataArray)
    return cube.assign_attrs(fill=fill)


def _one_grid(scenes: Sequence[SceneRef]) -> TileGrid:
    tiles = sorted({GranuleId.parse(scene.granule_id).tile for scene in scenes})
    if len(tiles) != 1:
        raise InputError(f"a cube needs granules of exactly one tile, got {len(tiles)}: {', '.join(tiles) or 'none'}")
    return tile_grid(tiles[0])


def _one_rule(bands: Sequence[str]) -> tuple[np.dtype[np.generic], int]:
    unknown = [band for band in bands if band not in (*BANDS, FMASK)]
    if unknown or not bands:
        raise InputError(f"bands {list(bands)} are not all among {', '.join(BANDS)} and {FMASK}")
    rules = {pixel_rule(band) for band in bands}
    if len(rules) > 1:
        raise InputError(f"{FMASK} is uint8 and the other bands int16: make a cube of {FMASK} alone")
    return rules.pop()


class _Item(TypedDict):
    id: str
    properties: dict[str, object]
    assets: dict[str, dict[str, str]]


def _item(scene: SceneRef, bands: Sequence[str], grid: TileGrid) -> _Item:
    """The least STAC item that places a granule on its grid: stackstac would drop one without bounds, and bounds in
    longitude and latitude fail at the antimeridian."""
    return {
        "id": scene.granule_id,
        "properties": {
            "datetime": GranuleId.parse(scene.granule_id).time.isoformat(),
            "proj:epsg": grid.epsg,
            "proj:bbox": list(grid.bounds),
        },
        "assets": {band: {"href": _Address(scene, band)} for band in bands},
    }


def _pixel_offset(spec: RasterSpec, grid: TileGrid) -> tuple[int, int]:
    """(row, column) in the tile of the cube's upper-left pixel."""
    row, col = grid.row_col(spec.bounds[0], spec.bounds[3])
    if spec.resolutions_xy != (PIXEL_M, PIXEL_M) or spec.epsg != grid.epsg or row % 1 or col % 1:
        raise ValueError(f"the cube's grid {spec} is not that of tile {grid.tile}: pixels would have to be resampled")
    return int(row), int(col)
