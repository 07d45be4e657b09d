"""Synthetic HLS granules of full size and a range server with faults on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window
from servers.misbehaving import Misbehaving

from geofm_pipeline.chips import ChipRequest
from geofm_pipeline.hls.bands import BANDS, FMASK, band_file
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.hls.grid import tile_grid
from geofm_pipeline.scenes import SceneRef

TILE = "10SFE"
SIZE = 3660
DAYS = (200, 216, 232)


def rasterio_window(href: str, row: int, col: int, size: int) -> NDArray[np.generic]:
    """The trusted tool's answer."""
    with rasterio.open(href) as dataset:
        return dataset.read(1, window=Window(col, row, size, size))


def write_cog(path: Path, pixels: NDArray[np.generic], *, tile: str = TILE, nodata: float | None = None) -> None:
    """A COG in HLS's layout by GDAL's own driver: DEFLATE, predictor 2, blocks of 256, sparse."""
    grid = tile_grid(tile)
    profile = {
        "driver": "COG",
        "count": 1,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "dtype": pixels.dtype.name,
        "crs": f"EPSG:{grid.epsg}",
        "transform": rasterio.Affine(*grid.transform),
        "nodata": nodata if nodata is not None else (-9999 if pixels.dtype == np.int16 else 255),
        "COMPRESS": "DEFLATE",
        "PREDICTOR": "YES",
        "BLOCKSIZE": 256,
        "SPARSE_OK": "TRUE",
        "OVERVIEWS": "NONE",
    }
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels, 1)


def swath(seed: int) -> tuple[NDArray[np.bool_], np.random.Generator]:
    """Where a partial granule has data: two corners of the tile, with whole blocks and edges left empty."""
    has_data = np.zeros((SIZE, SIZE), dtype=bool)
    has_data[100 + seed : 900, :700] = True
    has_data[3100:, 2900 - seed :] = True
    return has_data, np.random.default_rng(seed)


def make_granule(folder: Path, granule: GranuleId) -> SceneRef:
    """Seven files of a partial granule."""
    has_data, rng = swath(granule.day % 50)
    shape = (int(has_data.sum()),)
    hrefs = {}
    for band in (*BANDS, FMASK):
        path = folder / f"{granule}.{band_file(granule.sensor, band)}.tif"
        if band == FMASK:
            pixels = np.full((SIZE, SIZE), 255, dtype=np.uint8)
            pixels[has_data] = rng.choice(np.array([64, 128, 66, 68, 72, 80, 96, 192], np.uint8), shape)
        else:
            pixels = np.full((SIZE, SIZE), -9999, dtype=np.int16)
            pixels[has_data] = np.cumsum(rng.integers(-30, 31, shape, dtype=np.int16), dtype=np.int16)
        write_cog(path, pixels)
        hrefs[band] = str(path)
    return SceneRef(
        granule_id=str(granule),
        sensor=granule.sensor,
        date=granule.day,
        bands=tuple(hrefs[band] for band in BANDS),
        fmask=hrefs[FMASK],
    )


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[SceneRef, ...]:
    """Three partial granules of one tile, both sensors."""
    folder = tmp_path_factory.mktemp("archive")
    return tuple(
        make_granule(folder, GranuleId.parse(f"HLS.{('L30', 'S30')[i % 2]}.T{TILE}.2022{day}T183445.v2.0"))
        for i, day in enumerate(DAYS)
    )


@pytest.fixture(scope="session")
def trusted() -> Callable[[str, int, int, int], NDArray[np.generic]]:
    """(href, row, col, size) → pixels by rasterio."""
    return rasterio_window


@pytest.fixture(scope="session")
def cog_writer() -> Callable[..., None]:
    """:func:`write_cog`."""
    return write_cog


@pytest.fixture(scope="session")
def request_for() -> Callable[..., ChipRequest]:
    """(scenes, row, col, size) → a ChipRequest."""

    def make(scenes: tuple[SceneRef, ...], row: int, col: int, size: int, unit: int = 7) -> ChipRequest:
        tile = GranuleId.parse(scenes[0].granule_id).tile
        return ChipRequest(unit=unit, tile=tile, row_off=row, col_off=col, size=size, scenes=scenes)

    return make


@dataclass
class RangeServer(Misbehaving):
    """Serves a folder on loopback; see Misbehaving for faults."""

    root: Path = Path()

    def body(self, path: str) -> bytes | None:
        """Of a file below the root."""
        file = self.root / path.lstrip("/")
        return file.read_bytes() if file.is_file() else None


@pytest.fixture
def range_server(scenes: tuple[SceneRef, ...]) -> Iterator[RangeServer]:
    """A RangeServer over the folder of `scenes`."""
    found = RangeServer(root=Path(scenes[0].fmask).parent)
    with found.running():
        yield found


@pytest.fixture
def remote(range_server: RangeServer, scenes: tuple[SceneRef, ...]) -> tuple[SceneRef, ...]:
    """`scenes` with hrefs on the range server."""

    def moved(href: str) -> str:
        return f"{range_server.url}/{Path(href).name}"

    return tuple(
        SceneRef(
            granule_id=scene.granule_id,
            sensor=scene.sensor,
            date=scene.date,
            bands=tuple(map(moved, scene.bands)),
            fmask=moved(scene.fmask),
        )
        for scene in scenes
    )
