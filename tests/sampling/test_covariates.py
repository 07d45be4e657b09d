"""Covariates of cells: land cover and weather."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from geofm_sampling import fit_strata
from geofm_sampling.covariates import (
    WORLDCOVER_GROUPS,
    dominant_groups,
    land_cover_entropy,
    weather_extremes,
    weather_statistics,
)
from geofm_sampling.strata import stratum_of_cells

Cells = Callable[..., pa.Table]


def shares(**columns: list[float]) -> pa.Table:
    return pa.table({name: pa.array(values, pa.float32()) for name, values in columns.items()})


def groups_of(table: pa.Table) -> list[str]:
    names, index = dominant_groups(table, WORLDCOVER_GROUPS)
    return [names[i] for i in index]


def test_the_dominant_group_holds_half_of_the_mapped_ground() -> None:
    """Classes of a group add up; without a majority `mixed`; half unmapped or NaN is `unknown`."""
    nan = float("nan")
    table = shares(
        lc_10=[0.9, 0.3, 0.4, 0.4, nan, 0.30, 0.0],
        lc_90=[0.1, 0.3, 0.3, 0.0, nan, nan, 0.2],
        lc_95=[0.0, 0.4, 0.3, 0.0, nan, 0.25, 0.2],
    )
    assert groups_of(table) == ["tree", "wetland", "wetland", "unknown", "unknown", "tree", "unknown"]
    assert groups_of(shares(lc_10=[0.4], lc_20=[0.35], lc_30=[0.25])) == ["mixed"]


def test_unknown_codes_are_groups_of_their_own() -> None:
    """A code that WorldCover does not know keeps its number."""
    assert groups_of(shares(lc_10=[0.1], lc_77=[0.9])) == ["class_77"]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (shares(lc_10=[80.0], lc_20=[20.0]), "percentages"),
        (shares(lc_10=[-0.5], lc_20=[1.0]), "≥ 0"),
        (shares(lc_tree=[1.0]), "lc_<class code>"),
    ],
)
def test_impossible_land_cover_is_refused(table: pa.Table, words: str) -> None:
    """Percentages, negative shares and unnamed classes are errors."""
    with pytest.raises(ValueError, match=words):
        groups_of(table)


def test_weather_statistics_by_hand() -> None:
    """One even and one single-month climate."""
    t = np.array([[10.0] * 12, [0.0] * 6 + [20.0] * 6], dtype=np.float32)
    p = np.array([[10.0] * 12, [120.0] + [0.0] * 11], dtype=np.float32)
    names, values = weather_statistics(t, p)
    row = [dict(zip(names, line, strict=True)) for line in values.tolist()]
    assert row[0] == pytest.approx(
        {"t_mean": 10, "t_range": 0, "t_min": 10, "p_log": np.log(121), "p_seasonality": 0, "wetness": np.log(7)}
    )
    assert row[1]["p_seasonality"] == pytest.approx(22 / 12)
    assert row[1]["t_range"] == 20
    assert weather_statistics(t, None)[0] == ["t_mean", "t_range", "t_min"]
    assert weather_statistics(None, p)[0] == ["p_log", "p_seasonality"]


def test_extremes_by_hand_and_why_clusters_do_not_need_them() -> None:
    """The warmest and wettest month; the warmest is the coldest plus the range."""
    rng = np.random.default_rng(4)
    t, p = rng.normal(10.0, 9.0, (50, 12)).astype(np.float32), rng.gamma(2.0, 40.0, (50, 12)).astype(np.float32)
    names, values = weather_extremes(t, p)
    assert list(names) == ["t_max", "p_max_log"]
    assert np.allclose(values, np.stack([t.max(axis=1), np.log1p(p.max(axis=1))], axis=1))
    clustered, statistics = weather_statistics(t, p)
    known = dict(zip(clustered, statistics.T, strict=True))
    assert np.allclose(values[:, 0], known["t_min"] + known["t_range"])
    assert list(weather_extremes(None, p)[0]) == ["p_max_log"]


def test_land_cover_entropy_by_hand() -> None:
    """One class 0 bits, two even ones 1 bit, a part of the cell as the whole; nothing mapped is NaN."""
    nan = float("nan")
    table = shares(
        lc_10=[1.0, 0.5, 0.25, 0.2, 0.0, nan, 0.9],
        lc_20=[0.0, 0.5, 0.25, 0.2, 0.0, nan, 0.1],
        lc_30=[0.0, 0.0, 0.25, nan, 0.0, nan, 0.0],
        lc_40=[0.0, 0.0, 0.25, 0.0, 0.0, nan, 0.0],
    )
    entropy = land_cover_entropy(table)
    assert entropy.dtype == np.float32
    assert entropy[[0, 1, 2, 3]].tolist() == pytest.approx([0.0, 1.0, 2.0, 1.0], abs=1e-6)
    assert np.isnan(entropy[[4, 5]]).all()
    assert entropy[6] == pytest.approx(-0.9 * np.log2(0.9) - 0.1 * np.log2(0.1), abs=1e-6)
    assert np.isnan(land_cover_entropy(pa.table({"lon": [1.0]}))).all()


def with_weather(cells: pa.Table, name: str, value: float) -> pa.Table:
    """Cells of which the eighth has the value."""
    column = cells[name].to_numpy().copy()
    column[7] = value
    return cells.set_column(cells.column_names.index(name), name, pa.array(column))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("wx_t04", 285.0, r"wx_t04 of a cell is 285, .* °C .* kelvin"),
        ("wx_t04", -96.0, "wx_t04 of a cell is -96"),
        ("wx_t04", float("inf"), "wx_t04 of a cell is inf"),
        ("wx_p11", -9999.0, r"wx_p11 of a cell is -9999, .* fill value"),
        ("wx_p11", 13_000.0, "wx_p11 of a cell is 13000"),
        ("wx_p11", float("-inf"), "wx_p11 of a cell is -inf"),
    ],
)
def test_impossible_weather_is_refused(make_cells: Cells, name: str, value: float, words: str) -> None:
    """Kelvin, fill values and infinities are named with their column before anything is fitted or labelled."""
    cells = make_cells()
    with pytest.raises(ValueError, match=words):
        fit_strata(with_weather(cells, name, value), seed=1)
    with pytest.raises(ValueError, match=words):
        stratum_of_cells(with_weather(cells, name, value), fit_strata(cells, seed=1))


def test_what_interpolation_leaves_of_no_rain_is_none(make_cells: Cells) -> None:
    """A slightly negative month is 0 mm."""
    cells = make_cells()
    none = fit_strata(with_weather(cells, "wx_p11", 0.0), seed=1)
    assert fit_strata(with_weather(cells, "wx_p11", -0.4), seed=1) == none


def test_rain_in_metres_is_suspected(make_cells: Cells) -> None:
    """A region drier than any but the driest deserts is not refused, but said."""
    cells = make_cells()
    for name in [n for n in cells.column_names if n.startswith("wx_p")]:
        metres = cells[name].to_numpy() / np.float32(1000.0)
        cells = cells.set_column(cells.column_names.index(name), name, pa.array(metres))
    assert any("in metres" in note for note in fit_strata(cells, seed=1).notes)
    assert not any("in metres" in note for note in fit_strata(make_cells(), seed=1).notes)
