"""The parts of the report: map sheet, pictures, selection of chips, and what keeps a huge dataset's page small."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from geofm_pipeline.hls.fmask import DEFAULT_RULE
from geofm_pipeline.report import svg, words
from geofm_pipeline.report.contact import chosen_rows
from geofm_pipeline.report.folder import Cells, Folder, read_folder
from geofm_pipeline.report.geography import Sheet, png
from geofm_pipeline.report.pixels import EDGE, MASKED, chip_stretch, mask_overlay, true_colour
from geofm_pipeline.report.render import render
from geofm_pipeline.report.strata import COLLAPSE
from geofm_sampling.unit import ground_cells, pack_units

from .conftest import Reported
from .fake_store import pixels

CELL_KM = 7.68


def _cells(lon: NDArray[np.float64], lat: NDArray[np.float64]) -> Cells:
    n = lon.size
    return Cells(
        ground=np.arange(n, dtype=np.uint64),
        lon=lon,
        lat=lat,
        area_km2=np.full(n, CELL_KM**2),
        land_cover=np.zeros(n, dtype=np.int64),
        groups=("tree",),
        chance=np.full(n, 0.5),
        seasons=np.full(n, 4),
        split=np.zeros(n, dtype=np.int64),
        block=np.full(n, -1),
    )


def _grid(west: float, north: float, columns: int, rows: int) -> Cells:
    """Cells side by side, the way a tile has them."""
    down, right = np.divmod(np.arange(columns * rows), columns)
    lat = north - down * CELL_KM / 111.32
    return _cells(west + right * CELL_KM / (111.32 * np.cos(np.radians(lat))), lat)


@settings(max_examples=12)
@given(west=st.floats(-175, 170), north=st.floats(-60, 68), columns=st.integers(1, 12), rows=st.integers(1, 12))
def test_every_cell_is_on_the_map_at_its_place(west: float, north: float, columns: int, rows: int) -> None:
    """The pixel under a cell's centre shows that cell, and the share of the sheet that is ground is the cells' area."""
    sheet = Sheet.of(_grid(west, north, columns, rows), ())
    grid = sheet.cell_of_pixel
    x = np.clip((sheet.x(sheet.lon) / sheet.width * grid.shape[1]).astype(int), 0, grid.shape[1] - 1)
    y = np.clip((sheet.y(sheet.lat) / sheet.height * grid.shape[0]).astype(int), 0, grid.shape[0] - 1)
    np.testing.assert_array_equal(grid[y, x], np.arange(columns * rows))
    ground = columns * rows * sheet.cell_edge**2 / (sheet.width * sheet.height)
    assert np.mean(grid >= 0) == pytest.approx(ground, rel=0.2)


def test_cells_on_both_sides_of_the_antimeridian_lie_side_by_side() -> None:
    """A region across 180° is drawn as one piece and its labels stay within ±180."""
    sheet = Sheet.of(_cells(np.array([179.9, -179.9]), np.array([10.0, 10.0])), ())
    assert sheet.east - sheet.west < 1
    page = sheet.page("map", [])
    labels = re.findall(r">(\d[\d.]*)°( [EW])?<", page)
    assert labels
    assert all(float(value) <= 180 for value, _ in labels)


def test_palette_image_keeps_codes_and_transparency() -> None:
    """Index 0 is transparent and index i has the colour of i − 1."""
    uri = png(np.array([[0, 1], [2, 0]], dtype=np.uint8), ["#ff0000", "#0000ff"])
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGBA")
    assert [image.getpixel(at)[3] for at in ((0, 0), (1, 1))] == [0, 0]
    assert image.getpixel((1, 0)) == (255, 0, 0, 255)
    assert image.getpixel((0, 1)) == (0, 0, 255, 255)


def test_true_colour_is_monotone_and_keeps_the_hue() -> None:
    """Brighter ground is brighter, equal bands give grey, missing pixels are the flat grey of no data."""
    levels = np.linspace(0, 6000, 64).astype(np.int16)
    image = np.broadcast_to(levels, (6, 64, 64)).copy()
    image[:, 0, :] = -9999
    stretch = chip_stretch(image[None], np.full((1, 64, 64), 64, np.uint8), DEFAULT_RULE)
    picture = np.asarray(true_colour(image, stretch))
    assert picture.shape == (64, 64, 3)
    assert (picture[0] == 128).all()
    assert (np.diff(picture[5, :, 0].astype(int)) >= 0).all()
    assert (picture[5, :, 0] == picture[5, :, 2]).all()


def test_one_stretch_per_chip_ignores_clouds_and_snow() -> None:
    """Bright clouds and snow do not darken the ground: the stretch is that of the clear ground."""
    image, fmask = np.full((2, 6, 32, 32), 800, np.int16), np.full((2, 32, 32), 64, np.uint8)
    plain = chip_stretch(image, fmask, DEFAULT_RULE)
    image[0, :, :16], fmask[0, :16] = 8000, 2
    image[1, :, 16:], fmask[1, 16:] = 9000, 16
    assert chip_stretch(image, fmask, DEFAULT_RULE) == plain


def test_mask_overlay_marks_what_the_rule_excludes_and_nothing_else() -> None:
    """Marked pixels lie on masked ground, every masked patch is marked, and a clear date has no overlay."""
    image, fmask = np.full((6, EDGE, EDGE), 500, np.int16), np.full((EDGE, EDGE), 64, np.uint8)
    assert mask_overlay(image, fmask, DEFAULT_RULE) is None
    fmask[20:60, 30:90] = 2
    fmask[100:, 100:] = 255
    uri = mask_overlay(image, fmask, DEFAULT_RULE)
    assert uri is not None
    overlay = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGBA"))
    marked = overlay[..., 3] > 0
    assert (overlay[marked][:, :3] == MASKED).all()
    assert not marked[fmask != 2].any()
    assert marked[20, 30:90].all()
    assert marked[20:60, 30:90].mean() > 0.1


@given(strata=hnp.arrays(np.int32, st.integers(1, 80), elements=st.integers(0, 6)), most=st.integers(1, 90))
def test_the_sheet_takes_one_of_every_stratum_first(strata: NDArray[np.int32], most: int) -> None:
    """Rows are distinct, do not depend on the order of rows, and begin with as many strata as there are."""
    side = np.arange(strata.size)
    units = pack_units(tile="10SFE", chip_size=64, cell_row=side // 57, cell_col=side % 57, year=2020, season=1)
    rows = chosen_rows(units, strata, most)
    assert len(set(rows)) == len(rows) == min(most, strata.size)
    kinds = min(np.unique(strata).size, most)
    assert np.unique(strata[rows[:kinds]]).size == kinds
    mixed = np.random.default_rng(strata.size).permutation(strata.size)
    again = chosen_rows(units[mixed], strata[mixed], most)
    np.testing.assert_array_equal(units[mixed][again], units[rows])


def test_the_sheet_prefers_places_not_shown_yet() -> None:
    """A place comes a second time only after every other place, within a stratum and across strata."""
    row, year = np.repeat(np.arange(6), 3), np.tile([2019, 2020, 2021], 6)
    units = pack_units(tile="10SFE", chip_size=64, cell_row=row, cell_col=0, year=year, season=2)
    for strata in (np.zeros(18, dtype=np.int32), (year - 2019).astype(np.int32)):
        rows = chosen_rows(units, strata, 6)
        assert np.unique(ground_cells(units[rows])).size == 6


@given(top=st.floats(0, 1e9))
def test_ticks_are_few_round_and_reach_the_top(top: float) -> None:
    """Axis marks start at 0, reach the largest value, and are at most six."""
    marks = svg.ticks(top)
    assert marks[0] == 0
    assert marks[-1] >= top
    assert 2 <= len(marks) <= 6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 %"),
        (0.0001, "< 0.1 %"),
        (0.004, "0.4 %"),
        (0.5, "50 %"),
        (0.9999, "99.9 %"),
        (1.0, "100 %"),
        (None, "–"),
    ],
)
def test_almost_all_is_not_all(value: float | None, text: str) -> None:
    """Shares round as a reader expects, but 99.99 % is never written as 100 %, nor a trace as nothing."""
    assert words.percent(value).replace("\u202f", " ") == text


def test_svg_escapes_words_and_values() -> None:
    """Texts and attributes cannot end their element."""
    drawn = svg.text(1, 2, '<b>&"', class_='x" onload="y')
    assert "<b>" not in drawn
    assert 'onload="y"' not in drawn


def _huge(folder: Folder) -> Folder:
    """The folder with a hundred thousand cells, 800 strata and tens of thousands of looks and granules."""
    side, strata = 330, 800
    cells = _grid(-120, 45, side, side)
    rng = np.random.default_rng(0)
    n, looked = side * side, 40_000
    ground = np.sort(ground_cells(_units(n)))
    cells = dataclasses.replace(
        cells,
        ground=ground,
        land_cover=rng.integers(0, 3, n),
        groups=("tree", "crop", "built"),
        chance=rng.uniform(0.001, 1, n),
    )
    response = pa.table(
        {
            "unit": np.sort(rng.choice(_units(n), looked, replace=False)),
            "stratum": rng.integers(0, strata, looked).astype(np.int32),
            "state": rng.choice(["cloud", "gap_rule", "observable", "partial"], looked),
            "observable": rng.random(looked) < 0.5,
            "pi1": rng.uniform(0.1, 1, looked),
            "pi2_given_phase1": rng.uniform(0.1, 1, looked),
            "wave": np.ones(looked, np.int16),
            "part": np.ones(looked, np.int16),
            "shard": np.full(looked, -1, np.int32),
        }
    )
    ids = [f"HLS.L30.T10SFE.2022{i % 365 + 1:03d}T{i // 365:06d}.v2.0" for i in range(20_000)]
    screening = pa.table(
        {
            "granule_id": ids,
            "state": rng.choice(["ok", "ok", "ok", "HTTP 404"], len(ids)),
            "bytes": np.full(len(ids), 10**6),
            "cloud_cover": rng.uniform(0, 100, len(ids)).astype(np.float32),
            "spatial_coverage": np.full(len(ids), 100, np.float32),
        }
    )
    scenes = pa.table({"granule_id": ids, "cloud_cover": rng.uniform(0, 100, len(ids)).astype(np.float32)})
    return dataclasses.replace(
        folder,
        strata=None,
        cells=cells,
        groups={(1, 0, stratum): 500 for stratum in range(strata)},
        chances=dict.fromkeys(range(strata), (0.1, 0.1)),
        response=response,
        screening=screening,
        scenes=scenes,
    )


def _units(n: int) -> NDArray[np.uint64]:
    side = np.arange(n)
    tiles = ("10SFE", "10SGE", "11SKU", "11SLU") * 10
    parts = []
    for number, tile in enumerate(tiles[: -(-n // 3249)]):
        here = side[number * 3249 : (number + 1) * 3249] - number * 3249
        year = 2000 + number // 4
        parts.append(pack_units(tile=tile, chip_size=64, cell_row=here // 57, cell_col=here % 57, year=year, season=0))
    return np.unique(np.concatenate(parts))


def test_a_huge_dataset_has_a_bounded_page(reported: Reported) -> None:
    """A hundred thousand places, 40,000 looks and 800 strata stay below 4 MB, with the strata folded away."""
    folder = _huge(read_folder(reported.fake.root))
    html = render(folder)
    assert len(html.encode()) < 4_000_000
    assert html.count("<circle") < 10_000
    assert "By land-cover group" in html
    assert len(folder.frame_units) > COLLAPSE


def test_pictures_of_real_size_stay_within_the_budget(tmp_path: Path) -> None:
    """A picture of a 64 px chip costs a few kilobytes, so that 48 chips at six dates fit."""
    image, fmask = pixels(12345)
    stretch = chip_stretch(image, fmask, DEFAULT_RULE)
    stream = io.BytesIO()
    true_colour(image[0], stretch).save(stream, "WEBP", quality=78)
    assert stream.tell() < 6000
