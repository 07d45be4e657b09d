"""Distinct values by counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofm_sampling.distinct import distinct


@given(st.lists(st.integers(0, 500), max_size=60))
@pytest.mark.parametrize("limit", [501, 10**9])
def test_distinct_is_numpys_unique(limit: int, numbers: list[int]) -> None:
    """The same values and indices, whether counted or sorted."""
    code = np.array(numbers, dtype=np.int64)
    values, inverse = distinct(code, limit)
    wanted, places = np.unique(code, return_inverse=True)
    assert np.array_equal(values, wanted)
    assert np.array_equal(inverse, places)
