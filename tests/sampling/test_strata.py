"""Strata and their covariates."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from geofm_sampling import Strata, build_frame, fit_strata
from geofm_sampling.strata import OTHER, cell_labels, stratum_of_cells

Cells = Callable[..., pa.Table]


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
    assert np.array_equal(stratum_of_cells(cells, strata)[order], stratum_of_cells(chunks, strata))


def test_rare_classes_merge_over_climate_first_then_into_other(make_cells: Cells) -> None:
    """Every class keeps at least min_cells cells, except `other`; what was merged is said."""
    cells = make_cells()
    strata = fit_strata(cells, seed=1, min_cells=40)
    classes = stratum_of_cells(cells, strata)
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
    cells = make_cells()
    moss = cells.rename_columns(["lc_100" if name == "lc_80" else name for name in cells.column_names])
    only_moss = moss.filter(pa.array(moss["lc_100"].to_numpy() > 0.5))
    assert set(stratum_of_cells(only_moss, strata)) == {strata.classes.index(OTHER)}


def test_nothing_to_stratify(make_cells: Cells) -> None:
    """No cells and impossible cluster numbers are errors."""
    with pytest.raises(ValueError, match="no cells"):
        fit_strata(make_cells().slice(0, 0), seed=1)
    with pytest.raises(ValueError, match="0 climate clusters"):
        fit_strata(make_cells(), clusters=0, seed=1)


# --- factors


def with_regions(cells: pa.Table, values: list[str | None], *, dictionary: bool = False) -> pa.Table:
    """Cells with a `by_region` column that repeats the values."""
    column = pa.array((values * cells.num_rows)[: cells.num_rows], type=pa.string())
    return cells.append_column("by_region", column.dictionary_encode() if dictionary else column)


@pytest.mark.parametrize(
    ("factors", "pattern"),
    [
        (("land_cover", "climate", "season"), r"[a-z]+/c\d/s[0-3]"),
        (("climate", "land_cover", "season"), r"c\d/[a-z]+/s[0-3]"),
        (("land_cover",), r"[a-z]+"),
        (("climate", "season"), r"c\d/s[0-3]"),
        (("season",), r"all/s[0-3]"),
        ((), "all"),
        (("by_region",), "(east|west)"),
        (("land_cover", "by_region", "season"), r"[a-z]+/(east|west)/s[0-3]"),
    ],
)
def test_strata_are_the_product_of_the_factors_asked_for(
    make_cells: Cells, factors: tuple[str, ...], pattern: str
) -> None:
    """Names, numbers in the frame and labels follow the factors and their order; without season they are pooled."""
    cells = with_regions(make_cells(), ["east", "west", "east"])
    strata = fit_strata(cells, factors=factors, seed=1, min_cells=1)
    frame = build_frame(cells, strata, years=[2022], chip_size=256)
    number = frame["stratum"].to_numpy()
    assert len(strata.names) == len(strata.classes) * (4 if "season" in factors else 1)
    assert strata.seasonal == ("season" in factors)
    assert all(re.fullmatch(pattern, strata.names[h]) for h in np.unique(number))
    if strata.seasonal:
        assert np.array_equal(number % 4, frame["season"].to_numpy())
    labels = {"land_cover": frame["land_cover"].to_pylist(), "climate": [f"c{k}" for k in frame["climate"].to_pylist()]}
    for name in factors:
        if name in labels:
            at = [factor for factor in factors if factor != "season"].index(name)
            assert all(strata.names[h].split("/")[at] == label for h, label in zip(number, labels[name], strict=True))
    assert Strata.from_json(strata.to_json()) == strata


def test_own_classes_label_each_cell(make_cells: Cells) -> None:
    """Text and dictionary columns alike; null and empty are `unknown` and said; a slash becomes a hyphen."""
    cells, values = make_cells(weather=False), ["N/A", None, " taiga", "", "taiga"]
    for dictionary in (False, True):
        some = with_regions(cells, values, dictionary=dictionary)
        strata = fit_strata(some, factors=("by_region",), seed=1, min_cells=2)
        assert strata.classes == ("N-A", "taiga", "unknown", OTHER)
        found = [strata.classes[k] for k in stratum_of_cells(some, strata)[:5]]
        assert found == ["N-A", "unknown", "taiga", "unknown", "taiga"]
        unknown = int(np.isin(np.arange(cells.num_rows) % 5, [1, 3]).sum())
        assert any(f"The region of {unknown} of" in note for note in strata.notes)
    new = with_regions(cells, ["taiga", "tundra"])
    assert [strata.classes[k] for k in stratum_of_cells(new, strata)[:2]] == ["taiga", OTHER]
    with pytest.raises(ValueError, match="fitted with the column by_region"):
        stratum_of_cells(cells, strata)


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        (("landcover",), r"'landcover' is no factor .* land_cover, climate, season, by_region"),
        (("by_biome",), "'by_biome' is no factor"),
        (("climate", "climate"), "name one twice"),
        (("by_number",), "by_number is int64, must be text"),
    ],
)
def test_factors_that_cannot_be_are_refused(make_cells: Cells, factors: tuple[str, ...], words: str) -> None:
    """The choices stand in the error."""
    cells = with_regions(make_cells(), ["east"])
    cells = cells.append_column("by_number", pa.array(np.arange(cells.num_rows)))
    with pytest.raises(ValueError, match=words):
        fit_strata(cells, factors=factors, seed=1)


def test_absent_covariates_leave_the_other_factors(make_cells: Cells) -> None:
    """A factor without its source tells nothing apart and says so; one that nobody asked for is not missed."""
    cells = with_regions(make_cells(land_cover=False, weather=False), ["east", "west"])
    strata = fit_strata(cells, factors=("land_cover", "climate", "by_region"), seed=1)
    assert strata.classes == ("east", "west", OTHER)
    assert len(strata.notes) == 2
    assert fit_strata(cells, factors=("by_region",), seed=1).notes == (
        "No weather was given: seasons are calendar quarters from December.",
    )


def test_the_climates_of_a_class_are_those_of_its_cells(make_cells: Cells) -> None:
    """Also where the climate is no factor; a name that was not met has none."""
    cells = make_cells()
    strata = fit_strata(cells, factors=("land_cover", "season"), seed=1)
    index, climate = stratum_of_cells(cells, strata), cell_labels(cells, strata)[2]
    for k, name in enumerate(strata.classes):
        assert strata.climates_of(name) == tuple(np.unique(climate[index == k]))
    assert strata.climates_of("lichen") == ()


def test_many_own_classes_stay_cheap(make_cells: Cells) -> None:
    """Combinations that do not occur cost nothing: 1,000 × 1,000 × 1,000 possible classes of 588 cells."""
    cells = make_cells()
    for k, name in enumerate("abc"):
        values = [f"{name}{i * (7 + k) % 1000}" for i in range(cells.num_rows)]
        cells = cells.append_column(f"by_{name}", pa.array(values))
    strata = fit_strata(cells, factors=("by_a", "by_b", "by_c"), seed=1, min_cells=1)
    assert len(strata.classes) == cells.num_rows + 1
    index = stratum_of_cells(cells, strata)
    assert [strata.classes[k] for k in index[:2]] == ["a0/b0/c0", "a7/b8/c9"]
    assert fit_strata(cells, factors=("by_a", "by_b"), seed=1, min_cells=16).classes == (OTHER,)
