"""Strata and their covariates."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from geofm_sampling import Strata, fit_strata
from geofm_sampling.covariates import WORLDCOVER_GROUPS, dominant_groups, weather_statistics
from geofm_sampling.kmeans import fit_centroids, nearest_centroid
from geofm_sampling.strata import OTHER, cell_labels, class_table

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


def test_kmeans_finds_separate_clumps() -> None:
    """Three far clumps give their three means, whatever the seed; few distinct points give themselves."""
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = np.concatenate([c + rng.normal(0, 0.1, (200, 2)) for c in centres])
    for seed in range(5):
        found = fit_centroids(points, 3, seed=seed)
        assert np.allclose(found[np.lexsort(found.T[::-1])], centres[np.lexsort(centres.T[::-1])], atol=0.05)
    assert np.array_equal(fit_centroids(np.array([[1.0], [1.0], [2.0]]), 5, seed=0), [[1.0], [2.0]])
    assert nearest_centroid(points, centres)[[0, 200, 400]].tolist() == [0, 1, 2]


def test_round_trip_and_digest(make_cells: Cells) -> None:
    """JSON gives back the equal artefact; the digest follows its contents."""
    strata = fit_strata(make_cells(), seed=1)
    again = Strata.from_json(strata.to_json())
    assert again == strata
    assert again.digest == strata.digest == fit_strata(make_cells(), seed=1).digest
    assert json.loads(strata.to_json())["climate"]["statistics"][0] == "t_mean"
    assert fit_strata(make_cells(), seed=2).digest != strata.digest


def test_the_order_of_cells_does_not_matter(make_cells: Cells) -> None:
    """Shuffled, chunked or dictionary-encoded cells give the identical artefact and labels."""
    cells = make_cells()
    order = np.random.default_rng(3).permutation(cells.num_rows)
    shuffled = cells.take(pa.array(order))
    shuffled = shuffled.set_column(0, "tile", shuffled["tile"].dictionary_encode())
    chunks = pa.concat_tables([shuffled.slice(0, 100), shuffled.slice(100)])
    strata = fit_strata(cells, seed=1)
    assert fit_strata(chunks, seed=1) == strata
    names, group, climate = cell_labels(cells, strata)
    again, group2, climate2 = cell_labels(chunks, strata)
    assert names == again
    assert np.array_equal(group[order], group2)
    assert np.array_equal(climate[order], climate2)


def test_rare_classes_merge_over_climate_first_then_into_other(make_cells: Cells) -> None:
    """Every class keeps at least min_cells cells, except `other`; what was merged is said."""
    cells = make_cells()
    strata = fit_strata(cells, seed=1, min_cells=40)
    names, group, climate = cell_labels(cells, strata)
    classes = class_table(strata, names)[group, climate]
    counts = dict(zip(strata.classes, np.bincount(classes, minlength=len(strata.classes)), strict=True))
    assert min(n for name, n in counts.items() if name != OTHER) >= 40
    assert any(name.endswith("/rest") for name in strata.classes)
    assert any("merged into" in note for note in strata.notes)
    one_group = fit_strata(cells, seed=1, min_cells=10**6)
    assert one_group.classes == (OTHER,)


def test_without_covariates_one_class_remains_and_says_so(make_cells: Cells) -> None:
    """No land cover and no weather: a single class, calendar seasons, two notes."""
    strata = fit_strata(make_cells(land_cover=False, weather=False), seed=1)
    assert strata.classes == ("all", OTHER)
    assert strata.names[:4] == ("all/s0", "all/s1", "all/s2", "all/s3")
    assert strata.season_span(climate=0, south=True, season=2) == "Dec-Feb"
    assert len(strata.notes) == 2
    assert "No land cover" in strata.notes[0]
    assert "No weather" in strata.notes[1]


def test_seasons_follow_the_weather_of_each_hemisphere(make_cells: Cells) -> None:
    """One cluster on both sides of the equator has its warm season half a year apart."""
    strata = fit_strata(make_cells(), clusters=1, seed=1)
    spans = [strata.season_span(climate=0, south=south, season=2) for south in (False, True)]
    assert spans == ["Jun-Aug", "Dec-Feb"]
    north_only = fit_strata(make_cells(("10SFE",)), clusters=1, seed=1)
    assert north_only.season_span(climate=0, south=True, season=2) == "Dec-Feb"


def test_weather_that_hardly_differs_is_one_climate(make_cells: Cells) -> None:
    """Noise is not cut into climates."""
    cells = make_cells(("10SFE",))
    for name in [n for n in cells.column_names if n.startswith("wx_")]:
        noise = np.random.default_rng(1).normal(0, 0.05, cells.num_rows).astype(np.float32)
        value = cells[name].to_numpy()[0] + noise
        cells = cells.set_column(cells.column_names.index(name), name, pa.array(value))
    strata = fit_strata(cells, seed=1)
    assert len(strata.climate.centroids) == 1
    assert any("differs too little" in note for note in strata.notes)


def test_unknown_weather_is_a_climate_of_its_own(make_cells: Cells) -> None:
    """Cells with a NaN month keep calendar seasons; the number of them is said; all NaN is no weather."""
    cells = make_cells()
    column = cells["wx_t05"].to_numpy().copy()
    column[:100] = np.nan
    index = cells.column_names.index("wx_t05")
    some = cells.set_column(index, "wx_t05", pa.array(column))
    strata = fit_strata(some, seed=1)
    climate = cell_labels(some, strata)[2]
    assert np.all((climate == strata.climate.unknown) == (np.arange(cells.num_rows) < 100))
    assert any("weather of 100 of" in note for note in strata.notes)
    nothing = cells.set_column(index, "wx_t05", pa.array(np.full(cells.num_rows, np.nan, dtype=np.float32)))
    assert fit_strata(nothing, seed=1).climate.statistics == ("p_log", "p_seasonality")


def test_one_weather_variable_is_enough(make_cells: Cells) -> None:
    """Rain alone clusters and sets seasons; an incomplete set of months is an error."""
    cells = make_cells()
    rain = cells.drop_columns([f"wx_t{m:02d}" for m in range(1, 13)])
    assert fit_strata(rain, seed=1).climate.statistics == ("p_log", "p_seasonality")
    with pytest.raises(ValueError, match="wx_t03 are missing"):
        fit_strata(cells.drop_columns(["wx_t03"]), seed=1)


def test_an_extension_needs_the_same_covariates(make_cells: Cells) -> None:
    """Frozen strata refuse cells without the map or weather they were fitted with; new classes become `other`."""
    strata = fit_strata(make_cells(), seed=1)
    with pytest.raises(ValueError, match="fitted with land cover"):
        cell_labels(make_cells(land_cover=False), strata)
    with pytest.raises(ValueError, match="fitted with the weather"):
        cell_labels(make_cells(weather=False), strata)
    assert strata.classes[class_table(strata, ["lichen"])[0, 0]] == OTHER


def test_nothing_to_stratify(make_cells: Cells) -> None:
    """No cells and impossible cluster numbers are errors."""
    with pytest.raises(ValueError, match="no cells"):
        fit_strata(make_cells().slice(0, 0), seed=1)
    with pytest.raises(ValueError, match="0 climate clusters"):
        fit_strata(make_cells(), clusters=0, seed=1)
