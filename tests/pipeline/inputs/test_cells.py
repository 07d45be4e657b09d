"""Owned cells: one owner per piece of ground, whatever zone, hemisphere and subset of tiles."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from geofm_pipeline.cells import OwnedCells, owned_cells, tile_cells
from geofm_pipeline.hls.grid import TILE_M, project, square, tile_grid, unproject
from geofm_pipeline.ownership import home_zone, neighbours
from geofm_pipeline.region import parse_region
from geofm_sampling.tables import CELLS
from geofm_sampling.unit import pack_units

EARTH = parse_region("-180,-84,180,84")
ZONE_EDGE = ("32UQA", "33UUR", "32UPA", "33UVR", "32UQV", "33UUQ", "32UPV", "33UVQ")
"""Eight tiles around 12° E, where zones 32 and 33 meet."""


def _owner_by_hand(tiles: list[str], lon: float, lat: float) -> str:
    """The rule of the module, one point at a time, in plain Python."""
    zone = int(home_zone(np.array([lon]), np.array([lat]))[0])
    x, y = (float(v) for v in project(zone, lon, lat))
    for tile in tiles:
        if square(tile) == (zone, int(x // 100_000), int(y // 100_000)):
            return tile
    best, nearest = "", np.inf
    for tile in tiles:
        grid = tile_grid(tile)
        x, y = (float(v) for v in project(grid.zone, lon, lat))
        if not (grid.x0 <= x < grid.x0 + TILE_M and grid.y0 - TILE_M < y <= grid.y0):
            continue
        middle = unproject(grid.zone, grid.x0 + TILE_M / 2, grid.y0 - TILE_M / 2)
        away = Geod(ellps="sphere").inv(lon, lat, float(middle[0]), float(middle[1]))[2]
        if away < nearest:
            best, nearest = tile, away
    return best


@settings(max_examples=30)
@given(st.sets(st.sampled_from(ZONE_EDGE), min_size=1), st.sampled_from([128, 256]))
def test_ownership_equals_the_rule_point_by_point(tiles: set[str], size: int) -> None:
    """For any subset of tiles at a zone edge, the vectorised owners are those of the plain rule."""
    found = owned_cells(sorted(tiles), EARTH, chip_size=size).table.to_pylist()
    rng = np.random.default_rng(len(tiles))
    owned = {(row["tile"], row["cell_row"], row["cell_col"]) for row in found}
    side = 3660 // size
    for tile in sorted(tiles):
        for row, col in rng.integers(0, side, (10, 2)).tolist():
            grid = tile_grid(tile)
            lon, lat = unproject(grid.zone, *grid.xy((row + 0.5) * size, (col + 0.5) * size))
            mine = _owner_by_hand(sorted(tiles), float(lon), float(lat)) == tile
            assert ((tile, row, col) in owned) == mine


@pytest.mark.parametrize(("size", "cells"), [(64, 57 * 57), (128, 28 * 28), (256, 14 * 14)])
def test_a_lone_tile_owns_all_its_whole_cells(size: int, cells: int) -> None:
    """Without neighbours the overlap is nobody else's; cells of less than a block start in the edge blocks too."""
    owned = owned_cells(["10SFE", "10SFE"], EARTH, chip_size=size)
    assert owned.table.num_rows == cells == owned.report.owned_of_tiles
    assert owned.report.coverage.twice == 0
    rim = 1 - cells * size**2 / 3660**2
    assert owned.report.coverage.never == pytest.approx(rim, abs=0.01)


def test_positions_areas_and_ids_are_right() -> None:
    """Centres lie in the middle of the cell's pixels, areas are the ellipsoid's, the contract and unit ids hold."""
    table = owned_cells(["10SFE", "36MXE", "19LBJ", "33XWG"], EARTH, chip_size=256).table
    CELLS.check(table)
    geod = Geod(ellps="WGS84")
    for row in table.to_pylist()[::37]:
        grid = tile_grid(row["tile"])
        top, left = row["cell_row"] * 256, row["cell_col"] * 256
        lon, lat = unproject(grid.zone, *grid.xy(top + 128, left + 128))
        assert (row["lon"], row["lat"]) == pytest.approx((float(lon), float(lat)), abs=1e-9)
        steps = np.linspace(0, 256, 9)
        ring_row = np.concatenate([np.zeros(9), steps, np.full(9, 256), steps[::-1]]) + top
        ring_col = np.concatenate([steps, np.full(9, 256), steps[::-1], np.zeros(9)]) + left
        ring = unproject(grid.zone, *grid.xy(ring_row, ring_col))
        area = abs(geod.polygon_area_perimeter(ring[0], ring[1])[0]) / 1e6
        assert row["area_km2"] == pytest.approx(area, rel=2e-4)
        pack_units(
            tile=row["tile"], chip_size=256, cell_row=row["cell_row"], cell_col=row["cell_col"], year=2022, season=1
        )


def test_only_centres_in_the_region_are_kept() -> None:
    """A cell is in when its centre is; rows come sorted by tile, row and column."""
    region = parse_region("-121.5,35.2,-120.9,35.9")
    inside = owned_cells(["10SFE", "10SGE", "10SFD"], region, chip_size=64).table
    everything = owned_cells(["10SFE", "10SGE", "10SFD"], EARTH, chip_size=64).table
    lon, lat = np.asarray(everything["lon"]), np.asarray(everything["lat"])
    wanted = everything.filter(shapely.contains_xy(region.geometry, lon, lat))
    assert inside.equals(wanted)
    keys = list(zip(*(inside[n].to_pylist() for n in ("tile", "cell_row", "cell_col")), strict=True))
    assert keys == sorted(keys)


