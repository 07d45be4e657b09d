"""NASA's CMR, granules API: pages of 2,000 by CMR-Search-After; also how many granules it counts.

By construction against what the service does: its count is compared with what arrived, pages may be smaller than asked
for, a page without a new granule is an error, and so is an answer that timed out half-way with status 200.
Nothing is filtered by cloud, since CMR takes 0 for no filter. About 130 µs and 1 kB (compressed) per granule.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product
from urllib.parse import urlencode

import numpy as np
import shapely
from shapely.errors import GEOSException
from shapely.geometry import MultiPolygon, Polygon, box
from shapely.geometry.base import BaseGeometry

from geofm_pipeline.access.http import Response
from geofm_pipeline.addresses import shown
from geofm_pipeline.catalogs.arrived import Arrived
from geofm_pipeline.catalogs.hrefs import NEEDED, file_key
from geofm_pipeline.catalogs.items import CatalogItem, mapping, number
from geofm_pipeline.catalogs.request import Request, answering
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.hls.bands import Sensor
from geofm_pipeline.lonlat import Box
from geofm_pipeline.years import Years

DIALECT = "CMR granules API"
CONCEPTS: dict[Sensor, str] = {"L30": "C2021957657-LPCLOUD", "S30": "C2021957295-LPCLOUD"}
"""Collections HLSL30 and HLSS30, version 2.0."""
PAGE_SIZE = 2000
"""The most that CMR sends."""
_TRIES = 3
"""Of a page that CMR's own time limit cut short."""
_KEYS = frozenset(key for keys in NEEDED.values() for key in keys)
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, kw_only=True)
class Query:
    """One question to CMR."""

    concept: str
    box: Box
    first_day: int
    last_day: int
    """Inclusive, days since 1970-01-01 (UTC)."""

    def text(self, page_size: int) -> str:
        """The question as a URL's query."""
        first, last = (_EPOCH + timedelta(days=day) for day in (self.first_day, self.last_day))
        return urlencode(
            {
                "collection_concept_id": self.concept,
                "bounding_box": ",".join(f"{edge:.6f}" for edge in self.box),
                "temporal": f"{first}T00:00:00Z,{last}T23:59:59Z",
                "page_size": page_size,
            }
        )


def queries(request: Request, sensor: Sensor) -> list[Query]:
    """The questions about one sensor: per box (two at the antimeridian) and year, a day more about a run of years."""
    return [
        Query(concept=CONCEPTS[sensor], box=box, first_day=first, last_day=last)
        for box, (first, last) in product(request.region.boxes, _years(request.years))
    ]


def _years(years: Years) -> list[tuple[int, int]]:
    """(first day, last day) of each year, runs of years being a day longer at both ends."""
    days = []
    for first, last in years.spans:
        inner = [date(year, 1, 1) for year in years.years if first < (date(year, 1, 1) - _EPOCH).days < last]
        starts = [first - 1, *((day - _EPOCH).days for day in inner)]
        days += list(zip(starts, [*(start - 1 for start in starts[1:]), last + 1], strict=True))
    return days


def cmr_items(request: Request) -> Iterator[CatalogItem]:
    """Granules of the region's boxes and the years; may repeat ids across boxes.

    Raises
    ------
    ArchiveError
        When CMR does not answer, or not completely.
    """
    for sensor in CONCEPTS:
        for query in queries(request, sensor):
            yield from _search(request, query)


def count(request: Request, sensor: Sensor) -> int:
    """How many granules CMR has in the region's boxes and the years, one cheap request each."""
    name = _name(request)
    with answering(name):
        return sum(_hits(_ask(request, query, 0, {}), name) for query in queries(request, sensor))


def _search(request: Request, query: Query) -> Iterator[CatalogItem]:
    name, headers = _name(request), dict[str, str]()
    arrived, totals = Arrived(name, "granules"), set[int]()
    while True:
        with answering(name):
            response = _whole(request, query, headers, name)
        entries = _entries(response, name)
        if entries or not totals:
            totals.add(_hits(response, name))
        if entries:
            arrived.page((str(entry.get("id") or entry.get("title")) for entry in entries), max(totals))
        request.say(f"catalogue: cmr, {arrived.count:,} of {max(totals):,} granules")
        yield from (item_from_entry(entry) for entry in entries)
        token = response.headers.get("cmr-search-after")
        if not entries or token is None:
            break
        headers = {"CMR-Search-After": token}
    # The total may move while new granules are ingested; then what arrived lies between the first and the last count.
    if not min(totals) <= arrived.count <= max(totals):
        raise arrived.incomplete(f"{max(totals):,}")


