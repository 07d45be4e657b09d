"""Unit ids of imported chips."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from geofm_pipeline.errors import InputError
from geofm_pipeline.importing.units import hash_text, unit_ids
from geofm_pipeline.store import clusters
from geofm_pipeline.store.order import reading_order
from geofm_sampling.unit import NO_UNIT


def _grid(images: int, side: int, size: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    name, row, col = (axis.ravel() for axis in np.indices((images, side, side)))
    return [f"scene-{number}.tif" for number in name], row * size, col * size


def test_ids_are_distinct_and_do_not_depend_on_company() -> None:
    """A chip has one id, whatever else is imported with it; the fill of a store is never one."""
    files, rows, cols = _grid(3, 150, 64)
    units = unit_ids(files, rows, cols, 64)
    assert np.unique(units).size == units.size == 3 * 150 * 150
    assert NO_UNIT not in units
    some = np.random.default_rng(0).permutation(units.size)[:500]
    assert np.array_equal(unit_ids([files[at] for at in some], rows[some], cols[some], 64), units[some])
    assert not np.isin(unit_ids(files[:9], rows[:9] * 2, cols[:9] * 2, 128), units).any()


def test_chips_of_an_image_are_read_together() -> None:
    """They are one cluster of the store's order, row after row, so that a group opens each file once."""
    files, rows, cols = _grid(4, 20, 16)
    units = unit_ids(files, rows, cols, 16)
    order = reading_order(units)
    read = [files[at] for at in order]
    assert np.unique(clusters(units)).size == 4
    assert sum(a != b for a, b in pairwise(read)) == 3
    first = order[:400]
    assert np.array_equal(np.lexsort((cols[first], rows[first])), np.arange(400))


def test_a_collision_is_refused() -> None:
    """Two chips with one id are named, and nothing is imported."""
    files, rows, cols = ["a.tif", "b.tif", "c.tif"], np.array([0, 16, 16]), np.array([16, 0, 0])

    def weak(text: str) -> int:
        return hash_text("same" if text.endswith(("b.tif", "c.tif")) else text)

    with pytest.raises(InputError, match=r"b.tif \(row 16, column 0\) and c.tif \(row 16, column 0\) get the same"):
        unit_ids(files, rows, cols, 16, hashed=weak)
    unit_ids(files, rows, cols, 16)


def test_images_that_share_a_hash_but_no_place_are_no_collision() -> None:
    """Only equal ids count: other chips of images with equal hashes are still apart."""
    units = unit_ids(["a.tif", "b.tif"], np.array([0, 16]), np.array([0, 0]), 16, hashed=lambda _: 12345)
    assert units[0] != units[1]
