"""Files of the HLS STAC GeoParquet archive made of given items, types and layout as its writer (rustac) has them.

Quirks (MAAP-Project/hls-stac-geoparquet-archive): one file per collection and month, months not zero-padded, times in
milliseconds, whole numbers for cloud cover, schemas that differ between the collections, bbox as a struct.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import stac_geoparquet.arrow

PREFIX = "file-staging/nasa-map/hls-stac-geoparquet-archive/v2"
COLLECTIONS = ("HLSL30_2.0", "HLSS30_2.0")


def key_of(collection: str, year: int, month: int) -> str:
    """Key of a month's file."""
    return f"{PREFIX}/{collection}/year={year}/month={month}/{collection}-{year}-{month}.parquet"


def monthly_files(
    items: Sequence[dict[str, Any]], months: Iterable[tuple[int, int]], *, row_group_size: int = 150_000
) -> dict[str, bytes]:
    """Key → bytes of each collection and (year, month); months without items are files without rows."""
    made = {}
    for year, month in months:
        for collection in COLLECTIONS:
            own = [item for item in items if item["collection"] == collection]
            if own:
                stamp = f"{year}-{month:02d}"
                table = _table([*(i for i in own if i["properties"]["datetime"].startswith(stamp)), own[0]])
                made[key_of(collection, year, month)] = _file(table.slice(0, table.num_rows - 1), row_group_size)
    return made


def _table(items: Sequence[dict[str, Any]]) -> pa.Table:
    table = stac_geoparquet.arrow.parse_stac_items_to_arrow(copy.deepcopy(list(items))).read_all()
    for name in ("datetime", "start_datetime", "end_datetime"):
        at = table.schema.get_field_index(name)
        table = table.set_column(at, name, table[name].cast(pa.timestamp("ms", tz="UTC")))
    at = table.schema.get_field_index("collection")
    return table.set_column(at, "collection", table["collection"].dictionary_encode())


def _file(table: pa.Table, row_group_size: int) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd", row_group_size=row_group_size)
    return stream.getvalue()
