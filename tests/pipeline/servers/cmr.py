"""CMR's granules API over given STAC items.

Quirks (nasa/Common-Metadata-Repository search-app/docs/api.md, a recorded answer of 2025-11): the total only in the
header CMR-Hits; CMR-Search-After on every page that has entries, the last one too, and none on the empty one after it;
page_size at most 2000; unknown parameters and bad values are a 400 with {"errors": [...]}; a search that runs out of
CMR's own time is a 200 with a part of the page and CMR-Time-Out; cloud_cover is a text; polygons are "lat lon …"; links
repeat every file as s3, and bring inherited ones of the collection; titles hold the granule id, `id` does not.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shapely.geometry import box, shape

from geofm_pipeline.lonlat import unrolled
from servers.loopback import Reply, Request, json_reply

CONCEPTS = {"HLSL30_2.0": "C2021957657-LPCLOUD", "HLSS30_2.0": "C2021957295-LPCLOUD"}
_KNOWN = {"collection_concept_id", "bounding_box", "temporal", "page_size", "sort_key[]"}
_REL = "http://esipfed.org/ns/fedsearch/1.1/"


@dataclass
class Cmr:
    """Answers GET /search/granules.json."""

    items: Sequence[dict[str, Any]]
    cap: int = 2000
    """Entries of a page at most, whatever was asked for."""
    lost: int = 0
    """Entries that the last page lacks although they are counted."""
    repeats: bool = False
    """The cursor does not move."""
    alternates: bool = False
    """Pages one and two come in turn for ever."""
    overlaps: bool = False
    """The third page is the first one with one new entry at its end."""
    time_outs: int = 0
    """Pages that come in part, with CMR-Time-Out, before the whole ones."""
    hits_more: int = 0
    """Added to the total."""
    searches: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Reply:
        if request.path != "/search/granules.json":
            return json_reply({"errors": ["not found"]}, 404)
        self.searches.append(request)
        unknown = set(request.query) - _KNOWN
        size = int(request.query.get("page_size", "10"))
        if unknown or not 0 <= size <= 2000:
            return json_reply({"errors": [f"Parameter {sorted(unknown) or 'page_size'} was not recognized."]}, 400)
        return self._page(request, self._found(request), min(size, self.cap))

    def _found(self, request: Request) -> list[dict[str, Any]]:
        west, south, east, north = (float(edge) for edge in request.query["bounding_box"].split(","))
        ground = [box(west, south, east, north)] if west <= east else [
            box(west, south, 180, north), box(-180, south, east, north)
        ]  # fmt: skip
        first, last = (datetime.fromisoformat(edge) for edge in request.query["temporal"].split(","))
        return [
            item
            for item in self.items
            if CONCEPTS[item["collection"]] == request.query["collection_concept_id"]
            and first <= datetime.fromisoformat(item["properties"]["datetime"]) <= last
            and any(unrolled(shape(item["geometry"])).intersects(part) for part in ground)
        ]

    def _page(self, request: Request, found: list[dict[str, Any]], size: int) -> Reply:
        token = request.headers.get("cmr-search-after")
        start = 0 if token is None or self.repeats else json.loads(token)[1]
        some = found[start : start + size]
        stop = start + len(some)
        if self.alternates and size:
            some, stop = found[start % (2 * size) :][:size], start + size
        if self.overlaps and size and start == 2 * size:
            some = [*found[: size - 1], found[start]]
        headers = {"CMR-Hits": str(len(found) + self.hits_more), "CMR-Took": "12"}
        if some:
            headers["CMR-Search-After"] = json.dumps(["lpcloud", stop, 3790086838])
        if self.lost and stop == len(found):
            some = some[: -self.lost]
        if self.time_outs and size:
            self.time_outs -= 1
            some, headers = some[: len(some) // 2], {**headers, "CMR-Time-Out": "true"}
        body = json.dumps({"feed": {"updated": "2025-11-11T00:00:00Z", "entry": [entry_of(item) for item in some]}})
        headers["Content-Type"] = "application/json;charset=utf-8"
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Reply(body=body.encode(), headers=headers)
        return Reply(body=gzip.compress(body.encode()), headers={**headers, "Content-Encoding": "gzip"})


def entry_of(item: dict[str, Any]) -> dict[str, Any]:
    """An item as an entry of granules.json."""
    name = item["id"]
    stamp = item["properties"]["datetime"]
    number = f"G{abs(hash(name)) % 10**10}-LPCLOUD"
    end = (datetime.fromisoformat(stamp) + timedelta(seconds=24)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    entry = {
        "id": number,
        "title": name,
        "producer_granule_id": name.removesuffix(".v2.0"),
        "time_start": stamp,
        "time_end": end,
        "collection_concept_id": CONCEPTS[item["collection"]],
        "links": _links(item),
        "original_format": "ECHO10",
        "polygons": _polygons(item["geometry"]),
    }
    cloud = item["properties"].get("eo:cloud_cover")
    return entry if cloud is None else {**entry, "cloud_cover": str(cloud)}


def _polygons(geometry: dict[str, Any]) -> list[list[str]]:
    parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    return [[" ".join(f"{lat} {lon}" for lon, lat, *_ in ring) for ring in rings] for rings in parts]


def _links(item: dict[str, Any]) -> list[dict[str, Any]]:
    hrefs = [asset["href"] for asset in item["assets"].values()]
    own = [{"rel": f"{_REL}data#", "href": href, "hreflang": "en-US"} for href in hrefs]
    twins = [{"rel": f"{_REL}s3#", "href": s3_twin(href), "hreflang": "en-US"} for href in hrefs]
    other = [
        {"rel": f"{_REL}metadata#", "href": f"https://data.example/lp-prod-public/{item['id']}_stac.json"},
        {"rel": f"{_REL}metadata#", "href": "https://data.example/s3credentials"},
        {"rel": f"{_REL}browse#", "href": f"https://data.example/lp-prod-public/{item['id']}.jpg"},
        {"rel": f"{_REL}data#", "inherited": True, "href": "https://search.example/a.B04.tif"},
    ]
    return [*twins[:1], *own, *twins[1:], *other]


def s3_twin(href: str) -> str:
    """The same file's S3 address."""
    return "s3://lp-prod-protected/" + href.partition("/lp-prod-protected/")[2]
