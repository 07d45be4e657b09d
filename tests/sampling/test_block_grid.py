"""The Earth's grid of blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geofm_sampling.block_grid import EARTH_KM, LEAST_RADIUS_KM, BlockGrid
from geofm_sampling.blocks import draw_split, reach_km

Floats = NDArray[np.float64]
EDGE = 160
"""Points along an edge of a block, for distances by brute force."""


def vectors(lon: Floats, lat: Floats) -> Floats:
    """Unit vectors, shape (..., 3)."""
    lam, phi = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)], axis=-1)


@pytest.mark.parametrize("block_km", [10.0, 50.0, 100.0, 137.0, 500.0, 2000.0])
def test_blocks_are_near_equal_in_area_and_cover_the_earth_once(block_km: float) -> None:
    """Every block lies within 6 % of block_km², also at the poles, and all of them make up the sphere."""
    grid = BlockGrid(block_km=block_km)
    total = int(grid.first[-1])
    block = np.arange(total) if total < 60_000 else np.unique(np.linspace(0, total - 1, 60_000).astype(np.int32))
    west, south, east, north = grid.bounds(block.astype(np.int32)).T
    area = EARTH_KM**2 * np.radians(east - west) * (np.sin(np.radians(north)) - np.sin(np.radians(south)))
    assert np.all(np.abs(area / block_km**2 - 1.0) < 0.06)
    if total < 60_000:
        assert area.sum() == pytest.approx(4.0 * np.pi * EARTH_KM**2, rel=1e-12)


@given(
    block_km=st.sampled_from([1.0, 10.0, 100.0, 777.0]), lon=st.floats(-180.0, 179.999), lat=st.floats(-89.999, 89.999)
)
def test_a_point_lies_within_the_bounds_of_its_block(block_km: float, lon: float, lat: float) -> None:
    """Numbers and bounds agree to a millionth of a degree."""
    grid = BlockGrid(block_km=block_km)
    block = grid.of(np.array([lon]), np.array([lat]))
    assert block.dtype == np.int32
    west, south, east, north = grid.bounds(block)[0]
    assert west - 1e-6 <= lon <= east + 1e-6
    assert south - 1e-6 <= lat <= north + 1e-6


def test_the_grid_wraps_and_closes() -> None:
    """180° E is 180° W; the poles belong to the polar bands."""
    grid = BlockGrid(block_km=100.0)
    lat = np.array([-60.0, 0.0, 51.0])
    assert np.array_equal(grid.of(np.full(3, 180.0), lat), grid.of(np.full(3, -180.0), lat))
    assert grid.of(np.array([0.0]), np.array([90.0]))[0] >= grid.first[-2]
    assert 0 <= grid.of(np.array([0.0]), np.array([-90.0]))[0] < grid.first[1]
    with pytest.raises(ValueError, match=r"block_km is 0\.5"):
        BlockGrid(block_km=0.5)


def nearest(grid: BlockGrid, band: int, lon: float, lat: float) -> Floats:
    """Kilometres (least radius) to each block of a band, by points along its edge; 0 inside."""
    block = np.arange(grid.first[band], grid.first[band + 1]).astype(np.int32)
    west, south, east, north = grid.bounds(block).T[:, :, None]
    t = np.linspace(0.0, 1.0, EDGE + 1)
    x = np.concatenate([west + (east - west) * t] * 2 + [west + 0 * t, east + 0 * t], axis=1)
    y = np.concatenate([south + 0 * t, north + 0 * t] + [south + (north - south) * t] * 2, axis=1)
    away = vectors(x, y) - vectors(np.array(lon), np.array(lat))
    chord = np.sqrt((away**2).sum(axis=-1)).min(axis=1)
    inside = (west[:, 0] <= lon) & (lon <= east[:, 0]) & (south[:, 0] <= lat) & (lat <= north[:, 0])
    return np.where(inside, 0.0, LEAST_RADIUS_KM * 2.0 * np.arcsin(np.minimum(chord / 2.0, 1.0)))


@settings(max_examples=120)
@given(
    lon=st.one_of(st.floats(-180.0, 180.0), st.sampled_from([-180.0, 179.99, 0.0])),
    lat=st.one_of(st.floats(-90.0, 90.0), st.floats(80.0, 90.0), st.sampled_from([-90.0, 90.0, 0.0])),
    block_km=st.sampled_from([600.0, 1000.0, 2000.0]),
    reach=st.floats(2.0, 1500.0),
)
def test_blocks_within_reach_are_those_of_brute_force(lon: float, lat: float, block_km: float, reach: float) -> None:
    """No block within reach is missed; none is counted that lies farther than a net of points can tell."""
    grid = BlockGrid(block_km=block_km)
    for band in range(grid.bands):
        away = nearest(grid, band, lon, lat)
        south = -90.0 + 180.0 * band / grid.bands
        angle = np.degrees(reach / LEAST_RADIUS_KM)
        if not south - angle <= lat <= south + 180.0 / grid.bands + angle:
            assert away.min() > reach * (1.0 - 1e-9)
            continue
        (west,), (east,) = grid.within(np.array([lon]), np.array([lat]), band=band, reach_km=reach)
        count = int(grid.counts[band])
        inside = np.isin(np.arange(count), np.arange(west, east + 1) % count)
        net = 1.6 * block_km / EDGE  # a point of the net lies this near to any point of an edge
        assert np.all(inside[away < reach * (1.0 - 1e-9)])
        assert np.all(away[inside] <= reach + net)


def test_p_eligible_is_the_product_over_blocks_within_reach() -> None:
    """Against a product over all blocks of the Earth, distances by brute force, with raised chances.

    Cells with a block whose distance the net cannot tell from the reach are left out.
    """
    rng = np.random.default_rng(8)
    lon, lat = -20.0 + 60.0 * rng.random(40), 70.0 + 20.0 * rng.random(40)
    kind = (np.arange(40) == 7).astype(np.int64)
    split = draw_split(lon, lat, kind, share=0.2, block_km=600.0, buffer_km=100.0, chip_km=7.68, seed=1)
    grid = BlockGrid(block_km=600.0)
    special = dict(zip(split.blocks["block"].to_pylist(), split.blocks["p"].to_pylist(), strict=True))
    assert max(special.values()) > 0.2
    reach, checked = reach_km(100.0, 7.68), 0
    for cell in range(40):
        expected, unsure = 1.0, False
        for band in range(grid.bands):
            away = nearest(grid, band, lon[cell], lat[cell])
            unsure |= bool(np.any((away >= reach) & (away < reach + 10.0)))
            for column in np.flatnonzero(away < reach):
                expected *= 1.0 - special.get(int(grid.first[band] + column), 0.2)
        if not unsure:
            checked += 1
            assert split.p_eligible[cell] == pytest.approx(expected, rel=1e-9)
    assert checked > 20