def test_tiles_meet_by_square_and_not_by_letters() -> None:
    """32UPV and 32UPA are neighbours although the row letters start again; shares of coverage sum to one."""
    pair = owned_cells(["32UPV", "32UPA"], EARTH, chip_size=256)
    assert square("32UPA")[2] - square("32UPV")[2] == 1
    coverage = pair.report.coverage
    assert coverage.never + coverage.once + coverage.twice == pytest.approx(1)
    assert coverage.twice < 0.01
    assert pair.report.owned_of_tiles < 2 * 196


@pytest.mark.parametrize(
    ("lon", "lat", "zone"),
    [
        (5.0, 60.0, 32),  # western Norway belongs to the widened zone 32
        (2.9, 60.0, 31),
        (5.0, 55.9, 31),
        (5.0, 64.0, 31),
        (8.9, 78.0, 31),  # Svalbard has no zones 32, 34 and 36
        (9.1, 78.0, 33),
        (20.9, 78.0, 33),
        (21.0, 78.0, 35),
        (33.5, 78.0, 37),
        (41.9, 78.0, 37),
        (42.0, 78.0, 38),
        (-179.9, 0.0, 1),
        (179.9, 0.0, 60),
        (-180.0, -30.0, 1),
    ],
)
def test_zones_have_the_exceptions_of_mgrs(lon: float, lat: float, zone: int) -> None:
    """Norway and Svalbard are cut as MGRS cuts them."""
    assert home_zone(np.array([lon]), np.array([lat]))[0] == zone


def test_ground_across_the_antimeridian_is_owned_once() -> None:
    """Tiles of zones 60 and 1 share the ground at ±180 as any other neighbours do."""
    tiles = ["60KYF", "60KYG", "01KAB", "01KAA", "60KZF", "60KZG", "01KBA", "01KBB"]
    valid = [tile for tile in tiles if _is_tile(tile)]
    owned = owned_cells(valid, parse_region("179,-18,-179,-16"), chip_size=256)
    assert owned.table.num_rows > 0
    assert owned.report.coverage.twice < 0.02


def _is_tile(tile: str) -> bool:
    try:
        return bool(tile_grid(tile))
    except ValueError:
        return False


def test_a_region_beside_the_tiles_has_no_cells() -> None:
    """Tiles that the region does not touch give an empty table and say that all its ground is outside."""
    owned = owned_cells(["10SFE"], parse_region("10,10,11,11"), chip_size=256)
    assert owned.table.num_rows == 0
    assert CELLS.check(owned.table) is not None
    assert owned.report.coverage.outside == 1
    assert owned.report.as_dict()["tiles"] == 0


def test_a_wrong_tile_or_chip_size_is_refused() -> None:
    """Nothing is skipped silently."""
    with pytest.raises(ValueError, match="99ZZZ"):
        owned_cells(["99ZZZ"], EARTH, chip_size=256)
    with pytest.raises(ValueError, match="no tiles"):
        owned_cells([], EARTH, chip_size=256)
    with pytest.raises(ValueError, match="224"):
        owned_cells(["10SFE"], EARTH, chip_size=224)


def _land_grid(shared_data: Path) -> list[str]:
    return sorted(gpd.read_parquet(shared_data / "s2-grid" / "sentinel-2-grid_LAND.parquet")["tile"])


def _coverage(owned: OwnedCells) -> tuple[float, float, float]:
    coverage = owned.report.coverage
    return coverage.once, coverage.never, coverage.twice


@pytest.mark.heavy
def test_on_the_land_grid_nearly_all_ground_is_owned_once(shared_data: Path) -> None:
    """Over the 20,430 land tiles 98.8 % of the ground is owned once, 0.8 % never (mostly the rim), 0.3 % twice."""
    once, never, twice = _coverage(owned_cells(_land_grid(shared_data), EARTH, chip_size=256))
    assert once == pytest.approx(0.988, abs=0.002)
    assert never == pytest.approx(0.009, abs=0.002)
    assert twice == pytest.approx(0.003, abs=0.001)


def test_in_a_continent_of_tiles_nearly_all_ground_is_owned_once(shared_data: Path) -> None:
    """Central Europe, three zones and the exceptions of Norway: 99 % once."""
    tiles = [tile for tile in _land_grid(shared_data) if tile[:2] in {"31", "32", "33"} and tile[2] in "UV"]
    once, _, twice = _coverage(owned_cells(tiles, parse_region("4,49,16,62"), chip_size=256))
    assert once > 0.985
    assert twice < 0.006


@pytest.mark.parametrize(
    "tiles",
    [
        list(ZONE_EDGE),
        ["32VKL", "32VLL", "31VFF", "31VFE", "32VKK", "32VLK"],  # Norway's widened zone
        ["33XWG", "33XXG", "35XMA", "35XMG", "31XFG"],  # Svalbard
        ["01KAB", "60KYG", "60KZF", "01KBB", "60KYF", "36MXE"],  # the antimeridian, and a tile far away
    ],
)
@pytest.mark.parametrize("size", [64, 256])
def test_a_tile_among_its_neighbours_owns_what_it_owns_among_all(tiles: list[str], size: int) -> None:
    """Cells of one tile need only the tiles near it, so that tiles can be worked on apart."""
    whole = owned_cells(tiles, EARTH, chip_size=size)
    near = neighbours(tiles)
    parts = [tile_cells(tile, near[tile], EARTH, chip_size=size) for tile in sorted(tiles)]
    assert pa.concat_tables([part.table for part in parts]).equals(whole.table)
    assert sum(part.owned for part in parts) == whole.report.owned_of_tiles
