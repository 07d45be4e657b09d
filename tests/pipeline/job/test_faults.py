"""The main job on an archive where everything that can be wrong with granules is wrong, at every chip size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from geofm_model import Store, TombstoneError
from geofm_pipeline.cli import run
from geofm_pipeline.hls.bands import BANDS, FMASK_FILE, band_file
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.simulator import Archive, simulate
from geofm_pipeline.simulator.granules import plan_granules
from geofm_sampling.unit import unpack_units

from .conftest import job_words

pytestmark = pytest.mark.heavy
UNREADABLE = {
    "truncated_file": "is truncated",
    "html_page": "an HTML page, not a TIFF",
}
"""Faults that make chips unreadable, and what their tombstones say."""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One tile, nine blocks, fifteen granules, seven of them with a fault each."""
    out = tmp_path_factory.mktemp("faulty") / "archive"
    extent = (0, 1280, 768, 768)
    return simulate(out, tiles=["32TNR"], years=[2022], seed=3, extent=extent, per_year=14, faults=["all"])


@pytest.fixture(scope="module", params=[64, 128, 256])
def dataset(faulty: Archive, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """What the job writes for one chip size: as many chips of two dates as there are."""
    out = tmp_path_factory.mktemp("faults") / "out"
    words = ("--chip-size", str(request.param), "--samples", "200", "--min-clear", "0.3")
    assert run(job_words(faulty, out, *words)) == 0
    return out


def victims(archive: Archive) -> dict[str, str]:
    """Fault → granule."""
    return {planned.fault: planned.granule_id for planned in plan_granules(archive.spec) if planned.fault}


def window(archive: Archive, granule: str, file: str, unit: int) -> NDArray[np.generic]:
    """A unit's pixels in one file of a granule, by rasterio."""
    place = unpack_units(np.array([unit], dtype=np.uint64))
    row, col, size = (int(values[0]) for values in (place.cell_row, place.cell_col, place.chip_size))
    with rasterio.open(archive.root / granule / f"{granule}.{file}.tif") as source:
        return np.asarray(source.read(1, window=Window(col * size, row * size, size, size)))


def by_rasterio(archive: Archive, row: dict[str, Any]) -> tuple[NDArray[np.generic], NDArray[np.generic]] | None:
    """Image [T, B, H, W] and Fmask [T, H, W] of a row of samples.parquet, None where a file of it cannot be read."""
    files = {name: [band_file(GranuleId.parse(name).sensor, band) for band in BANDS] for name in row["granules"]}
    unit = row["unit"]
    try:
        image = [[window(archive, name, file, unit) for file in files[name]] for name in row["granules"]]
        return np.array(image), np.array([window(archive, name, FMASK_FILE, unit) for name in row["granules"]])
    except RasterioIOError:
        return None


def test_tombstones_lie_exactly_where_rasterio_cannot_read(dataset: Path, faulty: Archive) -> None:
    """Every chip that rasterio can read is in the store bit for bit; every other is a tombstone, and no third thing."""
    store = Store.open(dataset / "store.zarr")
    samples = pq.read_table(dataset / "samples.parquet").to_pylist()
    buried = 0
    for index, row in enumerate(samples):
        expected = by_rasterio(faulty, row)
        if expected is None:
            with pytest.raises(TombstoneError):
                store.sample(index)
            assert (row["split"], row["weight"]) == (-1, 0)
            buried += 1
        else:
            np.testing.assert_array_equal(store.sample(index).image, expected[0])
            np.testing.assert_array_equal(store.sample(index).fmask, expected[1])
            assert row["state"] == "written"
    assert 0 < buried < len(samples) / 2
    assert run(["verify", str(dataset)]) == 0


def test_each_fault_is_named_with_its_granule(dataset: Path, faulty: Archive) -> None:
    """Tombstones name the granule and the cause, both kinds occur, and nothing else is buried."""
    hit = victims(faulty)
    states = [row["state"] for row in pq.read_table(dataset / "samples.parquet").to_pylist() if row["split"] == -1]
    found = [f for f, cause in UNREADABLE.items() if any(hit[f] in state and cause in state for state in states)]
    assert found == list(UNREADABLE) or (found and len(states) < 5)  # nine blocks of 256 px may miss one
    assert all(any(hit[fault] in state for fault in UNREADABLE) for state in states)


def test_a_granule_that_lacks_a_file_is_used_by_nobody(dataset: Path, faulty: Archive) -> None:
    """What the catalogue says is missing costs no chip: the granule counts as not there, and that is said."""
    granule = victims(faulty)["missing_asset"]
    samples = pq.read_table(dataset / "samples.parquet").to_pylist()
    assert all(granule not in row["granules"] for row in samples)
    assert granule in (dataset / "card.json").read_text()


def test_faults_that_leave_pixels_readable_bury_nothing(dataset: Path, faulty: Archive) -> None:
    """An impossible Fmask is refused and never used; two granules of one day are one date."""
    hit = victims(faulty)
    samples = pq.read_table(dataset / "samples.parquet").to_pylist()
    refused = json.loads((dataset / "card.json").read_text())["screening"]["refused"]
    assert [row["granule"] for row in refused] == [hit["impossible_fmask"]]
    for row in samples:
        assert hit["impossible_fmask"] not in row["granules"]
        assert len(set(row["dates"])) == len(row["dates"])