def _name(request: Request) -> str:
    return f"CMR ({shown(request.access.services.cmr)})"


def _whole(request: Request, query: Query, headers: Mapping[str, str], name: str) -> Response:
    """A page that CMR had the time to complete."""
    for _ in range(_TRIES):
        response = _ask(request, query, PAGE_SIZE, headers)
        cut = {response.headers.get(name, "").lower() for name in ("cmr-time-out", "cmr-timed-out")}
        if "true" not in cut:
            return response
    raise ArchiveError(
        f"{name} ran out of its own time {_TRIES} times and sent parts only: ask for fewer years or a smaller region, "
        "or use another --catalog"
    )


def _ask(request: Request, query: Query, page_size: int, headers: Mapping[str, str]) -> Response:
    address = f"{request.access.services.cmr.rstrip('/')}/search/granules.json?{query.text(page_size)}"
    client = {"Client-Id": f"geofm/{importlib.metadata.version('geofm')}"}
    return request.source.get(address, headers={**client, **headers})


def _hits(response: Response, name: str) -> int:
    text = response.headers.get("cmr-hits", "")
    if not text.isdigit():
        raise ArchiveError(f"{name} does not say how many granules it matched (no CMR-Hits header): it is no CMR")
    return int(text)


def _entries(response: Response, name: str) -> list[Mapping[str, object]]:
    try:
        document = json.loads(response.body)
        entries = document["feed"]["entry"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArchiveError(
            f"{name} sent something else than a page of granules ({type(error).__name__}: {str(error)[:100]}); run the "
            "same command later, or use another --catalog"
        ) from error
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def item_from_entry(entry: Mapping[str, object]) -> CatalogItem:
    """Item of one entry of granules.json."""
    return CatalogItem(
        id=str(entry.get("title", "")),
        cloud_cover=number(entry.get("cloud_cover")),
        geometry=_geometry(entry),
        assets=_assets(entry.get("links")),
    )


def _assets(links: object) -> dict[str, str]:
    """Asset key → href of the granule's own files; s3 where there is nothing else."""
    found: dict[str, str] = {}
    for link in links if isinstance(links, Sequence) else ():
        href, rel = mapping(link).get("href"), str(mapping(link).get("rel"))
        if not isinstance(href, str) or mapping(link).get("inherited") or not rel.endswith(("/data#", "/s3#")):
            continue
        key = file_key(href)
        if key in _KEYS and (key not in found or found[key].startswith("s3://")):
            found[key] = href
    return found


def _geometry(entry: Mapping[str, object]) -> BaseGeometry | None:
    try:
        return _polygons(entry.get("polygons")) or _boxes(entry.get("boxes"))
    except (GEOSException, ValueError, TypeError):
        return None


def _polygons(texts: object) -> BaseGeometry | None:
    """Polygons of CMR's form: per polygon a list of rings, the outer one first, each `lat lon lat lon …`."""
    parts = []
    for rings in texts if isinstance(texts, list) else ():
        corners = [np.array(str(ring).split(), dtype=np.float64).reshape(-1, 2)[:, ::-1] for ring in rings]
        parts.append(Polygon(corners[0], corners[1:]))
    return parts[0] if len(parts) == 1 else MultiPolygon(parts) if parts else None


def _boxes(texts: object) -> BaseGeometry | None:
    """Boxes of CMR's form: `south west north east`, west > east across the antimeridian."""
    parts = []
    for text in texts if isinstance(texts, list) else ():
        south, west, north, east = (float(edge) for edge in re.split(r"[\s,]+", str(text).strip()))
        parts.append(box(west, south, east if west <= east else east + 360, north))
    return shapely.union_all(parts) if parts else None
