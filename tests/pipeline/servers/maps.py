"""Look-alikes of the sources of land cover and weather that have a name, with the layout of the real ones.

WorldCover (esa-worldcover's download script, a real file): uint8 COGs of 3° × 3° in EPSG:4326 named by their south-west
  corner, `{bucket}/v200/2021/map/ESA_WorldCover_10m_2021_v200_N45E009_Map.tif`, nodata 0, a colour table, overviews;
  none of open sea.
IO LULC (third-party listings of the bucket): `{bucket}/32T_2020.tif`, a UTM raster per grid zone and year, nodata 0.
TerraClimate (template of the Planetary Computer): Zarr 2, consolidated, `time, lat, lon` in chunks of whole years,
  latitudes descending, longitudes −180 to 180, tmax, tmin (degC) and ppt (mm), monthly; packed here, to see that
  packing is undone.
ARCO-ERA5 (its code): Zarr 2 despite its name, consolidated, a chunk per hour of the whole globe, hours since 1900 on an
  axis that goes on to 2050 with the days that have values in attributes, latitudes descending, longitudes 0 to 360.
ERA5-Land at the Earth Data Hub (its documentation, rslearn): Zarr 3, consolidated in zarr.json, `valid_time, latitude,
  longitude`, HTTP Basic with the user edh, 401 without; hourly precipitation is the sum since 00 UTC.
A bucket that may not be listed answers 403 for keys that it lacks (Amazon), one that may be 404.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from geofm_pipeline.raster import write_cog
from servers.loopback import App, Reply, Request, ranged

Values = NDArray[Any]
Chunk = Callable[[tuple[int, ...]], Values | None]
"""Chunk index → values of the whole chunk, None where there is no object."""
ACCESS_DENIED = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
)
WORLDCOVER_COLOURS = {10: (0, 100, 0), 30: (255, 255, 76), 40: (240, 150, 255), 50: (250, 0, 0), 80: (0, 100, 200)}
PIXELS = 1440
"""Edge of a WorldCover look-alike; the real ones have 36,000."""
EPOCH = np.datetime64("1900-01-01T00", "h")


# --- files


def folder_app(folder: Path, *, lists: bool = True) -> App:
    """Serves files below a folder, by ranges."""

    def app(request: Request) -> Reply:
        file = folder / request.path.lstrip("/")
        if file.is_file():
            return ranged(request, Reply(body=file.read_bytes()))
        return (
            Reply(status=404, body=b"<Error><Code>NoSuchKey</Code></Error>")
            if lists
            else Reply(status=403, body=ACCESS_DENIED)
        )

    return app


def write_worldcover(root: Path, cell: str, pixels: Values, *, year: int = 2021) -> Path:
    """A cell of PIXELS × PIXELS classes below the bucket's folder."""
    version = {2020: "v100", 2021: "v200"}[year]
    path = root / "esa-worldcover" / version / str(year) / "map" / f"ESA_WorldCover_10m_{year}_{version}_{cell}_Map.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    south, west = int(cell[1:3]) * (1 if cell[0] == "N" else -1), int(cell[4:]) * (1 if cell[3] == "E" else -1)
    step = 3.0 / PIXELS
    transform = (step, 0.0, float(west), 0.0, -step, float(south + 3))
    write_cog(
        path,
        pixels,
        epsg=4326,
        transform=transform,
        nodata=0,
        colormap=WORLDCOVER_COLOURS,
        overviews=(2, 4, 8),
        block=128,
    )
    return path


