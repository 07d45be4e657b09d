"""STAC APIs are searched completely or not at all, against a server on loopback that behaves as real ones do."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from geofm_pipeline.access.settings import Access
from geofm_pipeline.catalogs import facts, find_scenes
from geofm_pipeline.errors import ArchiveError, NothingFoundError
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

Items = list[dict[str, Any]]
EARTH = parse_region("-180,-90,180,90")
ALL = parse_years("2021-2022")
QUICK = Access(attempts=4, first_wait_s=0.005, longest_wait_s=0.02)
"""Waits between tries are cut short."""
search = partial(find_scenes, access=QUICK)


class Api:
    """A small STAC API: GET search by bbox, datetime and collection, paged by two, with faults on demand.

    Like CMR-STAC it declares an old conformance, counts in `context`, refuses a bbox with west > east and links
    the next page by the whole query.
    """

    def __init__(
        self, items: Items, reply: Any, *, collections: tuple[str, ...] = ("HLSL30_2.0", "HLSS30_2.0")
    ) -> None:
        self.items, self.reply, self.collections = items, reply, collections
        self.searches: list[dict[str, str]] = []
        self.failures: list[tuple[int, dict[str, str]]] = []
        self.repeat_page = False
        self.matched_more = 0
        self.page_size = 2
        self.html = False
        self.url = ""

    def __call__(self, path: str, query: dict[str, str]) -> Any:
        if path == "/":
            return self.reply.json(self._landing())
        if path.startswith("/collections/"):
            name = path.rsplit("/", 1)[1]
            return self.reply.json(self._collection(name)) if name in self.collections else self.reply.json({}, 404)
        if path == "/search":
            return self._search(query)
        return self.reply.json({"errors": ["not found"]}, 404)

    def _landing(self) -> dict[str, Any]:
        links = [{"rel": rel, "href": f"{self.url}/{rel}", "type": "application/json"} for rel in ("search", "data")]
        links.append({"rel": "self", "href": self.url, "type": "application/json"})
        return {
            "type": "Catalog",
            "id": "api",
            "description": "test",
            "stac_version": "1.0.0",
            "conformsTo": ["https://api.stacspec.org/v1.0.0-rc.2/core"],
            "links": links,
        }

    def _collection(self, name: str) -> dict[str, Any]:
        extent = {
            "spatial": {"bbox": [[-180, -90, 180, 90]]},
            "temporal": {"interval": [["2013-04-11T00:00:00Z", None]]},
        }
        return {"type": "Collection", "id": name, "extent": extent, "links": []}

    def _search(self, query: dict[str, str]) -> Any:
        self.searches.append(query)
        if self.failures:
            status, headers = self.failures.pop(0)
            return self.reply.json({"errors": ["An unexpected error occurred"]}, status, **headers)
        if self.html:
            return self.reply(b"<html>maintenance</html>")
        west, south, east, north = (float(edge) for edge in query["bbox"].split(","))
        if west > east:
            return self.reply.json({"errors": ["bbox"]}, 400)
        start, end = (datetime.fromisoformat(edge) for edge in query["datetime"].split("/"))
        found = [
            item
            for item in self.items
            if item["collection"] in query.get("collections", item["collection"])
            and start <= datetime.fromisoformat(item["properties"]["datetime"]) <= end
            and item["bbox"][0] <= east
            and item["bbox"][2] >= west
            and item["bbox"][1] <= north
            and item["bbox"][3] >= south
        ]
        return self.reply.json(self._page(found, query))

    def _page(self, found: Items, query: dict[str, str]) -> dict[str, Any]:
        at = 0 if self.repeat_page else int(query.get("cursor", 0))
        end = at + self.page_size
        links = [{"rel": "self", "href": f"{self.url}/search"}]
        if end < len(found):
            text = "&".join(f"{key}={value}" for key, value in {**query, "cursor": str(end)}.items())
            links.append({"rel": "next", "href": f"{self.url}/search?{text}", "type": "application/geo+json"})
        features = found[at:end]
        context = {"returned": len(features), "matched": len(found) + self.matched_more}
        return {"type": "FeatureCollection", "features": features, "links": links, "context": context}


@pytest.fixture
def api(items: Items, serve: Callable[..., Any], reply: Any) -> Iterator[Api]:
    """A running API."""
    running = Api(items, reply)
    with serve(running) as url:
        running.url = url
        yield running


@pytest.fixture
def reference(items: Items, tmp_path: Path) -> Any:
    """The SceneTable of the same items from a file, with absolute hrefs."""
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = asset["href"].replace("./", "https://archive.example/")
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return find_scenes(str(tmp_path / "items.json"), EARTH, ALL)


def test_an_api_gives_the_same_table_as_a_file(reference: Any, api: Api) -> None:
    """All pages of both collections arrive; the landing page is recognised by its search link."""
    said: list[str] = []
    assert search(api.url, EARTH, ALL, progress=said.append).equals(reference)
    assert {search["collections"] for search in api.searches} == {"HLSL30_2.0", "HLSS30_2.0"}
    assert any("of 4 items" in line for line in said)


def test_the_antimeridian_is_searched_by_two_boxes(reference: Any, api: Api) -> None:
    """No request has west > east; an item that both boxes find is kept once."""
    table = search(api.url, parse_region("170,-30,-170,30"), ALL)
    assert table["tile"].to_pylist() == ["01KAB"]
    assert {search["bbox"].split(",")[0] for search in api.searches} == {"-180.0", "170.0"}


def test_years_are_searched_in_runs_with_a_day_on_either_side(reference: Any, api: Api) -> None:
    """Item times differ from ids by minutes, so a day more is asked for and the id decides."""
    item = copy.deepcopy(api.items[1])  # sensed 4 seconds into 2022
    item["id"] = "HLS.L30.T32UNU.2021365T235958.v2.0"
    item["properties"]["datetime"] = "2022-01-01T00:02:00.000Z"
    api.items[1]["properties"]["datetime"] = "2021-12-31T23:59:00.000Z"
    api.items.append(item)
    ids = search(api.url, EARTH, parse_years("2022"))["granule_id"].to_pylist()
    assert api.items[1]["id"] in ids
    assert item["id"] not in ids
    assert {search["datetime"] for search in api.searches} == {"2021-12-31T00:00:00Z/2023-01-01T23:59:59Z"}


def test_without_known_collections_everything_is_searched(reference: Any, api: Api) -> None:
    """A service that names its collections otherwise is searched as a whole."""
    api.collections = ()
    assert search(api.url, EARTH, ALL).equals(reference)
    assert all("collections" not in search for search in api.searches)


def test_a_collection_that_is_not_there_is_said(api: Api) -> None:
    """A service by URL may have one sensor only; the progress and the table's notes say which one it lacks."""
    api.collections = ("HLSS30_2.0",)
    said: list[str] = []
    table = search(api.url, EARTH, ALL, progress=said.append)
    assert set(table["sensor"].to_pylist()) == {"S30"}
    assert any("lacks the collection HLSL30_2.0, so no L30 granule is found there" in line for line in said)
    assert "HLSL30_2.0" in str(facts(table)["notes"])


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_faults_are_tried_again(reference: Any, api: Api, status: int) -> None:
    """429 and 5xx are retried, with Retry-After where given."""
    api.failures = [(status, {"Retry-After": "0"}), (status, {})]
    assert search(api.url, EARTH, ALL).equals(reference)


