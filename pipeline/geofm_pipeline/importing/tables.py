"""The tables of an imported dataset: scenes.parquet, plan.parquet and samples.parquet, and what goes into them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geofm_pipeline.hls.bands import SENSOR_CODE, Sensor
from geofm_pipeline.importing.images import BandFile, Image
from geofm_pipeline.importing.rasters import Grid, Transform
from geofm_pipeline.store import StoreSummary
from geofm_sampling.contract import Column, TableContract

_BANDS = pa.list_(pa.struct([("path", pa.string()), ("band", pa.int32())]))

IMAGES = TableContract(
    name="images",
    columns={
        "granule_id": Column(type=pa.string(), meaning="name of the image: that of its (first) file, below the folder"),
        "place": Column(type=pa.string(), meaning="place that the image shows"),
        "date": Column(type=pa.int32(), meaning="sensing day, days since 1970-01-01"),
        "sensor": Column(type=pa.string(), meaning="L30 or S30, as it was said"),
        "stratum": Column(type=pa.int32(), meaning="stratum of the place"),
        "bands": Column(type=_BANDS, meaning="file and number of each band of the store, in order"),
        "mask": Column(type=pa.string(), meaning="file of the cloud mask, empty without one"),
        "height": Column(type=pa.int32(), meaning="rows of the image"),
        "width": Column(type=pa.int32(), meaning="columns of the image"),
        "crs": Column(type=pa.string(), meaning="reference system, WKT"),
        "transform": Column(type=pa.list_(pa.float64()), meaning="(a, b, c, d, e, f): x = a·col + b·row + c, y alike"),
        "bytes": Column(type=pa.int64(), meaning="size of all its files"),
        "changed": Column(type=pa.int64(), meaning="last change of a file, nanoseconds since 1970"),
    },
)
"""scenes.parquet of an import: one row per place and day, in this order."""

_CHOSEN = {
    "shard": Column(type=pa.int32(), meaning="shard of the store"),
    "row": Column(type=pa.int32(), meaning="row within the shard"),
    "unit": Column(type=pa.uint64(), meaning="hash of file, chip size, image_row and image_col"),
    "place": Column(type=pa.string(), meaning="place of the images"),
    "file": Column(type=pa.string(), meaning="file of the first date, below the folder of the images"),
    "image_row": Column(type=pa.int32(), meaning="first pixel row of the chip in its images, from the north"),
    "image_col": Column(type=pa.int32(), meaning="first pixel column of the chip in its images, from the west"),
    "lon": Column(type=pa.float64(), meaning="longitude of the chip's centre, degrees east"),
    "lat": Column(type=pa.float64(), meaning="latitude of the chip's centre, degrees north"),
    "geometry": Column(type=pa.binary(), meaning="footprint, WKB polygon in lon/lat"),
    "stratum": Column(type=pa.int32(), meaning="stratum of the place; 0 where none was given"),
    "granules": Column(type=pa.list_(pa.string()), meaning="files in order of date; of single bands the first's"),
    "dates": Column(type=pa.list_(pa.int32()), meaning="days since 1970-01-01"),
    "sensors": Column(type=pa.list_(pa.int8()), meaning="0 L30, 1 S30"),
    "split": Column(type=pa.int8(), meaning="0 train, 1 held-out"),
}
CHOSEN = TableContract(name="import plan", columns=_CHOSEN)
"""plan.parquet of an import: one row per sample, in order of the store."""
SAMPLES = TableContract(
    name="imported samples",
    columns={
        "wave": Column(type=pa.int16(), meaning="1: an import has one wave"),
        "index": Column(type=pa.int64(), meaning="index in the store, shard × 64 + row"),
        **_CHOSEN,
        "weight": Column(type=pa.float64(), meaning="1: images were not drawn, so all samples count alike"),
        "valid": Column(type=pa.list_(pa.float32()), meaning="share of valid pixels per date, as written"),
        "state": Column(type=pa.string(), meaning="written"),
    },
)
"""samples.parquet of an import; GeoParquet."""
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}},
}


def images_table(images: Sequence[Image]) -> pa.Table:
    """IMAGES of some images."""
    rows = [
        {
            "granule_id": image.name,
            "place": image.place,
            "date": image.day,
            "sensor": image.sensor,
            "stratum": image.stratum,
            "bands": [{"path": band.path, "band": band.band} for band in image.bands],
            "mask": image.mask,
            "height": image.grid.height,
            "width": image.grid.width,
            "crs": image.grid.crs,
            "transform": list(image.grid.transform),
            "bytes": image.bytes,
            "changed": image.changed,
        }
        for image in images
    ]
    return IMAGES.check(pa.Table.from_pylist(rows, schema=IMAGES.schema()))


def images_of(table: pa.Table) -> list[Image]:
    """Inverse of :func:`images_table`."""
    return [
        Image(
            name=row["granule_id"],
            place=row["place"],
            day=row["date"],
            sensor=cast("Sensor", row["sensor"]),
            stratum=row["stratum"],
            bands=tuple(BandFile(path=band["path"], band=band["band"]) for band in row["bands"]),
            mask=row["mask"],
            grid=Grid(
                height=row["height"],
                width=row["width"],
                crs=row["crs"],
                transform=cast("Transform", tuple(row["transform"])),
            ),
            bytes=row["bytes"],
            changed=row["changed"],
        )
        for row in IMAGES.check(table).to_pylist()
    ]


def chosen_table(columns: Mapping[str, object]) -> pa.Table:
    """CHOSEN of columns in any order of rows, put into order of the store."""
    arrays = {name: pa.array(columns[name], column.type) for name, column in _CHOSEN.items()}
    return CHOSEN.describe(pa.table(arrays).sort_by([("shard", "ascending"), ("row", "ascending")]))


def wkb(polygons: NDArray[np.object_]) -> NDArray[np.object_]:
    """Polygons as the column geometry holds them."""
    return np.asarray(shapely.to_wkb(polygons), dtype=object)


def sensor_codes(images: Sequence[Image]) -> list[int]:
    """Sensors as numbers."""
    return [SENSOR_CODE[image.sensor] for image in images]


def rows_table(chosen: pa.Table) -> pa.Table:
    """The table that seals the store."""
    return pa.table(
        {
            "index": pa.array(np.arange(chosen.num_rows), pa.int64()),
            **{name: chosen[name] for name in ("unit", "lon", "lat", "stratum", "split")},
            "date": chosen["dates"],
            "sensor": chosen["sensors"],
        }
    )


def samples_table(chosen: pa.Table, summary: StoreSummary) -> pa.Table:
    """SAMPLES of a written store."""
    n = chosen.num_rows
    table = pa.table(
        {
            **{name: chosen[name] for name in _CHOSEN},
            "wave": pa.array(np.ones(n), pa.int16()),
            "index": pa.array(np.arange(n), pa.int64()),
            "weight": np.ones(n),
            "valid": pa.array(list(summary.valid_share), pa.list_(pa.float32())),
            "state": ["written"] * n,
        }
    )
    return SAMPLES.describe(table).replace_schema_metadata({b"geo": json.dumps(_GEO).encode()})
