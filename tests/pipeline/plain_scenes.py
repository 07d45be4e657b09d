"""SceneTable rows the plain way: one item at a time, in Python and shapely; what the columnar way must equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import shapely
from shapely.errors import GEOSException
from shapely.geometry.base import BaseGeometry

from geofm_pipeline.catalogs.items import CatalogItem
from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import BANDS, FMASK, band_file
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.hls.grid import square
from geofm_pipeline.lonlat import polygons, tile_polygon, unrolled
from geofm_pipeline.region import Region
from geofm_pipeline.years import Years


def plain_rows(
    items: Iterable[CatalogItem], region: Region, years: Years
) -> tuple[list[dict[str, object]], Counter[str]]:
    """(rows as dictionaries, counts by reason) of some items."""
    rows, counts, known = [], Counter[str](), set[str]()
    for item in items:
        granule = _granule(item.id)
        if granule is None:
            counts["not_hls"] += 1
        elif granule.version != "2.0":
            counts["other_version"] += 1
        elif granule.time.year not in years:
            counts["outside_years"] += 1
        elif item.id in known:
            counts["duplicates"] += 1
        else:
            known.add(item.id)
            footprint = _repaired(item.geometry) or tile_polygon(granule.tile)
            inside = granule.tile in region.tiles if region.tiles else shapely.intersects(region.geometry, footprint)
            counts["kept" if inside else "outside_region"] += 1
            if inside:
                rows.append(_row(item, granule, footprint))
    return sorted(rows, key=lambda row: (row["tile"], row["time"], row["granule_id"])), counts


def _granule(text: str) -> GranuleId | None:
    try:
        granule = GranuleId.parse(text)
        if granule.version == "2.0":
            square(granule.tile)
    except (InputError, ValueError):
        return None
    return granule


def _repaired(geometry: BaseGeometry | None) -> BaseGeometry | None:
    if geometry is None:
        return None
    try:
        fixed = polygons(unrolled(shapely.force_2d(geometry)))
    except (GEOSException, ValueError):
        return None
    if fixed.is_empty:
        return None
    return fixed.geoms[0] if len(fixed.geoms) == 1 else fixed


def _row(item: CatalogItem, granule: GranuleId, footprint: BaseGeometry) -> dict[str, object]:
    keys = [band_file(granule.sensor, band) for band in (*BANDS, FMASK)]
    files = {_file_key(href): href for href in item.assets.values() if not href.startswith("s3://")}
    found = {key: href for key in keys if (href := item.assets.get(key) or files.get(key))}
    forms: Counter[str] = Counter()
    for key, href in found.items():
        head, there, tail = href.rpartition(key)
        if there:
            forms[f"{head}{{band}}{tail}".replace(item.id, "{id}")] += 1
    template = forms.most_common(1)[0][0] if forms else ""
    filled = {key: template.replace("{id}", item.id).replace("{band}", key) for key in found}
    return {
        "granule_id": item.id,
        "sensor": granule.sensor,
        "tile": granule.tile,
        "time": granule.time,
        "cloud_cover": item.cloud_cover,
        "footprint": shapely.to_wkb(footprint),
        "href_template": template,
        "hrefs": [(key, href) for key, href in found.items() if href != filled[key]],
        "missing": [key for key in keys if key not in found],
    }


def _file_key(href: str) -> str:
    name = href.split("?")[0].rsplit("/", 1)[-1]
    stem, dot, suffix = name.rpartition(".")
    return stem.rpartition(".")[2] if dot and suffix.lower() in {"tif", "tiff"} else ""
