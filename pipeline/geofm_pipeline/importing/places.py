"""Which places are held out, and which training chips then lie too near.

A place is held out whole, so that no image has chips on both sides; a training chip that touches the ground of a
held-out place, as where neighbouring scenes overlap, is left out. Which places: those with the smallest hashes of
(seed, name), so that the choice depends on nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from geofm_pipeline.errors import InputError
from geofm_pipeline.importing.rasters import Grid, Pixels
from geofm_pipeline.importing.units import hash_text
from geofm_sampling.hashing import hashed_uniform

MANY = 20
"""Places from which on a tenth of them is held out without asking, as of blocks in the main job."""
_USUAL = 0.1


def held_out(places: Sequence[str], share: float | None, seed: int) -> frozenset[str]:
    """The held-out ones of some places.

    Parameters
    ----------
    share : 0 to 0.5 of their number, rounded, and at least one where it is above 0; None is 0.1 of 20 places or more

    Raises
    ------
    InputError
        When one place is all there is and a share is wanted.
    """
    wanted = (_USUAL if len(places) >= MANY else 0.0) if share is None else share
    if wanted == 0:
        return frozenset()
    if len(places) < 2:
        raise InputError(
            f"--heldout {share:g} holds out whole places, and only {', '.join(places)} has samples: use --heldout 0, "
            "or give parts of the ground places of their own"
        )
    ids = np.array([hash_text(place) for place in places], dtype=np.uint64)
    order = np.argsort(hashed_uniform(seed, "import heldout", ids), kind="stable")
    return frozenset(np.array(places)[order[: max(1, round(wanted * len(places)))]].tolist())


def near_held_out(chips: NDArray[np.object_], grounds: Sequence[NDArray[np.object_]]) -> NDArray[np.bool_]:
    """True where a chip's footprint touches one of the grounds, shape (n,).

    Parameters
    ----------
    chips : lon/lat polygons, longitudes unrolled (see footprints), shape (n,)
    grounds : likewise of the held-out places
    """
    near = np.zeros(len(chips), dtype=np.bool_)
    if not grounds:
        return near
    # Also a turn further, so that ground beyond ±180° meets itself.
    turns = [partial(np.add, np.array([by, 0.0])) for by in (0.0, 360.0, -360.0)]
    turned = np.concatenate([shapely.transform(ground, turn) for ground in grounds for turn in turns])
    near[np.unique(shapely.STRtree(turned).query(chips, predicate="intersects")[0])] = True
    return near


class Georeference:
    """Longitudes and latitudes of pixels of one grid."""

    def __init__(self, grid: Grid, name: str = "an image") -> None:
        """`name` is what a message calls the image."""
        self._grid, self._name = grid, name
        try:
            self._transformer = Transformer.from_crs(CRS.from_wkt(grid.crs), "EPSG:4326", always_xy=True)
        except ProjError as error:
            raise InputError(
                f"the reference system of {name}, of {grid.text()}, has no place on Earth: {error}; give it the right "
                "one, e.g. by `gdal_edit.py -a_srs EPSG:32632`"
            ) from None

    def centres(
        self, rows: NDArray[np.int64], cols: NDArray[np.int64], size: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitude in [−180, 180) and latitude of the centres of chips from (row, col) on, shape (n,) each."""
        lon, lat = self._lonlat(rows + size / 2, cols + size / 2)
        return (lon + 180.0) % 360.0 - 180.0, lat

    def footprints(
        self, rows: NDArray[np.int64], cols: NDArray[np.int64], height: int, width: int
    ) -> NDArray[np.object_]:
        """Polygons of windows of height × width from (row, col) on, shape (n,); one across the antimeridian keeps
        longitudes beyond ±180."""
        down = np.stack([rows, rows, rows + height, rows + height, rows], axis=1)
        across = np.stack([cols, cols + width, cols + width, cols, cols], axis=1)
        lon, lat = self._lonlat(down, across)
        lon = lon[:, :1] + (lon - lon[:, :1] + 180.0) % 360.0 - 180.0
        return np.asarray(shapely.polygons(np.stack([lon, lat], axis=2)), dtype=object)

    def whole(self) -> NDArray[np.object_]:
        """Footprint of the whole grid, shape (1,)."""
        corner = np.zeros(1, dtype=np.int64)
        return self.footprints(corner, corner, self._grid.height, self._grid.width)

    def _lonlat(self, rows: Pixels, cols: Pixels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        x, y = self._grid.xy(rows, cols)
        lon, lat = self._transformer.transform(x, y)
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            raise InputError(
                f"{self._name}, of {self._grid.text()}, has no place on Earth: its reference system or its corners are "
                "wrong (gdal_edit.py -a_srs … -a_ullr … sets them)"
            )
        return np.asarray(lon), np.asarray(lat)
