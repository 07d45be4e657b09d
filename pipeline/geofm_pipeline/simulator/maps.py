"""The covariates that come with an archive: a land-cover map and monthly weather, both of the very world it shows."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import PIXEL_M
from geofm_pipeline.hls.grid import project, unproject, utm_zone
from geofm_pipeline.raster import write_cog
from geofm_pipeline.simulator.climate import (
    LAPSE,
    monthly_precipitation,
    monthly_temperature,
    wetness_of_relief,
)
from geofm_pipeline.simulator.granules import extent_window
from geofm_pipeline.simulator.ground import CLASSES, cover
from geofm_pipeline.simulator.noise import Window
from geofm_pipeline.simulator.relief import coarse_elevation
from geofm_pipeline.simulator.spec import ArchiveSpec

COLORS = {
    10: (0, 100, 0),
    20: (255, 187, 34),
    30: (255, 255, 76),
    40: (240, 150, 255),
    50: (250, 0, 0),
    60: (180, 180, 180),
    70: (240, 240, 240),
    80: (0, 100, 200),
    90: (0, 150, 160),
}
"""WorldCover's own colours."""
_STEPS = (3600, 2400, 1800, 1200, 600, 360, 120, 60)  # pixels per degree to choose from
_MOST_PIXELS = 40_000_000
_WEATHER_STEPS = (10, 4, 2, 1)  # cells per degree
_MARGIN = 0.02
_WIDEST = 60  # degrees of longitude; a map any wider would be mostly empty
_CHUNK = 512  # map rows painted at a time
_EPOCH = date(1970, 1, 1)

Bounds = tuple[float, float, float, float]


def archive_bounds(spec: ArchiveSpec) -> Bounds:
    """(west, south, east, north) in degrees of all extents."""
    boxes = np.array([_lonlat_box(extent_window(spec, tile)) for tile in spec.tiles])
    west, south = boxes[:, :2].min(axis=0)
    east, north = boxes[:, 2:].max(axis=0)
    if east - west > _WIDEST:
        raise InputError(
            f"tiles {', '.join(spec.tiles)} span {east - west:.0f}° of longitude, and the land-cover map of an archive "
            f"covers all of it: at most {_WIDEST}°; make an archive for each side of the antimeridian"
        )
    return float(west), float(south), float(east), float(north)


def _lonlat_box(window: Window) -> Bounds:
    rows = window.row + np.linspace(0, window.height, 9)
    cols = window.col + np.linspace(0, window.width, 9)
    grid = np.meshgrid(cols, rows)
    lon, lat = unproject(window.zone, grid[0] * PIXEL_M, -grid[1] * PIXEL_M)
    return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())


def write_land_cover(spec: ArchiveSpec, path: Path) -> None:
    """Write WorldCover classes as a COG in EPSG:4326; 0 where the map knows nothing."""
    west, south, east, north = archive_bounds(spec)
    west, south, east, north = west - _MARGIN, south - _MARGIN, east + _MARGIN, north + _MARGIN
    step = next((s for s in _STEPS if (east - west) * (north - south) * s * s <= _MOST_PIXELS), _STEPS[-1])
    left, top = np.floor(west * step) / step, np.ceil(north * step) / step
    width, height = int(np.ceil((east - left) * step)), int(np.ceil((top - south) * step))
    classes = np.zeros((height, width), dtype=np.uint8)
    for tile in spec.tiles:
        _paint(spec, extent_window(spec, tile), classes, left=float(left), top=float(top), step=step)
    write_cog(
        path,
        classes,
        epsg=4326,
        transform=(1 / step, 0.0, float(left), 0.0, -1 / step, float(top)),
        nodata=0,
        tags={"legend": "; ".join(f"{code} {name}" for code, name in CLASSES.items())},
        overviews=tuple(f for f in (2, 4, 8, 16) if f * 64 < max(height, width)) or (2,),
        colormap=COLORS,
    )


def _paint(
    spec: ArchiveSpec, window: Window, classes: NDArray[np.uint8], *, left: float, top: float, step: int
) -> None:
    """Fill the map around one tile's extent, some rows at a time so that memory stays bounded."""
    west, south, east, north = _lonlat_box(window)
    first_row, last_row = (round((top - edge) * step) for edge in (north + _MARGIN, south - _MARGIN))
    first_col, last_col = (round((edge - left) * step) for edge in (west - _MARGIN, east + _MARGIN))
    last_row, last_col = min(last_row, classes.shape[0]), min(last_col, classes.shape[1])
    lon = left + (np.arange(max(first_col, 0), last_col) + 0.5) / step
    for start in range(max(first_row, 0), last_row, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, last_row))
        lat = top - (rows + 0.5) / step
        classes[rows[0] : rows[-1] + 1, max(first_col, 0) : last_col] = _classes(spec.seed, window.zone, lon, lat)


