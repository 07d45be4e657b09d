"""Values to counts and mask bytes, against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.fmask import clear
from geofm_pipeline.importing.pixels import CLEAR, PRESETS, Conversion, MaskValues, UnfitValueError, fmask_of

SHAPE = (2, 3, 4)


@given(arrays.arrays(np.int16, SHAPE), arrays.arrays(np.bool_, SHAPE))
def test_whole_numbers_stay_as_they_are(values: np.ndarray, present: np.ndarray) -> None:
    """Counts are copied where something is there, and −9999 elsewhere."""
    assert np.array_equal(Conversion().counts(values, present), np.where(present, values, -9999))


@given(
    arrays.arrays(np.uint16, SHAPE),
    st.sampled_from([0.275, 0.1, -0.25, 0.4]),
    st.sampled_from([0.0, -2000.0, 100.5]),
)
def test_scale_and_offset_round_to_the_nearest(values: np.ndarray, scale: float, offset: float) -> None:
    """count = value × scale + offset in float64, rounded, ties to even."""
    expected = np.rint(values.astype(np.float64) * scale + offset)
    counts = Conversion(scale=scale, offset=offset).counts(values, np.ones(SHAPE, dtype=bool))
    assert np.array_equal(counts, expected)


@given(arrays.arrays(np.float32, SHAPE, elements=st.floats(0, 1, width=32) | st.sampled_from([np.nan, np.inf])))
def test_what_is_no_number_is_missing(values: np.ndarray) -> None:
    """NaN and infinity are missing; reflectance becomes counts."""
    counts = Conversion(scale=10_000).counts(values, np.ones(SHAPE, dtype=bool))
    finite = np.isfinite(values)
    assert (counts[~finite] == -9999).all()
    assert np.array_equal(counts[finite], np.rint(values[finite].astype(np.float64) * 10_000))


def test_a_nodata_value_of_the_users_own() -> None:
    """--nodata is missing besides what the file says, and is tested before the scale."""
    values = np.array([[[0, 65535, 7]]], dtype=np.uint16)
    present = np.array([[[True, True, False]]])
    assert Conversion(scale=2, nodata=65535).counts(values, present).tolist() == [[[0, -9999, -9999]]]


@pytest.mark.parametrize(
    ("conversion", "values", "fragment"),
    [
        (Conversion(), np.array([5, 40_000], dtype=np.uint16), "has the value 40000: a store holds"),
        (Conversion(), np.array([5, 70_000], dtype=np.int32), "has the value 70000: a store holds"),
        (Conversion(scale=10_000), np.array([0.5, 9.0]), "has the value 9.0, which becomes 90000"),
        (Conversion(scale=500), np.array([0.5, -99], dtype=np.float32), "has the value -99.0, which becomes -49500"),
    ],
)
def test_nothing_is_clipped(conversion: Conversion, values: np.ndarray, fragment: str) -> None:
    """A value that does not fit int16 is named, with what it would become and a scale that would do."""
    with pytest.raises(UnfitValueError) as error:
        conversion.counts(values, np.ones(values.shape, dtype=bool))
    assert fragment in str(error.value)
    assert "--scale" in str(error.value)


def test_a_fill_that_overflows_is_named_as_one() -> None:
    """Near the largest number there is, a value becomes infinite when it is scaled: a mark for what is missing."""
    with pytest.raises(UnfitValueError, match=r"has the value -1.7e\+308, which becomes -inf.*--nodata=-1.7e\+308"):
        Conversion(scale=10_000).counts(np.array([0.5, -1.7e308]), np.ones(2, dtype=bool))


def test_a_value_out_of_range_that_is_missing_is_no_error() -> None:
    """65535 as nodata of a file never reaches the range check."""
    values = np.array([5, 65535], dtype=np.uint16)
    assert Conversion().counts(values, np.array([True, False])).tolist() == [5, -9999]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "bool"])
def test_types_that_need_a_scale_or_have_no_meaning(dtype: str) -> None:
    """Decimal numbers need --scale; what is no number is refused whatever the scale."""
    with pytest.raises(UnfitValueError, match=dtype):
        Conversion().check_type(dtype)
    if dtype.startswith("float"):
        Conversion(scale=1).check_type(dtype)
    else:
        with pytest.raises(UnfitValueError, match=dtype):
            Conversion(scale=1).check_type(dtype)


def test_cfmask_means_what_hls_means() -> None:
    """Clear, water and snow are valid, shadow and cloud are not, 255 is missing; the bits are HLS's own."""
    values = np.array([0, 1, 2, 3, 4, 255], dtype=np.uint8)
    found = MaskValues.parse("cfmask").bytes(values, np.ones(6, dtype=bool))
    assert found.tolist() == [64, 64 | 32, 64 | 8, 64 | 16, 64 | 2, 255]
    assert clear(found).tolist() == [True, True, False, True, False, False]


def test_every_preset_and_raw_bytes() -> None:
    """Presets parse; `fmask` keeps HLS's own bytes."""
    for name in PRESETS:
        assert MaskValues.parse(name).text == name
    every = np.arange(256, dtype=np.uint8)
    assert np.array_equal(MaskValues.parse("fmask").bytes(every, np.ones(256, dtype=bool)), every)


def test_a_value_without_a_meaning() -> None:
    """It is an error, unless the mask's own nodata says that nothing is there."""
    mask = MaskValues.parse("0=clear,1=cloud")
    values = np.array([0, 1, 9], dtype=np.int16)
    assert mask.bytes(values, np.array([True, True, False])).tolist() == [64, 66, 255]
    with pytest.raises(UnfitValueError, match="values 9, of which --mask-values 0=clear,1=cloud"):
        mask.bytes(values, np.ones(3, dtype=bool))


@pytest.mark.parametrize("text", ["cloudy", "0=clear,0=cloud", "256=cloud", "1=fog", "=cloud", ""])
def test_mask_values_that_cannot_be(text: str) -> None:
    """The message names the part and the words there are."""
    with pytest.raises(InputError, match="one of clear, missing, cirrus, cloud"):
        MaskValues.parse(text)


@given(arrays.arrays(np.int16, SHAPE, elements=st.sampled_from([-9999, 0, 5])), arrays.arrays(np.uint8, SHAPE[1:]))
def test_a_pixel_is_there_when_all_bands_are(image: np.ndarray, marks: np.ndarray) -> None:
    """255 where any band is missing; else the byte of the cloud mask, or 64 without one."""
    missing = (image == -9999).any(axis=0)
    assert np.array_equal(fmask_of(image, None), np.where(missing, 255, CLEAR))
    assert np.array_equal(fmask_of(image, marks), np.where(missing, 255, marks))