def patches(seed: int, classes: tuple[int, ...], edge: int = 16, size: int = PIXELS) -> Values:
    """Classes in patches of `edge` pixels."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.array(classes, dtype=np.uint8), (size // edge, size // edge))
    return np.kron(coarse, np.ones((edge, edge), dtype=np.uint8))


def write_io_lulc(root: Path, zone: str, year: int, code: int) -> Path:
    """A grid zone north of the equator, of one class inside its 6° and class 0 outside, pixels of 400 m."""
    path = root / "io-10m-annual-lulc" / f"{zone}_{year}.tif"
    path.parent.mkdir(parents=True, exist_ok=True)
    number, south = int(zone[:2]), -80 + 8 * "CDEFGHJKLMNPQRSTUVWX".index(zone[2])
    to_utm = Transformer.from_crs(4326, 32600 + number, always_xy=True)
    west, low, east, high = to_utm.transform_bounds(6 * number - 186, south, 6 * number - 180, south + 8)
    step = 400.0
    width, height = int((east - west) / step) + 1, int((high - low) / step) + 1
    x, y = np.meshgrid(west + step * (np.arange(width) + 0.5), high - step * (np.arange(height) + 0.5))
    lon, lat = to_utm.transform(x, y, direction="INVERSE")
    inside = (lon >= 6 * number - 186) & (lon < 6 * number - 180) & (lat >= south) & (lat < south + 8)
    pixels = np.where(inside, code, 0).astype(np.uint8)
    write_cog(path, pixels, epsg=32600 + number, transform=(step, 0, west, 0, -step, high), nodata=0, overviews=(2, 4))
    return path


# --- Zarr


@dataclass(frozen=True, kw_only=True)
class ZarrArray:
    """One array of a made-up Zarr."""

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    """numpy's, e.g. `<f4`."""
    chunk: Chunk
    fill: float | int | None = None
    attrs: Mapping[str, object] = field(default_factory=dict)

    def body(self, at: tuple[int, ...], version: int) -> bytes | None:
        """Bytes of a chunk, packed by zlib (Zarr 2) or gzip (3); edge chunks are padded."""
        values = self.chunk(at)
        if values is None:
            return None
        whole = np.zeros(self.chunks, dtype=self.dtype)
        whole[tuple(slice(0, size) for size in values.shape)] = values
        return zlib.compress(whole.tobytes(), 1) if version == 2 else gzip.compress(whole.tobytes(), 1)


def axis(values: Values, attrs: Mapping[str, object]) -> ZarrArray:
    """A coordinate in one chunk; its dimension is named when it is put into a group."""
    return ZarrArray(
        dims=(), shape=values.shape, chunks=values.shape, dtype=values.dtype.str, chunk=lambda _: values, attrs=attrs
    )


@dataclass(kw_only=True)
class MadeZarr:
    """A Zarr that makes its chunks when they are asked for, and remembers which."""

    arrays: Mapping[str, ZarrArray]
    attrs: Mapping[str, object] = field(default_factory=dict)
    version: int = 2
    asked: list[str] = field(default_factory=list)
    """Keys of chunks that were asked for."""

    def get(self, key: str) -> bytes | None:
        """The object of a key."""
        documents = _documents(self.arrays, self.attrs, self.version)
        if key in documents:
            return json.dumps(documents[key]).encode()
        name, _, rest = key.partition("/")
        if name not in self.arrays or rest.startswith(".") or rest == "zarr.json":
            return None
        self.asked.append(key)
        parts = rest.split(".") if self.version == 2 else rest.split("/")[1:]
        return self.arrays[name].body(tuple(int(part) for part in parts), self.version)

    def chunks_of(self, name: str) -> list[str]:
        """Chunks of an array that were asked for, in order."""
        return [key.partition("/")[2] for key in self.asked if key.startswith(f"{name}/")]


def zarr_app(prefix: str, store: MadeZarr) -> App:
    """Serves a Zarr below a path."""

    def app(request: Request) -> Reply:
        found = store.get(request.path.removeprefix(prefix).lstrip("/")) if request.path.startswith(prefix) else None
        return Reply(status=404) if found is None else ranged(request, Reply(body=found))

    return app


def _documents(arrays: Mapping[str, ZarrArray], attrs: Mapping[str, object], version: int) -> dict[str, object]:
    if version == 3:
        inner = {name: _v3(name, array) for name, array in arrays.items()}
        consolidated = {"kind": "inline", "must_understand": False, "metadata": inner}
        root = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": dict(attrs),
            "consolidated_metadata": consolidated,
        }
        return {"zarr.json": root, **{f"{name}/zarr.json": document for name, document in inner.items()}}
    flat: dict[str, object] = {".zgroup": {"zarr_format": 2}, ".zattrs": dict(attrs)}
    for name, array in arrays.items():
        flat |= {f"{name}/.zarray": _v2(array), f"{name}/.zattrs": _attrs(name, array)}
    return {**flat, ".zmetadata": {"zarr_consolidated_format": 1, "metadata": dict(flat)}}


def _attrs(name: str, array: ZarrArray) -> dict[str, object]:
    return {"_ARRAY_DIMENSIONS": list(array.dims or (name,)), **array.attrs}


def _v2(array: ZarrArray) -> dict[str, object]:
    fill = "NaN" if isinstance(array.fill, float) and np.isnan(array.fill) else array.fill
    return {
        "zarr_format": 2, "shape": array.shape, "chunks": array.chunks, "dtype": array.dtype, "order": "C",
        "fill_value": fill, "filters": None, "compressor": {"id": "zlib", "level": 1},
    }  # fmt: skip


