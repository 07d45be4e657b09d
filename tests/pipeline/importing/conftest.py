"""Small images to import: places with several dates, slanted edges without data, cloud masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

WriteImage: TypeAlias = Callable[..., Path]
HEIGHT, WIDTH, CHIP = 40, 52, 16
DATES = ("20210105", "20210210", "20210701")
PLACES = ("bay", "dune", "hill", "lake", "moor")


def save(
    path: Path,
    pixels: NDArray[np.generic],
    *,
    nodata: float | None = None,
    corner: tuple[float, float] = (500_000.0, 5_000_000.0),
    pixel: float = 10.0,
    epsg: int | None = 32632,
    tags: Mapping[str, str] | None = None,
    compress: str | None = None,
) -> Path:
    """Write bands [B, H, W] as a GeoTIFF whose upper left corner lies at (x, y)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=pixels.shape[0],
        height=pixels.shape[1],
        width=pixels.shape[2],
        dtype=pixels.dtype.name,
        nodata=nodata,
        compress=compress,
        crs=None if epsg is None else rasterio.CRS.from_epsg(epsg),
        transform=rasterio.Affine(pixel, 0.0, corner[0], 0.0, -pixel, corner[1]),
    ) as file:
        file.write(pixels)
        file.update_tags(**dict(tags or {}))
    return path


def scene(seed: int, *, bands: int = 6, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint16]:
    """Numbers from 1 on, with a slanted edge of zeros at the left and one hole in one band."""
    pixels = np.random.default_rng(seed).integers(1, 9000, (bands, height, width)).astype(np.uint16)
    edge = np.arange(width)[None] < (np.arange(height)[:, None] // 8)
    pixels[:, edge] = 0
    pixels[bands // 2, height // 2, width // 2] = 0
    return pixels


@pytest.fixture
def write_image() -> WriteImage:
    """:func:`save`."""
    return save


def write_places(folder: Path) -> Path:
    """Five places, 20 km apart, on three dates each: `PLACE_DATE.tif`, with masks `PLACE_DATE_clouds.tif`."""
    for number, place in enumerate(PLACES):
        for at, day in enumerate(DATES):
            corner = (400_000.0 + 20_000 * number, 5_000_000.0)
            save(folder / f"{place}_{day}.tif", scene(10 * number + at), nodata=0, corner=corner)
            clouds = np.zeros((1, HEIGHT, WIDTH), dtype=np.uint8)
            clouds[0, : 4 * at, 20:] = 4
            clouds[0, 30:, 40:] = 2
            save(folder / f"{place}_{day}_clouds.tif", clouds, corner=corner)
    return folder


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """:func:`write_places`; read only."""
    return write_places(tmp_path_factory.mktemp("places"))


def words(places: Path, out: Path, *more: str) -> list[str]:
    """The command that imports all places: chips of 16 px, two dates, a fifth held out.

    `more` are option, value, option, value … that replace these; an empty value removes the option.
    """
    options = {
        "--images": f"{places}/{{place}}_{{date}}.tif",
        "--chip-size": str(CHIP),
        "--timesteps": "2",
        "--heldout": "0.2",
        "--out": str(out),
    }
    options |= dict(zip(more[::2], more[1::2], strict=True))
    return ["import", *(word for option, value in options.items() if value for word in (option, value))]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a store, by path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
