"""From items of any dialect to the SceneTable: judged, filtered, de-duplicated, sorted.

Tile, sensor and time come from the granule id, hrefs from one template per row with overrides where an asset
strays, so every dialect gives the same rows for the same granules. Everything is done by column, about 5 µs per item;
only rows that are kept stay in memory, 150 bytes each until the table of 280 bytes each is made of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray

from geofm_pipeline.addresses import shown
from geofm_pipeline.catalogs.hrefs import Templates
from geofm_pipeline.catalogs.ids import VERSION, parse_ids, sensor_codes, tile_numbers
from geofm_pipeline.catalogs.items import ItemBatch
from geofm_pipeline.catalogs.kept import Kept
from geofm_pipeline.catalogs.outlines import repaired
from geofm_pipeline.errors import NothingFoundError
from geofm_pipeline.lonlat import tile_polygon
from geofm_pipeline.region import Region
from geofm_pipeline.scenes import SCENES
from geofm_pipeline.years import Years
from geofm_sampling.unit import pack_tile, unpack_tile

_SAY_EVERY = 50_000  # items between two lines of progress
_COUNTS = ("items", "not_hls", "other_version", "outside_years", "outside_region", "duplicates", "kept")


@dataclass(kw_only=True)
class _Seen:
    """What passed by, for the report and for the message of an empty search."""

    counts: Counter[str] = field(default_factory=Counter)
    years: set[int] = field(default_factory=set)
    bounds: tuple[float, float, float, float] | None = None
    _runs: list[NDArray[np.uint64]] = field(default_factory=list)
    """Keys of all granules of the years, sorted runs that shrink at least by half from one to the next."""

    def fresh(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """True where a key appears for the first time; from now on they are known."""
        order = np.argsort(keys, kind="stable")
        first = np.ones(keys.size, dtype=bool)
        first[order[1:]] = keys[order[1:]] != keys[order[:-1]]
        for run in self._runs:
            at = np.minimum(np.searchsorted(run, keys), run.size - 1)
            first &= run[at] != keys
        new = np.sort(keys[first])
        while self._runs and self._runs[-1].size <= 2 * new.size:
            new = np.sort(np.concatenate([self._runs.pop(), new]))
        if new.size:
            self._runs.append(new)
        return first

    def widen(self, footprints: NDArray[np.object_]) -> None:
        """Take note of the ground of some granules."""
        if footprints.size:
            west, south, east, north = (float(edge) for edge in shapely.total_bounds(footprints))
            old = self.bounds or (west, south, east, north)
            self.bounds = (min(west, old[0]), min(south, old[1]), max(east, old[2]), max(north, old[3]))


def scene_table(
    batches: Iterable[ItemBatch],
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
    seen, templates = _Seen(), Templates()
    kept = Kept(templates=templates.texts)
    judge = _Judge(region, years, seen, templates, kept)
    for batch in batches:
        judge.take(batch)
        read = seen.counts["items"]
        if progress is not None and read // _SAY_EVERY > (read - len(batch.ids)) // _SAY_EVERY:
            progress(f"catalogue: {read:,} items read, {seen.counts['kept']:,} kept")
    if not seen.counts["kept"]:
        raise NothingFoundError(_nothing(source, region, years, seen, known_extent()))
    summary = {"source": shown(source), "dialect": dialect, **{name: seen.counts[name] for name in _COUNTS}}
    return SCENES.check(kept.table().replace_schema_metadata({"geofm": json.dumps(summary)}))


def facts(scenes: pa.Table) -> dict[str, object]:
    """What a table's metadata say of the search; empty when it has none."""
    found = json.loads((scenes.schema.metadata or {}).get(b"geofm", b"{}"))
    return found if isinstance(found, dict) else {}


