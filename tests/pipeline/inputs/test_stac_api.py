"""STAC APIs are searched completely or not at all, against a server on loopback that behaves as real ones do."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from servers.cmr_stac import StacApi
from servers.faulty import Faulty, error, web_page
from servers.loopback import serving

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


class Running:
    """A service over some items on loopback, paged by two, and the faults of its next searches."""

    def __init__(self, items: Items) -> None:
        self.api = StacApi(items=items, cap=2)
        self.faults = Faulty(self.api, spares=lambda request: not request.path.endswith("/search"))

    @property
    def address(self) -> str:
        """Of the landing page."""
        return self.api.address


@pytest.fixture
def service(items: Items) -> Iterator[Running]:
    """A running service with the items of GRANULES."""
    running = Running(items)
    with serving(running.faults) as server:
        running.api.url = server.url
        yield running


@pytest.fixture
def reference(items: Items, tmp_path: Path) -> Any:
    """The SceneTable of the same items from a file, with absolute hrefs."""
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = asset["href"].replace("./", "https://archive.example/")
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return find_scenes(str(tmp_path / "items.json"), EARTH, ALL)


def test_an_api_gives_the_same_table_as_a_file(reference: Any, service: Running) -> None:
    """All pages of both collections arrive; the landing page is recognised by its search link."""
    said: list[str] = []
    assert search(service.address, EARTH, ALL, progress=said.append).equals(reference)
    assert {search["collections"] for search in service.api.searches} == {"HLSL30_2.0", "HLSS30_2.0"}
    assert any("of 4 items" in line for line in said)


def test_the_antimeridian_is_searched_by_two_boxes(reference: Any, service: Running) -> None:
    """No request has west > east; an item that both boxes find is kept once."""
    table = search(service.address, parse_region("170,-30,-170,30"), ALL)
    assert table["tile"].to_pylist() == ["01KAB"]
    assert {search["bbox"].split(",")[0] for search in service.api.searches} == {"-180.0", "170.0"}


def test_years_are_searched_in_runs_with_a_day_on_either_side(reference: Any, service: Running) -> None:
    """Item times differ from ids by minutes, so a day more is asked for and the id decides."""
    item = copy.deepcopy(service.api.items[1])  # sensed 4 seconds into 2022
    item["id"] = "HLS.L30.T32UNU.2021365T235958.v2.0"
    item["properties"]["datetime"] = "2022-01-01T00:02:00.000Z"
    service.api.items[1]["properties"]["datetime"] = "2021-12-31T23:59:00.000Z"
    service.api.items = [*service.api.items, item]
    ids = search(service.address, EARTH, parse_years("2022"))["granule_id"].to_pylist()
    assert service.api.items[1]["id"] in ids
    assert item["id"] not in ids
    assert {search["datetime"] for search in service.api.searches} == {"2021-12-31T00:00:00Z/2023-01-01T23:59:59Z"}


def test_without_known_collections_everything_is_searched(reference: Any, service: Running) -> None:
    """A service that names its collections otherwise is searched as a whole."""
    service.api.collections = ()
    assert search(service.address, EARTH, ALL).equals(reference)
    assert all("collections" not in search for search in service.api.searches)


def test_a_collection_that_is_not_there_is_said(service: Running) -> None:
    """A service by URL may have one sensor only; the progress and the table's notes say which one it lacks."""
    service.api.collections = ("HLSS30_2.0",)
    said: list[str] = []
    table = search(service.address, EARTH, ALL, progress=said.append)
    assert set(table["sensor"].to_pylist()) == {"S30"}
    assert any("lacks the collection HLSL30_2.0, so no L30 granule is found there" in line for line in said)
    assert "HLSL30_2.0" in str(facts(table)["notes"])


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_passing_faults_are_tried_again(reference: Any, service: Running, status: int) -> None:
    """429 and 5xx are retried, with Retry-After where given."""
    service.faults.faults = [error(status, Retry_After="0"), error(status)]
    assert search(service.address, EARTH, ALL).equals(reference)


def test_a_lasting_fault_is_an_error_with_its_status(service: Running) -> None:
    """After all retries the message names the service and the status."""
    service.faults.faults = [error(503)] * 10
    with pytest.raises(ArchiveError, match="cannot be reached") as caught:
        search(service.address, EARTH, ALL)
    assert service.address in str(caught.value)
    assert "503" in str(caught.value)


def test_a_repeated_page_is_an_error(service: Running) -> None:
    """A service whose cursor does not move would deliver one page for ever."""
    service.api.repeats = True
    with pytest.raises(ArchiveError, match="same page twice"):
        search(service.address, EARTH, ALL)


@pytest.mark.parametrize("more", [1, -1])
def test_an_incomplete_search_is_an_error(service: Running, more: int) -> None:
    """Matched and received counts must agree, or the frame would silently lack granules."""
    service.api.matched_more = more
    with pytest.raises(ArchiveError, match=r"matched \d+ items but delivered"):
        search(service.address, EARTH, ALL)


def test_a_web_page_instead_of_items_is_an_error(service: Running) -> None:
    """A maintenance page with status 200 is not an empty search."""
    service.faults.faults = [web_page] * 10
    with pytest.raises(ArchiveError, match="is a web page"):
        search(service.address, EARTH, ALL)


def test_an_empty_search_names_the_extent_of_the_collections(service: Running) -> None:
    """Where the service says what it has, the message repeats it."""
    with pytest.raises(NothingFoundError, match=r"HLSL30_2\.0 holds 2013-04-11 to now"):
        search(service.address, parse_region("100,70,101,71"), ALL)


def test_an_address_without_a_server_is_an_error() -> None:
    """The message names the address and what to check."""
    with pytest.raises(ArchiveError, match="cannot be reached") as caught:
        search("http://127.0.0.1:9/stac", EARTH, ALL)
    assert "127.0.0.1:9" in str(caught.value)
