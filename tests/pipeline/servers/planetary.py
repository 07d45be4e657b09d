"""The Planetary Computer's STAC API: the same granules under its own names, unsigned blobs, and no count.

Quirks (microsoft/planetary-computer-tasks datasets/hls2): collections hls2-l30 and hls2-s30 from 2020 on, blobs by
zone, band, square and day, no numberMatched, cloud cover as a float, proj:epsg of the southern hemisphere on some items
although HLS is always in UTM north, thumbnails beside the bands.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from geofm_pipeline.hls.granule import GranuleId
from servers.cmr_stac import StacApi

BLOBS = "https://hls2euwest.blob.core.windows.net/hls2"


def planetary_computer(items: Sequence[dict[str, Any]]) -> StacApi:
    """A server of the granules that the Planetary Computer has."""
    return StacApi(
        items=[planetary_item(item) for item in items if item["properties"]["datetime"] >= "2020"],
        collections=("hls2-l30", "hls2-s30"),
        start="2020-01-01T00:00:00Z",
        root="/api/stac/v1",
        cap=1000,
        says_matched=False,
    )


def planetary_item(item: dict[str, Any]) -> dict[str, Any]:
    """An item as the Planetary Computer has it."""
    granule = GranuleId.parse(item["id"])
    tile, day = granule.tile, granule.time
    folder = f"{BLOBS}/{granule.sensor}/{tile[:2]}/{tile[2]}/{tile[3:]}/{day:%Y/%m/%d}/{item['id']}"
    found = copy.deepcopy(item)
    found["collection"] = f"hls2-{granule.sensor.lower()}"
    cloud = found["properties"].get("eo:cloud_cover")
    found["properties"] |= {"proj:epsg": 32700 + int(tile[:2])} | (
        {} if cloud is None else {"eo:cloud_cover": float(cloud)}
    )
    found["assets"] = {key: {"href": f"{folder}/{item['id']}.{key}.tif", "roles": ["data"]} for key in item["assets"]}
    found["assets"]["thumbnail"] = {"href": f"{folder}/{item['id']}.jpg"}
    return found
