"""The monthly GeoParquet archive: every month accounted for, only what is needed fetched, completeness said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from servers.granule_items import make_item
from servers.monthly_archive import PREFIX, key_of, monthly_files
from shapely.geometry import shape

from geofm_pipeline.catalogs import facts, find_scenes
from geofm_pipeline.catalogs.months import Milestones, Month, wanted_months
from geofm_pipeline.catalogs.request import Request
from geofm_pipeline.errors import ArchiveError, NothingFoundError
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-90,180,90")
YEAR = parse_years(2022)
L30, S30 = "HLSL30_2.0", "HLSS30_2.0"


def search(world: Any, region: str = "-180,-90,180,90", years: int | str = 2022, **options: Any) -> Any:
    return find_scenes("geoparquet", parse_region(region), parse_years(years), access=world.access, **options)


def _notes(table: Any) -> str:
    notes = facts(table)["notes"]
    assert isinstance(notes, list)
    return " ".join(notes)


def test_months_begin_with_the_collection() -> None:
    """HLSL30 begins in April 2013, HLSS30 in November 2015; a day on either side of the years is asked for, too."""
    months = wanted_months(Request(region=EARTH, years=parse_years("2013,2015")))
    assert months[0] == Month(year=2013, month=4, sensor="L30")
    assert [month for month in months if month.sensor == "S30"] == [
        Month(year=2015, month=11, sensor="S30"),
        Month(year=2015, month=12, sensor="S30"),
        Month(year=2016, month=1, sensor="S30"),
    ]
    assert len([month for month in months if month.sensor == "L30"]) == 9 + 1 + 1 + 12 + 1
    assert str(months[0]) == "HLSL30_2.0 2013-04"
    assert months[0].address("s3://b/v2/") == "s3://b/v2/HLSL30_2.0/year=2013/month=4/HLSL30_2.0-2013-4.parquet"


@pytest.mark.parametrize("missing", [403, 404])
def test_months_after_the_newest_are_said_to_be_not_there_yet(world: Any, missing: int) -> None:
    """Whether the bucket may be listed or not, the end of the archive is its end."""
    world.bucket.missing = missing
    for year, month in ((2022, 11), (2022, 12), (2023, 1)):
        for collection in (L30, S30):
            del world.bucket.files[key_of(collection, year, month)]
    table = search(world)
    assert "does not hold HLSL30_2.0 2022-11, HLSS30_2.0 2022-11, HLSL30_2.0 2022-12" in _notes(table)
    assert max(table["time"].to_pylist()).month <= 10


def test_the_day_after_the_years_may_be_missing_without_a_word(world: Any) -> None:
    """In December the month after is no news."""
    for collection in (L30, S30):
        del world.bucket.files[key_of(collection, 2023, 1)]
    assert "yet" not in _notes(search(world))


@pytest.mark.parametrize("later", [(2023, 2), (2023, 7)])
@pytest.mark.parametrize("sensors", [(L30,), (L30, S30)])
def test_absent_months_at_the_end_of_the_years_may_be_a_hole(
    world: Any, later: tuple[int, int], sensors: tuple[str, ...]
) -> None:
    """They are not published yet only if none of the six months after them is there."""
    for collection in sensors:
        for year, month in ((2022, 12), (2023, 1)):
            world.bucket.files[key_of(collection, *later)] = world.bucket.files.pop(key_of(collection, year, month))
    with pytest.raises(ArchiveError, match=r"lacks HLSL30_2.0 2022-12 although later months are there"):
        search(world)


def test_a_year_that_is_absent_as_a_whole_may_be_a_hole(world: Any) -> None:
    """Also with another year, absent too, after it: every run of absent months is looked behind."""
    file = world.bucket.files[key_of(L30, 2022, 1)]
    world.bucket.files = {key_of(L30, 2013, 4): file, key_of(L30, 2020, 3): file}
    with pytest.raises(ArchiveError, match=r"lacks HLSL30_2.0 2018-12 although later months are there"):
        search(world, years="2019,2030")


@pytest.mark.parametrize(("collection", "month"), [(L30, 5), (S30, 5), (S30, 1)])
def test_a_hole_in_the_middle_is_an_error(world: Any, collection: str, month: int) -> None:
    """A month that is missing before others would be granules missed in silence."""
    del world.bucket.files[key_of(collection, 2022, month)]
    with pytest.raises(ArchiveError, match=rf"lacks {collection} 2022-{month:02d} although later months are there"):
        search(world)


def test_a_collection_that_stops_long_before_the_other_is_an_error(world: Any) -> None:
    """One month later or earlier is the usual rhythm of refreshes, half a year is not."""
    for year, month in [(2022, month) for month in range(6, 13)] + [(2023, 1)]:
        del world.bucket.files[key_of(S30, year, month)]
    with pytest.raises(ArchiveError, match=r"lacks HLSS30_2.0 2022-06"):
        search(world)


def test_an_archive_that_moved_is_not_taken_for_empty(world: Any) -> None:
    """Where nothing at all is there, its first months must be, else it is an error."""
    world.bucket.files = {}
    with pytest.raises(ArchiveError, match="moved or is closed"):
        search(world)
    world.bucket.files = monthly_files([make_item("HLS.L30.T32TNS.2013110T101010.v2.0")], [(2013, 4)])
    with pytest.raises(NothingFoundError, match="as far as they are published"):
        search(world)


def test_the_share_of_what_cmr_counts_is_said(world: Any, items: list[dict[str, Any]]) -> None:
    """By one request per sensor that fetches no granule; below 97 % as a warning."""
    table = search(world)
    count = sum(item["id"][4:7] == "S30" for item in items)
    assert f"{count} of the {count} S30 granules that CMR counts there (100.0 %)" in _notes(table)
    assert {request.query["page_size"] for request in world.cmr.searches} == {"0"}
    assert len(world.cmr.searches) == 2
    world.cmr.hits_more = 10
    assert "Warning: the HLS STAC GeoParquet archive has only" in _notes(search(world))


def test_the_count_is_over_the_same_ground_and_time(world: Any, items: list[dict[str, Any]]) -> None:
    """Granules whose box, not footprint, touches the region's do not make the archive look complete."""
    middle = shape(items[0]["geometry"]).centroid
    notes = _notes(search(world, f"{middle.x - 0.01},{middle.y - 0.01},{middle.x + 0.01},{middle.y + 0.01}"))
    assert "Warning" not in notes
    assert "(100.0 %)" in notes


