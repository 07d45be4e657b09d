"""Imports that cannot be: one paragraph with file, value and remedy, the documented exit code, no traceback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from geofm_pipeline.cli import run

from .conftest import CHIP, WriteImage, save, scene, words, write_places


@pytest.fixture
def own(places: Path, tmp_path: Path) -> Path:
    """A copy of the places that a test may damage."""
    return Path(shutil.copytree(places, tmp_path / "own"))


def _last(capsys: pytest.CaptureFixture[str]) -> str:
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("geofm-sample: ")
    return line


@pytest.mark.parametrize(
    ("change", "code", "fragment"),
    [
        (("--images", "absent/{place}.tif"), 2, "absent does not exist"),
        (("--images", "absent.csv"), 2, "absent.csv does not exist"),
        (("--images", " "), 2, "--images is empty"),
        (("--images", "{places}/{place}_{date}.jp2"), 3, "no file fits --images"),
        (("--images", "{places}/{place}_{month:8}.tif"), 2, "has no date: put {date:%Y%m%d} into the pattern"),
        (("--images", "{places}/{place}_????????.tif", "--date-tag", "DAY"), 2, "has no date"),
        (("--images", "{places}/{place}_{date:%d%m%Y}.tif"), 2, "is no day of the calendar"),
        (("--images", "{places}/{place}_{date}*.tif"), 2, "are both of the place bay on 2021-01-05"),
        (("--images", "{places}/{place}_{date}_clouds.tif"), 2, "has 1 band, --bands names 6"),
        (("--bands", "red,nir"), 2, "has 6 bands, --bands names 2 (red,nir)"),
        (("--bands", "red=3,nir=9"), 2, "has 6 bands, --bands red=3,nir=9 asks for band 9"),
        (("--bands", "red=3,red=4"), 2, "names a band twice"),
        (("--bands", "red=3,nir"), 2, "every one needs its number"),
        (("--bands", ","), 2, "must be names with commas"),
        (("--timesteps", "4"), 3, "a sample needs 4 dates, and no place has more than 3"),
        (("--chip-size", "64"), 3, "the largest is 40 × 52 px: lower --chip-size 64"),
        (
            ("--mask", "{places}/{place}_{date}_clouds.tif", "--mask-values", "0=cloud,2=cloud,4=cloud"),
            *(3, "no chip has 2 dates with 80% of its pixels valid"),
        ),
        (("--min-valid", "0"), 2, "--min-valid 0.0 must be a share"),
        (("--chip-size", "4"), 2, "--chip-size 4 must lie in 8 to 2048"),
        (("--heldout", "0.9"), 2, "--heldout 0.9 must be a share from 0 to 0.5"),
        (("--timesteps", "two"), 2, "--timesteps must be a whole number, got two"),
        (("--mask", "{places}/{place}_{date}_clouds.tif"), 2, "cloud masks and --mask-values belong together"),
        (("--mask-values", "cfmask"), 2, "cloud masks and --mask-values belong together"),
        (("--mask", "{places}/{orbit}_clouds.tif", "--mask-values", "scl"), 2, "needs fields, all of them fields of"),
        (("--mask", "{places}/{place}_{date}_no.tif", "--mask-values", "scl"), 2, "no file fits --mask"),
        (("--mask", "{places}/{place}_*_clouds.tif", "--mask-values", "scl"), 2, "are masks of the same image"),
        (("--mask", "{places}/{place}_{date}_clouds.tif", "--mask-values", "0=clear"), 2, "has the values 2"),
        (("--scale", "5"), 2, "which becomes 4"),
        (("--out", "/dev/null/out"), 2, "lies below a file"),
    ],
)
def test_an_option_that_cannot_be_right(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, ...], code: int, fragment: str
) -> None:
    """The message names the option, the file or the value, and what to do."""
    more = [word.replace("{places}", str(places)) for word in change]
    assert run(words(places, tmp_path / "out", *more)) == code
    assert fragment in _last(capsys)
    assert not (tmp_path / "out" / "store.zarr").exists()


def _float(own: Path) -> None:
    save(own / "bay_20210105.tif", scene(0).astype(np.float32), corner=(400_000.0, 5e6))


def _too_large(own: Path) -> None:
    save(own / "bay_20210105.tif", scene(0) + np.uint16(40_000), corner=(400_000.0, 5e6))


def _other_size(own: Path) -> None:
    save(own / "bay_20210105.tif", scene(0, width=60), corner=(400_000.0, 5e6))


def _other_corner(own: Path) -> None:
    save(own / "bay_20210105.tif", scene(0), corner=(400_005.0, 5e6))


def _other_zone(own: Path) -> None:
    save(own / "bay_20210105.tif", scene(0), corner=(400_000.0, 5e6), epsg=32633)


def _more_bands(own: Path) -> None:
    save(own / "bay_20210105.tif", scene(0, bands=7), corner=(400_000.0, 5e6))


def _nowhere(own: Path) -> None:
    save(own / "bay_20210105.tif", scene(0), epsg=None)


def _same_day(own: Path) -> None:
    shutil.copy(own / "bay_20210105.tif", own / "bay_2021-01-05.tif")


def _before_1970(own: Path) -> None:
    shutil.copy(own / "bay_20210105.tif", own / "bay_19690105.tif")


def _no_image(own: Path) -> None:
    (own / "bay_20210105.tif").write_text("not a raster")


def _damaged(own: Path) -> None:
    path = save(own / "bay_20210105.tif", scene(0), corner=(400_000.0, 5e6), compress="deflate")
    data = bytearray(path.read_bytes())
    data[2000:9000] = bytes(7000)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "code", "fragment"),
    [
        (_float, 2, "values of type float32, in its middle from"),
        (_too_large, 2, "band 1 has the value 4"),
        (_other_size, 2, "all pixels of place bay must lie on one grid"),
        (_other_corner, 2, "from (400005, 5000000), EPSG:32632"),
        (_other_zone, 2, "EPSG:32633"),
        (_more_bands, 2, "has 7 bands, --bands names 6"),
        (_nowhere, 2, "has no reference system"),
        (_same_day, 2, "are both of the place bay on 2021-01-05"),
        (_before_1970, 2, "is of 1969-01-05: a store counts days from 1970-01-01"),
        (_no_image, 2, "is damaged, or no image"),
        (_damaged, 2, "is damaged: it begins as a TIFF"),
    ],
)
def test_an_image_that_does_not_fit(
    own: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    code: int,
    fragment: str,
) -> None:
    """The message names the file; put right, the same command runs."""
    damage(own)
    assert run(words(own, tmp_path / "out")) == code
    line = _last(capsys)
    assert fragment in line
    assert "bay_" in line
    shutil.rmtree(own)
    write_places(own)
    assert run(words(own, tmp_path / "out")) == 0


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("path,date\nbay_20210105.tif,20210105\n", "has no column file; it has path, date"),
        ("file,date\nabsent.tif,20210105\n", "line 2: "),
        ("file,date\nbay_20210105.tif,yesterday\n", "the date 'yesterday' is no day"),
        ("file,date,stratum\nbay_20210105.tif,20210105,-1\n", "the stratum '-1' must be a whole number from 0"),
        ("file,date,sensor\nbay_20210105.tif,20210105,S2\n", "the sensor 'S2' must be L30 or S30"),
        ("file\nbay_20210105.tif\n./bay_20210105.tif\n", "names bay_20210105.tif twice"),
        ("file,date\n,20210105\n", "line 2: the cell of file is empty"),
        ("file,place,date\nbay_20210105.tif,a,\n", "has no date"),
        ("file,place,date,band\nbay_20210105.tif,a,20210105,blue\n", "is band 'blue' and has 6 bands"),
        ("file,place,date,band\nbay_20210105_clouds.tif,a,20210105,blue\n", "has no file for the band 'green'"),
    ],
)
def test_a_table_that_cannot_be(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, fragment: str
) -> None:
    """The message names table, row and value."""
    (own / "images.csv").write_text(text)
    assert run(words(own, tmp_path / "out", "--images", str(own / "images.csv"))) == 2
    assert fragment in _last(capsys)


def test_a_tag_that_has_the_day_is_suggested(
    write_image: WriteImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where no date is found, the message names a tag of the file that looks like one."""
    write_image(tmp_path / "a.tif", scene(0), tags={"sensing": "20210105", "note": "clear"})
    assert run(words(tmp_path, tmp_path / "out", "--images", f"{tmp_path}/{{place}}.tif")) == 2
    assert "--date-tag sensing" in _last(capsys)
    assert run(words(tmp_path, tmp_path / "out", "--images", f"{tmp_path}/{{place}}.tif", "--date-tag", "note")) == 2
    assert "its tag note is 'clear', which is none" in _last(capsys)


