"""Imports by somebody who does not read the manual: what is wrong is told apart, and the remedy named works."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from geofm_pipeline.cli import run
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.importing.damage import unreadable

from .conftest import CHIP, WriteImage, save, scene, tree, words

CORNER = (400_000.0, 5e6)


def _last(capsys: pytest.CaptureFixture[str]) -> str:
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("geofm-sample: ")
    return line


@pytest.mark.parametrize(
    ("images", "code", "fragment"),
    [
        ("place", 2, "place does not exist; did you mean places?"),
        ("nowhere/{place}_{date}.tif", 2, "nowhere does not exist; {root} exists and holds empty, places, texts"),
        ("places/bay_2021_0105.tif", 2, "bay_2021_0105.tif does not exist; did you mean bay_20210105.tif?"),
        ("empty", 3, "empty is an empty folder"),
        ("texts", 3, "texts holds no file that ends in .tif or .tiff; there is 1 file, e.g. a.txt: name images of"),
        ("places/{place}_{date:%Y-%m-%d}.tif", 3, "there are 30 files, e.g. bay_20210105.tif, which it fits up to"),
        ("places/{place}_{date:%Y-%m-%d}.tif", 3, "up to '{root}/places/{place}_': change what follows"),
        ("places/x*.tif", 3, "whose beginning it does not fit"),
        ("https://host/a.tif", 2, "is an address, and an import reads local files"),
        ("texts/a.txt", 2, "is damaged, or no image"),
    ],
)
def test_images_that_are_not_there(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], images: str, code: int, fragment: str
) -> None:
    """A missing folder, an empty one, one without images, and a pattern that no file fits get different words."""
    (tmp_path / "places").symlink_to(places)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no image")
    asked = images if "://" in images else f"{tmp_path}/{images}"
    assert run(words(places, tmp_path / "out", "--images", asked)) == code
    assert fragment.replace("{root}", str(tmp_path)) in _last(capsys)


@pytest.mark.parametrize(
    ("tag", "fragment"),
    [
        (
            "sensingdate",
            "names a tag that no file has. Here the tags are note, sensing_date, AREA_OR_POINT; did you mean ",
        ),
        ("sensingdate", "did you mean --date-tag sensing_date?"),
        ("acquired", "names a tag that only 1 of 2 files have"),
        ("acquired", "; a day is in sensing_date"),
    ],
)
def test_a_tag_that_files_lack(
    write_image: WriteImage, tmp_path: Path, capsys: pytest.CaptureFixture[str], tag: str, fragment: str
) -> None:
    """The message names the tag, those there are, and the one that was meant or has a day."""
    write_image(tmp_path / "a.tif", scene(0), tags={"note": "clear", "sensing_date": "20210105"})
    write_image(tmp_path / "b.tif", scene(0), tags={"sensing_date": "20210105", "acquired": "20210105"})
    assert run(words(tmp_path, tmp_path / "out", "--images", str(tmp_path), "--date-tag", tag)) == 2
    assert fragment in _last(capsys)


def test_a_date_in_the_name_is_pointed_out(places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a bare folder whose names have dates a pattern is suggested, and that pattern works."""
    folder = tmp_path / "in"
    for name in ("bay_20210105.tif", "bay_20210210.tif"):
        (folder / "deep").mkdir(parents=True, exist_ok=True)
        shutil.copy(places / name, folder / "deep" / name)
    more = ("--heldout", "", "--images")
    assert run(words(places, tmp_path / "out", *more, str(folder))) == 2
    pattern = re.search(r"--images '(.*)'$", _last(capsys))
    assert pattern is not None
    assert run(words(places, tmp_path / "out", *more, pattern[1])) == 0


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        (["--images", "in/a.tif", "in/b.tif", "--out", "out"], "and 2 stand behind it (in/a.tif, in/b.tif)"),
        (["--images", "in/a.tif", "in/b.tif", "--out", "out"], "Put it into quotes: --images 'in/*.tif'"),
        (["--images", "in/a.tif", "in/c d/e.tif", "--out", "out"], "--images 'in/**/*.tif'"),
        (["--images", "in/c", "d", "--out", "out"], "--images 'in/c d'"),
        (["--images", "in", "--mask", "in/a.tif", "in/b.tif"], "Put it into quotes: --mask 'in/*.tif'"),
        (["--images", "in/a.tif", "--images=in/b.tif", "--out", "out"], "--images stands there twice"),
        (["in", "--out", "out"], "name the images by --images 'in'"),
        (["--images", "in", "--out", "out", "--chipsize", "16"], "did you mean --chip-size?"),
        (["--chip-size", "16"], "--images and --out must be given"),
        ([], "--images and --out must be given"),
    ],
)
def test_words_that_a_shell_or_a_hurried_hand_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str], fragment: str
) -> None:
    """An unquoted pattern, a name with spaces, a word without its option and missing options: what to write instead."""
    (tmp_path / "in" / "c d").mkdir(parents=True)
    for name in ("a.tif", "b.tif", "c d/e.tif"):
        (tmp_path / "in" / name).touch()
    monkeypatch.chdir(tmp_path)
    assert run(["import", *given]) == 2
    said = capsys.readouterr()
    assert fragment in said.err.splitlines()[-1]
    assert said.err.startswith("geofm-sample: " if given else "usage: geofm-sample import ")
    assert not said.out
    assert not (tmp_path / "out").exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:9000])


