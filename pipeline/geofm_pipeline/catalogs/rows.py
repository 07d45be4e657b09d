"""From items of any dialect to the SceneTable: judged, filtered, de-duplicated, sorted.

Tile, sensor and time come from the granule id, hrefs from one template per row with overrides where an asset
strays, so every dialect gives the same rows for the same granules. About 90 µs per item; only rows that are kept
stay in memory, 270 bytes each.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import pyarrow as pa
import shapely
from shapely.geometry.base import BaseGeometry

from geofm_pipeline.catalogs.items import CatalogItem, repaired
from geofm_pipeline.errors import InputError, NothingFoundError
from geofm_pipeline.hls.bands import BANDS, FMASK, Sensor, band_file
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.lonlat import tile_polygon
from geofm_pipeline.region import Region
from geofm_pipeline.scenes import SCENES
from geofm_pipeline.years import Years

VERSION = "2.0"
"""Product version that is used: older ones have another fill, other scales and other ids."""
_BATCH = 4096
_SAY_EVERY = 50_000  # items between two lines of progress
_COUNTS = ("items", "not_hls", "other_version", "outside_years", "outside_region", "duplicates", "kept")


@dataclass(kw_only=True)
class _Seen:
    """What passed by, for the report and for the message of an empty search."""

    counts: Counter[str] = field(default_factory=Counter)
    years: set[int] = field(default_factory=set)
    bounds: tuple[float, float, float, float] | None = None
    ids: set[str] = field(default_factory=set)

    def widen(self, geometries: Sequence[BaseGeometry]) -> None:
        if geometries:
            boxes = [self.bounds] if self.bounds else []
            west, south, east, north = zip(*[*boxes, *(geometry.bounds for geometry in geometries)], strict=True)
            self.bounds = (min(west), min(south), max(east), max(north))


def scene_table(
    items: Iterable[CatalogItem],
    *,
    source: str,
    dialect: str,
    region: Region,
    years: Years,
    known_extent: Callable[[], str] = str,
    progress: Callable[[str], None] | None = None,
) -> pa.Table:
    """SceneTable of the items that are HLS v2.0 granules of the years and touch the region.

    The schema metadata `geofm` says what was skipped: JSON with source, dialect and the counts items, not_hls,
    other_version, outside_years, outside_region, duplicates, kept.

    Raises
    ------
    NothingFoundError
        When no item is left; the message says which years and ground the archive has, from `known_extent` where the
        dialect filters before it delivers.
    """
    seen = _Seen()
    kept: list[pa.RecordBatch] = []
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        kept.append(_judge(batch, region, years, seen))
        read = seen.counts["items"]
        if progress is not None and read // _SAY_EVERY > (read - len(batch)) // _SAY_EVERY:
            progress(f"catalogue: {seen.counts['items']:,} items read, {seen.counts['kept']:,} kept")
    if not seen.counts["kept"]:
        raise NothingFoundError(_nothing(source, region, years, seen, known_extent()))
    summary = {"source": source, "dialect": dialect, **{name: seen.counts[name] for name in _COUNTS}}
    table = pa.Table.from_batches(kept, schema=SCENES.schema()).sort_by(
        [("tile", "ascending"), ("time", "ascending"), ("granule_id", "ascending")]
    )
    return SCENES.check(table.replace_schema_metadata({"geofm": json.dumps(summary)}))


def skipped(scenes: pa.Table) -> dict[str, int]:
    """Counts of :func:`scene_table` from a table's metadata, without the kept ones; empty when it has none."""
    summary = json.loads((scenes.schema.metadata or {}).get(b"geofm", b"{}"))
    return {name: int(summary[name]) for name in _COUNTS[1:-1] if summary.get(name)}


def _judge(batch: list[CatalogItem], region: Region, years: Years, seen: _Seen) -> pa.RecordBatch:
    parsed = list(_new_granules(batch, years, seen))
    footprints = [
        footprint if footprint is not None else tile_polygon(granule.tile)
        for footprint, (_, granule) in zip(repaired([item.geometry for item, _ in parsed]), parsed, strict=True)
    ]
    seen.widen(footprints)
    if region.tiles is not None:
        touches = [granule.tile in region.tiles for _, granule in parsed]
    else:
        shapely.prepare(region.geometry)
        touches = [bool(hit) for hit in shapely.intersects(region.geometry, footprints)] if footprints else []
    rows = [
        _row(item, granule, footprint)
        for (item, granule), footprint, hit in zip(parsed, footprints, touches, strict=True)
        if hit
    ]
    seen.counts["outside_region"] += len(parsed) - len(rows)
    seen.counts["kept"] += len(rows)
    return pa.RecordBatch.from_pylist(rows, schema=SCENES.schema())


