"""Noise belongs to the lattice, not to the window it is looked at through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofm_pipeline.hls.grid import tile_grid
from geofm_pipeline.simulator.ground import ground
from geofm_pipeline.simulator.noise import Window, at_points, fractal, smooth, tile_window, white

WINDOW = Window(zone=32, row=-170_000, col=17_000, height=300, width=280)


@given(
    top=st.integers(0, 250),
    left=st.integers(0, 230),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    seed=st.integers(-5, 2**40),
)
def test_a_pixel_has_one_value_in_every_window(top: int, left: int, height: int, width: int, seed: int) -> None:
    """Fractal noise of a part of a window equals that part of the whole, bit for bit."""
    whole = fractal(seed, "test", WINDOW, coarsest=64)
    part = Window(zone=32, row=WINDOW.row + top, col=WINDOW.col + left, height=height, width=width)
    np.testing.assert_array_equal(
        fractal(seed, "test", part, coarsest=64), whole[top : top + height, left : left + width]
    )


@pytest.mark.parametrize("spacing", [1, 4, 64])
def test_points_and_windows_agree(spacing: int) -> None:
    """Noise at scattered points equals the window's at the same lattice positions."""
    rows, cols = np.meshgrid(WINDOW.rows().astype(float), WINDOW.cols().astype(float), indexing="ij")
    np.testing.assert_array_equal(at_points(3, "p", 32, rows, cols, spacing), smooth(3, "p", WINDOW, spacing))


def test_noise_is_standardised() -> None:
    """Mean 0 and variance 1 over many features; white noise uniform on [0, 1)."""
    wide = Window(zone=10, row=5_000, col=9_000, height=900, width=900)
    value = fractal(1, "moments", wide, coarsest=16)
    assert abs(float(value.mean())) < 0.05
    assert abs(float(value.std()) - 1) < 0.05
    grain = white(1, "moments", wide)
    assert 0 <= grain.min() < 0.001
    assert 0.999 < grain.max() < 1
    assert abs(float(grain.mean()) - 0.5) < 0.002


def test_zones_seeds_and_purposes_are_independent() -> None:
    """Another zone, seed or purpose gives unrelated noise at the same row and column."""
    base = white(1, "a", WINDOW)
    other = Window(zone=33, row=WINDOW.row, col=WINDOW.col, height=300, width=280)
    for stranger in (white(2, "a", WINDOW), white(1, "b", WINDOW), white(1, "a", other)):
        assert abs(np.corrcoef(base.ravel(), stranger.ravel())[0, 1]) < 0.02


def test_the_ground_of_a_part_is_part_of_the_ground() -> None:
    """Relief, land cover, parcels, towns and roads do not depend on the window either."""
    grid = tile_grid("32TNS")
    whole = ground(119, tile_window(grid, 2900, 1300, 330, 300))
    part = ground(119, tile_window(grid, 2937, 1411, 190, 77))
    for name in ("cover", "curve", "parcel", "heat", "east", "north", "texture", "water", "road", "shelter"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[37:227, 111:188], err_msg=name)
