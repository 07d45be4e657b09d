"""Promises of the lazy cube."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import dask
import numpy as np
import pytest
from numpy.typing import NDArray

from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.cube import tile_cube
from geofm_pipeline.errors import BlockReadError, InputError
from geofm_pipeline.hls.bands import BANDS, FMASK
from geofm_pipeline.hls.grid import tile_grid
from geofm_pipeline.scenes import SceneRef

if TYPE_CHECKING:
    from tests.pipeline.reader.conftest import RangeServer

Trusted = Callable[[str, int, int, int], NDArray[np.generic]]


@pytest.mark.parametrize(
    ("row", "col", "size", "chunk"), [(3328, 3328, 256, 256), (3000, 2900, 660, 256), (90, 0, 300, 100)]
)
def test_the_cube_holds_rasterios_pixels(
    scenes: tuple[SceneRef, ...], trusted: Trusted, row: int, col: int, size: int, chunk: int
) -> None:
    """Any part of the cube, whole blocks or not, equals rasterio's window bit for bit."""
    with dask.config.set(scheduler="threads"):
        part = tile_cube(scenes, chunk=chunk)[:, :, row : row + size, col : col + size].compute()
        mask = tile_cube(scenes, bands=[FMASK], chunk=chunk)[:, 0, row : row + size, col : col + size].compute()
    assert (part.dims, part.dtype, mask.dtype) == (("time", "band", "y", "x"), np.int16, np.uint8)
    assert list(part["band"].values) == list(BANDS)
    for t, scene in enumerate(scenes):
        np.testing.assert_array_equal(mask.values[t], trusted(scene.fmask, row, col, size))
        for b, href in enumerate(scene.bands):
            np.testing.assert_array_equal(part.values[t, b], trusted(href, row, col, size))


def test_coordinates_are_pixel_centres_of_the_tiles_grid(scenes: tuple[SceneRef, ...]) -> None:
    """In metres of EPSG:326zz, dates in order, whatever order the granules came in."""
    cube = tile_cube(scenes[::-1])
    grid = tile_grid("10SFE")
    assert cube.shape == (3, 6, 3660, 3660)
    assert (cube["x"].values[0], cube["y"].values[0]) == (grid.x0 + 15, grid.y0 - 15)
    assert (cube["x"].values[-1], cube["y"].values[-1]) == (grid.bounds[2] - 15, grid.bounds[1] + 15)
    assert (int(cube["epsg"]), cube.attrs["fill"]) == (grid.epsg, -9999)
    assert [str(day)[:10] for day in cube["time"].values] == ["2022-07-19", "2022-08-04", "2022-08-20"]


def test_nothing_is_read_before_it_is_asked_for(remote: tuple[SceneRef, ...], range_server: RangeServer) -> None:
    """Building and slicing cost no request; one block of one band costs an open and a block."""
    part = tile_cube(remote, source=ArchiveSource())[1, 2, 3328:3584, 3328:3584]
    assert range_server.log == []
    with dask.config.set(scheduler="sync"):
        part.compute()
    assert len(range_server.log) == 2


def test_a_cube_travels_to_workers(scenes: tuple[SceneRef, ...], trusted: Trusted) -> None:
    """The graph is picklable and gives the same pixels elsewhere."""
    part = pickle.loads(pickle.dumps(tile_cube(scenes, source=ArchiveSource())[0, 0, 3328:3400, 3328:3400]))
    with dask.config.set(scheduler="sync"):
        np.testing.assert_array_equal(part.compute().values, trusted(scenes[0].bands[0], 3328, 3328, 72))


@pytest.mark.parametrize(("href", "cause"), [("", "no such asset"), ("/nowhere.tif", "does not exist")])
def test_a_fault_is_raised_and_never_becomes_nodata(scenes: tuple[SceneRef, ...], href: str, cause: str) -> None:
    """A missing asset or file is a BlockReadError when its pixels are asked for, and not before."""
    broken = replace(scenes[0], bands=(href, *scenes[0].bands[1:]))
    cube = tile_cube([broken, *scenes[1:]])
    assert cube.shape == (3, 6, 3660, 3660)
    with dask.config.set(scheduler="sync"), pytest.raises(BlockReadError, match=cause):
        cube[0, 0, :256, :256].compute()


def test_what_makes_no_cube_is_refused(scenes: tuple[SceneRef, ...]) -> None:
    """No granule, two tiles, a band that does not exist, two pixel types."""
    other = replace(scenes[0], granule_id=scenes[0].granule_id.replace("10SFE", "10SGE"))
    with pytest.raises(InputError, match="exactly one tile, got 2: 10SFE, 10SGE"):
        tile_cube([scenes[0], other])
    with pytest.raises(InputError, match="exactly one tile, got 0: none"):
        tile_cube([])
    with pytest.raises(InputError, match="are not all among blue"):
        tile_cube(scenes, bands=["B04"])
    with pytest.raises(InputError, match="make a cube of fmask alone"):
        tile_cube(scenes, bands=["red", FMASK])
