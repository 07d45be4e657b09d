"""STAC GeoParquet: a file, or a folder of files whose schemas may differ (HLSL30 and HLSS30 do), read with pyarrow.

Bounding box and date are pushed down, so row groups that cannot match are not read, nor are columns that a SceneTable
does not need. Rows come in batches of about 8 MB, whatever the size of a file. Reading costs 3 µs per item.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from geofm_pipeline.addresses import shown
from geofm_pipeline.catalogs.hrefs import NEEDED
from geofm_pipeline.catalogs.items import ItemBatch, absolute_href, number
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.hls.bands import FMASK_FILE
from geofm_pipeline.region import Region
from geofm_pipeline.years import Years

DIALECT = "STAC GeoParquet"
_KEYS = frozenset(key for keys in NEEDED.values() for key in keys)
_BATCH_ROWS = 8_192
_EDGES = ("xmin", "ymin", "xmax", "ymax")
_WRAPPED = 90.0
"""Degrees: a box with xmin above it and xmax below its negative runs over the antimeridian. Statistics of a row group
decide this; they do not decide xmin > xmax."""
_ABSOLUTE = r"^(https?|s3|gs)://"


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files of a file or folder (any depth), sorted; raises ArchiveError when there are none."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*.parquet") if file.is_file())
    if not files:
        raise ArchiveError(f"folder {path} holds neither catalog.json nor any .parquet file: name the catalogue itself")
    return files


def folder_batches(path: Path, *, region: Region, years: Years) -> Iterator[ItemBatch]:
    """Items of a local file or folder whose bbox touches the region's and whose time lies within a day of the years."""
    for file in parquet_files(path):
        with _named_errors(str(file)), pa.OSFile(str(file)) as opened:
            yield from file_batches(opened, region=region, years=years, base=str(file))


def file_batches(file: pa.NativeFile, *, region: Region, years: Years, base: str) -> Iterator[ItemBatch]:
    """Items of one open file, as :func:`folder_batches` has them.

    Parameters
    ----------
    base : where the file is, path or URL; relative hrefs are resolved against it, and errors name it

    Raises
    ------
    ArchiveError
        When the file is no STAC GeoParquet or is damaged.
    """
    with _named_errors(shown(base)):
        fragment = ds.ParquetFileFormat().make_fragment(file)
        schema = fragment.physical_schema
        columns = _columns(schema, base)
        wanted = _Wanted(schema, region, years)
        expression = wanted.expression()
        chosen = fragment if expression is None else fragment.subset(expression, schema=schema)
        reader = pq.ParquetFile(file, metadata=fragment.metadata, pre_buffer=True)
        for group in chosen.row_groups:
            # One row group at a time: what is fetched beforehand, all its columns, stays in memory until it is done.
            batches = reader.iter_batches(_BATCH_ROWS, row_groups=[group.id], columns=columns.paths, use_threads=False)
            for batch in batches:
                may = wanted.rows(batch)
                if may.any():
                    yield _item_batch(batch if may.all() else batch.filter(pa.array(may)), columns, base)


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Turn what Arrow and GEOS raise for a bad file into an ArchiveError that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, shapely.errors.GEOSException) as error:
        raise ArchiveError(
            f"{name} cannot be read as STAC GeoParquet: {error}; fetch the file again, or leave it out"
        ) from error


def folder_extent(path: Path) -> str:
    """What local files hold in time and space, for the message of an empty search."""
    return _extent([_file_extent(pa.OSFile(str(file))) for file in parquet_files(path)])


def file_extent(file: pa.NativeFile) -> str:
    """What one open file holds in time and space."""
    return _extent([_file_extent(file)])


@dataclass(frozen=True, kw_only=True)
class _Held:
    days: tuple[np.datetime64, np.datetime64] | None
    box: tuple[float, float, float, float] | None


