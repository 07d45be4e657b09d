"""Pictures of reconstructions: a hidden pixel never shows the input, and what is not valid says so."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from geofm_model import Store
from geofm_model.evaluation.drawing import text_width, ticks
from geofm_model.evaluation.pictures import (
    HIDDEN,
    INVALID,
    NEUTRAL,
    Panels,
    Reconstruction,
    reconstruction_picture,
    save_png,
)

BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
Pixels = NDArray[np.uint8]


def sample(seed: int = 0, *, dates: int = 2, edge: int = 16, bands: tuple[str, ...] = BANDS) -> Reconstruction:
    """Tokens of 4 px, half of them seen, a tenth of the pixels not valid and some of these missing."""
    rng = np.random.default_rng(seed)
    shape = (dates, len(bands), edge, edge)
    image = rng.integers(0, 4000, shape).astype(np.int16)
    seen = (rng.random((dates, edge // 4, edge // 4)) < 0.5).repeat(4, axis=1).repeat(4, axis=2)
    valid = rng.random((dates, edge, edge)) > 0.1
    missing = ~valid & (rng.random(valid.shape) < 0.5)
    image[np.broadcast_to(missing[:, None], shape)] = -9999
    return Reconstruction(
        image=image,
        predicted=rng.uniform(0, 4000, shape).astype(np.float32),
        seen=seen,
        valid=valid,
        bands=bands,
        dates=tuple(str(date(2022, 3, 1) + timedelta(days=40 * at)) for at in range(dates)),
        place="41.100° N, 12.500° E",
        loss=0.31,
        baseline=0.98,
    )


def is_colour(pixels: Pixels, colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((pixels == np.array(colour, dtype=np.uint8)).all(axis=-1))


def panels(one: Reconstruction) -> Panels:
    return Panels.of(one, most=0.1)


def assert_equal(one: Panels, other: Panels, names: tuple[str, ...]) -> None:
    for name in names:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@given(seed=st.integers(0, 100), by_band=st.booleans())
@settings(max_examples=25)
def test_hidden_pixels_never_show_the_input(seed: int, by_band: bool) -> None:
    """What the network was not shown may change without a change of any panel that claims to show what it knew.

    The stretch is left as it was: it stems from all valid pixels.
    """
    one = sample(seed)
    if by_band:
        shown = np.broadcast_to(one.seen[:, None], one.image.shape).copy()
        shown[:, seed % 6] = False
        one = replace(one, seen=shown)
    hidden = ~one.shown
    other = one.image.copy()
    # Values change places among the hidden valid pixels of a date and band, so that the stretch stays the same.
    for at in range(2):
        for band in range(6):
            where = hidden[at, band] & one.valid[at]
            other[at, band][where] = np.roll(one.image[at, band][where], 3)
    changed = replace(one, image=other)
    assert changed.stretch() == one.stretch()
    assert_equal(panels(changed), panels(one), ("seen", "predicted", "pasted", "hidden"))
    assert not np.array_equal(panels(changed).input, panels(one).input)
    assert is_colour(panels(one).seen, HIDDEN)[panels(one).hidden].all()


@given(seed=st.integers(0, 100))
@settings(max_examples=25)
def test_panels_are_put_together_of_input_and_prediction(seed: int) -> None:
    """`seen` is the input at seen valid pixels, `pasted` is `predicted` at hidden ones and `seen` at the others."""
    one = sample(seed)
    found, hidden = panels(one), ~one.seen
    known = one.seen & one.valid
    assert np.array_equal(found.hidden, hidden)
    assert np.array_equal(found.seen[known], found.input[known])
    assert is_colour(found.seen, INVALID)[one.seen & ~one.valid].all()
    assert is_colour(found.predicted, NEUTRAL)[one.seen].all()
    assert np.array_equal(found.pasted[hidden], found.predicted[hidden])
    assert np.array_equal(found.pasted[one.seen], found.seen[one.seen])
    # A network that knew everything: the pasted picture is the observed one, where that may be used.
    perfect = panels(replace(one, predicted=one.image.astype(np.float32)))
    assert np.array_equal(perfect.pasted[one.valid], perfect.input[one.valid])
    assert (perfect.error[hidden & one.valid] == perfect.error[hidden & one.valid][0]).all()


def test_what_is_not_valid_is_violet_and_only_that() -> None:
    """Missing pixels in `input`, seen pixels that may not be used in `seen`, hidden ones in `error`; clouds stay to be
    seen in `input`.
    """
    one = sample(3, edge=64)
    found = panels(one)
    assert np.array_equal(is_colour(found.input, INVALID), one.image[:, 0] == -9999)
    assert np.array_equal(is_colour(found.seen, INVALID), one.seen & ~one.valid)
    assert np.array_equal(is_colour(found.error, INVALID), ~one.seen & ~one.valid)
    assert np.array_equal(is_colour(found.error, NEUTRAL), one.seen)
    assert not is_colour(found.predicted, INVALID).any()


def test_what_is_not_valid_changes_no_other_colour() -> None:
    """Counts of clouds and of missing pixels have no part in the stretch or the scale of errors."""
    one = sample(4)
    wild = np.where(one.valid[:, None], one.image, 16_000).astype(np.int16)
    assert replace(one, image=wild).stretch() == one.stretch()
    assert replace(one, image=wild).spread() == one.spread()
    assert_equal(panels(replace(one, image=wild)), panels(one), ("seen", "predicted", "pasted", "error"))


def test_errors_are_root_mean_squares_over_bands() -> None:
    """In reflectance, over the bands that were hidden; NaN where a pixel is not valid or nothing was asked."""
    one = sample(5)
    want = np.sqrt(((one.predicted - one.image.astype(np.float64)) ** 2).mean(axis=1)) / 1e4
    counted = one.valid & ~one.seen
    assert one.errors()[counted] == pytest.approx(want[counted])
    assert np.isnan(one.errors()[~counted]).all()
    shown = np.ones(one.image.shape, dtype=bool)
    shown[:, 2] = False
    only = replace(one, seen=shown).errors()
    assert only[one.valid] == pytest.approx(np.abs(one.predicted[:, 2] - one.image[:, 2])[one.valid] / 1e4)


def test_colours_have_one_stretch() -> None:
    """Equal counts have equal colours in all bands, dates and panels; black is the 2nd, white the 98th percentile."""
    one = sample(6, dates=3)
    stretch = one.stretch()
    shown = one.image[:, [2, 1, 0]].transpose(0, 2, 3, 1)[one.valid]
    assert (stretch.low, stretch.high) == pytest.approx(tuple(np.percentile(shown, (2, 98))))
    assert stretch.gamma == 1.0
    share = np.clip((one.image[:, [2, 1, 0]].transpose(0, 2, 3, 1) - stretch.low) / (stretch.high - stretch.low), 0, 1)
    found = panels(one).input
    there = one.image[:, 0] != -9999
    assert np.abs(found[there] - 255.0 * share[there]).max() <= 0.5 + 1e-9


def test_a_dark_date_beside_snow_can_be_read() -> None:
    """The median of the darkest date has a fifth of full brightness at least, and colours keep their order."""
    one = sample(7)
    image = np.where(np.arange(2)[:, None, None, None] == 0, one.image // 8, one.image // 4 + 9000)
    dark = replace(one, image=image.astype(np.int16), valid=np.ones_like(one.valid))
    assert 1.0 < dark.stretch().gamma <= 2.5
    assert np.median(panels(dark).input[0]) >= 0.2 * 255 - 1
    values = dark.stretch().colours(np.arange(0, 12_000, 40).reshape(1, 1, 1, -1).repeat(3, axis=1))[0, 0, :, 0]
    assert (np.diff(values.astype(int)) >= 0).all()


@pytest.mark.parametrize(
    ("bands", "colours"),
    [
        (BANDS, (2, 1, 0)),
        (("blue", "green", "red", "nir_narrow"), (2, 1, 0)),
        (("B8A", "B11", "B12"), (0, 1, 2)),
        (("VV", "VH"), (0, 0, 0)),
        (("VV",), (0, 0, 0)),
    ],
)
def test_bands_are_chosen_by_name(bands: tuple[str, ...], colours: tuple[int, ...]) -> None:
    """Red, green and blue by HLS's or the store's names; else the first three bands; else grey."""
    one = sample(8, bands=bands)
    assert one.colours == colours
    picture = reconstruction_picture([one])
    assert picture.mode == "RGB"


@pytest.mark.parametrize(("edge", "panel"), [(16, 192), (64, 192), (100, 200), (128, 256), (224, 224), (256, 256)])
def test_small_chips_are_enlarged_and_large_ones_not(edge: int, panel: int) -> None:
    """Every pixel becomes a square of a whole number of pixels; the enlarged input is in the picture as it is."""
    one = sample(9, dates=1, edge=edge)
    picture = np.asarray(reconstruction_picture([one]))
    factor = panel // edge
    large = Panels.of(one, most=0.1).input[0].repeat(factor, axis=0).repeat(factor, axis=1)
    found = [
        (row, column)
        for row, column in np.argwhere((picture[:200, :200] == large[0, 0]).all(axis=-1)).tolist()
        if np.array_equal(picture[row : row + panel, column : column + panel], large)
    ]
    assert len(found) == 1
    assert 5 * panel < picture.shape[1] < 5 * panel + 200


def test_a_picture_grows_with_samples_and_dates_and_is_the_same_again() -> None:
    """Rows are samples × dates; equal input gives equal pixels."""
    one, two = sample(10, dates=1), sample(11, dates=3)
    pictures = [reconstruction_picture(part) for part in ([one], [two], [one, two])]
    heights = [picture.height for picture in pictures]
    assert heights[1] - heights[0] == 2 * (192 + 8)
    assert heights[2] > heights[1] + 192
    assert np.array_equal(np.asarray(reconstruction_picture([one, two])), np.asarray(pictures[2]))


@pytest.mark.parametrize("change", ["nothing valid", "nothing hidden", "all hidden", "one value", "no loss"])
def test_strange_samples_have_pictures(change: str) -> None:
    """No valid pixel, no hidden one, none that is seen, no contrast, no loss: nothing fails or warns."""
    one = sample(12)
    changes: dict[str, dict[str, object]] = {
        "nothing valid": {"valid": np.zeros_like(one.valid), "loss": float("nan"), "baseline": float("nan")},
        "nothing hidden": {"seen": np.ones_like(one.seen), "predicted": np.full_like(one.predicted, np.nan)},
        "all hidden": {"seen": np.zeros_like(one.seen)},
        "one value": {"image": np.full_like(one.image, 700), "valid": np.ones_like(one.valid)},
        "no loss": {"loss": float("nan")},
    }
    assert reconstruction_picture([replace(one, **changes[change])]).height > 400  # type: ignore[arg-type]


def test_samples_of_a_store_have_pictures(store: Path) -> None:
    """A sample as the reader gives it, with its valid pixels and dates."""
    read = Store.open(store).sample(0)
    valid = read.valid()
    seen = np.zeros_like(valid)
    seen[:, : valid.shape[1] // 2] = True
    one = Reconstruction(
        image=read.image,
        predicted=read.image.astype(np.float32),
        seen=seen,
        valid=valid,
        bands=Store.open(store).header.bands,
        dates=tuple(str(np.datetime64(int(day), "D")) for day in read.date),
        place=f"{read.lat:.3f}° N, {read.lon:.3f}° E",
        loss=0.0,
        baseline=1.0,
    )
    assert reconstruction_picture([one]).width > 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"valid": np.ones((2, 16, 15), bool)}, r"valid has shape \(2, 16, 15\), an image of \(2, 6, 16, 16\) needs"),
        ({"seen": np.ones((2, 5, 16, 16), bool)}, "seen has shape"),
        ({"predicted": np.zeros((2, 6, 4, 4), np.float32)}, "predicted has shape"),
        ({"dates": ("2022-01-01",)}, "1 dates and 6 bands named, the image has 2 and 6"),
        ({"predicted": np.full((2, 6, 16, 16), np.nan, np.float32)}, "predicted values are not finite"),
    ],
)
def test_reconstructions_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    """Shapes that differ, and predictions of a network that diverged."""
    with pytest.raises(ValueError, match=message):
        replace(sample(), **changes)  # type: ignore[arg-type]


def test_pictures_of_nothing_or_of_different_bands_are_refused() -> None:
    """A picture has one sample at least, and one meaning of colours."""
    with pytest.raises(ValueError, match="one reconstruction at least"):
        reconstruction_picture([])
    with pytest.raises(ValueError, match="need the same bands"):
        reconstruction_picture([sample(), sample(bands=("VV", "VH"))])


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved pixels are read back; a write that fails leaves the old file and nothing beside it."""
    path = tmp_path / "new" / "folder" / "step-1.png"
    first, second = (Image.new("RGB", (5, 4), colour) for colour in ((1, 2, 3), (4, 5, 6)))
    save_png(first, path)
    with Image.open(path) as found:
        assert (found.size, found.getpixel((0, 0))) == ((5, 4), (1, 2, 3))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        save_png(second, path)
    monkeypatch.undo()
    with Image.open(path) as found:
        assert found.getpixel((0, 0)) == (1, 2, 3)
    assert [entry.name for entry in path.parent.iterdir()] == ["step-1.png"]
    save_png(second, path)
    with Image.open(path) as found:
        assert found.getpixel((0, 0)) == (4, 5, 6)
    with pytest.raises(ValueError, match=r"ends in \.png"):
        save_png(first, tmp_path / "picture.jpg")


