"""Local seasons."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geofm_sampling.seasons import anchor_seasons, calendar_start, check_years, month_names, weather_start

YEARS = st.lists(st.integers(1971, 2225), min_size=1, max_size=6, unique=True).map(sorted)
MONTH = np.arange(12)


def day(text: str) -> int:
    return int(np.datetime64(text, "D").astype(np.int64))


@given(st.integers(0, 11), YEARS)
def test_every_date_of_the_years_is_in_exactly_one_season(start: int, years: list[int]) -> None:
    """Anchor seasons tile the requested years: each date once, no other date."""
    anchors = anchor_seasons(start, years)
    covered = np.concatenate([np.arange(a, b + 1) for a, b in zip(anchors.start, anchors.end, strict=True)])
    wanted = np.concatenate([np.arange(day(f"{y}-01-01"), day(f"{y}-12-31") + 1) for y in years])
    assert np.array_equal(np.sort(covered), wanted)


@given(st.integers(0, 11), YEARS)
def test_a_season_belongs_to_the_year_of_its_first_month(start: int, years: list[int]) -> None:
    """Unclipped, season s of year y starts with month start + 3s of that year; (year, season) is unique and sorted."""
    anchors = anchor_seasons(start, years)
    key = anchors.year.astype(int) * 4 + anchors.season
    assert np.all(np.diff(key) > 0)
    for year, season, first, last in zip(anchors.year, anchors.season, anchors.start, anchors.end, strict=True):
        begin = np.datetime64(int(year) - 1970, "Y").astype("datetime64[M]") + (start + 3 * int(season)) % 12
        full = begin.astype("datetime64[D]"), (begin + 3).astype("datetime64[D]") - 1
        assert full[0] <= np.datetime64(int(first), "D") <= np.datetime64(int(last), "D") <= full[1]


def test_one_year_in_the_north_without_weather() -> None:
    """2022: DJF of 2021 clipped to January and February, MAM, JJA, SON, and DJF of 2022 clipped to December."""
    anchors = anchor_seasons(calendar_start(south=False), [2022])
    assert list(zip(anchors.year.tolist(), anchors.season.tolist(), strict=True)) == [
        (2021, 0),
        (2022, 0),
        (2022, 1),
        (2022, 2),
        (2022, 3),
    ]
    spans = {
        (y, s): (int(a), int(b))
        for y, s, a, b in zip(anchors.year, anchors.season, anchors.start, anchors.end, strict=True)
    }
    assert spans[2021, 0] == (day("2022-01-01"), day("2022-02-28"))
    assert spans[2022, 2] == (day("2022-06-01"), day("2022-08-31"))
    assert spans[2022, 0] == (day("2022-12-01"), day("2022-12-31"))


def test_season_two_is_the_warm_half_in_both_hemispheres() -> None:
    """Without weather season 2 is June to August in the north and December to February in the south."""
    assert [month_names(calendar_start(south=False), s) for s in range(4)] == [
        "Dec-Feb",
        "Mar-May",
        "Jun-Aug",
        "Sep-Nov",
    ]
    assert [month_names(calendar_start(south=True), s) for s in range(4)] == [
        "Jun-Aug",
        "Sep-Nov",
        "Dec-Feb",
        "Mar-May",
    ]


@pytest.mark.parametrize("peak", range(12))
def test_season_two_is_the_warmest_quarter(peak: int) -> None:
    """With a clear annual cycle the three warmest months are season 2, whatever the rain does."""
    warm = 10 * np.cos((MONTH - peak) / 6 * np.pi)
    start = weather_start(warm, -warm)
    assert (start + 6 + 1) % 12 == peak
    assert month_names(start, 2).split("-")[0] == month_names(peak - 1, 0).split("-")[0]


def test_rain_sets_the_season_where_temperature_is_flat() -> None:
    """Below an annual range of 5 °C the wettest three months are season 2."""
    warm = 26 + 2 * np.cos((MONTH - 3) / 6 * np.pi)
    rain = 100 + 90 * np.cos((MONTH - 8) / 6 * np.pi)
    assert month_names(weather_start(warm, rain), 2) == "Aug-Oct"
    assert month_names(weather_start(None, rain), 2) == "Aug-Oct"
    assert month_names(weather_start(warm, None), 2) == "Mar-May"
    with pytest.raises(ValueError, match="needs monthly"):
        weather_start(None, None)


@pytest.mark.parametrize("years", [[], [2022, 2021], [2022, 2022], [1970], [2226]])
def test_impossible_years_are_refused(years: list[int]) -> None:
    """Years must be ascending, distinct and fit a unit id."""
    with pytest.raises(ValueError, match="years"):
        check_years(years)
