"""`auto` asks services in turn, says whom it used and why it skipped others, and never takes a part for the whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from servers import faulty
from servers.granule_items import same_table
from servers.monthly_archive import monthly_files

from geofm_pipeline.catalogs import facts, find_scenes
from geofm_pipeline.catalogs.named import ORDER
from geofm_pipeline.errors import ArchiveError, NothingFoundError
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-90,180,90")
YEAR = parse_years(2022)


@pytest.mark.parametrize("failing", range(4))
def test_the_next_service_is_asked_where_one_fails(world: Any, failing: int) -> None:
    """Whatever fails, the next gives the same granules; progress and metadata say who was skipped and why."""
    said: list[str] = []
    gone = ORDER[:failing]
    table = find_scenes("auto", EARTH, YEAR, access=world.without(*gone), progress=said.append)
    assert facts(table)["service"] == ORDER[failing]
    tried = facts(table)["tried"]
    assert isinstance(tried, list)
    assert [skip["service"] for skip in tried] == list(gone)
    assert all("cannot be reached" in skip["why"] for skip in tried)
    for name, following in zip(gone, ORDER[1:], strict=False):
        assert any(line.startswith(f"catalogue: {name} was skipped, because ") for line in said)
        assert f"catalogue: asking {following} instead" in said
    assert any(f"{ORDER[failing]} was searched, " in line for line in said)
    whole = find_scenes("cmr", EARTH, YEAR, access=world.access)
    assert table["granule_id"].equals(whole["granule_id"])


def test_when_every_service_fails_the_message_has_each_reason(world: Any) -> None:
    """One paragraph with what each service said."""
    with pytest.raises(ArchiveError) as caught:
        find_scenes("auto", EARTH, YEAR, access=world.without(*ORDER))
    assert all(f"{name}: " in str(caught.value) for name in ORDER)
    assert "--catalog" in str(caught.value)


def test_patience_is_short_while_there_is_another_service(world: Any) -> None:
    """A service that is down is given up after a few tries, while one that was asked for by name gets all of them."""
    patient = replace(world.access, attempts=12, first_wait_s=0.001, longest_wait_s=0.001)
    world.bucket.files = {}
    world.faults["cmr"].faults = [faulty.error(500)] * 1000
    assert facts(find_scenes("auto", EARTH, YEAR, access=patient))["service"] == "cmr-stac"
    assert 1000 - len(world.faults["cmr"].faults) == 4
    with pytest.raises(ArchiveError, match="500"):
        find_scenes("cmr", EARTH, YEAR, access=patient)
    assert 1000 - len(world.faults["cmr"].faults) == 4 + 12


@pytest.mark.parametrize("fault", ["hole", "short count", "repeated page"])
def test_a_service_that_is_incomplete_is_skipped(world: Any, fault: str) -> None:
    """Half an answer is none."""
    if fault == "hole":
        world.bucket.files.pop(next(key for key in world.bucket.files if key.endswith("HLSL30_2.0-2022-6.parquet")))
        assert facts(find_scenes("auto", EARTH, YEAR, access=world.access))["service"] == "cmr"
        return
    world.bucket.files = {}
    if fault == "short count":
        world.cmr.lost = 1
    else:
        world.cmr.cap, world.cmr.repeats = 2, True
    table = find_scenes("auto", EARTH, YEAR, access=world.access)
    assert facts(table)["service"] == "cmr-stac"
    assert same_table(table, find_scenes("cmr-stac", EARTH, YEAR, access=world.access))


def test_an_empty_geoparquet_archive_is_no_answer(world: Any, items: list[dict[str, Any]]) -> None:
    """It lacks about one in a hundred granules, so CMR is asked before the ground is called empty."""
    months = [(2021, 12), *((2022, month) for month in range(1, 13)), (2023, 1)]
    world.bucket.files = monthly_files([item for item in items if "T32T" in item["id"]], months)
    table = find_scenes("auto", parse_region("19LBJ"), YEAR, access=world.access)
    assert facts(table)["service"] == "cmr"
    assert facts(table)["notes"] == []


def test_an_empty_complete_search_ends_it(world: Any) -> None:
    """CMR's no is a no: nobody else is asked."""
    with pytest.raises(NothingFoundError, match="has no HLS granule"):
        find_scenes("auto", parse_region("100,70,101,71"), YEAR, access=world.access)
    assert world.cmr_stac.searches == []


def test_years_before_a_service_began_are_said(world: Any) -> None:
    """The Planetary Computer has granules from 2020 on; that is no secret."""
    table = find_scenes("planetary-computer", EARTH, parse_years("2019,2022"), access=world.access)
    assert "has granules from 2020 on only, so 2019 will have none" in str(facts(table)["notes"])
