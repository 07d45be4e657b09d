"""CMR's granules API is searched completely or not at all, and read as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shapely
from servers.cmr import Cmr, entry_of
from servers.loopback import Request

from geofm_pipeline.catalogs import find_scenes
from geofm_pipeline.catalogs.cmr import item_from_entry
from geofm_pipeline.catalogs.items import batched
from geofm_pipeline.catalogs.rows import scene_table
from geofm_pipeline.errors import ArchiveError, NothingFoundError
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-90,180,90")
YEAR = parse_years(2022)


def search(world: Any, region: str = "-180,-90,180,90", years: str = "2022") -> Any:
    return find_scenes("cmr", parse_region(region), parse_years(years), access=world.access)


def test_pages_are_followed_by_their_cursor(world: Any, items: list[dict[str, Any]]) -> None:
    """Pages smaller than asked for are no sign of the end; the same question goes with every cursor, and the client's
    name with every request."""
    world.cmr.cap = 3
    assert search(world).num_rows == len(items)
    asked = [request for request in world.cmr.searches if request.query["page_size"] == "2000"]
    assert len(asked) > len(items) / 3
    assert len({json.dumps(request.query) for request in asked}) == 2
    assert all(request.headers["client-id"].startswith("geofm/") for request in asked)
    cursors = [request.headers.get("cmr-search-after") for request in asked]
    assert cursors[0] is None
    assert cursors[1] == '["lpcloud", 3, 3790086838]'


def test_the_antimeridian_and_years_are_asked_for_in_parts(world: Any) -> None:
    """No box has west > east; each year is a search of its own, a run of years a day longer at both ends."""
    search(world, "170,-30,-170,60", "2020-2022")
    boxes = {request.query["bounding_box"].split(",")[0] for request in world.cmr.searches}
    times = {request.query["temporal"] for request in world.cmr.searches}
    assert boxes == {"170.000000", "-180.000000"}
    assert times == {
        "2019-12-31T00:00:00Z,2020-12-31T23:59:59Z",
        "2021-01-01T00:00:00Z,2021-12-31T23:59:59Z",
        "2022-01-01T00:00:00Z,2023-01-01T23:59:59Z",
    }


@pytest.mark.parametrize(("fault", "value"), [("lost", 1), ("hits_more", 1), ("hits_more", -1)])
def test_an_incomplete_search_is_an_error(world: Any, fault: str, value: int) -> None:
    """CMR-Hits and what arrived must agree."""
    setattr(world.cmr, fault, value)
    with pytest.raises(ArchiveError, match=r"matched \d+ granules but delivered \d+"):
        search(world)


def test_granules_that_come_in_while_searching_are_no_error(world: Any, items: list[dict[str, Any]]) -> None:
    """A total that grows between pages is fine as long as what arrived lies between the totals."""
    world.cmr.cap = 4

    class Growing(Cmr):
        def _page(self, request: Request, found: list[dict[str, Any]], size: int) -> Any:
            self.hits_more = min(0, self.hits_more + 1)
            return super()._page(request, found, size)

    world.faults["cmr"].app = Growing(items, cap=4, hits_more=-2)
    assert search(world).num_rows == len(items)


def test_a_repeated_page_is_an_error(world: Any) -> None:
    """A cursor that does not move would deliver one page for ever."""
    world.cmr.cap, world.cmr.repeats = 3, True
    with pytest.raises(ArchiveError, match="same page twice"):
        search(world)


def test_pages_in_turn_come_to_an_end(world: Any) -> None:
    """Pages A, B, A, B… would go on for ever: one without a new granule ends the search."""
    world.cmr.cap, world.cmr.alternates = 2, True
    with pytest.raises(ArchiveError, match="same page twice after 4 of"):
        search(world)
    assert len(world.cmr.searches) == 3


def test_granules_of_an_older_page_count_once(world: Any) -> None:
    """A page that repeats granules of the last but one does not make up for those that are lost."""
    world.cmr.cap, world.cmr.overlaps = 3, True
    with pytest.raises(ArchiveError, match=r"matched \d+ granules but delivered \d+"):
        search(world)


def test_a_page_that_ran_out_of_time_is_asked_for_again(world: Any, items: list[dict[str, Any]]) -> None:
    """Status 200 with CMR-Time-Out is a part; after three of them the search fails."""
    world.cmr.time_outs = 2
    assert search(world).num_rows == len(items)
    world.cmr.time_outs = 3
    with pytest.raises(ArchiveError, match="ran out of its own time"):
        search(world)


def test_a_refused_question_is_an_error_with_the_services_words(world: Any) -> None:
    """A 400 is not tried again."""
    world.cmr.cap = 2000
    world.faults["cmr"].faults = [lambda reply: _refusal()]
    with pytest.raises(ArchiveError, match=r"400.*Parameter \[x\] was not recognized"):
        search(world)
    assert len(world.server.log) == 1


def _refusal() -> Any:
    from servers.loopback import json_reply

    return json_reply({"errors": ["Parameter [x] was not recognized."]}, 400)


def test_an_empty_search_is_complete(world: Any) -> None:
    """Zero hits without a cursor is an answer."""
    with pytest.raises(NothingFoundError, match="searched completely"):
        search(world, "100,70,101,71")


def test_https_is_preferred_and_s3_taken_where_there_is_nothing_else(items: list[dict[str, Any]]) -> None:
    """Links that a granule inherits from its collection, previews and metadata are none of its assets."""
    entry = entry_of(items[0])
    assert all(href.startswith("https://data.lpdaac") for href in item_from_entry(entry).assets.values())
    assert set(item_from_entry(entry).assets) == {"B02", "B03", "B04", "B05", "B06", "B07", "Fmask"}
    own = [link for link in entry["links"] if link["rel"].endswith("/data#") and "B04" in link["href"]]
    entry["links"] = [link for link in entry["links"] if link not in own]
    assert item_from_entry(entry).assets["B04"].startswith("s3://lp-prod-protected/")


def test_polygons_are_latitude_first_and_boxes_serve_too() -> None:
    """`polygons` hold rings of `lat lon …`, `boxes` are `south west north east`; nonsense is no footprint."""
    square = "45.0 9.0 45.0 10.0 46.0 10.0 46.0 9.0 45.0 9.0"
    hole = "45.4 9.4 45.6 9.4 45.6 9.6 45.4 9.4"
    for entry, area in (
        ({"polygons": [[square]]}, 1.0),
        ({"polygons": [[square, hole]]}, 0.98),
        ({"polygons": [[square], [square.replace("9.0", "11.0").replace("10.0", "12.0")]]}, 2.0),
        ({"boxes": ["45 9 46 10"]}, 1.0),
        ({"boxes": ["45 179 46 -179"]}, 2.0),
    ):
        geometry = item_from_entry(entry).geometry
        assert geometry is not None
        assert shapely.area(geometry) == pytest.approx(area)
    for entry in ({}, {"polygons": [["45.0 9.0 x"]]}, {"polygons": [["45 9 46"]]}, {"boxes": ["a"]}, {"polygons": 3}):
        assert item_from_entry(entry).geometry is None


def test_cloud_cover_is_a_text_or_absent() -> None:
    """CMR writes "44"; without it the cover is unknown."""
    assert item_from_entry({"cloud_cover": "44"}).cloud_cover == 44
    assert item_from_entry({}).cloud_cover != item_from_entry({}).cloud_cover


def test_a_recorded_answer_gives_the_right_rows(shared_data: Path) -> None:
    """Twelve real granules of October 2025: ids, cloud, https hrefs by one template, polygons as drawn."""
    recorded = json.loads((shared_data / "stac" / "cmr-granules" / "cmr_granules_json_HLSL30.json").read_text())
    entries = recorded["body"]["feed"]["entry"]
    items = batched(item_from_entry(entry) for entry in entries)
    table = scene_table(items, source="x", dialect="x", region=EARTH, years=parse_years(2025))
    cloud = dict(zip(table["granule_id"].to_pylist(), table["cloud_cover"].to_pylist(), strict=True))
    assert cloud == {entry["title"]: float(entry["cloud_cover"]) for entry in entries}
    assert len(cloud) == 12
    root = "https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/HLSL30.020/{id}/{id}.{band}.tif"
    assert set(table["href_template"].to_pylist()) == {root}
    assert all(not row["hrefs"] and not row["missing"] for row in table.to_pylist())
    west, south, east, north = shapely.total_bounds(shapely.from_wkb(table["footprint"].to_pylist()))
    assert -94.5 < west < east < -90
    assert 45 < south < north < 48
