"""STAC APIs by URL: the only pystac-client user.

By construction against what real services do (CMR-STAC first): search by bbox and split at the antimeridian, GET,
at most 100 items per page, a page without a new item is an error, and so is a count of distinct items that differs
from what the service said it matched. Everything is filtered again locally, nothing by cloud, since CMR-STAC takes 0
for no filter. The access layer sends the requests and tries again after time-outs, 429, 5xx and cut bodies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO

from geofm_pipeline.access.faults import FetchError
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.addresses import shown, shown_in
from geofm_pipeline.catalogs.arrived import Arrived
from geofm_pipeline.catalogs.items import CatalogItem, batched, item_from_json, mapping
from geofm_pipeline.catalogs.request import Request, answering
from geofm_pipeline.catalogs.rows import scene_table, with_facts
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.hls.bands import SENSORS
from geofm_pipeline.lonlat import Box

DIALECT = "STAC API"
COLLECTIONS = (("HLSL30_2.0", "HLSS30_2.0"), ("hls2-l30", "hls2-s30"), ("HLSL30.v2.0", "HLSS30.v2.0"))
"""Pairs of ids, in the order of SENSORS, under which services keep the two products (NASA, Planetary Computer, older
NASA): the first pair that a service has is searched, half a pair where it has no whole one, else all collections."""
PAGE_SIZE = 100  # CMR-STAC caps it there without a word
_EPOCH = date(1970, 1, 1)
_ABSENT = (404, 400)
"""400 is the answer of services that dislike the name of a collection."""


def search_api(url: str, request: Request, *, both: bool = False) -> pa.Table:
    """SceneTable of a STAC API; see :func:`geofm_pipeline.catalogs.rows.scene_table`.

    `both` makes it an error that one of the two HLS collections is not there; else that is a note.
    """
    api = StacApi(url, request, both=both)
    table = scene_table(
        batched(api.items()),
        source=url,
        dialect=DIALECT,
        region=request.region,
        years=request.years,
        known_extent=api.extent,
    )
    return with_facts(table, {"notes": list(request.notes)}) if request.notes else table


class _SourceIO(StacApiIO):
    """Sends pystac-client's requests through the access layer."""

    def __init__(self, source: ArchiveSource) -> None:
        super().__init__()
        self._source = source
        self.last: Mapping[str, object] = {}
        """The newest document."""

    def request(
        self,
        href: str,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> str:
        if (method or "GET").upper() != "GET":
            raise APIError(f"its next page is to be asked for by {method}, which a GET search cannot follow")
        query = urlencode({name: value for name, value in (parameters or {}).items() if value is not None}, safe=",:/")
        address = f"{href}{'&' if '?' in href else '?'}{query}" if query else href
        # Headers that a next link names are not sent on: they repeat ours.
        text = self._source.get(address).body.decode()
        self.last = mapping(json.loads(text))
        return text


class StacApi:
    """A STAC API opened by the URL of its landing page.

    Raises
    ------
    ArchiveError
        From every method, when the service cannot be reached after all retries, answers with something else than
        STAC, repeats a page, delivers another number of items than it matched or lacks a collection of `both`.
    """

    def __init__(self, url: str, request: Request, *, both: bool = False) -> None:
        self.url, self._shown, self._request = url, shown(url), request
        self._io = _SourceIO(request.source)
        with answering(f"STAC API {self._shown}"):
            try:
                self._client = Client.open(url, stac_io=self._io)
                # Services forget to declare conformance classes; the search link is what counts.
                self._client.add_conforms_to("ITEM_SEARCH")
                self._found = self._known_collections()
            except (APIError, ValueError, KeyError, OSError) as error:
                raise _unreadable(url, error) from error
        self._check_both(both)
        self._note_years()

    def items(self) -> Iterator[CatalogItem]:
        """Items of the region's boxes and the years, a day more on either side; may repeat ids across boxes."""
        for box in self._request.region.boxes:
            for first, last in self._request.years.spans:
                for collection in self._found or (None,):
                    with answering(f"STAC API {self._shown}"):
                        yield from self._search(box, first - 1, last + 1, collection)

    def extent(self) -> str:
        """What the collections say they hold in time and space, '' when they do not say."""
        said = []
        for name, document in self._found.items():
            extent = mapping(document.get("extent"))
            spans, boxes = _inner(extent, "temporal", "interval"), _inner(extent, "spatial", "bbox")
            when = " to ".join(str(end)[:10] if end else "now" for end in spans[0]) if spans else "unknown dates"
            where = f" over bbox {boxes[0]}" if boxes else ""
            said.append(f"{name} holds {when}{where}")
        return "; ".join(said)

    def _note_years(self) -> None:
        """Say which of the years lie before the collections begin, as the Planetary Computer's do in 2020."""
        extents = [mapping(document.get("extent")) for document in self._found.values()]
        starts = [spans[0][0] for extent in extents if (spans := _inner(extent, "temporal", "interval")) and spans[0]]
        years = [int(str(start)[:4]) for start in starts if str(start)[:4].isdigit()]
        early = [year for year in self._request.years.years if years and year < min(years)]
        if early and len(years) == len(self._found):
            self._request.note(
                f"{self._shown} has granules from {min(years)} on only, so {', '.join(map(str, early))} will have none."
            )

    def _known_collections(self) -> dict[str, Mapping[str, object]]:
        half: dict[str, Mapping[str, object]] = {}
        for pair in COLLECTIONS:
            found = {name: document for name in pair if (document := self._collection(name)) is not None}
            if len(found) == len(pair):
                return found
            half = half or found
        return half

    def _check_both(self, needed: bool) -> None:
        """Raise or say when a collection is not there: half of the granules would be missing in silence."""
        pair = next((pair for pair in COLLECTIONS if set(pair) & set(self._found)), COLLECTIONS[0])
        lacking = {name: sensor for name, sensor in zip(pair, SENSORS, strict=True) if name not in self._found}
        if lacking and needed:
            raise ArchiveError(
                f"{self._shown} lacks the collection {' and '.join(lacking)}: a search would silently miss granules; "
                "run the same command later, or use another --catalog"
            )
        if lacking and self._found:
            (name, sensor), *_ = lacking.items()
            self._request.note(f"{self._shown} lacks the collection {name}, so no {sensor} granule is found there.")

    def _collection(self, name: str) -> Mapping[str, object] | None:
        try:
            document = mapping(json.loads(self._io.request(f"{self.url.rstrip('/')}/collections/{name}")))
        except FetchError as error:
            if error.status in _ABSENT:
                return None
            raise
        if document.get("id") != name:
            raise self._not("a collection", document)
        return document

    def _search(self, box: Box, first: int, last: int, collection: str | None) -> Iterator[CatalogItem]:
        search = self._client.search(
            method="GET",
            bbox=box,
            datetime=f"{_date(first)}T00:00:00Z/{_date(last)}T23:59:59Z",
            collections=None if collection is None else [collection],
            limit=PAGE_SIZE,
        )
        arrived, matched = Arrived(self._shown, "items"), None
        try:
            for page in search.pages_as_dicts():
                features = page.get("features") or []
                matched = _matched(page, matched)
                arrived.page((f"{feature.get('collection')} {feature.get('id')}" for feature in features), matched)
                total = f"{matched:,}" if matched is not None else "?"
                self._request.say(f"catalogue: {arrived.count:,} of {total} items of {collection or 'all collections'}")
                yield from (item_from_json(feature, base=self.url) for feature in features)
        except (APIError, ValueError, KeyError, OSError) as error:
            raise _unreadable(self.url, error) from error
        self._check_complete(arrived, _matched(self._io.last, matched))

    def _check_complete(self, arrived: Arrived, matched: int | None) -> None:
        """Raise unless the last page was items without a successor, and as many arrived as were matched."""
        last = self._io.last
        if not isinstance(last.get("features"), list):
            raise self._not("items", last)
        links = last.get("links")
        more = isinstance(links, list) and any(mapping(link).get("rel") == "next" for link in links)
        if more or (matched is not None and matched != arrived.count):
            raise arrived.incomplete("more" if matched is None else f"{matched:,}")

    def _not(self, wanted: str, document: Mapping[str, object]) -> ArchiveError:
        """An answer with status 200 that is something else."""
        kind = f"a document of type {document.get('type')!r}"
        words = str(document.get("errors") or document.get("detail") or kind)[:200]
        return ArchiveError(
            f"STAC API {self._shown} cannot be read: instead of {wanted} it sent {words}; run the same command later, "
            "or use another --catalog"
        )


def _matched(page: Mapping[str, object], before: int | None) -> int | None:
    value = page.get("numberMatched", mapping(page.get("context")).get("matched", before))
    return int(value) if isinstance(value, (int, str)) else before


def _inner(extent: Mapping[str, object], outer: str, name: str) -> Sequence[Sequence[object]]:
    value = mapping(extent.get(outer)).get(name)
    return value if isinstance(value, list) and value and isinstance(value[0], list) else []


def _date(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).isoformat()


def _unreadable(url: str, error: Exception) -> ArchiveError:
    text = shown_in(" ".join(str(error).split()))[:300]
    return ArchiveError(
        f"STAC API {shown(url)} cannot be read: {text}; check the address, run the same command later, or use another "
        "--catalog"
    )
