"""Services that stumble are asked again; services that fail are errors, never fewer granules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from servers import faulty
from servers.granule_items import same_table
from servers.loopback import Reply

from geofm_pipeline.catalogs import find_scenes
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-90,180,90")
YEAR = parse_years(2022)
SERVICES = ("geoparquet", "cmr", "cmr-stac", "planetary-computer")
PASSING = {
    "500": faulty.error(500),
    "502": faulty.error(502),
    "503": faulty.error(503),
    "504": faulty.error(504),
    "429": faulty.error(429),
    "429 and Retry-After": faulty.error(429, Retry_After="0.02"),
    "reset": faulty.reset,
    "cut": faulty.cut,
}


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("fault", PASSING)
def test_passing_faults_change_nothing(world: Any, service: str, fault: str) -> None:
    """Any of them, twice in a row, anywhere in the search."""
    wanted = find_scenes(service, EARTH, YEAR, access=world.access)
    for start in (0, 2):
        world.faults[service].faults = [*[_none] * start, PASSING[fault], PASSING[fault]]
        assert same_table(find_scenes(service, EARTH, YEAR, access=world.access), wanted)
        assert world.faults[service].faults == []


def _none(reply: Reply) -> Reply:
    return reply


@pytest.mark.parametrize("service", ["cmr", "cmr-stac", "planetary-computer"])
def test_a_body_that_crawls_is_given_up_and_asked_for_again(world: Any, service: str) -> None:
    """Less than 1 kB/s for a while is as good as dead."""
    wanted = find_scenes(service, EARTH, YEAR, access=world.access)
    world.faults[service].faults = [_none, faulty.slow]
    assert same_table(find_scenes(service, EARTH, YEAR, access=world.access), wanted)


@pytest.mark.parametrize("service", SERVICES)
def test_a_storm_that_lasts_is_an_error(world: Any, service: str) -> None:
    """Hours of 500s, as CMR-STAC has had them, end the search with the service's words."""
    world.faults[service].faults = [faulty.error(500)] * 200
    with pytest.raises(ArchiveError, match=r"500.*tried again with growing waits"):
        find_scenes(service, EARTH, YEAR, access=world.access)


@pytest.mark.parametrize("service", SERVICES)
def test_a_web_page_with_status_200_is_an_error(world: Any, service: str) -> None:
    """A login or maintenance page is not an empty search."""
    world.faults[service].faults = [faulty.web_page] * 200
    with pytest.raises(ArchiveError, match="is a web page"):
        find_scenes(service, EARTH, YEAR, access=world.access)


@pytest.mark.parametrize("service", ["cmr", "cmr-stac", "planetary-computer"])
def test_a_document_that_is_cut_short_is_an_error(world: Any, service: str) -> None:
    """JSON that does not parse is not a page."""
    world.faults[service].faults = [faulty.junk] * 200
    with pytest.raises(ArchiveError):
        find_scenes(service, EARTH, YEAR, access=world.access)


@pytest.mark.parametrize("asked", ["search", "collections/"])
@pytest.mark.parametrize("service", ["cmr-stac", "planetary-computer"])
def test_errors_with_status_200_are_errors(world: Any, service: str, asked: str) -> None:
    """`{"errors": […]}` instead of items or a collection is not an empty search, whatever its status."""
    world.faults[service].faults = [faulty.error(200)]
    world.faults[service].spares = lambda request: asked not in request.path
    with pytest.raises(ArchiveError, match="An unexpected error occurred"):
        find_scenes(service, EARTH, YEAR, access=world.access)


def test_an_empty_page_with_a_successor_is_an_error(world: Any) -> None:
    """Also of a service that does not count."""
    world.planetary.cap, world.planetary.empty_page = 2, True
    with pytest.raises(ArchiveError, match="the search is incomplete"):
        find_scenes("planetary-computer", EARTH, YEAR, access=world.access)


@pytest.mark.parametrize("service", ["cmr-stac", "planetary-computer"])
def test_pages_in_turn_come_to_an_end(world: Any, service: str) -> None:
    """Pages A, B, A, B… would go on for ever: one without a new item ends the search, counted or not."""
    api = world.cmr_stac if service == "cmr-stac" else world.planetary
    api.cap, api.alternates = 2, True
    with pytest.raises(ArchiveError, match="same page twice after 4 of"):
        find_scenes(service, EARTH, YEAR, access=world.access)
    assert len(api.searches) == 3


def test_items_lost_by_pages_that_overlap_are_an_error(world: Any) -> None:
    """Distinct items are counted, not features."""
    world.cmr_stac.cap, world.cmr_stac.overlap = 4, 2
    with pytest.raises(ArchiveError, match=r"matched \d+ items but delivered \d+"):
        find_scenes("cmr-stac", EARTH, YEAR, access=world.access)


def test_more_items_than_matched_end_the_search_at_once(world: Any) -> None:
    """Whatever the pages that are left hold."""
    world.cmr_stac.cap, world.cmr_stac.matched_more = 2, -1000
    with pytest.raises(ArchiveError, match="but delivered 2:"):
        find_scenes("cmr-stac", EARTH, YEAR, access=world.access)
    assert len(world.cmr_stac.searches) == 1


@pytest.mark.parametrize("status", [404, 400])
@pytest.mark.parametrize(
    ("service", "there", "lacking"),
    [("cmr-stac", "HLSS30_2.0", "HLSL30_2.0"), ("planetary-computer", "hls2-l30", "hls2-s30")],
)
def test_a_named_service_without_a_collection_is_an_error(
    world: Any, service: str, there: str, lacking: str, status: int
) -> None:
    """Half of the granules is no answer."""
    api = world.cmr_stac if service == "cmr-stac" else world.planetary
    api.collections, api.absent_status = (there,), status
    with pytest.raises(ArchiveError, match=f"lacks the collection {lacking}: "):
        find_scenes(service, EARTH, YEAR, access=world.access)
    assert api.searches == []


@pytest.mark.parametrize("status", [401, 403, 405, 410, 422])
def test_a_collection_that_is_refused_is_not_taken_for_absent(world: Any, status: int) -> None:
    """Only 404 and 400 say that it is not there."""
    world.cmr_stac.collections, world.cmr_stac.absent_status = (), status
    with pytest.raises(ArchiveError, match=f"cannot be read: .*{status}"):
        find_scenes(world.cmr_stac.address, EARTH, YEAR, access=world.access)


def test_a_long_retry_after_is_not_obeyed_for_ever(world: Any) -> None:
    """A day's wait is cut to the longest one allowed, and the run fails when that does not help."""
    access = replace(world.access, attempts=2)
    world.faults["cmr"].faults = [faulty.error(429, Retry_After="86400")] * 10
    with pytest.raises(ArchiveError, match="429"):
        find_scenes("cmr", EARTH, YEAR, access=access)
