"""Which rasters of a land-cover source lie where: one header each, so that a tile opens only those it touches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from geofm_pipeline.access.remembered import Remembering
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource, ByteSource
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.cluster import InProcess, Runner
from geofm_pipeline.covariates.class_bands import ClassBand, class_sources, open_band
from geofm_pipeline.covariates.class_evidence import continuous_message, why_continuous
from geofm_pipeline.covariates.gridded import is_remote
from geofm_pipeline.covariates.named_sources import SourceRecord
from geofm_pipeline.covariates.result import tile_points
from geofm_pipeline.errors import InputError
from geofm_pipeline.lonlat import Box
from geofm_pipeline.years import Years

_BATCH = 32  # rasters per task
_LOOKED_AT = 3  # rasters of a source whose pixels are looked at for classes
_PAD = 0.02  # degrees: what a tile's edge bulges between those points, and more
_YEAR = re.compile(r"(?<!\d)((?:19|20)\d{2})(?=\d{4}(?!\d)|(?!\d))")


@dataclass(frozen=True, kw_only=True)
class ClassRaster:
    """One raster of classes, as its header has it."""

    path: str
    """Path or URL."""
    box: Box
    """(west, south, east, north) in degrees; east may exceed 180."""
    stamp: str
    """Size and time of change of a local file, so that a changed file is noticed; '' for a URL."""
    listed: bool
    """The file lists its classes."""
    names: tuple[tuple[int, str], ...]
    """(code, name) of the classes that it names."""

    @property
    def year(self) -> int | None:
        """Year in the file's name (2021, or the first of 20220101-20230101), else that of a folder named by a year."""
        path = Path(self.path)
        found = _YEAR.search(path.stem) or re.fullmatch(r"((?:19|20)\d{2})", path.parent.name)
        return int(found[1]) if found else None


@dataclass(frozen=True, kw_only=True)
class ClassMap:
    """A land-cover source, ready to be read tile by tile."""

    source: str
    """As it was asked for."""
    rasters: tuple[ClassRaster, ...]
    """Those of the chosen year, sorted by path."""
    year: int | None
    """Year of the map where it has several, else None."""
    note: str
    """Which year was chosen, '' where there was no choice."""
    record: SourceRecord | None = None
    """Of a source with a name."""
    tally: Tally = field(default_factory=Tally, compare=False)
    """What making the index cost."""

    @property
    def listed(self) -> bool:
        """Some raster lists its classes."""
        return any(raster.listed for raster in self.rasters)

    @property
    def names(self) -> dict[int, str]:
        """Names of classes that the rasters give."""
        return {code: name for raster in self.rasters for code, name in raster.names}

    @cached_property
    def _boxes(self) -> NDArray[np.float64]:
        return np.array([raster.box for raster in self.rasters], dtype=np.float64).reshape(-1, 4)

    def touching(self, tile: str) -> tuple[ClassRaster, ...]:
        """The rasters that may show some of a tile, sorted by path."""
        return tuple(self.rasters[int(i)] for i in np.flatnonzero(boxes_meet(self._boxes, tile_box(tile))))


@dataclass(frozen=True, kw_only=True)
class HeadersTask:
    """Some rasters whose headers are read."""

    rasters: tuple[tuple[str, bool], ...]
    """(path, whether to look at pixels)."""
    access: Access