def _new_granules(batch: list[CatalogItem], years: Years, seen: _Seen) -> Iterator[tuple[CatalogItem, GranuleId]]:
    """Items that are granules of the years and were not seen before; everything else is counted."""
    for item in batch:
        seen.counts["items"] += 1
        try:
            granule = GranuleId.parse(item.id)
        except (InputError, ValueError):
            seen.counts["not_hls"] += 1
            continue
        if granule.version != VERSION:
            seen.counts["other_version"] += 1
            continue
        seen.years.add(granule.time.year)
        if granule.time.year not in years:
            seen.counts["outside_years"] += 1
        elif item.id in seen.ids:
            seen.counts["duplicates"] += 1
        else:
            seen.ids.add(item.id)
            yield item, granule


def _row(item: CatalogItem, granule: GranuleId, footprint: BaseGeometry) -> dict[str, object]:
    hrefs = _needed_hrefs(item, granule.sensor)
    template = _template(item.id, hrefs)
    missing = [key for key in _needed_keys(granule.sensor) if key not in hrefs]
    return {
        "granule_id": item.id,
        "sensor": granule.sensor,
        "tile": granule.tile,
        "time": granule.time,
        "cloud_cover": item.cloud_cover,
        "footprint": shapely.to_wkb(footprint),
        "href_template": template,
        "hrefs": [
            (key, href)
            for key, href in hrefs.items()
            if href != template.replace("{id}", item.id).replace("{band}", key)
        ],
        "missing": missing,
    }


def _needed_keys(sensor: Sensor) -> tuple[str, ...]:
    return _KEYS[sensor]


_KEYS: dict[Sensor, tuple[str, ...]] = {
    "L30": tuple(band_file("L30", band) for band in (*BANDS, FMASK)),
    "S30": tuple(band_file("S30", band) for band in (*BANDS, FMASK)),
}


def _needed_hrefs(item: CatalogItem, sensor: Sensor) -> dict[str, str]:
    """Hrefs of the six bands and Fmask by file key; dialects that name assets `blue` are read by their file names."""
    keys = _needed_keys(sensor)
    found = {key: item.assets[key] for key in keys if key in item.assets}
    if len(found) < len(keys):
        files = {_file_key(href): href for href in item.assets.values() if not href.startswith("s3://")}
        found = {key: href for key in keys if (href := found.get(key) or files.get(key))}
    return found


def _file_key(href: str) -> str:
    """`B04` of `…/HLS.S30.T19LDD.2022166T144741.v2.0.B04.tif?signature`; '' for other files."""
    name = href.split("?")[0].rsplit("/", 1)[-1]
    stem, dot, suffix = name.rpartition(".")
    return stem.rpartition(".")[2] if dot and suffix.lower() in {"tif", "tiff"} else ""


def _template(granule_id: str, hrefs: Mapping[str, str]) -> str:
    """The href with `{id}` and `{band}` that serves most assets; '' when no href holds its key."""
    forms: Counter[str] = Counter()
    for key, href in hrefs.items():
        head, found, tail = href.rpartition(key)
        if found:
            forms[f"{head}{{band}}{tail}".replace(granule_id, "{id}")] += 1
    return forms.most_common(1)[0][0] if forms else ""


def _nothing(source: str, region: Region, years: Years, seen: _Seen, known_extent: str) -> str:
    counts = seen.counts
    granules = counts["outside_years"] + counts["outside_region"]
    if known_extent:
        held = known_extent
    elif granules:
        held = f"it holds {_year_list(seen.years)}"
        if seen.bounds is not None:
            held += " over longitude {:.2f} to {:.2f}, latitude {:.2f} to {:.2f}".format(*_lon_lat(seen.bounds))
    elif counts["items"]:
        held = f"none of its {counts['items']:,} items is an HLS v{VERSION} granule (ids HLS.<L30|S30>.T….v2.0)"
    else:
        held = "it delivered no items at all"
    skips = ", ".join(f"{counts[name]:,} {name.replace('_', ' ')}" for name in _COUNTS[1:-1] if counts[name])
    return (
        f"{source} has no HLS granule for region {region.name} in years {years}: {held}"
        f"{f' ({skips})' if skips else ''}; choose --years and --region within the archive, or another --catalog"
    )


def _lon_lat(bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    return bounds[0], bounds[2], bounds[1], bounds[3]


def _year_list(years: set[int]) -> str:
    return f"years {Years(years=tuple(sorted(years)))}"
