"""Held-out places and the ground around them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.warp import transform

from geofm_pipeline.errors import InputError
from geofm_pipeline.importing.places import Georeference, held_out, near_held_out
from geofm_pipeline.importing.rasters import Grid

NAMES = [f"place {number}" for number in range(30)]


def _grid(epsg: int, x: float, y: float, pixel: float = 30.0, side: int = 100) -> Grid:
    crs = rasterio.CRS.from_epsg(epsg).to_wkt()
    return Grid(height=side, width=side, crs=crs, transform=(pixel, 0.0, x, 0.0, -pixel, y))


def test_a_grid_is_the_same_however_it_is_worded() -> None:
    """Another wording of one reference system and rounded corners are the same grid; half a pixel is another one."""
    grid = _grid(32632, 600_000, 5_000_000)
    worded = replace(grid, crs=rasterio.CRS.from_epsg(32632).to_wkt(version="WKT2_2019"))
    assert worded.crs != grid.crs
    assert grid.same(worded)
    assert grid.same(_grid(32632, 600_000.1, 5_000_000))
    for other in (_grid(32632, 600_015, 5_000_000), _grid(32633, 600_000, 5_000_000), replace(grid, width=99)):
        assert not grid.same(other)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.01, 1), (0.2, 6), (0.5, 15), (None, 3)])
def test_a_share_of_the_places(share: float | None, count: int) -> None:
    """The share of their number, rounded, at least one; a tenth of twenty or more places without asking."""
    assert len(held_out(NAMES, share, seed=0)) == count


def test_the_choice_is_the_seeds() -> None:
    """It depends on seed and names, not on their order; another seed is another choice."""
    chosen = held_out(NAMES, 0.3, seed=1)
    assert held_out(NAMES[::-1], 0.3, seed=1) == chosen
    assert held_out(NAMES, 0.3, seed=2) != chosen
    assert held_out(NAMES[:5], None, seed=1) == frozenset()


def test_one_place_cannot_be_held_out() -> None:
    """The message names the place and the remedy."""
    with pytest.raises(InputError, match="only lake has samples: use --heldout 0"):
        held_out(["lake"], 0.1, seed=0)


def test_centres_and_footprints_lie_where_proj_says() -> None:
    """The middle of a chip is the middle of its footprint; corners agree with rasterio's."""
    where = Georeference(_grid(32632, 600_000, 5_000_000))
    rows, cols = np.array([0, 64]), np.array([32, 0])
    lon, lat = where.centres(rows, cols, 32)
    polygons = where.footprints(rows, cols, 32, 32)
    assert shapely.get_x(shapely.centroid(polygons)) == pytest.approx(lon, abs=1e-6)
    assert shapely.get_y(shapely.centroid(polygons)) == pytest.approx(lat, abs=1e-6)
    corner = transform("EPSG:32632", "EPSG:4326", [600_000 + 32 * 30], [5_000_000])
    assert shapely.get_coordinates(polygons[0])[0] == pytest.approx(np.ravel(corner))


def test_chips_that_touch_held_out_ground() -> None:
    """A neighbour that overlaps by twenty pixels loses the chips that touch, and only those."""
    held, mine = Georeference(_grid(32632, 600_000, 5_000_000)), Georeference(_grid(32632, 602_400, 5_000_000))
    cols = np.arange(0, 100, 10)
    near = near_held_out(mine.footprints(np.full(10, 40), cols, 10, 10), [held.whole()])
    assert near.tolist() == [True, True, True] + [False] * 7  # the third begins where the held-out ground ends
    assert not near_held_out(mine.footprints(np.full(10, 40), cols, 10, 10), []).any()


def test_ground_across_the_antimeridian_meets_itself() -> None:
    """A chip of zone 60 that reaches over 180° and ground of zone 1 that begins there touch, whatever their numbers."""
    east, west = Georeference(_grid(32660, 832_000, 100_000)), Georeference(_grid(32601, 166_100, 100_000))
    chips = east.footprints(np.array([0]), np.array([60]), 40, 40)
    assert not shapely.intersects(chips, west.whole()).any()
    assert near_held_out(chips, [west.whole()]).all()
    assert not near_held_out(east.footprints(np.array([0]), np.array([0]), 40, 40), [west.whole()]).any()


def test_a_georeference_that_is_nowhere() -> None:
    """Corners that have no longitude and latitude are an error, not NaN in a store."""
    with pytest.raises(InputError, match="no place on Earth"):
        Georeference(_grid(32632, 1e12, 1e12)).centres(np.array([0]), np.array([0]), 10)
