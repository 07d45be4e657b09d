"""A STAC API over given items, with the habits of CMR-STAC.

Quirks (recorded answers of 2025): an old conformance class; a total in `context.matched` only; pages of at most 100
without a word; a bbox with west > east is a 400; `next` is the whole query in a URL; errors are {"errors": [...]}.
The real one takes a cloud filter of 0 for none and ignores most others; here any of them is refused, so none is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from shapely.geometry import box, shape

from geofm_pipeline.lonlat import unrolled
from servers.loopback import Reply, Request, json_reply

_KNOWN = {"bbox", "datetime", "collections", "limit", "cursor"}


@dataclass
class StacApi:
    """Answers a landing page, /collections/{id} and GET /search below `root`."""

    items: Sequence[dict[str, Any]]
    collections: tuple[str, ...] = ("HLSL30_2.0", "HLSS30_2.0")
    start: str = "2013-04-11T00:00:00Z"
    """Where the collections' time begins."""
    root: str = "/stac/LPCLOUD"
    cap: int = 100
    says_matched: bool = True
    repeats: bool = False
    """The cursor does not move."""
    matched_more: int = 0
    empty_page: bool = False
    """The second page is empty, though it links to a next one."""
    overlap: int = 0
    """Items that every page but the first repeats of the one before, in place of as many of its own last ones."""
    alternates: bool = False
    """Pages one and two come in turn for ever."""
    absent_status: int = 404
    """Of collections that are not there."""
    url: str = ""
    """Of the server; set when it runs."""
    searches: list[dict[str, str]] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Of the landing page."""
        return self.url + self.root

    def __call__(self, request: Request) -> Reply:
        path = request.path.removeprefix(self.root).rstrip("/")
        if path == "":
            return json_reply(self._landing())
        if path.startswith("/collections/"):
            name = path.rsplit("/", 1)[1]
            return json_reply(self._collection(name)) if name in self.collections else self._absent()
        if path == "/search":
            return self._search(request)
        return json_reply({"errors": ["not found"]}, 404)

    def _absent(self) -> Reply:
        return json_reply({"code": "no"}, self.absent_status)

    def _landing(self) -> dict[str, Any]:
        kinds = {"type": "application/json"}
        links = [{"rel": rel, "href": f"{self.address}/{rel}", **kinds} for rel in ("search", "data")]
        return {
            "type": "Catalog",
            "id": "api",
            "description": "test",
            "stac_version": "1.0.0",
            "conformsTo": ["https://api.stacspec.org/v1.0.0-rc.2/core"],
            "links": [*links, {"rel": "self", "href": self.address, **kinds}],
        }

    def _collection(self, name: str) -> dict[str, Any]:
        extent = {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[self.start, None]]}}
        return {"type": "Collection", "id": name, "extent": extent, "links": []}

    def _search(self, request: Request) -> Reply:
        query = request.query
        self.searches.append(query)
        west, south, east, north = (float(edge) for edge in query["bbox"].split(","))
        if request.method != "GET" or set(query) - _KNOWN or west > east:
            return json_reply({"errors": ["Query parameters are not valid"]}, 400)
        first, last = (datetime.fromisoformat(edge) for edge in query["datetime"].split("/"))
        found = [
            item
            for item in self.items
            if item["collection"] in query.get("collections", item["collection"]).split(",")
            and first <= datetime.fromisoformat(item["properties"]["datetime"]) <= last
            and unrolled(shape(item["geometry"])).intersects(box(west, south, east, north))
        ]
        return json_reply(self._page(found, query))

    def _page(self, found: Sequence[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        at = 0 if self.repeats else int(query.get("cursor", 0))
        size = min(self.cap, int(query.get("limit", 10)))
        end = at + size
        links = [{"rel": "self", "href": f"{self.address}/search"}]
        if end < len(found) or self.alternates:
            text = "&".join(f"{key}={value}" for key, value in {**query, "cursor": str(end)}.items())
            links.append({"rel": "next", "href": f"{self.address}/search?{text}", "type": "application/geo+json"})
        at = at % (2 * size) if self.alternates else max(0, at - self.overlap)
        features = [] if at and self.empty_page else found[at : at + size]
        page = {"type": "FeatureCollection", "features": features, "links": links}
        if not self.says_matched:
            return page
        return {**page, "context": {"returned": len(features), "matched": len(found) + self.matched_more}}
