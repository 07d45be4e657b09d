"""The tile grid in closed form against every land tile of the Sentinel-2 grid."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofm_pipeline.hls.grid import TILE_M, project, square, tile_grid, unproject, utm_zone


def test_every_land_tile_has_the_grid_its_letters_say(shared_data: Path) -> None:
    """The closed form gives the upper-left corner of all 20,430 land tiles, 327zz converted to UTM north."""
    table = pq.read_table(
        shared_data / "s2-grid" / "sentinel-2-grid_LAND.parquet", columns=["tile", "epsg", "utm_bounds"]
    )
    wrong = []
    for row in table.to_pylist():
        west, south, east, north = ast.literal_eval(row["utm_bounds"])
        shift = 10_000_000 if row["epsg"] > 32700 else 0
        grid = tile_grid(row["tile"])
        expected = (west, south - shift, east, north - shift)
        if grid.bounds != expected or grid.epsg % 100 != row["epsg"] % 100:
            wrong.append((row["tile"], grid.bounds, expected))
    assert table.num_rows == 20_430
    assert wrong == []


@pytest.mark.parametrize(
    ("tile", "epsg", "x0", "y0"),
    [
        ("10SFE", 32610, 600_000, 4_000_020),
        ("04VER", 32604, 499_980, 7_100_040),
        ("15UXP", 32615, 600_000, 5_400_000),
        ("55GEN", 32655, 499_980, 5_300_020 - 10_000_000),
        ("01CEH", 32601, 499_980, 800_020 - 10_000_000),
    ],
)
def test_known_tiles(tile: str, epsg: int, x0: int, y0: int) -> None:
    """Tiles whose corner is known from product files and the ESA grid, in both hemispheres."""
    grid = tile_grid(tile)
    assert (grid.epsg, grid.x0, grid.y0) == (epsg, x0, y0)
    assert grid.bounds == (x0, y0 - TILE_M, x0 + TILE_M, y0)
    assert grid.transform == (30.0, 0.0, x0, 0.0, -30.0, y0)


@pytest.mark.parametrize("tile", ["10SJE", "61SFE", "10IFE", "10SFZ", "10SF", ""])
def test_a_wrong_tile_id_is_refused(tile: str) -> None:
    """An id that no MGRS square bears (here: a column letter of another zone, a zone 61, …) is a ValueError."""
    with pytest.raises(ValueError, match="is not an MGRS tile id"):
        tile_grid(tile)


@given(
    lon=st.floats(-179.9, 179.9),
    lat=st.floats(-79.0, 83.0),
)
def test_project_round_trip(lon: float, lat: float) -> None:
    """Projecting into the nominal zone and back gives the position to a millionth of a degree."""
    zone = int(utm_zone(lon))
    x, y = project(zone, np.array([lon]), np.array([lat]))
    back = unproject(zone, x, y)
    np.testing.assert_allclose([back[0][0], back[1][0]], [lon, lat], atol=1e-6)
    assert (y[0] < 0) == (lat < 0) or abs(lat) < 1e-6


def test_the_square_holds_most_of_the_tile() -> None:
    """A tile starts at its square's upper-left corner, snapped outwards to 60 m."""
    zone, east, north = square("32TNS")
    grid = tile_grid("32TNS")
    assert (zone, east, north) == (32, 5, 51)
    assert 0 <= east * 100_000 - grid.x0 < 60
    assert 0 <= grid.y0 - (north + 1) * 100_000 < 60


def test_xy_and_row_col_are_inverse() -> None:
    """Pixel positions map to metres and back; row 0, column 0 is the upper-left corner."""
    grid = tile_grid("32TNS")
    x, y = grid.xy([0, 10.5], [0, 3])
    assert (x[0], y[0]) == (grid.x0, grid.y0)
    row, col = grid.row_col(x, y)
    np.testing.assert_array_equal(row, [0, 10.5])
    np.testing.assert_array_equal(col, [0, 3])
