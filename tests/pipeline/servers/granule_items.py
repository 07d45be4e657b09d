"""Made-up granules as STAC items, as CMR-STAC writes them."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from shapely.geometry import mapping

from geofm_pipeline.hls.bands import BAND_FILES, FMASK_FILE
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.lonlat import tile_polygon

GRANULES = (
    "HLS.L30.T32UNU.2022101T101010.v2.0",
    "HLS.L30.T32UNU.2022001T000004.v2.0",
    "HLS.S30.T32UNU.2022101T101020.v2.0",
    "HLS.S30.T32UNU.2022101T103020.v2.0",  # two of one tile and day
    "HLS.S30.T32UPU.2021200T101010.v2.0",
    "HLS.S30.T01KAB.2022150T221010.v2.0",  # on the antimeridian
    "HLS.L30.T19LBJ.2022239T144556.v2.0",  # southern hemisphere
)


def make_item(name: str, *, cloud: object = 12, folder: str = ".") -> dict[str, Any]:
    """An item as CMR-STAC writes them: no proj, no platform, no asset type."""
    granule = GranuleId.parse(name)
    outline = tile_polygon(granule.tile)
    ring = mapping(outline.geoms[0] if len(outline.geoms) == 1 else outline)
    keys = [*BAND_FILES[granule.sensor].values(), FMASK_FILE]
    stamp = f"{granule.time:%Y-%m-%dT%H:%M:%S}.000Z"
    return {
        "type": "Feature",
        "id": name,
        "stac_version": "1.0.0",
        "stac_extensions": [],
        "collection": f"HLS{granule.sensor}_2.0",
        "geometry": json.loads(json.dumps(ring)),
        "bbox": list(outline.bounds),
        "properties": {"datetime": stamp, "start_datetime": stamp, "end_datetime": stamp, "eo:cloud_cover": cloud},
        "assets": {key: {"href": f"{folder}/{name}/{name}.{key}.tif", "roles": ["data"]} for key in keys},
        "links": [],
    }


def same_table(one: pa.Table, other: pa.Table) -> bool:
    """Whether two SceneTables are equal; cloud covers that are unknown (NaN) count as equal."""
    return bool(_known(one).equals(_known(other)))


def _known(table: pa.Table) -> pa.Table:
    cloud = table["cloud_cover"]
    known = pc.if_else(pc.is_nan(cloud), pa.scalar(-1.0, cloud.type), cloud)
    return table.set_column(table.schema.get_field_index("cloud_cover"), "cloud_cover", known)
