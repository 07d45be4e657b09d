"""The Hilbert curve."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geofm_sampling.hilbert import ORDER, hilbert_index, hilbert_of_ground


def reference(x: int, y: int, order: int) -> int:
    """The scalar textbook algorithm (xy2d)."""
    side, d, s = 1 << order, 0, 1 << (order - 1)
    while s:
        rx, ry = int(x & s > 0), int(y & s > 0)
        d += s * s * ((3 * rx) ^ ry)
        if ry == 0:
            if rx == 1:
                x, y = side - 1 - x, side - 1 - y
            x, y = y, x
        s //= 2
    return d


@given(st.integers(0, 2**ORDER - 1), st.integers(0, 2**ORDER - 1))
def test_equals_the_textbook_algorithm(x: int, y: int) -> None:
    """Vectorised and scalar forms agree at full order."""
    assert int(hilbert_index(x, y)) == reference(x, y, ORDER)


def test_visits_every_point_once_in_steps_of_one() -> None:
    """On a 32 × 32 grid the index is a bijection, and consecutive points are neighbours."""
    y, x = np.divmod(np.arange(32 * 32), 32)
    order = np.argsort(hilbert_index(x, y, order=5))
    assert np.array_equal(np.sort(hilbert_index(x, y, order=5)), np.arange(1024))
    assert np.all(np.abs(np.diff(x[order])) + np.abs(np.diff(y[order])) == 1)


def test_corners_of_the_earth_are_on_the_curve() -> None:
    """Poles and the antimeridian have an index within the grid; nearby ground is nearer than far ground."""
    lon, lat = np.array([-180.0, 180.0, 0.0, 0.0]), np.array([0.0, 0.0, 90.0, -90.0])
    index = hilbert_of_ground(lon, lat)
    assert np.all((index >= 0) & (index < 4**ORDER))
    a, b, c = hilbert_of_ground(np.array([10.0, 10.001, 100.0]), np.array([50.0, 50.001, -30.0]))
    assert abs(a - b) < abs(a - c)
