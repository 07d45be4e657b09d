"""Searches over a network are kept by question: the second run does not ask again, unless it is told to."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from servers.granule_items import same_table
from servers.loopback import json_reply
from servers.monthly_archive import key_of

from geofm_pipeline.addresses import shown
from geofm_pipeline.catalogs import facts, find_scenes
from geofm_pipeline.catalogs.items import batched, item_from_json
from geofm_pipeline.catalogs.named import NAMES
from geofm_pipeline.catalogs.request import Request
from geofm_pipeline.catalogs.rows import scene_table
from geofm_pipeline.catalogs.search_cache import SearchCache
from geofm_pipeline.errors import ArchiveError, NothingFoundError
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-90,180,90")
YEAR = parse_years(2022)


@pytest.mark.parametrize("catalog", ["auto", "geoparquet", "cmr-stac", "file in a bucket"])
def test_a_second_search_asks_nobody(world: Any, tmp_path: Path, catalog: str) -> None:
    """The same table comes from disk, and it is said when it was searched and how to search anew."""
    name = f"s3://{world.bucket.name}/{key_of('HLSS30_2.0', 2022, 5)}" if catalog not in NAMES else catalog
    first = find_scenes(name, EARTH, YEAR, access=world.access, cache=tmp_path)
    asked, said = len(world.server.log), list[str]()
    second = find_scenes(name, EARTH, YEAR, access=world.access, cache=tmp_path, progress=said.append)
    assert same_table(first, second)
    assert len(world.server.log) == asked
    assert "--refresh searches anew" in said[0]
    assert "cached" not in facts(first)
    when = facts(second)["cached"]
    assert isinstance(when, str)
    assert when.startswith("20")
    assert {**facts(second), "cached": None} == {**facts(first), "cached": None}


def test_refresh_searches_anew_and_replaces_what_is_kept(
    world: Any, tmp_path: Path, items: list[dict[str, Any]]
) -> None:
    """A granule that came in since is found, also by the run after."""
    world.cmr.items = items[1:]
    find_scenes("cmr", EARTH, YEAR, access=world.access, cache=tmp_path)
    world.cmr.items = items
    assert find_scenes("cmr", EARTH, YEAR, access=world.access, cache=tmp_path).num_rows == len(items) - 1
    assert find_scenes("cmr", EARTH, YEAR, access=world.access, cache=tmp_path, refresh=True).num_rows == len(items)
    assert find_scenes("cmr", EARTH, YEAR, access=world.access, cache=tmp_path).num_rows == len(items)


def test_another_question_is_another_search(world: Any, tmp_path: Path) -> None:
    """Region, years, service and address decide."""
    access = world.access
    elsewhere = replace(access, services=replace(access.services, cmr=access.services.cmr + "/"))
    questions = [
        ("cmr", EARTH, YEAR, access),
        ("cmr-stac", EARTH, YEAR, access),
        ("cmr", parse_region("32TNS"), YEAR, access),
        ("cmr", EARTH, parse_years("2021-2022"), access),
        ("cmr", EARTH, YEAR, elsewhere),
    ]
    for name, region, years, way in questions:
        assert "cached" not in facts(find_scenes(name, region, years, access=way, cache=tmp_path))
    assert len(list(tmp_path.glob("scenes-*.parquet"))) == len(questions)


@pytest.mark.parametrize("damage", ["cut", "empty", "another", "text"])
def test_a_damaged_file_is_searched_anew(world: Any, tmp_path: Path, damage: str) -> None:
    """It is said, and replaced."""
    first = find_scenes("cmr", EARTH, YEAR, access=world.access, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    if damage == "another":
        find_scenes("cmr-stac", EARTH, YEAR, access=world.access, cache=tmp_path / "other")
        (other,) = (tmp_path / "other").iterdir()
        file.write_bytes(other.read_bytes())
    else:
        file.write_bytes({"cut": file.read_bytes()[:-50], "empty": b"", "text": b"PAR1 no"}[damage])
    said: list[str] = []
    again = find_scenes("cmr", EARTH, YEAR, access=world.access, cache=tmp_path, progress=said.append)
    assert "cannot be read" in said[0]
    assert same_table(first, again)
    assert "cached" in facts(find_scenes("cmr", EARTH, YEAR, access=world.access, cache=tmp_path))


@pytest.mark.parametrize(
    ("made", "days", "kept"),
    [
        ((2022, 5, 1), 7, True),
        ((2022, 5, 1), 8, False),
        ((2021, 12, 31), 8, False),
        ((2023, 1, 1), 8, False),
        ((2023, 4, 1), 8, True),
    ],
)
def test_a_search_of_a_year_that_was_not_over_is_good_for_a_week(
    world: Any, tmp_path: Path, made: tuple[int, int, int], days: int, kept: bool
) -> None:
    """Granules still come in then; what was over when it was searched stays."""
    find_scenes("cmr", EARTH, YEAR, access=world.access, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    moment = datetime(*made, 12, tzinfo=UTC)
    os.utime(file, (moment.timestamp(),) * 2)
    said: list[str] = []
    request = Request(region=EARTH, years=YEAR, access=world.access, say=said.append)
    cache = SearchCache(tmp_path, "cmr", request, today=moment.date() + timedelta(days=days))
    assert (cache.load() is not None) == kept
    assert ("older than 7 days; searching anew" in said[0]) == (not kept)


def test_what_auto_got_by_a_fallback_is_not_kept(world: Any, tmp_path: Path) -> None:
    """The next run asks the better service again."""
    said: list[str] = []
    options: dict[str, Any] = {"cache": tmp_path, "progress": said.append}
    table = find_scenes("auto", EARTH, YEAR, access=world.without("geoparquet"), **options)
    assert facts(table)["service"] == "cmr"
    assert "not kept for another run" in said[-1]
    assert list(tmp_path.iterdir()) == []


def test_secrets_of_an_address_are_neither_kept_nor_shown(
    world: Any, tmp_path: Path, items: list[dict[str, Any]]
) -> None:
    """Query and user go by digest into the key, and not into the table's source; another secret is another search."""
    address = f"{world.server.url.replace('://', '://me:planted@')}/items.json?token=planted#planted"
    assert shown(address) == f"{world.server.url}/items.json"
    said: list[str] = []
    request = Request(region=EARTH, years=YEAR, access=world.access, say=said.append)
    batches = batched([item_from_json(items[0], base="/x")])
    source = scene_table(batches, source=address, dialect="", region=EARTH, years=YEAR)
    assert facts(source)["source"] == f"{world.server.url}/items.json"
    kept = SearchCache(tmp_path, address, request)
    kept.save(source)
    assert SearchCache(tmp_path, address.replace("token=planted", "token=other"), request).path != kept.path
    assert b"planted" not in kept.path.read_bytes()
    assert kept.load() is not None
    with pytest.raises(ArchiveError) as caught:
        find_scenes(address.replace("items.json", "nothing.json"), EARTH, YEAR, access=world.access)
    assert "planted" not in f"{caught.value} {said}"