def _cut_behind_its_directory(path: Path) -> None:
    with rasterio.open(path) as file:
        profile, pixels = file.profile, file.read()
    with rasterio.open(path, "w", **profile) as file:  # what gets no tags afterwards has its directory in front
        file.write(pixels)
    path.write_bytes(path.read_bytes()[:9000])


def _overwritten(path: Path) -> None:
    save(path, scene(0), corner=CORNER, compress="deflate")
    data = bytearray(path.read_bytes())
    data[2000:9000] = bytes(7000)
    path.write_bytes(data)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _page(path: Path) -> None:
    path.write_text("\n<!DOCTYPE html><html><body>Please log in</body></html>")


def _pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 1234\n")


@pytest.mark.parametrize(
    ("damage", "state"),
    [
        (_cut, "is damaged: cut off after 9,000 bytes"),
        (_cut_behind_its_directory, "is damaged: it begins as a TIFF and cannot be read as one (GDAL: "),
        (_overwritten, "is damaged: it begins as a TIFF and cannot be read as one (GDAL: "),
        (_empty, "is empty, not an image"),
        (_page, "is not an image but text, as a server sends it"),
        (_pointer, "is not an image but the pointer that Git LFS puts in its place"),
    ],
)
@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.heavy)])
def test_a_damaged_file(
    places: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    state: str,
    workers: str,
) -> None:
    """It is named, with what is wrong, as an input that cannot be right; nothing counts as written, and an intact copy
    lets the same command end in the store of undamaged images."""
    own, out = Path(shutil.copytree(places, tmp_path / "own")), tmp_path / "out"
    bad = own / "bay_20210210.tif"
    save(bad, scene(1), nodata=0, corner=CORNER, tags={"note": "x"})  # its directory is written at the end
    damage(bad)
    assert run([*words(own, out), "--workers", workers]) == 2
    line = _last(capsys)
    assert f"{bad} {state}" in line
    assert "remove it, or replace it by an intact copy" in line
    assert not any((out / name).exists() for name in ("store.zarr", "samples.parquet", "plan.parquet"))
    if workers == "0":
        shutil.copy(places / bad.name, bad)
        assert run(words(own, out)) == 0
        assert run(words(places, tmp_path / "undamaged")) == 0
        assert tree(out / "store.zarr") == tree(tmp_path / "undamaged" / "store.zarr")