def test_a_band_without_a_file(write_image: WriteImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The message names place, day, the band that is missing and those there are."""
    for band in "1234":
        write_image(tmp_path / f"x_20210105_B{band}.tif", scene(0, bands=1))
    pattern = f"{tmp_path}/{{place}}_{{date}}_B{{band}}.tif"
    assert run(words(tmp_path, tmp_path / "out", "--images", pattern, "--bands", "red=4,nir=5")) == 2
    assert "x on 2021-01-05 has no file for the band '5'; it has 4" in _last(capsys)
    assert run(words(tmp_path, tmp_path / "out", "--images", pattern)) == 2
    assert "no file is of one of the bands" in _last(capsys)


def test_a_declared_scale_that_is_not_used_is_said(
    write_image: WriteImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that say how their values become reflectance are taken by the options, and the difference is named."""
    import rasterio

    path = write_image(tmp_path / "x_20210101.tif", scene(1) + 7000)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [2.75e-5] * 6, [-0.2] * 6
    options = ("--timesteps", "1", "--heldout", "")
    assert run(words(tmp_path, tmp_path / "a", *options)) == 0
    assert "which is --scale 0.275 --offset -2000" in capsys.readouterr().err
    assert run(words(tmp_path, tmp_path / "b", *options, "--scale", "0.275", "--offset", "-2000")) == 0
    assert "declares" not in capsys.readouterr().err


def test_an_output_that_is_something_else(
    places: Path, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A foreign folder, another dataset, and images that were added or changed since are refused, exit code 6."""
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.doc").touch()
    assert run(words(places, tmp_path / "foreign")) == 6
    assert "holds no dataset" in _last(capsys)
    out = tmp_path / "out"
    assert run([*words(own, out), "--dry-run"]) == 0
    assert run(words(own, out, "--chip-size", "20")) == 6
    assert f"chip_size: {CHIP} there, 20 now" in _last(capsys)
    shutil.copy(own / "bay_20210105.tif", own / "bay_20210106.tif")
    assert run(words(own, out)) == 6
    assert "images_found: '15 files" in _last(capsys)
    (own / "bay_20210106.tif").unlink()
    save(own / "bay_20210105.tif", scene(99), nodata=0, corner=(400_000.0, 5e6))
    assert run(words(own, out)) == 6
    assert "bay_20210105.tif was changed after" in _last(capsys)
    assert not list((out / "store.zarr" / "image").glob("c.*"))


def test_what_needs_a_design_is_refused(places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`report` and `estimate` say that nothing was drawn; `verify` finds a changed table and a changed byte."""
    out = tmp_path / "out"
    assert run(words(places, out)) == 0
    for command in (["report", str(out)], ["estimate", str(out), "lon"]):
        assert run(command) == 2
        assert "was imported, not drawn" in _last(capsys)
    shard = next((out / "store.zarr" / "image").glob("c.0*"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    assert run(["verify", str(out)]) == 5
    capsys.readouterr()
    table = pq.read_table(out / "plan.parquet")
    pq.write_table(table.slice(1), out / "plan.parquet")
    assert run(["verify", str(out)]) == 6
    assert "plan.parquet is not what was committed" in _last(capsys)