def _file_extent(file: pa.NativeFile) -> _Held:
    reader = pq.ParquetFile(file)
    schema = reader.schema_arrow
    table = reader.read(columns=[name for name in ("datetime", "bbox") if name in schema.names])
    days, box = None, None
    if table.num_rows and "datetime" in table.column_names:
        stamps = np.asarray(table["datetime"].drop_null()).astype("datetime64[D]")
        days = (stamps.min(), stamps.max()) if stamps.size else None
    if table.num_rows and _has_boxes(schema):
        edges = [np.asarray(_child(table["bbox"].combine_chunks(), name).drop_null()) for name in _EDGES]
        if all(np.isfinite(edge).any() for edge in edges):
            box = (np.nanmin(edges[0]), np.nanmin(edges[1]), np.nanmax(edges[2]), np.nanmax(edges[3]))
    return _Held(days=days, box=box)


def _extent(held: list[_Held]) -> str:
    days = [day for one in held if one.days is not None for day in one.days]
    boxes = [one.box for one in held if one.box is not None]
    when = f"it holds {min(days)} to {max(days)}" if days else "it holds no dated items"
    if not boxes:
        return when
    west, south, *_ = np.min(boxes, axis=0)
    *_, east, north = np.max(boxes, axis=0)
    return f"{when} over longitude {west:.2f} to {east:.2f}, latitude {south:.2f} to {north:.2f}"


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """What is read of a file."""

    paths: list[str]
    """Leaves of its schema, dotted."""
    keys: list[str]
    """Assets whose href is read."""


def _columns(schema: pa.Schema, base: str) -> _Columns:
    absent = [name for name in ("id", "geometry", "assets") if name not in schema.names]
    if absent:
        raise ArchiveError(
            f"{shown(base)} is Parquet but no STAC GeoParquet: its columns lack {', '.join(absent)}; "
            f"--catalog takes files as stac-geoparquet writes them"
        )
    keys = _asset_keys(schema)
    plain = [name for name in ("id", "geometry", "eo:cloud_cover") if name in schema.names]
    dates = ["datetime"] if _has_times(schema) else []
    boxes = [f"bbox.{edge}" for edge in _EDGES] if _has_boxes(schema) else []
    return _Columns(paths=[*plain, *dates, *boxes, *(f"assets.{key}.href" for key in keys)], keys=keys)


def _asset_keys(schema: pa.Schema) -> list[str]:
    """The needed assets by key, or all assets where the dialect names them otherwise (`blue`)."""
    assets = schema.field("assets").type
    if not pa.types.is_struct(assets):
        return []
    names = [assets.field(i).name for i in range(assets.num_fields)]
    with_href = [
        name
        for i, name in enumerate(names)
        if pa.types.is_struct(assets.field(i).type) and assets.field(i).type.get_field_index("href") >= 0
    ]
    known = [name for name in with_href if name in _KEYS]
    return known if FMASK_FILE in known else with_href


def _item_batch(batch: pa.RecordBatch, columns: _Columns, base: str) -> ItemBatch:
    geometry = _storage(batch.column("geometry")).cast(pa.binary()).to_numpy(zero_copy_only=False)
    assets = batch.column("assets")
    return ItemBatch(
        ids=_texts(batch.column("id")),
        cloud_cover=_clouds(batch),
        geometry=np.asarray(shapely.from_wkb(geometry, on_invalid="ignore"), dtype=object),
        assets={key: _hrefs(_child(_child(assets, key), "href"), base) for key in columns.keys},
    )


def _child(values: pa.StructArray, name: str) -> pa.Array:
    """A field of a struct, null where the struct itself is."""
    return values.flatten()[values.type.get_field_index(name)]


def _storage(values: pa.Array) -> pa.Array:
    return values.storage if isinstance(values, pa.ExtensionArray) else values


def _texts(values: pa.Array) -> pa.Array:
    """Plain strings of whatever kind of strings a writer chose."""
    values = _storage(values)
    return values if pa.types.is_string(values.type) else values.cast(pa.string())