def test_what_the_grids_and_dates_tell_is_told_before_any_pixel_is_read(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Too many dates asked for are refused although a damaged file would have stopped the reading."""
    own = Path(shutil.copytree(places, tmp_path / "own"))
    _overwritten(own / "bay_20210105.tif")
    assert run(words(own, tmp_path / "out", "--timesteps", "4")) == 3
    assert "no place has more than 3: lower --timesteps" in _last(capsys)


def test_a_file_that_is_gone_may_come_back(tmp_path: Path) -> None:
    """A drive that was unplugged is no fault of the image: exit code 4, run again."""
    error = unreadable(str(tmp_path / "gone.tif"), "No such file or directory")
    assert isinstance(error, ArchiveError)
    assert "put it back and run the same command again" in str(error)


def _numbers(dtype: str, low: float, high: float) -> NDArray[np.generic]:
    pixels = np.random.default_rng(0).uniform(low, high, (6, CHIP, CHIP))
    pixels[0, 0, 0] = high
    return pixels.astype(dtype)


def _with_marks(dtype: str, mark: float) -> NDArray[np.generic]:
    pixels = _numbers(dtype, 0.05, 0.95)
    pixels[:, 3, 4] = mark
    return pixels


@pytest.mark.parametrize(
    ("pixels", "given", "lost"),
    [
        (_numbers("float32", 0.001, 0.99), [], ""),
        (_numbers("float64", 0.001, 0.99), ["--scale", "1"], "--scale 1 makes counts from 0 to 1"),
        (_numbers("float32", 0.1, 99.5), [], ""),
        (_numbers("float32", 0.1, 99.5), ["--scale", "10000"], "has the value 99.5, which becomes 995000"),
        (_numbers("uint16", 7000, 43_000), [], "has the value 43000"),
        (_with_marks("float32", -3.4e38), ["--scale", "10000"], "it looks like a mark for what is missing"),
        (_with_marks("float64", -9999), ["--scale", "10000"], "has the value -9999.0"),
    ],
)
def test_the_option_that_a_message_names_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pixels: NDArray[np.generic], given: list[str], lost: str
) -> None:
    """Values that become nothing or do not fit: added as it stands, the option of the message lets the import run."""
    save(tmp_path / "x_20210101.tif", pixels)
    command = [*words(tmp_path, tmp_path / "out", "--timesteps", "1", "--heldout", ""), *given]
    assert run(command) == 2
    line = _last(capsys)
    assert lost in line
    assert not (tmp_path / "out" / "store.zarr").exists()
    behind = line.split(";")[-1] if given else line
    named = re.search(r"--scale [\d.]+( --offset -\d+)?|--nodata=\S+", behind)
    assert named is not None
    assert run([*command, *named[0].split()]) == 0


def test_a_mark_may_be_written_with_a_space(tmp_path: Path) -> None:
    """`--nodata -3.4e+38` is a number, though it begins like an option."""
    save(tmp_path / "x_20210101.tif", _with_marks("float32", -3.4e38))
    command = words(tmp_path, tmp_path / "out", "--timesteps", "1", "--heldout", "", "--scale", "10000")
    assert run([*command, "--nodata", "-3.4e+38"]) == 0


def test_whole_numbers_that_are_hardly_reflectance_are_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes of a picture are taken as the counts they would be, and the scale that they may need is named."""
    save(tmp_path / "x_20210101.tif", _numbers("uint8", 0, 255))
    command = words(tmp_path, tmp_path / "out", "--timesteps", "1", "--heldout", "")
    assert run(command) == 0
    assert "up to 0.0255; if they are not, --scale says how they become that, e.g. --scale 39.2157" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("text", "code", "fragment"),
    [
        ("Files,date\nbay_20210105.tif,20210105\n", 2, "has no column file; it has Files, date: rename Files to file"),
        ("file;date\nbay_20210105.tif;20210105\n", 2, "has semicolons between its columns ('file;date'): use commas"),
        ("file,date,date\nbay_20210105.tif,20210105,20210106\n", 2, "has the column date twice"),
        ("file,date\nbay_20210105.tif,2021,01,05\n", 2, "line 2 has 4 values, the first line names 2 columns"),
        ("file,date\n\nbay_20210105.tiff,20210105\n", 2, "line 3: "),
        ("\n,,\nfile,date\nbay_20210105.tiff,20210105\n", 2, "line 4: "),
        ("file,date\nbay_20210105.tiff,20210105\n", 2, "does not exist; did you mean bay_20210105.tif?"),
        ("file,date\n.,20210105\n", 2, "is a folder, not an image"),
        ("file,date\n", 3, "has no row below them"),
        ("", 2, "is empty: its first line names the columns (file, date, place"),
        ("file,date,place\nbay_20210105.tif,20210105,D\xfcne\n", 2, "is not UTF-8 text"),
    ],
)
def test_a_table_by_a_spreadsheet(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, code: int, fragment: str
) -> None:
    """Separators, names, encodings and lines as programs write them: the message says line and remedy."""
    own = Path(shutil.copytree(places, tmp_path / "own"))
    (own / "images.csv").write_text(text, encoding="latin-1")
    assert run(words(places, tmp_path / "out", "--images", str(own / "images.csv"))) == code
    assert fragment in _last(capsys)


