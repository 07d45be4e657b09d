"""STAC APIs by URL: the only pystac-client user.

By construction against what real services do (CMR-STAC first): search by bbox and split at the antimeridian, GET,
at most 100 items per page, time-outs, retries of 429 and 5xx for every method with Retry-After honoured, a page that
repeats its predecessor is an error, and so is a count that differs from what the service said it matched. Everything
is filtered again locally.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta

from pystac_client import Client
from pystac_client.exceptions import APIError
from pystac_client.stac_api_io import StacApiIO
from urllib3.util.retry import Retry

from geofm_pipeline.catalogs.items import CatalogItem, item_from_json, mapping
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.lonlat import Box
from geofm_pipeline.region import Region
from geofm_pipeline.years import Years

DIALECT = "STAC API"
COLLECTIONS = (("HLSL30_2.0", "HLSS30_2.0"), ("hls2-l30", "hls2-s30"), ("HLSL30.v2.0", "HLSS30.v2.0"))
"""Pairs of ids under which services keep the two products (NASA, Planetary Computer, older NASA): the first pair of
which a service has at least one is searched, all its collections where it has none."""
PAGE_SIZE = 100  # CMR-STAC caps it there without a word
_TIMEOUT_S = (20.0, 120.0)  # connect, read: CMR-STAC takes tens of seconds for a page on a bad day
_EPOCH = date(1970, 1, 1)


def retry_policy(*, total: int = 6, backoff: float = 1.0) -> Retry:
    """Retries of connections, 429 and 5xx for every method, honouring Retry-After; waits 1, 2, 4 … s otherwise."""
    return Retry(
        total=total,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=None,
        backoff_factor=backoff,
        respect_retry_after_header=True,
        raise_on_status=False,
    )


class StacApi:
    """A STAC API opened by the URL of its landing page.

    Raises
    ------
    ArchiveError
        From every method, when the service cannot be reached after all retries, answers with something else than
        STAC, repeats a page or delivers another number of items than it matched.
    """

    def __init__(self, url: str, *, retries: Retry | None = None, timeout: tuple[float, float] = _TIMEOUT_S) -> None:
        self.url = url
        io = StacApiIO(max_retries=retry_policy() if retries is None else retries, timeout=timeout)
        try:
            self._client = Client.open(url, stac_io=io)
            # Services forget to declare conformance classes; the search link is what counts.
            self._client.add_conforms_to("ITEM_SEARCH")
        except (APIError, ValueError, KeyError) as error:
            raise _unreadable(url, error) from error
        self._io = io
        self._found = self._known_collections()

    def items(
        self, *, region: Region, years: Years, progress: Callable[[str], None] | None = None
    ) -> Iterator[CatalogItem]:
        """Items of the region's boxes and the years, a day more on either side; may repeat ids across boxes."""
        for box in region.boxes:
            for first, last in years.spans:
                for collection in self._found or (None,):
                    yield from self._search(box, first - 1, last + 1, collection, progress)

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

    def _known_collections(self) -> dict[str, Mapping[str, object]]:
        for pair in COLLECTIONS:
            found = {name: document for name in pair if (document := self._collection(name)) is not None}
            if found:
                return found
        return {}

    def _collection(self, name: str) -> Mapping[str, object] | None:
        try:
            return mapping(json.loads(self._io.request(f"{self.url.rstrip('/')}/collections/{name}")))
        except APIError as error:
            if error.status_code in (400, 404):
                return None
            raise _unreadable(self.url, error) from error
        except ValueError as error:
            raise _unreadable(self.url, error) from error

    def _search(
        self, box: Box, first: int, last: int, collection: str | None, progress: Callable[[str], None] | None
    ) -> Iterator[CatalogItem]:
        search = self._client.search(
            method="GET",
            bbox=box,
            datetime=f"{_date(first)}T00:00:00Z/{_date(last)}T23:59:59Z",
            collections=None if collection is None else [collection],
            limit=PAGE_SIZE,
        )
        received, matched, previous = 0, None, frozenset[str]()
        try:
            for page in search.pages_as_dicts():
                features = page.get("features") or []
                ids = frozenset(str(feature.get("id")) for feature in features)
                if ids and ids == previous:
                    raise ArchiveError(
                        f"{self.url} sent the same page twice after {received:,} of {matched} items: its paging is "
                        f"broken, so no search there can be complete; try again later or use another --catalog"
                    )
                previous, received, matched = ids, received + len(features), _matched(page, matched)
                if progress is not None:
                    progress(f"catalogue: {received:,} of {matched if matched is not None else '?'} items")
                yield from (item_from_json(feature, base=self.url) for feature in features)
        except (APIError, ValueError, KeyError) as error:
            raise _unreadable(self.url, error) from error
        if matched is not None and matched != received:
            raise ArchiveError(
                f"{self.url} matched {matched:,} items but delivered {received:,}: the search is incomplete; run the "
                f"same command again, or use another --catalog if it persists"
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
    status = getattr(error, "status_code", None)
    text = " ".join(str(error).split())[:300]
    return ArchiveError(
        f"STAC API {url} cannot be read{f' (HTTP {status})' if status else ''}: {text}; it was tried again with "
        f"growing waits. Check the address, or run the same command later"
    )