def with_facts(scenes: pa.Table, more: dict[str, object]) -> pa.Table:
    """The table with more facts of the search in its metadata."""
    metadata = {**(scenes.schema.metadata or {}), b"geofm": json.dumps({**facts(scenes), **more}).encode()}
    return scenes.replace_schema_metadata(metadata)


def skipped(scenes: pa.Table) -> dict[str, int]:
    """Counts of :func:`scene_table` from a table's metadata, without the kept ones; empty when it has none."""
    summary = facts(scenes)
    return {name: int(str(summary[name])) for name in _COUNTS[1:-1] if summary.get(name)}


class _Judge:
    """Sorts out which items are granules of the request; everything else is counted."""

    def __init__(self, region: Region, years: Years, seen: _Seen, templates: Templates, kept: Kept) -> None:
        self._region, self._years = region, np.array(years.years)
        self._seen, self._templates, self._kept = seen, templates, kept
        self._tiles = None if region.tiles is None else np.array([pack_tile(tile) for tile in region.tiles])
        shapely.prepare(region.geometry)

    def take(self, batch: ItemBatch) -> None:
        """Keep what belongs to the request."""
        keys, rows = self._new_granules(batch.ids)
        footprints = _footprints(batch.geometry[rows], keys)
        self._seen.widen(footprints)
        hits = self._touches(footprints, keys)
        self._seen.counts["outside_region"] += int((~hits).sum())
        self._seen.counts["kept"] += int(hits.sum())
        if hits.any():
            self._keep(batch, rows[hits], keys[hits], footprints[hits])

    def _new_granules(self, ids: pa.Array) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """(keys, rows) of the granules of the years that were not seen before."""
        found, counts = parse_ids(ids), self._seen.counts
        granules = int(found.is_granule.sum())
        self._seen.years.update(np.flatnonzero(np.bincount(found.year[found.is_granule])).tolist())
        rows = np.flatnonzero(found.is_granule & np.isin(found.year, self._years))
        fresh = self._seen.fresh(found.key[rows])
        counts["items"] += len(ids)
        counts["other_version"] += found.other_version
        counts["not_hls"] += len(ids) - granules - found.other_version
        counts["outside_years"] += granules - rows.size
        counts["duplicates"] += rows.size - int(fresh.sum())
        return found.key[rows[fresh]], rows[fresh]

    def _touches(self, footprints: NDArray[np.object_], keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        if self._tiles is not None:
            return np.isin(tile_numbers(keys), self._tiles)
        return np.asarray(shapely.intersects(self._region.geometry, footprints), dtype=bool)

    def _keep(
        self, batch: ItemBatch, rows: NDArray[np.int64], keys: NDArray[np.uint64], footprints: NDArray[np.object_]
    ) -> None:
        whole = rows.size == len(batch.ids)
        some = pa.array(rows)
        ids = batch.ids if whole else batch.ids.take(some)
        assets = batch.assets if whole else {key: hrefs.take(some) for key, hrefs in batch.assets.items()}
        located = self._templates.locate(ids, sensor_codes(keys), assets)
        self._kept.add(ids=ids, keys=keys, cloud_cover=batch.cloud_cover[rows], footprints=footprints, located=located)


def _footprints(geometry: NDArray[np.object_], keys: NDArray[np.uint64]) -> NDArray[np.object_]:
    """Repaired footprints; the whole tile where an item has none."""
    footprints = repaired(geometry)
    for row in np.flatnonzero(shapely.is_missing(footprints)):
        footprints[row] = tile_polygon(unpack_tile(int(tile_numbers(keys[row : row + 1])[0])))
    return footprints


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
        f"{shown(source)} has no HLS granule for region {region.name} in years {years}: {held}"
        f"{f' ({skips})' if skips else ''}; choose --years and --region within the archive, or another --catalog"
    )


def _lon_lat(bounds: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    return bounds[0], bounds[2], bounds[1], bounds[3]


def _year_list(years: set[int]) -> str:
    return f"years {Years(years=tuple(sorted(years)))}"
