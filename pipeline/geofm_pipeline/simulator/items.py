"""STAC items as CMR-STAC returns them, and the three forms of a catalogue: item collection, static tree, GeoParquet.

An item holds datetimes, `eo:cloud_cover`, a footprint and hrefs and nothing else: no proj, no platform, no asset type.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import shapely
import stac_geoparquet.arrow as stac_arrow

from geofm_pipeline.hls.bands import PIXEL_M, SENSORS, Sensor
from geofm_pipeline.hls.grid import TileGrid, unproject
from geofm_pipeline.simulator.orbits import Overpass
from geofm_pipeline.simulator.spec import Extent

COLLECTIONS: dict[Sensor, str] = {"L30": "HLSL30_2.0", "S30": "HLSS30_2.0"}
_EO = "https://stac-extensions.github.io/eo/v1.0.0/schema.json"
_TITLES: dict[Sensor, str] = {
    "L30": "Simulated HLS Landsat surface reflectance, 30 m, in the layout of v2.0",
    "S30": "Simulated HLS Sentinel-2 surface reflectance, 30 m, in the layout of v2.0",
}


@dataclass(frozen=True, kw_only=True)
class GranuleFacts:
    """What an item says about a granule."""

    granule_id: str
    sensor: Sensor
    time: datetime
    """UTC."""
    cloud_cover: int
    """Percent, as the item claims it."""
    footprint: shapely.Polygon
    """Longitude and latitude."""
    assets: tuple[str, ...]
    """Asset keys that exist, e.g. `B02` … `Fmask`."""


def footprint(grid: TileGrid, extent: Extent, overpass: Overpass) -> shapely.Polygon:
    """Outline in lon/lat of the pixels with data: the extent where the swath covers it, counter-clockwise."""
    top = -grid.y0 // PIXEL_M + extent.row
    first = grid.x0 // PIXEL_M + extent.col
    rows = np.unique(np.linspace(top, top + extent.height, 9).round().astype(np.int64))
    left, right = overpass.edges(grid.zone, rows)
    swath = shapely.Polygon([*zip(left, rows, strict=True), *zip(right[::-1], rows[::-1], strict=True)])
    inside = swath.intersection(shapely.box(first, top, first + extent.width, top + extent.height)).simplify(0.5)
    points = shapely.get_coordinates(shapely.segmentize(inside, 1024.0))
    lon, lat = unproject(grid.zone, points[:, 0] * PIXEL_M, -points[:, 1] * PIXEL_M)
    outline = np.round(np.stack([lon, lat], axis=1), 7)
    return shapely.geometry.polygon.orient(shapely.Polygon(outline))


def item(facts: GranuleFacts) -> dict[str, object]:
    """One item with hrefs relative to the archive's root."""
    when = facts.time.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return {
        "type": "Feature",
        "id": facts.granule_id,
        "stac_version": "1.0.0",
        "stac_extensions": [_EO],
        "collection": COLLECTIONS[facts.sensor],
        "geometry": shapely.geometry.mapping(facts.footprint),
        "bbox": list(facts.footprint.bounds),
        "properties": {
            "datetime": when,
            "eo:cloud_cover": facts.cloud_cover,
            "start_datetime": when,
            "end_datetime": when,
        },
        "assets": {key: _asset(facts.granule_id, key) for key in facts.assets},
        "links": [],
    }


def _asset(granule_id: str, key: str) -> dict[str, object]:
    name = f"{granule_id}.{key}.tif"
    return {"href": f"./{granule_id}/{name}", "title": f"Download {name}", "roles": ["data"]}


def write_item_collection(path: Path, items: Sequence[Mapping[str, object]]) -> None:
    """Write all items as one GeoJSON FeatureCollection."""
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}, indent=1))


def write_geoparquet(path: Path, items: Iterable[Mapping[str, object]]) -> None:
    """Write all items as one STAC GeoParquet file."""
    # through JSON text, so that tuples of coordinates arrive as the lists that the library expects
    plain = json.loads(json.dumps(list(items)))
    stac_arrow.to_parquet(stac_arrow.parse_stac_items_to_arrow(plain), path)


def write_static_catalog(root: Path, items: Sequence[Mapping[str, object]], description: str) -> Path:
    """Write `catalog.json` and one folder per collection with its items, all links relative; returns the catalogue."""
    root = root.absolute()  # pystac takes a relative name for one beside the catalogue, not for a place
    catalog = pystac.Catalog(id="simulated-hls", description=description)
    for sensor in SENSORS:
        members = [item for item in items if item["collection"] == COLLECTIONS[sensor]]
        if members:
            catalog.add_child(_collection(sensor, members, root))
    catalog.normalize_hrefs(f"{root}/")  # the slash says folder: pystac takes a name with a dot for a file
    catalog.make_all_asset_hrefs_relative()
    catalog.save(catalog_type=pystac.CatalogType.SELF_CONTAINED)
    return root / "catalog.json"


def _collection(sensor: Sensor, members: Sequence[Mapping[str, object]], root: Path) -> pystac.Collection:
    stac_items = [pystac.Item.from_dict(json.loads(json.dumps(member))) for member in members]
    bounds = np.array([member["bbox"] for member in members])
    times = sorted(_when(member) for member in members)
    extent = pystac.Extent(
        pystac.SpatialExtent([[*bounds[:, :2].min(axis=0).tolist(), *bounds[:, 2:].max(axis=0).tolist()]]),
        pystac.TemporalExtent([[times[0], times[-1]]]),
    )
    collection = pystac.Collection(
        id=COLLECTIONS[sensor], description=_TITLES[sensor], extent=extent, title=_TITLES[sensor], license="Apache-2.0"
    )
    for stac_item in stac_items:
        for asset in stac_item.assets.values():
            asset.href = str(root / asset.href)
        collection.add_item(stac_item)
    return collection


def _when(member: Mapping[str, object]) -> datetime:
    properties = member["properties"]
    assert isinstance(properties, dict)
    return datetime.strptime(str(properties["datetime"]), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