def _v3(name: str, array: ZarrArray) -> dict[str, object]:
    fill = "NaN" if np.dtype(array.dtype).kind == "f" else 0
    codecs = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "gzip", "configuration": {"level": 1}},
    ]
    return {
        "zarr_format": 3, "node_type": "array", "shape": array.shape, "data_type": np.dtype(array.dtype).name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": array.chunks}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill, "codecs": codecs, "attributes": dict(array.attrs),
        "dimension_names": list(array.dims or (name,)), "storage_transformers": [],
    }  # fmt: skip


def _window(array_chunks: tuple[int, ...], shape: tuple[int, ...], at: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(i * c, min((i + 1) * c, s)) for i, c, s in zip(at, array_chunks, shape, strict=True))


# --- what the weather is: linear in longitude and latitude, so that values between grid points are exact


def warmth(lon: Values, lat: Values) -> Values:
    """°C besides what depends on time; longitudes in -180 to 180."""
    return 20.0 - 0.3 * np.abs(lat) + 0.02 * lon


def wetness(lon: Values, lat: Values) -> Values:
    """mm per day besides what depends on time."""
    return 3.0 + 0.01 * lat + 0.005 * lon


def _signed(lon: Values) -> Values:
    return (lon + 180.0) % 360.0 - 180.0