def test_what_is_on_this_machine_and_what_is_not_there_is_never_kept(
    world: Any, tmp_path: Path, items: list[dict[str, Any]]
) -> None:
    """Files and local servers are read as they are; an empty search is asked again, since granules may come."""
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    find_scenes(str(path), EARTH, YEAR, cache=tmp_path / "cache")
    find_scenes(world.cmr_stac.address, EARTH, YEAR, access=world.access, cache=tmp_path / "cache")
    with pytest.raises(NothingFoundError):
        find_scenes("cmr", parse_region("100,70,101,71"), YEAR, access=world.access, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_costs_only_the_next_search(world: Any, tmp_path: Path) -> None:
    """The table is there all the same."""
    (tmp_path / "file").write_text("")
    said: list[str] = []
    table = find_scenes("cmr", EARTH, YEAR, access=world.access, cache=tmp_path / "file", progress=said.append)
    assert table.num_rows
    assert any("could not be kept" in line for line in said)


def test_an_interrupted_search_keeps_nothing(world: Any, tmp_path: Path) -> None:
    """A file appears whole or not at all."""
    world.faults["cmr"].faults = [lambda reply: reply, *[lambda reply: json_reply({"errors": []}, 500)] * 99]
    with pytest.raises(Exception, match="500"):
        find_scenes("cmr", EARTH, YEAR, access=world.access, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
