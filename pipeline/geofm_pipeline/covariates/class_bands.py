"""Class rasters behind one face: GDAL files at a fitting overview, and NetCDF or Zarr variables.

A band has an affine grid of pixel corners in some reference system and is read by windows; values are classes and
are never interpolated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from geofm_pipeline.access.source import ByteSource
from geofm_pipeline.covariates.gridded import UNREADABLE, axis_name, is_gridded, is_remote, open_gridded, unreadable
from geofm_pipeline.covariates.named_sources import explained
from geofm_pipeline.errors import ArchiveError, GeofmError, InputError
from geofm_pipeline.raster import RasterInfo, RasterLevel, Transform, raster_info

OPTION = "--land-cover"
_RASTERS = ("*.tif", "*.tiff", "*.TIF", "*.vrt", "*.img")
_NO_CLASSES = "_InputQuality"  # what a download of WorldCover has beside each map
_METRES_PER_DEGREE = 111_320.0
_IRREGULAR = 0.01  # coordinates may stray from a regular grid by this share of a pixel and step


@dataclass(frozen=True, kw_only=True)
class ClassBand:
    """One opened band of classes."""

    source: str
    height: int
    width: int
    transform: Transform
    """x = a·col + b·row + c, y = d·col + e·row + f, of pixel corners."""
    crs: CRS
    nodata: float | None
    listed: bool
    """The file lists its classes (colour table, category names, flag values), so there may be many."""
    names: tuple[tuple[int, str], ...]
    """(code, name) of the classes that the file names (tag `legend`, CF flag_meanings)."""
    unit: str
    """Unit of the values, '' where the file declares none."""
    read: Callable[[int, int, int, int], NDArray[np.generic]]
    """read(row, col, height, width) → pixels."""

    @property
    def pixel_m(self) -> float:
        """Edge of a pixel in metres; degrees count as at the equator."""
        a, b, _, d, e, _ = self.transform
        edge = max(np.hypot(a, d), np.hypot(b, e))
        return float(edge) * (
            _METRES_PER_DEGREE if self.crs.is_geographic else self.crs.axis_info[0].unit_conversion_factor
        )

    @property
    def cyclic(self) -> bool:
        """The band runs round the Earth in longitude."""
        return self.crs.is_geographic and abs(self.width * self.transform[0] - 360.0) < abs(self.transform[0])


def class_sources(source: str) -> list[str]:
    """The rasters that a path, URL, folder or glob pattern names, sorted; raises InputError when there are none."""
    path = Path(source).expanduser()
    if is_remote(source) or is_gridded(source) or path.is_file():
        return [source]
    if path.is_dir():
        files = {file for pattern in _RASTERS for file in path.rglob(pattern)}
        found = sorted(str(file) for file in files if not file.stem.endswith(_NO_CLASSES))
    else:
        anchor = Path(path.anchor or ".")
        found = sorted(str(file) for file in anchor.glob(str(path.relative_to(path.anchor))))
    if not found:
        raise InputError(
            f"{OPTION} {source} names no raster: give a raster, NetCDF or Zarr by path or URL, a folder of rasters, "
            f"or a pattern such as 'worldcover/*_Map.tif'"
        )
    return found


@contextmanager
def open_band(
    source: str, *, pixel_m: float, archive: ByteSource | None = None, asked: str | None = None
) -> Iterator[ClassBand]:
    """Open a band, at the coarsest overview whose pixels are still at most `pixel_m` wide.

    Parameters
    ----------
    archive : where remote bytes come from, by default a source of its own
    asked : name of the source for messages, by default `source`

    Raises
    ------
    InputError
        When it holds no classes or no reference system.
    ArchiveError
        When it cannot be read.
    """
    name = asked or source
    with ExitStack() as closing:
        with _decoding(source, name):
            band = _opened_band(source, pixel_m, archive, asked, closing)

        def read(row: int, col: int, height: int, width: int) -> NDArray[np.generic]:
            with _decoding(source, name):
                return band.read(row, col, height, width)

        yield replace(band, read=read)


def _opened_band(
    source: str, pixel_m: float, archive: ByteSource | None, asked: str | None, closing: ExitStack
) -> ClassBand:
    if is_gridded(source):
        dataset = open_gridded(source, option=OPTION, archive=archive, asked=asked)
        closing.callback(dataset.close)
        return _gridded_band(dataset, source)
    info = _info(source, archive)
    level = RasterLevel(source, level=_overview(info, pixel_m), source=archive)
    closing.callback(level.close)
    return _raster_band(info, level, source)


@contextmanager
def _decoding(source: str, asked: str) -> Iterator[None]:
    """Name the source of what goes wrong while it is read."""
    try:
        with explained(OPTION, asked):
            yield
    except GeofmError:
        raise
    except UNREADABLE as error:
        raise ArchiveError(unreadable(OPTION, source, error)) from error


def _raster_band(info: RasterInfo, level: RasterLevel, source: str) -> ClassBand:
    return ClassBand(
        source=source,
        height=level.height,
        width=level.width,
        transform=level.transform,
        crs=_crs(info.crs_wkt, source),
        nodata=info.nodata,
        listed=info.classes,
        names=_named_classes(info.legend),
        unit=info.unit,
        read=lambda row, col, height, width: level.read(row=row, col=col, height=height, width=width),
    )


def _info(source: str, archive: ByteSource | None) -> RasterInfo:
    if not is_remote(source) and not Path(source).expanduser().exists():
        raise InputError(f"{OPTION} {source} does not exist: give a raster, NetCDF or Zarr by path or URL")
    try:
        info = raster_info(source, source=archive)
    except OSError as error:
        raise ArchiveError(f"{OPTION} {source} cannot be read as a raster: {error}; fetch the file again") from error
    _check_dtype(np.dtype(info.dtype), source)
    return info


def _overview(info: RasterInfo, pixel_m: float) -> int | None:
    whole = ClassBand(
        source="",
        height=0,
        width=0,
        transform=info.transform,
        crs=_crs(info.crs_wkt, ""),
        nodata=None,
        listed=False,
        names=(),
        unit="",
        read=lambda *_: np.empty(0),
    )
    fitting = [level for level, factor in enumerate(info.overviews) if factor * whole.pixel_m <= pixel_m]
    return max(fitting) if fitting else None


def _gridded_band(dataset: xr.Dataset, source: str) -> ClassBand:
    data = _class_variable(dataset, source)
    y, x = axis_name(data, "lat") or axis_name(data, "y"), axis_name(data, "lon") or axis_name(data, "x")
    if y is None or x is None:
        raise InputError(f"{OPTION} {source}: variable {data.name} has no one-dimensional lat/lon or y/x coordinates")
    data = data.squeeze(drop=True).transpose(y, x)
    (y0, dy), (x0, dx) = _regular(data[y], source), _regular(data[x], source)
    fill = data.attrs.get("_FillValue", data.attrs.get("missing_value"))

    def read(row: int, col: int, height: int, width: int) -> NDArray[np.generic]:
        return np.asarray(data.isel({y: slice(row, row + height), x: slice(col, col + width)}).values)

    return ClassBand(
        source=source,
        height=data.sizes[y],
        width=data.sizes[x],
        transform=(dx, 0.0, x0, 0.0, dy, y0),
        crs=_gridded_crs(dataset, data, y, source),
        nodata=None if fill is None else float(np.ravel(fill)[0]),
        listed="flag_values" in data.attrs,
        names=_flag_names(data),
        unit=str(data.attrs.get("units", "")),
        read=read,
    )


def _named_classes(legend: str) -> tuple[tuple[int, str], ...]:
    """Classes of a legend such as `10  Tree cover\\n20  Shrubland`, one per line or by semicolons."""
    found = [re.fullmatch(r"\s*(\d+)[\s:=]+(\S.*?)\s*", part) for part in re.split(r"[\n;]", legend)]
    return tuple((int(match[1]), match[2]) for match in found if match)


def _flag_names(data: xr.DataArray) -> tuple[tuple[int, str], ...]:
    """Classes of the CF attributes flag_values and flag_meanings; none where they do not fit together."""
    values = np.ravel(data.attrs.get("flag_values", ())).tolist()
    names = str(data.attrs.get("flag_meanings", "")).split()
    return (
        tuple((int(value), name) for value, name in zip(values, names, strict=True))
        if len(values) == len(names)
        else ()
    )


def _class_variable(dataset: xr.Dataset, source: str) -> xr.DataArray:
    flat = [v for v in dataset.data_vars.values() if sum(size > 1 for size in v.sizes.values()) == 2]
    whole = [v for v in flat if np.issubdtype(v.dtype, np.integer) and "scale_factor" not in v.attrs]
    listed = [v for v in whole if "flag_values" in v.attrs]
    for candidates in (listed, whole):
        if len(candidates) == 1:
            return candidates[0]
    names = ", ".join(str(v.name) for v in listed or whole or flat) or "none"
    raise InputError(
        f"{OPTION} {source} must hold one two-dimensional variable of integer classes, found {names}: write the map "
        f"into a file of its own, as integers"
    )


def _regular(coordinate: xr.DataArray, source: str) -> tuple[float, float]:
    """(outer edge of the first pixel, step) of regular coordinates of pixel centres."""
    values = np.asarray(coordinate.values, dtype=np.float64)
    step = (values[-1] - values[0]) / max(values.size - 1, 1)
    ideal = values[0] + step * np.arange(values.size)
    if values.size < 2 or step == 0 or np.abs(values - ideal).max() > max(_IRREGULAR, 1e-5 * values.size) * abs(step):
        raise InputError(f"{OPTION} {source}: coordinate {coordinate.name} is not regular; resample the map to a grid")
    return float(values[0] - step / 2), float(step)


def _gridded_crs(dataset: xr.Dataset, data: xr.DataArray, y: str, source: str) -> CRS:
    if axis_name(data, "lat") == y and abs(np.asarray(data[y].values)).max() <= 90.0:
        return CRS.from_epsg(4326)
    name = data.attrs.get("grid_mapping", data.encoding.get("grid_mapping", "spatial_ref"))
    attributes = dataset[name].attrs if name in dataset.variables else {}
    wkt = attributes.get("crs_wkt", attributes.get("spatial_ref"))
    return _crs(wkt if wkt is not None else None, source)


def _crs(wkt: str | None, source: str) -> CRS:
    try:
        if wkt:
            return CRS.from_wkt(wkt)
    except CRSError:
        pass
    raise InputError(f"{OPTION} {source} declares no reference system: write one into the file, e.g. EPSG:4326")


def _check_dtype(dtype: np.dtype[np.generic], source: str) -> None:
    if not np.issubdtype(dtype, np.integer):
        raise InputError(
            f"{OPTION} {source} holds {dtype} values: land cover must be integer classes; give a map of classes, not "
            f"of continuous values"
        )