def _classes(seed: int, zone: int, lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Class of the lattice pixel under each point of the grid lat × lon, shape (lat, lon)."""
    rows, cols = _lattice(zone, lon, lat)
    top, left = int(rows.min()), int(cols.min())
    height, width = int(rows.max()) - top + 1, int(cols.max()) - left + 1
    around = Window(zone=zone, row=top, col=left, height=height, width=width)
    return np.asarray(cover(seed, around)[rows - top, cols - left])


def _lattice(
    zone: int, lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lattice (rows, columns) under the grid lat × lon, shapes (lat, lon)."""
    grid = np.meshgrid(lon, lat)
    x, y = project(zone, grid[0], grid[1])
    return np.floor(-y / PIXEL_M).astype(np.int64), np.floor(x / PIXEL_M).astype(np.int64)


def write_weather(spec: ArchiveSpec, path: Path) -> None:
    """Write monthly mean temperature (°C) and precipitation (mm) of the years on a regular grid, CF 1.8, NetCDF 4."""
    west, south, east, north = archive_bounds(spec)
    step = next((s for s in _WEATHER_STEPS if (east - west) * (north - south) * s * s <= 20_000), 1)
    lon = np.arange(np.floor(west * step) - 1, np.ceil(east * step) + 1) / step + 0.5 / step
    lat = np.arange(np.ceil(north * step), np.floor(south * step) - 2, -1) / step + 0.5 / step
    zones = sorted({extent_window(spec, tile).zone for tile in spec.tiles})
    elevation, mountains = _cell_relief(spec.seed, zones, lon, lat, 1 / step)
    months = [(year, month) for year in sorted(spec.years) for month in range(1, 13)]
    flat = [monthly_temperature(spec.seed, lat, *when)[:, None] - LAPSE * elevation for when in months]
    wet = [monthly_precipitation(spec.seed, lat, *when)[:, None] * wetness_of_relief(mountains) for when in months]
    data = _dataset(months, lon, lat, np.stack(flat), np.stack(wet), elevation)
    data.to_netcdf(path, engine="h5netcdf")


def _cell_relief(
    seed: int, zones: list[int], lon: NDArray[np.float64], lat: NDArray[np.float64], size: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean height (m) and mountainness of each cell from 6 × 6 points within it, shapes (lat, lon)."""
    inner = (np.arange(6) + 0.5) / 6 - 0.5
    fine_lon = (lon[:, None] + inner * size).ravel()
    fine_lat = (lat[:, None] - inner * size).ravel()
    grid = np.meshgrid(fine_lon, fine_lat)
    nearest = np.array(zones)[np.abs(utm_zone(grid[0])[..., None] - np.array(zones)).argmin(axis=-1)]
    height, mountains = np.zeros(grid[0].shape), np.zeros(grid[0].shape)
    for zone in zones:
        here = nearest == zone
        x, y = project(zone, grid[0][here], grid[1][here])
        height[here], mountains[here] = coarse_elevation(seed, zone, -y / PIXEL_M, x / PIXEL_M)
    shape = (lat.size, 6, lon.size, 6)
    return height.reshape(shape).mean(axis=(1, 3)), mountains.reshape(shape).mean(axis=(1, 3))


def _dataset(
    months: list[tuple[int, int]],
    lon: NDArray[np.float64],
    lat: NDArray[np.float64],
    temperature: NDArray[np.float64],
    precipitation: NDArray[np.float64],
    elevation: NDArray[np.float64],
) -> xr.Dataset:
    axes = ("time", "lat", "lon")
    days = [(date(year, month, 15) - _EPOCH).days for year, month in months]
    cell = {"cell_methods": "time: mean area: mean"}
    return xr.Dataset(
        {
            "tas": (
                axes,
                temperature.astype(np.float32),
                {"standard_name": "air_temperature", "long_name": "monthly mean temperature", "units": "degC", **cell},
            ),
            "pr": (
                axes,
                precipitation.astype(np.float32),
                {
                    "standard_name": "lwe_thickness_of_precipitation_amount",
                    "long_name": "monthly precipitation",
                    "units": "mm",
                    "cell_methods": "time: sum area: mean",
                },
            ),
            "orog": (
                ("lat", "lon"),
                elevation.astype(np.float32),
                {"standard_name": "surface_altitude", "long_name": "mean height of the cell", "units": "m"},
            ),
        },
        coords={
            "time": (
                "time",
                np.array(days, dtype=np.int32),
                {"standard_name": "time", "units": "days since 1970-01-01", "calendar": "standard"},
            ),
            "lat": ("lat", lat, {"standard_name": "latitude", "units": "degrees_north"}),
            "lon": ("lon", lon, {"standard_name": "longitude", "units": "degrees_east"}),
        },
        attrs={
            "Conventions": "CF-1.8",
            "title": "Weather of the simulated archive's world",
            "source": "geofm simulator",
        },
    )
