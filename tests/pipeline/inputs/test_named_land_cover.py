"""WorldCover and IO LULC by name: only the files that a region needs, the right shares, and honest refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from servers import maps
from servers.loopback import App, Reply, Request, serving
from servers.reaching import html_page, reach, refusing

from geofm_pipeline.cells import owned_cells
from geofm_pipeline.covariates import land_cover_fractions
from geofm_pipeline.covariates.cover_files import grid_zones, worldcover_cells
from geofm_pipeline.covariates.legends import resolve_legend
from geofm_pipeline.covariates.result import tile_points
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.region import parse_region
from geofm_pipeline.years import parse_years

EARTH = parse_region("-180,-84,180,84")
TILE = "32TNS"  # 8.98 to 10.46° E, 45.94 to 46.97° N: one WorldCover cell and a strip of its western neighbour


@pytest.fixture(scope="module")
def cells() -> pa.Table:
    """The cells of one tile near 9-10° E, 46° N."""
    return owned_cells([TILE], EARTH, chip_size=256).table


def test_worldcover_is_read_by_cell_and_equals_the_files_themselves(cells: pa.Table, tmp_path: Path) -> None:
    """Only the cells around the tile are asked for; shares are those of the local file; absent cells are said."""
    file = maps.write_worldcover(tmp_path, "N45E009", maps.patches(1, (10, 30, 40, 80), 2))
    maps.write_worldcover(tmp_path, "N42E009", maps.patches(2, (10, 50)))
    with serving(maps.folder_app(tmp_path, lists=False)) as server:
        found = land_cover_fractions(cells, "worldcover", years=parse_years(2021), access=reach(server))
        keys = {request.path.split("_")[-2] for request in server.log}
        read = sum(len(range(*request.span)) for request in server.log if request.span)
    plain = land_cover_fractions(cells, str(file), years=parse_years(2021))
    assert found.table.column_names == plain.table.column_names
    for name in plain.table.column_names:
        assert found.table[name].equals(plain.table[name]), name
    assert keys == {"N45E009", "N45E006"}
    assert "no file for 1 of 2 places" in found.note
    assert read < file.stat().st_size / 2  # an overview, and only where the tile is


def test_worldcover_cells_follow_from_the_tiles(cells: pa.Table) -> None:
    """South and west of zero, across the antimeridian and at the edges of cells, names are those of the real files."""

    def names(tile: str) -> list[str]:
        return [file.place for file in worldcover_cells([tile])]

    assert names("56HLH") == ["S36E150"]
    assert "N00E006" in names("32NKF")
    assert names("01KAB") == ["S18W180", "S18E177"]
    assert names("60KYF") == ["S21E177", "S18E177"]
    assert [file.place for file in grid_zones(["32TNS"])] == ["32T"]
    assert {file.place for file in grid_zones(["32VKL"])} >= {"32V", "31V"}  # Norway: both readings of its zones
    assert {file.place for file in grid_zones(["01KAB"])} >= {"01K", "60K"}


def test_worldcover_boxes_hold_their_tiles() -> None:
    """On tiles all over the Earth the cells and the zones together hold every point of the tile."""
    for tile in ("01KAB", "60KYF", "10SFE", "33XWJ", "31VEH", "21CVK", "32NKF", "56HLH", "01CDK", "60XWN"):
        lon, lat = tile_points(tile)
        for files in (worldcover_cells([tile]), grid_zones([tile])):
            boxes = np.array([file.box for file in files])
            held = np.zeros(lon.size, dtype=bool)
            for west, south, east, north in boxes:
                held |= ((lon - west) % 360 <= east - west) & (lat >= south) & (lat <= north)
            assert held[(lat > -80) & (lat < 84)].all(), tile


@pytest.mark.parametrize(("years", "used"), [("2018-2019", 2019), ("2020", 2020), ("2024", 2020)])
def test_io_lulc_takes_the_nearest_year(cells: pa.Table, tmp_path: Path, years: str, used: int) -> None:
    """Of the yearly maps the nearest is read, and the note says which; the legend is the source's own."""
    for year, code in ((2019, 2), (2020, 5)):
        maps.write_io_lulc(tmp_path, "32T", year, code)
    with serving(maps.folder_app(tmp_path)) as server:
        access = reach(server, io_lulc_years=(2019, 2020))
        found = land_cover_fractions(cells, "io-lulc", years=parse_years(years), access=access)
        assert {request.path for request in server.log} == {f"/io-10m-annual-lulc/32T_{used}.tif"}
    assert {name for name in found.table.column_names if name[:3] == "lc_"} == {f"lc_{2 if used == 2019 else 5}"}
    assert np.asarray(found.table.columns[-1]).min() > 0.99
    assert (f"{used} is nearest" in found.note) == (years != "2020")
    assert b'"tree"' in found.table.schema.metadata[b"geofm_legend"]


