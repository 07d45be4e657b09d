"""Order along a Hilbert curve: neighbours on the curve are neighbours on the ground.

The globe is laid out by Lambert's cylindrical equal-area projection (x = longitude, y = sine of latitude), so
equal stretches of the curve hold equal areas. Shapes are flattened towards the poles, which makes the curve a
little longer there and changes no probability.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

ORDER = 20
"""Bits per axis: 40 m along the equator, well below the 1.9 km of the smallest cell."""


def hilbert_index(x: ArrayLike, y: ArrayLike, *, order: int = ORDER) -> NDArray[np.int64]:
    """Distance along the Hilbert curve of integer grid points, shape kept.

    Parameters
    ----------
    x, y : integers in 0 … 2**order − 1, equal shapes
    order : bits per axis, 1 to 31

    Source: J. K. Lawder (2000), in the bitwise form of H. S. Warren, *Hacker's Delight*, ch. 16.
    """
    x, y = np.array(x, dtype=np.int64), np.array(y, dtype=np.int64)
    distance = np.zeros(x.shape, dtype=np.int64)
    for bit in range(order - 1, -1, -1):
        right, upper = (x >> bit) & 1, (y >> bit) & 1
        distance |= ((3 * right) ^ upper) << (2 * bit)
        low = (np.int64(1) << bit) - 1
        # The two lower quadrants hold the curve mirrored at a diagonal: swap the axes, reversed in the right one.
        turn = upper == 0
        flip = low * (turn & (right == 1))
        x, y = (x & low) ^ flip, (y & low) ^ flip
        x, y = np.where(turn, y, x), np.where(turn, x, y)
    return distance


def hilbert_of_ground(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> NDArray[np.int64]:
    """Distance along the curve of points in degrees east (−180 to 180) and north (−90 to 90), shape kept."""
    side = 1 << ORDER
    x = np.clip((np.asarray(lon) + 180.0) / 360.0 * side, 0, side - 1)
    y = np.clip((np.sin(np.radians(lat)) + 1.0) / 2.0 * side, 0, side - 1)
    return hilbert_index(x.astype(np.int64), y.astype(np.int64))