def test_a_lasting_fault_is_an_error_with_its_status(api: Api) -> None:
    """After all retries the message names the service and the status."""
    api.failures = [(503, {})] * 10
    with pytest.raises(ArchiveError, match="cannot be reached") as caught:
        search(api.url, EARTH, ALL)
    assert api.url in str(caught.value)
    assert "503" in str(caught.value)


def test_a_repeated_page_is_an_error(api: Api) -> None:
    """A service whose cursor does not move would deliver one page for ever."""
    api.repeat_page = True
    with pytest.raises(ArchiveError, match="same page twice"):
        search(api.url, EARTH, ALL)


@pytest.mark.parametrize("more", [1, -1])
def test_an_incomplete_search_is_an_error(api: Api, more: int) -> None:
    """Matched and received counts must agree, or the frame would silently lack granules."""
    api.matched_more = more
    with pytest.raises(ArchiveError, match=r"matched \d+ items but delivered"):
        search(api.url, EARTH, ALL)


def test_a_web_page_instead_of_items_is_an_error(api: Api) -> None:
    """A maintenance page with status 200 is not an empty search."""
    api.html = True
    with pytest.raises(ArchiveError, match="is a web page"):
        search(api.url, EARTH, ALL)


def test_an_empty_search_names_the_extent_of_the_collections(api: Api) -> None:
    """Where the service says what it has, the message repeats it."""
    with pytest.raises(NothingFoundError, match=r"HLSL30_2\.0 holds 2013-04-11 to now"):
        search(api.url, parse_region("100,70,101,71"), ALL)


def test_an_address_without_a_server_is_an_error() -> None:
    """The message names the address and what to check."""
    with pytest.raises(ArchiveError, match="cannot be reached") as caught:
        search("http://127.0.0.1:9/stac", EARTH, ALL)
    assert "127.0.0.1:9" in str(caught.value)
