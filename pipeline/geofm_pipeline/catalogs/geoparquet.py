"""STAC GeoParquet: a file, or a folder of files whose schemas may differ (HLSL30 and HLSS30 do), read with pyarrow.

Bounding box and date are pushed down, so row groups that cannot match are not read; only the columns that a
SceneTable needs are. The NASA archive is written this way, by month.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import shapely

from geofm_pipeline.catalogs.items import CatalogItem, absolute_href
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.hls.bands import BAND_FILES, FMASK_FILE
from geofm_pipeline.region import Region
from geofm_pipeline.years import Years

DIALECT = "STAC GeoParquet"
_KEYS = tuple(sorted({key for files in BAND_FILES.values() for key in files.values()} | {FMASK_FILE}))
_BATCH_ROWS = 16_384


def parquet_files(path: Path) -> list[Path]:
    """The Parquet files of a file or folder (any depth), sorted; raises ArchiveError when there are none."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*.parquet") if file.is_file())
    if not files:
        raise ArchiveError(f"folder {path} holds neither catalog.json nor any .parquet file: name the catalogue itself")
    return files


def parquet_items(path: Path, *, region: Region, years: Years, base: str | None = None) -> Iterator[CatalogItem]:
    """Items of the files whose bbox touches the region's and whose time lies within a day of the years.

    `base` is where a file comes from that was fetched to `path`; relative hrefs are resolved against it.
    """
    for file in parquet_files(path):
        name = base or str(file)
        try:
            yield from _file_items(file, region, years, name)
        except (pa.ArrowException, OSError, shapely.errors.GEOSException) as error:
            raise ArchiveError(
                f"{name} cannot be read as STAC GeoParquet: {error}; fetch the file again, or leave it out"
            ) from error


def parquet_extent(path: Path) -> str:
    """What the files hold in time and space, for the message of an empty search."""
    days: list[np.datetime64] = []
    boxes: list[list[float]] = []
    for file in parquet_files(path):
        schema = pq.read_schema(file)
        table = pq.read_table(file, columns=[name for name in ("datetime", "bbox") if name in schema.names])
        if table.num_rows and "datetime" in table.column_names:
            stamps = np.asarray(table["datetime"].drop_null()).astype("datetime64[D]")
            days += [stamps.min(), stamps.max()] if stamps.size else []
        if table.num_rows and _has_boxes(schema):
            corners = table["bbox"].combine_chunks().drop_null()
            low, high = (
                [np.asarray(corners.field(n)) for n in names] for names in (("xmin", "ymin"), ("xmax", "ymax"))
            )
            boxes.append([low[0].min(), low[1].min(), high[0].max(), high[1].max()])
    when = f"it holds {min(days)} to {max(days)}" if days else "it holds no dated items"
    if not boxes:
        return when
    west, south, *_ = np.min(boxes, axis=0)
    *_, east, north = np.max(boxes, axis=0)
    return f"{when} over longitude {west:.2f} to {east:.2f}, latitude {south:.2f} to {north:.2f}"


def _file_items(file: Path, region: Region, years: Years, base: str) -> Iterator[CatalogItem]:
    dataset = ds.dataset(file, format="parquet")
    schema = dataset.schema
    absent = [name for name in ("id", "geometry", "assets") if name not in schema.names]
    if absent:
        raise ArchiveError(
            f"{base} is Parquet but no STAC GeoParquet: its columns lack {', '.join(absent)}; "
            f"--catalog takes files as stac-geoparquet writes them"
        )
    columns = {"id": pc.field("id"), "geometry": pc.field("geometry")}
    if "eo:cloud_cover" in schema.names:
        columns["cloud"] = pc.field("eo:cloud_cover")
    keys = _asset_keys(schema)
    columns |= {f"href:{key}": pc.field("assets", key, "href") for key in keys}
    scanner = dataset.scanner(columns=columns, filter=_filter(schema, region, years), batch_size=_BATCH_ROWS)
    for batch in scanner.to_batches():
        if batch.num_rows:
            yield from _batch_items(batch, keys, base=base)


def _asset_keys(schema: pa.Schema) -> list[str]:
    """The needed assets by key, or all assets where the dialect names them otherwise (`blue`)."""
    assets = schema.field("assets").type
    names = [assets.field(i).name for i in range(assets.num_fields)]
    with_href = [
        name
        for i, name in enumerate(names)
        if pa.types.is_struct(assets.field(i).type) and assets.field(i).type.get_field_index("href") >= 0
    ]
    known = [name for name in with_href if name in _KEYS]
    return known if FMASK_FILE in known else with_href


def _batch_items(batch: pa.RecordBatch, keys: list[str], *, base: str) -> Iterator[CatalogItem]:
    ids = batch.column("id").to_pylist()
    geometries = shapely.from_wkb(np.array(batch.column("geometry").to_pylist(), dtype=object), on_invalid="ignore")
    clouds = _clouds(batch)
    hrefs = [batch.column(f"href:{key}").to_pylist() for key in keys]
    for row, name in enumerate(ids):
        yield CatalogItem(
            id=str(name),
            cloud_cover=float(clouds[row]),
            geometry=geometries[row],
            assets={
                key: absolute_href(href, base) for key, values in zip(keys, hrefs, strict=True) if (href := values[row])
            },
        )


def _clouds(batch: pa.RecordBatch) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if "cloud" not in batch.schema.names:
        return np.full(batch.num_rows, np.nan)
    values = pc.fill_null(pc.cast(batch.column("cloud"), pa.float64()), float("nan"))
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.float64)


def _has_boxes(schema: pa.Schema) -> bool:
    if "bbox" not in schema.names or not pa.types.is_struct(schema.field("bbox").type):
        return False
    return all(schema.field("bbox").type.get_field_index(name) >= 0 for name in ("xmin", "ymin", "xmax", "ymax"))


def _filter(schema: pa.Schema, region: Region, years: Years) -> pc.Expression | None:
    conditions = []
    if _has_boxes(schema):
        touching = [
            # A box with xmin > xmax, and one as wide as the Earth, belong to items at the antimeridian.
            ((pc.field("bbox", "xmin") <= east) & (pc.field("bbox", "xmax") >= west))
            | (pc.field("bbox", "xmin") > pc.field("bbox", "xmax"))
            for west, _, east, _ in region.boxes
        ]
        south, north = region.geometry.bounds[1], region.geometry.bounds[3]
        conditions.append(_any(touching) & (pc.field("bbox", "ymin") <= north) & (pc.field("bbox", "ymax") >= south))
    if "datetime" in schema.names and pa.types.is_timestamp(schema.field("datetime").type):
        kind = schema.field("datetime").type
        spans = [
            (pc.field("datetime") >= _stamp(first - 1, kind)) & (pc.field("datetime") < _stamp(last + 2, kind))
            for first, last in years.spans  # a day more on either side: items differ from their ids by minutes
        ]
        conditions.append(_any(spans) | pc.field("datetime").is_null())
    if not conditions:
        return None
    whole = conditions[0]
    for condition in conditions[1:]:
        whole = whole & condition
    return whole


def _any(expressions: list[pc.Expression]) -> pc.Expression:
    whole = expressions[0]
    for expression in expressions[1:]:
        whole = whole | expression
    return whole


def _stamp(day: int, kind: pa.DataType) -> pa.Scalar:
    moment = datetime(1970, 1, 1, tzinfo=UTC if kind.tz else None) + timedelta(days=day)
    return pa.scalar(moment, kind)
