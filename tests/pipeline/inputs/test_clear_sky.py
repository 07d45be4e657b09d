"""Expected clear shares of tiles, from cloud tags."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofm_pipeline.covariates import expected_clear

_SCHEMA = pa.schema([("tile", pa.string()), ("time", pa.timestamp("ms", tz="UTC")), ("cloud_cover", pa.float32())])
_ROWS = st.tuples(
    st.sampled_from(["10SFE", "32UNU", "36MXE"]),
    st.integers(1, 12),
    st.one_of(st.floats(0, 100, width=32), st.just(float("nan")), st.sampled_from([-1.0, 101.0, 255.0])),
)


def _scenes(rows: list[tuple[str, int, float]]) -> pa.Table:
    records = [{"tile": t, "time": datetime(2022, m, 28, 23, tzinfo=UTC), "cloud_cover": c} for t, m, c in rows]
    return pa.Table.from_pylist(records, schema=_SCHEMA)


@given(st.lists(_ROWS, min_size=1, max_size=40))
def test_the_mean_of_months_by_hand(rows: list[tuple[str, int, float]]) -> None:
    """Each month of a tile weighs alike; tags that are missing or impossible are left out; no tag gives NaN."""
    found = expected_clear(_scenes(rows))
    assert set(found) == {tile for tile, _, _ in rows}
    for tile, share in found.items():
        months: dict[int, list[float]] = {}
        for other, month, cloud in rows:
            if other == tile and 0 <= cloud <= 100:
                months.setdefault(month, []).append(1 - cloud / 100)
        if months:
            assert share == pytest.approx(np.mean([np.mean(values) for values in months.values()]), abs=1e-6)
        else:
            assert np.isnan(share)


def test_many_granules_of_one_month_do_not_make_a_year_clear() -> None:
    """A clear July of fifty granules and a cloudy January of one give a half."""
    assert expected_clear(_scenes([("10SFE", 7, 0.0)] * 50 + [("10SFE", 1, 100.0)])) == {"10SFE": 0.5}