def test_a_reader_never_meets_half_a_file(tmp_path: Path) -> None:
    """While a picture is written again and again, whoever opens it finds a whole one."""
    path = tmp_path / "picture.png"
    noise = np.random.default_rng(0).integers(0, 255, (2, 200, 200, 3), dtype=np.uint8)
    images = [Image.fromarray(part) for part in noise]
    save_png(images[0], path)
    stop = threading.Event()

    def write() -> None:
        for turn in range(60):
            save_png(images[turn % 2], path)
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = 0
    while not stop.is_set() or not seen:
        with Image.open(path) as found:
            assert any(np.array_equal(np.asarray(found), part) for part in noise)
        seen += 1
    writer.join()


@given(low=st.floats(-1e6, 1e6), span=st.floats(0, 1e6), most=st.integers(3, 12))
def test_ticks_are_round_and_hold_the_range(low: float, span: float, most: int) -> None:
    """Two to `most` multiples of 1, 2 or 5 times a power of ten, evenly, around the range."""
    found = ticks(low, low + span, most)
    assert 2 <= len(found) <= most
    step = found[1] - found[0]
    assert np.diff(found) == pytest.approx(step, rel=1e-6)
    room = 1e-6 * step + 1e-9 * abs(low)
    assert found[0] <= low + room
    assert found[-1] >= low + span - room
    mantissa = step / 10.0 ** np.floor(np.log10(step * (1 + 1e-9)))
    assert min(abs(mantissa - want) for want in (1, 2, 5, 10)) < 1e-3


def test_headings_fit_their_columns() -> None:
    """No heading of 13 px is wider than the smallest panel that is drawn enlarged."""
    assert text_width("seen by the network", 13) < 192