def test_without_cmr_the_check_is_said_to_be_skipped(world: Any) -> None:
    """The search stands on its own."""
    table = find_scenes("geoparquet", EARTH, YEAR, access=world.without("cmr"))
    assert "Whether the archive is complete for L30 was not checked, because CMR" in _notes(table)


def test_only_row_groups_and_columns_that_matter_are_fetched(world: Any) -> None:
    """A small region in a month of many granules costs the footer and few row groups, not the file."""
    names = [
        f"HLS.L30.T{tile}.2022{152 + day:03d}T{hour:02d}1010.v2.0"
        for tile in ("10SEG", "32TNS", "33UUB", "52SBD", "54SUE", "55HBU", "56HKH", "21KVB")
        for day in range(25)
        for hour in range(0, 24, 2)
    ]
    made = [make_item(name, folder="https://archive.example/" + "x" * 60) for name in names]
    june = monthly_files(made, [(2022, 6)], row_group_size=300)
    world.bucket.files |= june
    size = len(june[key_of(L30, 2022, 6)])
    table = search(world, "56HKH")
    assert table.num_rows == 25 * 12
    asked = [request for request in world.bucket.log if request.path.endswith("HLSL30_2.0-2022-6.parquet")]
    fetched = sum(stop - first for request in asked for first, stop in [request.span or (0, size)])
    assert fetched < 0.5 * size
    world.bucket.log.clear()
    search(world)
    everything = sum(
        min(stop, size) - first
        for request in world.bucket.log
        if request.path.endswith("HLSL30_2.0-2022-6.parquet")
        for first, stop in [request.span or (0, size)]
    )
    assert fetched < 0.75 * everything


def test_a_damaged_month_is_an_error_that_names_it(world: Any) -> None:
    """And no table comes of the others."""
    key = key_of(S30, 2022, 5)
    world.bucket.files[key] = world.bucket.files[key][:-200] + bytes(200)
    with pytest.raises(ArchiveError, match=r"HLSS30_2.0-2022-5.parquet cannot be read as STAC GeoParquet"):
        search(world)


def test_rows_without_a_proper_box_or_date_are_looked_at(world: Any, items: list[dict[str, Any]]) -> None:
    """NaN edges and missing dates are no reason to leave a granule out."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    key = key_of(S30, 2022, 5)
    table = pq.read_table(io.BytesIO(world.bucket.files[key]))
    before = search(world)
    nan = pa.array([float("nan")] * table.num_rows)
    boxes = pa.StructArray.from_arrays([nan] * 4, names=["xmin", "ymin", "xmax", "ymax"])
    table = table.set_column(table.schema.get_field_index("bbox"), "bbox", boxes)
    nothing = pa.nulls(table.num_rows, table.schema.field("datetime").type)
    table = table.set_column(table.schema.get_field_index("datetime"), "datetime", nothing)
    stream = io.BytesIO()
    pq.write_table(table, stream)
    world.bucket.files[key] = stream.getvalue()
    assert search(world)["granule_id"].equals(before["granule_id"])


def test_progress_names_the_months(world: Any) -> None:
    """A sentence with how many there are, not for each of many files."""
    said: list[str] = []
    search(world, progress=said.append)
    for line in ("10 of 28", "20 of 28", "28 of 28"):
        assert any(f"{line} monthly files, HLS" in sentence for sentence in said)


def test_many_files_have_few_lines_of_progress() -> None:
    """Every tenth file and the last one, others only after two seconds without a word; of ten files each one."""
    now = [0.0]
    pace = Milestones(28, clock=lambda: now[0])
    assert [number for number in range(1, 29) if pace.is_due()] == [10, 20, 28]
    pace = Milestones(28, clock=lambda: now[0])
    due = []
    for number in range(1, 8):
        now[0] += 0.75
        due += [number] * pace.is_due()
    assert due == [3, 6]
    few = Milestones(10, clock=lambda: now[0])
    assert all(few.is_due() for _ in range(10))


def test_the_archive_is_reached_under_an_https_address_too(world: Any) -> None:
    """A mirror by URL instead of a bucket."""
    services = replace(world.access.services, geoparquet=f"{world.server.url}/{PREFIX}")
    access = replace(world.access, services=services)
    found = find_scenes("geoparquet", EARTH, YEAR, access=access)
    assert found.equals(search(world)) or json.loads(found.schema.metadata[b"geofm"])["kept"] == found.num_rows
