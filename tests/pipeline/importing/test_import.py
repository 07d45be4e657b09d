"""`geofm-sample import` end to end on small images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from rasterio.windows import Window

from geofm_model import Store
from geofm_pipeline.cli import run
from geofm_pipeline.importing.tables import CHOSEN, IMAGES, SAMPLES

from .conftest import CHIP, DATES, HEIGHT, PLACES, WIDTH, WriteImage, save, scene, tree, words


@pytest.fixture(scope="module")
def dataset(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All places, without masks."""
    out = tmp_path_factory.mktemp("imported") / "out"
    assert run(words(places, out)) == 0
    return out


def test_the_folder_is_a_dataset_like_any_other(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its tables keep their contracts, `verify` accepts it, the store is that of samples.parquet row by row."""
    assert run(["verify", str(dataset)]) == 0
    assert "every byte is as written" in capsys.readouterr().err
    samples = SAMPLES.check(pq.read_table(dataset / "samples.parquet"))
    assert CHOSEN.check(pq.read_table(dataset / "plan.parquet")).num_rows == samples.num_rows
    assert IMAGES.check(pq.read_table(dataset / "scenes.parquet")).num_rows == len(PLACES) * len(DATES)
    store = Store.open(dataset / "store.zarr")
    assert len(store) == samples.num_rows == len(PLACES) * (HEIGHT // CHIP) * (WIDTH // CHIP)
    for index, row in enumerate(samples.to_pylist()):
        sample = store.sample(index)
        assert (row["wave"], row["index"], row["shard"] * 64 + row["row"]) == (1, index, index)
        assert (sample.unit, sample.split, sample.stratum) == (row["unit"], row["split"], row["stratum"])
        assert sample.date.tolist() == row["dates"] == sorted(row["dates"])
        assert (sample.lon, sample.lat) == (row["lon"], row["lat"])
        assert sample.valid().mean(axis=(1, 2)) == pytest.approx(row["valid"], abs=1e-6)
        assert (row["weight"], row["state"]) == (1.0, "written")
    assert json.loads((dataset / "card.json").read_text())["verify"]["ok"] is True


def test_pixels_are_bit_equal_to_rasterio(dataset: Path, places: Path) -> None:
    """Each chip is the window of the files it names: nodata becomes −9999, its pixel 255, everything else stays."""
    store = Store.open(dataset / "store.zarr")
    missing = 0
    for row in pq.read_table(dataset / "samples.parquet").to_pylist():
        sample = store.sample(row["index"])
        assert row["granules"][0] == row["file"]
        for date, name in enumerate(row["granules"]):
            with rasterio.open(places / name) as file:
                values = file.read(window=Window(row["image_col"], row["image_row"], CHIP, CHIP)).astype(np.int64)
            there = values != 0
            missing += int((~there).sum())
            assert np.array_equal(sample.image[date], np.where(there, values, -9999))
            assert np.array_equal(sample.fmask[date], np.where(there.all(axis=0), 64, 255))
    assert missing > 100


def test_the_loader_streams_it(dataset: Path) -> None:
    """Both splits come as batches of the written pixels, also by the column weight."""
    from geofm_model.loading import Loader

    for split, places in (("train", 4), ("heldout", 1)):
        loader = Loader(dataset, batch_size=5, split=split, epochs=1, shuffle=False, weighting="design")
        batches = list(loader)
        assert sum(len(batch) for batch in batches) == places * 6
        assert batches[0].image.shape[1:] == (2, 6, CHIP, CHIP)
        assert all(bool(batch.valid().any()) for batch in batches)


def test_no_place_is_on_both_sides(dataset: Path) -> None:
    """A fifth of five places is held out, whole; the card names it."""
    table = pq.read_table(dataset / "samples.parquet").to_pandas()
    of_place = table.groupby("place")["split"].agg(["nunique", "first"])
    assert (of_place["nunique"] == 1).all()
    held = sorted(of_place.index[of_place["first"] == 1])
    assert len(held) == 1
    assert json.loads((dataset / "card.json").read_text())["plan"]["heldout_places"] == held


def test_the_seed_decides_what_is_held_out(places: Path, tmp_path: Path) -> None:
    """Over a few seeds every choice is of one place, and not always of the same."""
    found = set()
    for seed in range(4):
        assert run([*words(places, tmp_path / str(seed), "--seed", str(seed)), "--dry-run"]) == 0
        table = pq.read_table(tmp_path / str(seed) / "plan.parquet").to_pandas()
        found.add(tuple(sorted(set(table["place"][table["split"] == 1]))))
    assert len(found) > 1


def test_ground_that_overlaps_held_out_ground_is_left_out(
    write_image: WriteImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two scenes that overlap by one chip, the trained one loses the chips that touch, and they are counted."""
    for number, place in enumerate(("one", "two")):
        write_image(tmp_path / f"{place}_20210101.tif", scene(number) + 1, corner=(500_000.0 + 320 * number, 5e6))
    assert run(words(tmp_path, tmp_path / "out", "--timesteps", "1", "--heldout", "0.5")) == 0
    table = pq.read_table(tmp_path / "out" / "samples.parquet").to_pandas()
    assert (table["split"] == 1).sum() == 6
    assert (table["split"] == 0).sum() == 2
    assert "4 training samples left out for touching held-out ground" in capsys.readouterr().err


def test_good_dates_are_taken_in_order_of_time(
    write_image: WriteImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five dates, of which one has too few valid pixels: two samples of two dates, none with the bad one."""
    days = ["20210101", "20210111", "20210121", "20210131", "20210210"]
    for number, day in enumerate(days):
        pixels = np.full((6, CHIP, CHIP), 100 + number, dtype=np.int16)
        if number == 2:
            pixels[:, : CHIP // 2] = -9999
        write_image(tmp_path / f"x_{day}.tif", pixels, nodata=-9999)
    assert run(words(tmp_path, tmp_path / "out", "--heldout", "", "--min-valid", "0.6")) == 0
    table = pq.read_table(tmp_path / "out" / "samples.parquet").to_pandas()
    assert sorted(map(list, table["granules"])) == [
        ["x_20210101.tif", "x_20210111.tif"],
        ["x_20210131.tif", "x_20210210.tif"],
    ]
    assert run(words(tmp_path, tmp_path / "half", "--heldout", "", "--min-valid", "0.5")) == 0
    assert "1 valid date of chips left over" in capsys.readouterr().err


def test_masks_become_bits(places: Path, tmp_path: Path) -> None:
    """A mask's values are HLS's bits in the store, and cloud counts against --min-valid."""
    mask = f"{places}/{{place}}_{{date}}_clouds.tif"
    out = tmp_path / "out"
    more = ("--mask", mask, "--mask-values", "cfmask", "--timesteps", "1", "--min-valid", "0.7")
    assert run(words(places, out, *more)) == 0
    store, seen = Store.open(out / "store.zarr"), set[int]()
    rows = pq.read_table(out / "samples.parquet").to_pylist()
    for row in rows:
        sample = store.sample(row["index"])
        window = Window(row["image_col"], row["image_row"], CHIP, CHIP)
        with rasterio.open(places / row["file"].replace(".tif", "_clouds.tif")) as file:
            marks = file.read(1, window=window)
        expected = np.select([marks == 4, marks == 2], [66, 72], 64)
        expected[(sample.image[0] == -9999).any(axis=0)] = 255
        assert np.array_equal(sample.fmask[0], expected)
        assert sample.valid().mean() >= 0.7
        seen |= set(np.unique(expected).tolist())
    assert seen == {64, 66, 72, 255}
    assert len(rows) < len(PLACES) * len(DATES) * 6  # the cloudiest are left out


def test_a_file_per_band(places: Path, dataset: Path, tmp_path: Path) -> None:
    """The same pixels in single files, bands in another order of names, give the same images."""
    for source in sorted(places.glob("*_????????.tif")):
        with rasterio.open(source) as file:
            pixels, corner = file.read(), (file.transform.c, file.transform.f)
        for band in range(6):
            save(tmp_path / "in" / source.stem / f"B{6 - band}.tif", pixels[band : band + 1], nodata=0, corner=corner)
    out = tmp_path / "out"
    pattern = f"{tmp_path}/in/{{place}}_{{date}}/B{{band}}.tif"
    bands = "blue=6,green=5,red=4,nir_narrow=3,swir1=2,swir2=1"
    assert run(words(places, out, "--images", pattern, "--bands", bands)) == 0
    one, other = Store.open(dataset / "store.zarr"), Store.open(out / "store.zarr")
    keys = ("place", "image_row", "image_col")
    known = {tuple(row[key] for key in keys): row["index"] for row in _rows(out)}
    assert len(known) == len(_rows(dataset))
    for row in _rows(dataset):
        mine, theirs = one.sample(row["index"]), other.sample(known[tuple(row[key] for key in keys)])
        assert np.array_equal(mine.image, theirs.image)
        assert np.array_equal(mine.fmask, theirs.fmask)


def test_bands_by_number(places: Path, tmp_path: Path) -> None:
    """`red=3,nir=4` takes these of a file's bands, under these names."""
    out = tmp_path / "out"
    assert run(words(places, out, "--bands", "nir=4,red=3")) == 0
    store = Store.open(out / "store.zarr")
    assert store.header.bands == ("nir", "red")
    row = _rows(out)[0]
    with rasterio.open(places / row["file"]) as file:
        values = file.read([4, 3], window=Window(row["image_col"], row["image_row"], CHIP, CHIP)).astype(np.int64)
    assert np.array_equal(store.sample(0).image[0], np.where(values == 0, -9999, values))


def test_a_table_means_what_a_pattern_means(places: Path, dataset: Path, tmp_path: Path) -> None:
    """The same places and dates from a CSV or Parquet table: the same store, byte for byte."""
    rows = [{"place": place, "date": day, "file": f"{place}_{day}.tif"} for place in PLACES for day in DATES]
    folder = shutil.copytree(places, tmp_path / "in")
    text = ["place,date,file", *(",".join(row.values()) for row in rows)]
    (folder / "images.csv").write_text("\n".join(text) + "\n")
    days = pa.array([f"{day[:4]}-{day[4:6]}-{day[6:]}" for day in (row["date"] for row in rows)]).cast(pa.date32())
    table = pa.table({"file": [row["file"] for row in rows], "date": days, "place": [row["place"] for row in rows]})
    pq.write_table(table, folder / "images.parquet")
    for name in ("images.csv", "images.parquet"):
        assert run(words(places, tmp_path / f"out-{name}", "--images", str(folder / name))) == 0
        assert tree(tmp_path / f"out-{name}" / "store.zarr") == tree(dataset / "store.zarr")


def test_what_a_table_says_of_strata_and_sensors(places: Path, tmp_path: Path) -> None:
    """Columns stratum and sensor reach the store; other columns are said to be unused."""
    folder = shutil.copytree(places, tmp_path / "in")
    lines = [
        f"{place}_{day}.tif,{place},{day},{number},{'L30' if day == DATES[0] else 'S30'},x"
        for number, place in enumerate(PLACES)
        for day in DATES
    ]
    (folder / "images.csv").write_text("\n".join(["file,place,date,stratum,sensor,note", *lines]))
    assert run(words(places, tmp_path / "out", "--images", str(folder / "images.csv"))) == 0
    for row in _rows(tmp_path / "out"):
        assert row["stratum"] == PLACES.index(row["place"])
        assert row["sensors"] == [0, 1]
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert "the columns note of images.csv are not used" in card["said"]


def test_places_by_their_grid_and_dates_by_a_tag(write_image: WriteImage, tmp_path: Path) -> None:
    """A bare folder: images on one grid are dates of one place, the day is in a tag of the files."""
    for number, (name, corner, day) in enumerate(
        [("a", 5e5, "2021:01:01 10:00:00"), ("deep/b", 6e5, "20210301"), ("c", 5e5, "20210201"), ("d", 6e5, "20210401")]
    ):
        write_image(tmp_path / "in" / f"{name}.tif", scene(number), corner=(corner, 5e6), tags={"DAY": day})
    (tmp_path / "in" / "readme.txt").write_text("no image")
    out = tmp_path / "out"
    assert run(words(tmp_path, out, "--images", str(tmp_path / "in"), "--date-tag", "DAY")) == 0
    assert {(row["place"], *row["granules"]) for row in _rows(out)} == {
        ("a", "a.tif", "c.tif"),
        ("d", "deep/b.tif", "d.tif"),
    }


def test_equal_images_elsewhere_give_the_same_store(places: Path, dataset: Path, tmp_path: Path) -> None:
    """Names are relative, so the folder may lie anywhere: plan and store are the same bytes."""
    folder = shutil.copytree(places, tmp_path / "elsewhere" / "copy")
    assert run(words(folder, tmp_path / "out")) == 0
    assert tree(tmp_path / "out" / "store.zarr") == tree(dataset / "store.zarr")
    assert (tmp_path / "out" / "plan.parquet").read_bytes() == (dataset / "plan.parquet").read_bytes()


def test_float_images_by_scale(write_image: WriteImage, tmp_path: Path) -> None:
    """Reflectance from 0 to 1 with NaN for missing becomes counts."""
    pixels = np.random.default_rng(0).uniform(0, 1, (6, CHIP, CHIP)).astype(np.float32)
    pixels[2, 3, 4] = np.nan
    write_image(tmp_path / "x_20210101.tif", pixels)
    out = tmp_path / "out"
    assert run(words(tmp_path, out, "--timesteps", "1", "--heldout", "", "--scale", "10000")) == 0
    sample = Store.open(out / "store.zarr").sample(0)
    expected = np.where(np.isnan(pixels), -9999, np.rint(np.nan_to_num(pixels).astype(np.float64) * 10000))
    assert np.array_equal(sample.image[0], expected)
    assert sample.fmask[0, 3, 4] == 255


def test_a_dry_run_plans_and_the_run_continues(places: Path, dataset: Path, tmp_path: Path) -> None:
    """It writes the plan and no store, reads nothing again afterwards, and ends in the same bytes."""
    out = tmp_path / "out"
    assert run([*words(places, out), "--dry-run"]) == 0
    assert not (out / "store.zarr").exists()
    before = (out / "plan.parquet").stat().st_mtime_ns
    assert run(words(places, out)) == 0
    assert (out / "plan.parquet").stat().st_mtime_ns == before
    assert tree(out / "store.zarr") == tree(dataset / "store.zarr")


def test_a_second_run_says_that_all_is_written(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command changes no byte of the dataset's tables and store, and prints the folder again."""
    out = tmp_path / "out"
    assert run(words(places, out)) == 0
    before = {**tree(out / "store.zarr"), "samples": (out / "samples.parquet").read_bytes()}
    capsys.readouterr()
    assert run(words(places, out)) == 0
    said = capsys.readouterr()
    assert "everything is written already" in said.err
    assert said.out.strip() == str(out)
    assert before == {**tree(out / "store.zarr"), "samples": (out / "samples.parquet").read_bytes()}


def test_options_in_a_file(places: Path, dataset: Path, tmp_path: Path) -> None:
    """All options may stand in YAML, patterns with braces too."""
    file = tmp_path / "import.yaml"
    file.write_text(
        f"images: '{places}/{{place}}_{{date}}.tif'\nout: {tmp_path / 'out'}\nchip_size: {CHIP}\ntimesteps: 2\n"
        "heldout: 0.2\n"
    )
    assert run(["import", "--config", str(file)]) == 0
    assert tree(tmp_path / "out" / "store.zarr") == tree(dataset / "store.zarr")


def _rows(out: Path) -> list[dict[str, object]]:
    return pq.read_table(out / "samples.parquet").to_pylist()