def _hrefs(values: pa.Array, base: str) -> pa.Array:
    """Absolute hrefs, null where there is none."""
    texts = _texts(values)
    options = pc.MatchSubstringOptions(_ABSOLUTE)
    if pc.call_function("match_substring_regex", [texts], options).false_count == 0:
        return texts
    return pa.array([absolute_href(href, base) if href else None for href in texts.to_pylist()], pa.string())


def _clouds(batch: pa.RecordBatch) -> NDArray[np.float64]:
    if "eo:cloud_cover" not in batch.schema.names:
        return np.full(batch.num_rows, np.nan)
    values = batch.column("eo:cloud_cover")
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        return np.array([number(value) for value in values.to_pylist()], dtype=np.float64)
    return _floats(values)


def _floats(values: pa.Array) -> NDArray[np.float64]:
    filled = pc.fill_null(pc.cast(values, pa.float64()), float("nan"))
    return np.asarray(filled.to_numpy(zero_copy_only=False), dtype=np.float64)


def _has_boxes(schema: pa.Schema) -> bool:
    if "bbox" not in schema.names or not pa.types.is_struct(schema.field("bbox").type):
        return False
    return all(schema.field("bbox").type.get_field_index(name) >= 0 for name in _EDGES)


def _has_times(schema: pa.Schema) -> bool:
    return "datetime" in schema.names and pa.types.is_timestamp(schema.field("datetime").type)


class _Wanted:
    """Which rows may belong to the request: by box and date, before anything else is looked at."""

    def __init__(self, schema: pa.Schema, region: Region, years: Years) -> None:
        self._boxes = region.boxes if _has_boxes(schema) else ()
        self._south, self._north = region.geometry.bounds[1], region.geometry.bounds[3]
        self._spans = years.spans if _has_times(schema) else ()
        self._kind = schema.field("datetime").type if self._spans else None

    def expression(self) -> ds.Expression | None:
        """What statistics of row groups are tested with; None where the file has neither boxes nor dates."""
        tests = []
        west, south, east, north = (pc.field("bbox", edge) for edge in ("xmin", "ymin", "xmax", "ymax"))
        if self._boxes:
            sides = [(west <= box[2]) & (east >= box[0]) for box in self._boxes]
            tests.append(_any([*sides, (west > _WRAPPED) & (east < -_WRAPPED)]))
            tests.append((south <= self._north) & (north >= self._south))
        time = pc.field("datetime")
        if self._spans:
            spans = [(time >= self._stamp(first - 1)) & (time < self._stamp(last + 2)) for first, last in self._spans]
            tests.append(_any([*spans, time.is_null()]))
        whole = tests[0] if tests else None
        for test in tests[1:]:
            whole = whole & test
        return whole

    def rows(self, batch: pa.RecordBatch) -> NDArray[np.bool_]:
        """True for rows that may belong; what has no box or no date may."""
        may = np.ones(batch.num_rows, dtype=bool)
        if self._boxes:
            west, south, east, north = (_floats(_child(batch.column("bbox"), edge)) for edge in _EDGES)
            beside = np.ones(batch.num_rows, dtype=bool)
            for box in self._boxes:
                beside &= (west > box[2]) | (east < box[0])
            may &= ~(beside & ~(west > east)) & ~(south > self._north) & ~(north < self._south)
        if self._spans:
            days = batch.column("datetime").cast(pa.timestamp("s", tz="UTC"), safe=False)
            day = np.floor_divide(_floats(days.cast(pa.int64())), 86_400)
            inside = np.isnan(day)
            for first, last in self._spans:  # a day more on either side: items differ from their ids by minutes
                inside |= (day >= first - 1) & (day <= last + 1)
            may &= inside
        return may

    def _stamp(self, day: int) -> pa.Scalar:
        assert self._kind is not None
        moment = datetime(1970, 1, 1, tzinfo=UTC if self._kind.tz else None) + timedelta(days=day)
        return pa.scalar(moment, self._kind)


def _any(expressions: list[ds.Expression]) -> ds.Expression:
    whole = expressions[0]
    for expression in expressions[1:]:
        whole = whole | expression
    return whole
