"""Imports of real images, as docs/cli.md words them: stacks per city and date, and Landsat scenes with cloud masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.windows import Window

from geofm_model import Store
from geofm_pipeline.cli import run


def _images(shared_data: Path, name: str) -> Path:
    folder = shared_data / "imagery" / name
    if not folder.is_dir():
        pytest.skip(f"no images at {folder}")
    return folder


def test_cities(shared_data: Path, tmp_path: Path) -> None:
    """Two dates per city; a fifth of the cities held out; every pixel is rasterio's, zeros are missing."""
    folder, out = _images(shared_data, "oscd-20m"), tmp_path / "out"
    pattern = ["--images", f"{folder}/{{place}}_?.tif", "--date-tag", "sensing_date"]
    options = ["--timesteps", "2", "--chip-size", "128", "--heldout", "0.2"]
    assert run(["import", *pattern, *options, "--out", str(out)]) == 0
    assert run(["verify", str(out)]) == 0
    table = pq.read_table(out / "samples.parquet").to_pandas()
    cities = {file.name.rpartition("_")[0] for file in folder.glob("*_?.tif")}
    held = set(table["place"][table["split"] == 1])
    assert set(table["place"]) == cities
    assert held.isdisjoint(table["place"][table["split"] == 0])
    assert len(held) == round(0.2 * len(cities))
    store = Store.open(out / "store.zarr")
    for row in table.to_dict("records"):
        sample = store.sample(row["index"])
        for date, name in enumerate(row["granules"]):
            with rasterio.open(folder / name) as file:
                window = Window(row["image_col"], row["image_row"], 128, 128)
                values, day = file.read(window=window).astype(np.int64), file.tags()["sensing_date"]
            assert np.array_equal(sample.image[date], np.where(values == 0, -9999, values))
            assert np.array_equal(sample.fmask[date] == 255, (values == 0).any(axis=0))
            assert np.datetime64(int(sample.date[date]), "D") == np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}")


def test_landsat_scenes(shared_data: Path, tmp_path: Path) -> None:
    """A file per band and a mask; each scene is a place; pixels and mask are those of the files."""
    folder, out = _images(shared_data, "landsat"), tmp_path / "out"
    name = f"{folder}/*/L??{{pathrow:6}}{{date:%Y%j}}*"
    files = ["--images", f"{name}_sr_band{{band}}.tif", "--mask", f"{name}_cfmask.tif", "--mask-values", "cfmask"]
    bands = ["--bands", "blue=1,green=2,red=3,nir_narrow=4,swir1=5,swir2=7", "--sensor", "L30"]
    options = ["--chip-size", "64", "--min-valid", "0.5", "--heldout", "0.3", "--out", str(out)]
    assert run(["import", *files, *bands, *options]) == 0
    store, seen = Store.open(out / "store.zarr"), set[int]()
    for row in pq.read_table(out / "samples.parquet").to_pylist():
        sample, window = store.sample(row["index"]), Window(row["image_col"], row["image_row"], 64, 64)
        first = str(folder / row["file"])
        for band, number in enumerate((1, 2, 3, 4, 5, 7)):
            with rasterio.open(first.replace("sr_band1", f"sr_band{number}")) as file:
                assert np.array_equal(sample.image[0, band], file.read(1, window=window))
        with rasterio.open(first.replace("sr_band1", "cfmask")) as file:
            marks = file.read(1, window=window)
        missing = (sample.image[0] == -9999).any(axis=0) | (marks == 255)
        expected = np.select([missing, marks == 1, marks == 2, marks == 3, marks == 4], [255, 96, 72, 80, 66], 64)
        assert np.array_equal(sample.fmask[0], expected)
        assert sample.sensor.tolist() == [0]
        assert sample.valid().mean() >= 0.5
        seen |= set(np.unique(expected).tolist())
    assert {64, 66, 72} <= seen
