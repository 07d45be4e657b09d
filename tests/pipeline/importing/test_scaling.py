"""Hints about --scale: what they name would work."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofm_pipeline.importing.pixels import Conversion, UnfitValueError
from geofm_pipeline.importing.scaling import dark_counts, largest_scale, remedy, scale_for, too_few_counts


@given(st.floats(1e-6, 1e6), st.sampled_from([-1, 1]))
def test_the_largest_scale_fits_and_ten_times_it_does_not(size: float, sign: int) -> None:
    """|value| × scale is at most 32,767, and more than a tenth of that, so that no digit is given away."""
    scaled = size * largest_scale(sign * size)
    assert 3276 < scaled <= 32_767


@given(st.floats(4, 900, width=32))
def test_the_scale_that_a_message_names_works(value: float) -> None:
    """A value that does not fit names a --scale by which the same value does."""
    values = np.array([0.5, value], dtype=np.float32)
    with pytest.raises(UnfitValueError) as error:
        Conversion(scale=10_000).counts(values, np.ones(2, dtype=bool))
    named = re.search(r"--scale ([\d.]+) ", str(error.value))
    assert named is not None
    counts = Conversion(scale=float(named[1])).counts(values, np.ones(2, dtype=bool))
    assert counts[1] > 3000


@pytest.mark.parametrize(
    ("value", "scale", "offset", "fragment"),
    [
        (np.uint16(65_535), None, 0.0, "--nodata=65535"),
        (np.int32(-99_999), None, 0.0, "--nodata=-99999"),
        (np.float32(-3.4e38), 1e4, 0.0, "--nodata=-3.4e+38"),
        (np.float32(-9999), 1e4, 0.0, "--nodata=-9999.0"),
        (np.uint16(43_000), None, 0.0, "--scale 0.275 --offset -2000 for Landsat Collection 2, --scale 0.1 where it"),
        (np.float32(87.5), 1e4, 0.0, "give --scale 100 where it is a reflectance of 0.88"),
        (np.float32(0.5), 1e4, 4e4, "--offset 40000 takes it out of that range"),
    ],
)
def test_what_helps_a_value_that_does_not_fit(
    value: np.generic, scale: float | None, offset: float, fragment: str
) -> None:
    """A mark for what is missing, a wrong scale and a wrong offset are told apart."""
    assert fragment in remedy(value, scale, offset)


@pytest.mark.parametrize(
    ("values", "fragment"),
    [
        (
            [0.01, 0.7, np.nan, -9999.0, -3.4e38],
            "from 0.01 to 0.7: say how they become reflectance × 10,000, e.g. --scale",
        ),
        ([0.0, 61.0], "--scale 100 where they are percent"),
        ([12.0, 8000.0], "--scale 1 where they are reflectance × 10,000 already"),
        ([12.0, 60_000.0], "--scale 0.1 would fit"),
    ],
)
def test_what_decimal_values_seem_to_be(values: list[float], fragment: str) -> None:
    """Reflectance from 0 to 1, percent and counts are told apart by their range, without marks for what is missing."""
    assert fragment in scale_for(np.array(values, dtype=np.float32))
    assert scale_for(np.array([np.nan, -9999.0])) == ""


def test_counts_of_which_nothing_is_left() -> None:
    """Reflectance from 0 to 1 by --scale 1, also beneath an offset; whole numbers without a scale are only doubtful."""
    assert "--scale 10000 would keep them" in str(too_few_counts(0, 1, 1.0, 0.0))
    assert "--scale 10000 would keep them" in str(too_few_counts(-1000, -999, 1.0, -1000.0))
    assert too_few_counts(0, 9000, 10_000.0, 0.0) is None
    assert too_few_counts(0, 1, None, 0.0) is None
    assert "--scale 39.2157 where 255 is a reflectance of 1" in str(dark_counts(0, 250, None, 0.0))
    assert dark_counts(0, 256, None, 0.0) is None