def test_a_stratum_with_a_point_is_a_whole_number(places: Path, tmp_path: Path) -> None:
    """Programs write 1.0 for 1 where another cell of the column is empty."""
    own = Path(shutil.copytree(places, tmp_path / "own"))
    (own / "images.csv").write_text("file,date,stratum\nbay_20210105.tif,20210105,1.0\ndune_20210105.tif,20210105,\n")
    more = ("--timesteps", "1", "--heldout", "", "--images", str(own / "images.csv"))
    assert run(words(places, tmp_path / "out", *more)) == 0


@pytest.mark.parametrize(
    ("pixel", "corner", "fragment"),
    [
        (20.0, CORNER, "a mask must lie on the grid of its image. Warp it there without mixing its values"),
        (10.0, (400_010.0, 5e6), "a mask must lie on the grid of its image"),
    ],
)
def test_a_mask_on_another_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pixel: float, corner: tuple[float, float], fragment: str
) -> None:
    """The message names mask and image, and how to warp classes."""
    save(tmp_path / "x_20210101.tif", scene(0), corner=CORNER)
    save(tmp_path / "x_20210101_m.tif", np.zeros((1, 40, 52), np.uint8), corner=corner, pixel=pixel)
    more = ("--mask", f"{tmp_path}/{{place}}_{{date}}_m.tif", "--mask-values", "0=clear")
    assert run(words(tmp_path, tmp_path / "out", *more)) == 2
    line = _last(capsys)
    assert fragment in line
    assert line.index("x_20210101_m.tif has") < line.index("x_20210101.tif has")


@pytest.mark.parametrize(
    ("corner", "fragment"),
    [(None, "does not say where its corners lie"), ((4e9, 5e6), "has no place on Earth: its reference system or its")],
)
def test_an_image_that_lies_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], corner: tuple[float, float] | None, fragment: str
) -> None:
    """Corners that are missing, or beyond the Earth, are named with the file."""
    path = save(tmp_path / "x_20210101.tif", scene(0), corner=corner or CORNER)
    if corner is None:
        with rasterio.open(path, "r+") as file, pytest.warns(NotGeoreferencedWarning):
            file.transform = rasterio.Affine.identity()
    assert run(words(tmp_path, tmp_path / "out", "--timesteps", "1", "--heldout", "")) == 2
    line = _last(capsys)
    assert fragment in line
    assert "x_20210101.tif" in line


def test_names_with_spaces_letters_and_brackets(places: Path, tmp_path: Path) -> None:
    """Files, folders, places and the dataset may be called anything that a disk takes."""
    folder = tmp_path / "Süd Tirol [a] {b}" / "日本"
    folder.mkdir(parents=True)
    table = ["file,place,date"]
    for name in ("bay_20210105.tif", "dune_20210105.tif"):
        shutil.copy(places / name, folder / f"é {name}")
        table.append(f"日本/é {name},Düne {name},20210105")
    (folder.parent / "images.csv").write_text("\n".join(table))
    more = ("--timesteps", "1", "--heldout", "", "--images", str(folder.parent / "images.csv"))
    out = tmp_path / "öut put"
    assert run(words(places, out, *more)) == 0
    assert run(["verify", str(out)]) == 0


def test_a_dry_run_of_a_finished_import_says_that_it_is_finished(
    places: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does not announce a store that is there already."""
    command = words(places, tmp_path / "out")
    assert run(command) == 0
    capsys.readouterr()
    assert run([*command, "--dry-run"]) == 0
    said = capsys.readouterr().err
    assert "everything is written already" in said
    assert "no store is written" not in said
