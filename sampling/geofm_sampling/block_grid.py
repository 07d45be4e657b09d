"""A grid of near-equal-area blocks over the whole Earth, and which of them lie within reach of a point.

Bands of equal latitude, each cut into a whole number of equal spans of longitude, so that a block is about
`block_km` × `block_km` everywhere. The numbering is global: it knows no tiles, zones or regions, wraps at the
antimeridian and closes at the poles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

EARTH_KM = 6371.0088
"""Mean radius of the Earth (IUGG), for areas."""
LEAST_RADIUS_KM = 6335.439
"""Smallest radius of curvature of WGS 84, a(1 − e²). Between any two points the ellipsoid's geodesic is at least this
times the angle between (lon, lat) on the unit sphere, because dφ and cos φ dλ are each stretched by no less."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class BlockGrid:
    """The blocks of one size; numbers count eastwards from 180° W within a band, bands northwards from the south."""

    block_km: float
    """Edge of a block in kilometres, 1 to 2000."""

    def __post_init__(self) -> None:
        """Raise ValueError for an edge outside 1-2000 km."""
        if not 1.0 <= self.block_km <= 2000.0:
            raise ValueError(f"block_km is {self.block_km}, must be 1 to 2000 km")

    @property
    def bands(self) -> int:
        """Bands from pole to pole."""
        return max(1, round(np.pi * EARTH_KM / self.block_km))

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Blocks of each band from the south, shape (bands,); polar bands are cut into three or so."""
        edges = np.radians(np.linspace(-90.0, 90.0, self.bands + 1))
        area = 2.0 * np.pi * EARTH_KM**2 * np.diff(np.sin(edges))
        return np.maximum(np.round(area / self.block_km**2), 1.0).astype(np.int64)

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Number of each band's first block, and at last the number of all blocks, shape (bands + 1,)."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    def of(self, lon: Floats, lat: Floats) -> NDArray[np.int32]:
        """Block of each point, degrees, shape (n,); longitude 180 is -180."""
        band = self.band_of(lat)
        column = np.floor((lon + 180.0) / 360.0 * self.counts[band]).astype(np.int64)
        return (self.first[band] + column % self.counts[band]).astype(np.int32)

    def band_of(self, lat: Floats) -> NDArray[np.int64]:
        """Band of each latitude, degrees, shape (n,); latitudes beyond a pole belong to the polar band."""
        return np.clip(np.floor((lat + 90.0) / 180.0 * self.bands), 0, self.bands - 1).astype(np.int64)

    def bounds(self, block: NDArray[np.int32]) -> Floats:
        """West, south, east, north of each block in degrees, shape (n, 4)."""
        band = np.searchsorted(self.first, block, side="right") - 1
        width, height = 360.0 / self.counts[band], 180.0 / self.bands
        west, south = -180.0 + (block - self.first[band]) * width, -90.0 + band * height
        return np.asarray(np.stack([west, south, west + width, south + height], axis=1), dtype=np.float64)

    def within(self, lon: Floats, lat: Floats, *, band: int, reach_km: float) -> tuple[NDArray[np.int64], ...]:
        """First and last column of the band's blocks that may lie within `reach_km` of each point, two arrays (n,).

        Every point must have a latitude within reach of the band. Columns run on beyond the antimeridian: take them
        modulo the band's count; a span of at least that count is the whole band. No block within reach is left out;
        one that is counted in is at most 1.1 % of the distance farther away.
        """
        south, north = (np.radians(-90.0 + 180.0 * (band + step) / self.bands) for step in (0, 1))
        half = np.degrees(_half_width(np.radians(lat), south, north, reach_km / LEAST_RADIUS_KM))
        count = int(self.counts[band])
        west, east = (np.floor((lon + side * half + 180.0) / 360.0 * count).astype(np.int64) for side in (-1.0, 1.0))
        return west, east


def _half_width(lat: Floats, south: float, north: float, angle: float) -> Floats:
    """Largest difference in longitude, radians, to a point of the band within `angle` of each point.

    The cap around a point is widest where a meridian touches it, at sin θ = sin(lat) / cos(angle) (Napier); away from
    that latitude it narrows steadily. A cap that holds a pole has no such meridian and widens up to all longitudes.
    """
    touching = np.arcsin(np.clip(np.sin(lat) / np.cos(angle), -1.0, 1.0))
    widest = np.clip(np.clip(touching, south, north), lat - angle, lat + angle)
    cosine = (np.cos(angle) - np.sin(lat) * np.sin(widest)) / (np.cos(lat) * np.cos(widest))
    return np.asarray(np.arccos(np.clip(cosine, -1.0, 1.0)))