def terraclimate(first: int = 2019, last: int = 2021, *, step: float = 1.0, chunk: int = 20) -> MadeZarr:
    """Months of whole years; tmax and tmin 5 °C about the mean: warmth + month of the year + 10 × (year - first)."""
    lat, lon = np.arange(90 - step / 2, -90, -step), np.arange(-180 + step / 2, 180, step)
    months = 12 * (last - first + 1)
    stamps = (np.datetime64(f"{first}-01") + np.arange(months)).astype("datetime64[D]").astype(np.int64)
    shape, chunks = (months, lat.size, lon.size), (12, chunk, chunk)

    def packed(shift: float, scale: float, of: Callable[[Values, Values], Values], rate: float) -> Chunk:
        def make(at: tuple[int, ...]) -> Values:
            t, y, x = _window(chunks, shape, at)
            month = np.arange(t.start, t.stop)
            when = rate * (month % 12 + 10 * (month // 12))
            return np.round((of(lon[None, x], lat[y, None])[None] + when[:, None, None] + shift) / scale).astype("<i2")

        return make

    def variable(make: Chunk, scale: float, attrs: Mapping[str, object]) -> ZarrArray:
        packing = {"scale_factor": scale, "add_offset": 0.0, "_FillValue": -32768}
        return ZarrArray(
            dims=("time", "lat", "lon"), shape=shape, chunks=chunks, dtype="<i2", chunk=make, fill=-32768,
            attrs={**packing, **attrs},
        )  # fmt: skip

    warm = {"units": "degC", "standard_name": "air_temperature"}
    wet = {"units": "mm", "standard_name": "precipitation_amount"}
    return MadeZarr(
        arrays={
            "time": axis(stamps, {"units": "days since 1970-01-01", "calendar": "standard"}),
            "lat": axis(lat, {"units": "degrees_north", "standard_name": "latitude"}),
            "lon": axis(lon, {"units": "degrees_east", "standard_name": "longitude"}),
            "tmax": variable(packed(5.0, 0.01, warmth, 1.0), 0.01, warm),
            "tmin": variable(packed(-5.0, 0.01, warmth, 1.0), 0.01, warm),
            "ppt": variable(packed(0.0, 0.1, lambda x, y: 30 * wetness(x, y), 1.0), 0.1, wet),
            "ws": variable(packed(0.0, 0.1, wetness, 0.0), 0.1, {"units": "m/s"}),
        }
    )


def hourly_warmth(hours: Values) -> Values:
    """°C that an hour adds: a day's course, a year's, and noise that repeats with no period of days."""
    return 6 * np.sin(hours * 2 * np.pi / 24) + 8 * np.cos(hours * 2 * np.pi / 8766) + ((hours * 7919) % 101) / 20


def hourly_rain(hours: Values) -> Values:
    """Share of a day's rain that falls in an hour, on average 1/24."""
    return (1.0 + 0.5 * np.sin(hours * 2 * np.pi / 24) + 0.3 * np.cos(hours * 2 * np.pi / 8766)) / 24


def arco(
    first: str = "2020-01-01", last: str = "2021-12-31", *, step: float = 2.5, end: str = "2023-01-01"
) -> MadeZarr:
    """Hours since 1900 up to `end`, with values from the day `first` to the day `last`; the real axis ends in 2050."""
    lat, lon = np.arange(90, -90 - step / 2, -step), np.arange(0, 360, step)
    hours = int((np.datetime64(end, "h") - EPOCH).astype(np.int64))
    begin, stop = (int((np.datetime64(day, "h") - EPOCH).astype(np.int64)) for day in (first, last))
    shape, chunks = (hours, lat.size, lon.size), (1, lat.size, lon.size)
    x, y = _signed(lon)[None, :], lat[:, None]

    def warm(hour: int) -> Values:
        return warmth(x, y) + 273.15 + hourly_warmth(np.array(hour))

    def wet(hour: int) -> Values:
        return wetness(x, y) * hourly_rain(np.array(hour)) / 1000

    def hourly(of: Callable[[int], Values]) -> Chunk:
        return lambda at: of(at[0]).astype("<f4") if begin <= at[0] < stop + 24 else None

    def variable(make: Chunk, attrs: Mapping[str, object]) -> ZarrArray:
        return ZarrArray(
            dims=("time", "latitude", "longitude"), shape=shape, chunks=chunks, dtype="<f4", chunk=make,
            fill=float("nan"), attrs=attrs,
        )  # fmt: skip

    levels = ZarrArray(
        dims=("time", "level", "latitude", "longitude"), shape=(hours, 1, lat.size, lon.size),
        chunks=(1, 1, lat.size, lon.size), dtype="<f4", chunk=lambda _: None, fill=float("nan"),
        attrs={"units": "K", "standard_name": "air_temperature"},
    )  # fmt: skip
    return MadeZarr(
        attrs={"valid_time_start": first, "valid_time_stop": last, "valid_time_stop_era5t": end},
        arrays={
            "time": axis(np.arange(hours), {"units": "hours since 1900-01-01", "calendar": "proleptic_gregorian"}),
            "latitude": axis(lat, {"units": "degrees_north"}),
            "longitude": axis(lon, {"units": "degrees_east"}),
            "level": axis(np.array([500]), {}),
            "temperature": levels,
            "2m_temperature": variable(hourly(warm), {"units": "K"}),
            "total_precipitation": variable(hourly(wet), {"units": "m"}),
        },
    )


def era5_land(days: tuple[str, str], *, hourly: bool, step: float = 0.5) -> MadeZarr:
    """ERA5-Land of some days (the last left out), 30° to 60° N: daily means and sums, or hours, sums since 00 UTC."""
    lat, lon = np.arange(60, 30 - step / 2, -step), np.arange(0, 360, step)
    first, stop = (int((np.datetime64(day, "h") - EPOCH).astype(np.int64)) for day in days)
    every = 1 if hourly else 24
    steps = np.arange(first, stop, every)
    shape, chunks = (steps.size, lat.size, lon.size), (1440 if hourly else 75, 20, 40)

    def rain_of(hours: Values) -> Values:
        """mm share since 00 UTC of an hourly step, or of the day."""
        table = np.cumsum(hourly_rain(np.arange(first - 24, stop + 24)))
        start = hours - 1 - (hours - 1) % 24 if hourly else hours
        end = hours if hourly else hours + 24
        return table[end - (first - 24)] - table[start - (first - 24)]

    def make(warm: bool) -> Chunk:
        def of(at: tuple[int, ...]) -> Values:
            t, y, x = _window(chunks, shape, at)
            hours, where = steps[t], (_signed(lon[x])[None, :], lat[y, None])
            if warm:
                return (warmth(*where)[None] + 273.15 + hourly_warmth(hours)[:, None, None]).astype("<f4")
            return (wetness(*where)[None] * rain_of(hours)[:, None, None] / 1000).astype("<f4")

        return of

    def variable(warm: bool) -> ZarrArray:
        return ZarrArray(
            dims=("valid_time", "latitude", "longitude"), shape=shape, chunks=chunks, dtype="<f4", chunk=make(warm),
            attrs={"units": "K" if warm else "m"},
        )  # fmt: skip

    return MadeZarr(
        version=3,
        arrays={
            "valid_time": axis(steps, {"units": "hours since 1900-01-01", "calendar": "proleptic_gregorian"}),
            "latitude": axis(lat, {"units": "degrees_north"}),
            "longitude": axis(lon, {"units": "degrees_east"}),
            "t2m": variable(True),
            "tp": variable(False),
        },
    )


def with_basic(app: App, user: str, token: str) -> App:
    """Lets in who sends this user and token by HTTP Basic; 401 for everybody else."""
    wanted = "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode()

    def guarded(request: Request) -> Reply:
        return (
            app(request) if request.headers.get("authorization") == wanted else Reply(status=401, body=b"Unauthorized")
        )

    return guarded