@pytest.mark.parametrize("stem", ["34S_2022", "34S_20220101-20230101", "io-lulc-34S"])
def test_files_of_io_lulc_are_known_by_their_names(stem: str) -> None:
    """The names on both of its hosts: by year on Amazon, by dates on the Planetary Computer."""
    found = resolve_legend((1, 2), source=f"/maps/{stem}.tif", names={})
    assert found.title == "IO LULC"
    assert not found.guessed


def test_a_zone_border_is_covered_from_both_sides(tmp_path: Path) -> None:
    """A tile at the edge of its zone takes what lies beyond from the neighbouring file."""
    cells = owned_cells(["32TQS", "33TTM"], EARTH, chip_size=256).table
    for zone in ("32T", "33T"):
        maps.write_io_lulc(tmp_path, zone, 2020, 11)
    with serving(maps.folder_app(tmp_path)) as server:
        found = land_cover_fractions(cells, "io-lulc", years=parse_years(2020), access=reach(server))
    assert np.asarray(found.table["lc_11"]).min() > 0.9


@pytest.mark.parametrize(
    ("app", "part"),
    [(refusing(500), "500"), (refusing(403), "403"), (refusing(404), "none of the"), (html_page, "HTML page")],
)
def test_a_land_cover_service_that_fails_is_an_error_with_a_choice(cells: pa.Table, app: App, part: str) -> None:
    """Errors, refusals everywhere and pages are told apart; the message names the source and how to go on without."""
    with serving(app) as server, pytest.raises(ArchiveError, match="--land-cover worldcover") as caught:
        land_cover_fractions(cells, "worldcover", access=reach(server))
    assert part in str(caught.value)
    assert "--land-cover none" in str(caught.value)


def test_a_land_cover_service_that_does_not_answer_is_an_error_with_a_choice(cells: pa.Table) -> None:
    """No connection at all: the same message, after the retries."""
    with pytest.raises(ArchiveError, match="later") as caught:
        land_cover_fractions(cells, "worldcover", access=reach())
    assert "--land-cover none" in str(caught.value)


@pytest.mark.parametrize("kind", ["500", "cut", "reset", "truncated"])
def test_a_read_that_fails_in_the_middle_is_never_fill(cells: pa.Table, tmp_path: Path, kind: str) -> None:
    """After the header every block fails: an error that names the source, not land cover 0."""
    path = maps.write_worldcover(tmp_path, "N45E009", maps.patches(1, (10, 30), 2))
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:40_000])
    plain = maps.folder_app(tmp_path)

    def app(request: Request) -> Reply:
        reply = plain(request)
        if kind == "truncated" or not request.span or request.span[0] < 32_768:
            return reply
        if kind == "500":
            return Reply(status=500)
        return dataclasses.replace(reply, cut=50) if kind == "cut" else dataclasses.replace(reply, reset=True)

    with serving(app) as server, pytest.raises(ArchiveError, match="--land-cover"):
        land_cover_fractions(cells, "worldcover", access=reach(server))


def test_a_storm_of_transient_faults_changes_nothing(cells: pa.Table, tmp_path: Path) -> None:
    """Every second request fails once in another way; shares are those of a quiet service."""
    maps.write_worldcover(tmp_path, "N45E009", maps.patches(1, (10, 30, 80)))
    plain = maps.folder_app(tmp_path)
    faults = [Reply(status=503), Reply(reset=True), Reply(body=b"x" * 100, cut=10, status=206), Reply(status=429)]

    def app(request: Request) -> Reply:
        return faults[request.number // 2 % 4] if request.number % 2 else plain(request)

    with serving(plain) as server:
        quiet = land_cover_fractions(cells, "worldcover", access=reach(server))
    with serving(app) as server:
        access = dataclasses.replace(reach(server), attempts=8)
        stormy = land_cover_fractions(cells, "worldcover", access=access)
    assert stormy.table.equals(quiet.table)