def class_map(source: str, *, years: Years, runner: Runner | None = None, access: Access | None = None) -> ClassMap:
    """Index of the rasters of a land-cover source; of several years in it the one nearest to `years`.

    Raises
    ------
    InputError
        When there is no raster, one has no reference system or no integers, or the values are continuous.
    ArchiveError
        When a file cannot be read.
    """
    paths = class_sources(source)
    looked_at = set(paths[:: max(1, len(paths) // _LOOKED_AT)][:_LOOKED_AT])
    batches = [
        tuple((path, path in looked_at) for path in paths[start : start + _BATCH])
        for start in range(0, len(paths), _BATCH)
    ]
    tasks = [HeadersTask(rasters=batch, access=access or Access()) for batch in batches]
    found = dict((runner or InProcess()).run(class_rasters, tasks))
    whole = _of_one_year(source, [raster for at in range(len(batches)) for raster in found[at][0]], years)
    return replace(whole, tally=sum((cost for _, cost in found.values()), Tally()))


def class_rasters(task: HeadersTask) -> tuple[list[ClassRaster], Tally]:
    """Headers of rasters in order and what they cost; a Dask task."""
    archive = Remembering(ArchiveSource(task.access))
    return [_class_raster(path, look, archive) for path, look in task.rasters], archive.tally


def tile_box(tile: str) -> Box:
    """(west, south, east, north) of a tile with some room; east may exceed 180."""
    lon, lat = tile_points(tile)
    west, east = float(lon.min()) - _PAD, float(lon.max()) + _PAD
    return west, float(lat.min()) - _PAD, east, float(lat.max()) + _PAD


def boxes_meet(boxes: NDArray[np.float64], box: Box) -> NDArray[np.bool_]:
    """Whether boxes, shape (n, 4), share ground with a box, whatever turn of the Earth longitudes are written in."""
    west, south, east, north = boxes.T
    eastward, westward = (box[0] - west) % 360.0 <= east - west, (west - box[0]) % 360.0 <= box[2] - box[0]
    return np.asarray((south <= box[3]) & (north >= box[1]) & (eastward | westward))


def _class_raster(path: str, look: bool, archive: ByteSource) -> ClassRaster:
    with open_band(path, pixel_m=0.0, archive=archive) as band:
        why = why_continuous(band) if look else ""
        if why:
            raise InputError(continuous_message(path, why))
        return ClassRaster(
            path=path, box=_box(band), stamp=file_stamp(path), listed=band.listed or bool(band.names), names=band.names
        )


def file_stamp(path: str) -> str:
    """Size and time of change of a local file or of all files in a folder; '' for a URL."""
    if is_remote(path):
        return ""
    place = Path(path).expanduser()
    files: Iterable[Path] = sorted(place.rglob("*")) if place.is_dir() else [place]
    stats = [file.stat() for file in files]
    return f"{sum(s.st_size for s in stats)} {max((s.st_mtime_ns for s in stats), default=0)}"


def _box(band: ClassBand) -> Box:
    """Bounds of a band in degrees; the whole Earth where they cannot be told."""
    a, b, c, d, e, f = band.transform
    col, row = np.array([0, band.width, 0, band.width]), np.array([0, 0, band.height, band.height])
    x, y = a * col + b * row + c, d * col + e * row + f
    west, south, east, north = (float(v) for v in (x.min(), y.min(), x.max(), y.max()))
    if not band.crs.is_geographic:
        to_degrees = Transformer.from_crs(band.crs, CRS.from_epsg(4326), always_xy=True)
        bounds: NDArray[np.float64] = np.asarray(to_degrees.transform_bounds(west, south, east, north, densify_pts=21))
        if not np.isfinite(bounds).all():
            return -180.0, -90.0, 180.0, 90.0
        west, south, east, north = bounds.tolist()
        east += 360.0 if east < west else 0.0
    return west - _PAD, south - _PAD, min(east + _PAD, west - _PAD + 360.0), north + _PAD


def _of_one_year(source: str, rasters: list[ClassRaster], years: Years) -> ClassMap:
    found = sorted({raster.year for raster in rasters if raster.year is not None})
    if len(found) < 2 or any(raster.year is None for raster in rasters):
        year = found[0] if len(found) == 1 else None
        return ClassMap(source=source, rasters=tuple(rasters), year=year, note="")
    year = nearest_year(found, years.years)
    kept = tuple(raster for raster in rasters if raster.year == year)
    have = Years(years=tuple(found))
    note = f"of the years {have} of the land-cover map, {year} is nearest to {years}: it is used for all"
    return ClassMap(source=source, rasters=kept, year=year, note=note)


def nearest_year(found: Sequence[int], wanted: Sequence[int]) -> int:
    """The year with the least mean distance to the wanted years, the later one of two."""
    return min(found, key=lambda year: (sum(abs(year - other) for other in wanted), -year))
