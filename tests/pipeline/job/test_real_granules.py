"""The main job on two real HLS granules: a clear coast and an all-cloud one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.windows import Window

from geofm_model import Store
from geofm_pipeline.cli import run
from geofm_pipeline.hls.bands import BAND_FILES, BANDS
from geofm_sampling.unit import unpack_units

CLEAR = "HLS.L30.T10SFE.2019253T183445.v2.0"


@pytest.fixture(scope="module")
def dataset(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset that the command line writes from both granules."""
    out = tmp_path_factory.mktemp("real") / "out"
    words = "--region -160,30,-115,65 --years 2019 --chip-size 64 --timesteps 1 --samples 7 --heldout 0 --workers 0"
    assert run(["--catalog", str(shared_data / "hls-archive" / "items.json"), *words.split(), "--out", str(out)]) == 0
    return out


def _window(shared_data: Path, granule: str, asset: str, row: int, col: int) -> np.ndarray:
    with rasterio.open(shared_data / "hls-archive" / granule / f"{granule}.{asset}.tif") as file:
        return np.asarray(file.read(1, window=Window(col * 64, row * 64, 64, 64)))


def test_as_many_chips_as_a_plain_count_gives(dataset: Path, shared_data: Path) -> None:
    """The store holds exactly the cells that a numpy count over the 57 × 57 grid finds clear enough: seven."""
    with rasterio.open(shared_data / "hls-archive" / CLEAR / f"{CLEAR}.Fmask.tif") as file:
        fmask = file.read(1)[: 57 * 64, : 57 * 64].reshape(57, 64, 57, 64)
    clear = ((fmask != 255) & (fmask & 0b1110 == 0)).mean(axis=(1, 3))
    expected = {(int(row), int(col)) for row, col in np.argwhere(clear >= 0.8)}
    units = unpack_units(pq.read_table(dataset / "samples.parquet")["unit"].to_numpy())
    assert len(expected) == 7
    assert set(zip(units.cell_row.tolist(), units.cell_col.tolist(), strict=True)) == expected
    assert set(units.tile) == {"10SFE"}


def test_pixels_are_bit_equal_to_rasterio(dataset: Path, shared_data: Path) -> None:
    """Every band and the mask of every chip equal rasterio's window."""
    store = Store.open(dataset / "store.zarr")
    assert len(store) == 7
    for index in range(len(store)):
        sample = store.sample(index)
        unit = unpack_units(np.array([sample.unit], dtype=np.uint64))
        place = (int(unit.cell_row[0]), int(unit.cell_col[0]))
        for band, name in enumerate(BANDS):
            window = _window(shared_data, CLEAR, BAND_FILES["L30"][name], *place)
            assert np.array_equal(sample.image[0, band], window)
        assert np.array_equal(sample.fmask[0], _window(shared_data, CLEAR, "Fmask", *place))


def test_the_cloudy_granule_is_reported_as_cloud(dataset: Path) -> None:
    """The all-cloud granule yields no chip; its cells are counted as cloud, and nothing as an error."""
    response = pq.read_table(dataset / "response.parquet").to_pandas()
    tiles = unpack_units(response["unit"].to_numpy()).tile
    states = set(response["state"][tiles == "04VER"])
    card = json.loads((dataset / "card.json").read_text())
    assert "cloud" in states
    assert "drawn" not in states
    assert card["screening"]["refused"] == []
    assert card["response"]["states"]["unreadable"] == 0
    assert card["store"]["tombstones"] == []


def test_a_second_run_changes_nothing(dataset: Path, shared_data: Path) -> None:
    """The same command again finds everything done and leaves every byte of the store as it is."""
    before = {p: p.read_bytes() for p in sorted((dataset / "store.zarr").rglob("*")) if p.is_file()}
    words = "--region -160,30,-115,65 --years 2019 --chip-size 64 --timesteps 1 --samples 7 --heldout 0 --workers 0"
    catalog = str(shared_data / "hls-archive" / "items.json")
    assert run(["--catalog", catalog, *words.split(), "--out", str(dataset)]) == 0
    assert before == {p: p.read_bytes() for p in sorted((dataset / "store.zarr").rglob("*")) if p.is_file()}
    assert run(["verify", str(dataset)]) == 0
