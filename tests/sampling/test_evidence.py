"""The promises of the sampling room on real ground: land tiles of the HLS grid with real covariates."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from global_frame import Population, global_tiles, make_population, plain_design
from pyproj import Geod
from scipy.spatial import cKDTree
from scipy.stats import binom

from geofm_pipeline.hls.grid import unproject
from geofm_sampling import allocate, draw_master
from geofm_sampling.blocks import draw_split
from geofm_sampling.hilbert import hilbert_of_ground

SOUTH_AMERICA = "-76,-45,-44,5"
REDRAWS = 400


@pytest.fixture(scope="module")
def tiles(shared_data: Path) -> Population:
    """Tile × season of 2022 over South America, with land cover and weather."""
    return make_population("globe", global_tiles(shared_data, SOUTH_AMERICA))


def test_real_units_are_drawn_as_often_as_their_probability_says(tiles: Population) -> None:
    """Over 400 independent redraws every unit is in phase 1 as often as a binomial number of chance π₁ allows.

    Limits: 10⁻⁷ per unit and tail over some 6,000 units, and 10⁻⁵ per tail for each tenth of the Hilbert curve, whose
    sum of spread draws varies less than the binomial one. Chance of a false alarm: below 0.2 %. Seeds are fixed.
    """
    count, pi = np.zeros(tiles.unit.size), np.zeros(tiles.unit.size)
    for seed in range(REDRAWS):
        plan = draw_master(tiles.frame, plain_design(400, floor=5, first_phase=2.0, seed=seed))
        count[np.searchsorted(tiles.unit, plan["unit"].to_numpy()[plan["first_look"].to_numpy()])] += 1
        pi[np.searchsorted(tiles.unit, plan["unit"].to_numpy())] = plan["pi1"].to_numpy()
    assert (pi > 0).all()
    assert pi.sum() == pytest.approx(800, rel=1e-9)
    assert (count >= binom.ppf(1e-7, REDRAWS, pi)).all()
    assert (count <= binom.isf(1e-7, REDRAWS, pi)).all()
    lon, lat = (tiles.frame[name].to_numpy() for name in ("lon", "lat"))
    for tenth in np.array_split(np.argsort(hilbert_of_ground(lon, lat), kind="stable"), 10):
        expected, spread = REDRAWS * pi[tenth].sum(), np.sqrt(REDRAWS * (pi * (1 - pi))[tenth].sum())
        assert abs(count[tenth].sum() - expected) <= 4.4 * spread


@pytest.mark.parametrize("power", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_real_strata_share_the_exact_total_above_their_floor(tiles: Population, power: float) -> None:
    """Whatever the exponent: the numbers sum to what was asked for, none is below its floor or above its stratum."""
    sizes = tiles.sizes
    for total in (600, 1000, int(sizes.sum()) // 2, int(sizes.sum())):
        counts = allocate(sizes, total, power=power, floor=5)
        assert counts.sum() == total
        assert (counts >= np.minimum(5, sizes)).all()
        assert (counts <= sizes).all()


def test_real_tiles_of_training_and_evaluation_are_never_closer_than_the_buffer(shared_data: Path) -> None:
    """Whole tiles as footprints, on all land: outlines of training and held-out tiles are the buffer apart or more."""
    grid = gpd.read_parquet(shared_data / "s2-grid" / "sentinel-2-grid_LAND.parquet")
    edge, zone = 109.8, np.array([int(name[:2]) for name in grid["tile"]])
    bounds = np.array(grid["utm_bounds"].map(lambda text: [float(v) for v in text.strip("()").split(",")]).tolist())
    middle = (bounds[:, :2] + bounds[:, 2:]) / 2
    south = np.array([name[2] < "N" for name in grid["tile"]])
    lon, lat = np.empty(len(grid)), np.empty(len(grid))
    for number in np.unique(zone):
        here = zone == number
        northing = np.where(south, middle[:, 1] - 10_000_000.0, middle[:, 1])
        lon[here], lat[here] = unproject(int(number), middle[here, 0], northing[here])
    split = draw_split(
        *(lon, lat, np.zeros(lon.size, dtype=np.int64)),
        **{"share": 0.1, "block_km": 300.0, "buffer_km": 60.0, "chip_km": edge, "seed": 3},
    ).split
    assert {-1, 0, 1} == set(split.tolist())
    outlines = [_outline(grid[split == value]) for value in (0, 1)]
    distance, nearest = cKDTree(_directions(outlines[0])).query(_directions(outlines[1]))
    closest = np.argsort(distance)[:2000]
    pairs = np.concatenate([outlines[0][nearest[closest]], outlines[1][closest]], axis=1)
    metres = Geod(ellps="WGS84").inv(*pairs.T)[2]
    assert metres.min() >= 60_000.0


def _outline(grid: gpd.GeoDataFrame) -> np.ndarray:
    """Longitude and latitude of points along the outlines, at most 6 km apart, shape (n, 2)."""
    return grid.geometry.segmentize(0.05).get_coordinates().to_numpy()


def _directions(points: np.ndarray) -> np.ndarray:
    lon, lat = np.radians(points).T
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
