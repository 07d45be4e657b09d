"""Local seasons: four spans of three months, numbered so that season 2 is the peak of the growing year.

A season belongs to the year of its first month. Clipped to the requested years, the anchor seasons of a cell cover
every date of those years exactly once and no other date.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
FLAT_AMPLITUDE = 5.0
"""Annual range of monthly mean temperature in °C below which rain, not warmth, sets the season: tropics."""
FIRST_YEAR, LAST_YEAR = 1971, 2225
"""Years whose seasons, the one before January included, fit into a unit id."""


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """The anchor seasons of one calendar, sorted by (year, season); every field has shape (A,)."""

    year: NDArray[np.int16]
    """Year of the season's first month."""
    season: NDArray[np.int8]
    """0-3."""
    start: NDArray[np.int32]
    """First day, days since 1970-01-01, clipped to the years."""
    end: NDArray[np.int32]
    """Last day (inclusive), clipped."""


def check_years(years: Sequence[int]) -> None:
    """Raise ValueError unless the years are ascending, distinct and within FIRST_YEAR … LAST_YEAR."""
    if not years or list(years) != sorted(set(years)):
        raise ValueError(f"years {list(years)} must be a non-empty ascending list without repeats")
    if years[0] < FIRST_YEAR or years[-1] > LAST_YEAR:
        raise ValueError(f"years {years[0]}-{years[-1]} must lie within {FIRST_YEAR}-{LAST_YEAR}")


def calendar_start(*, south: bool) -> int:
    """First month (0 = January) of season 0 where no weather is known: December, in the south June."""
    return 5 if south else 11


def weather_start(temperature: NDArray[np.float64] | None, precipitation: NDArray[np.float64] | None) -> int:
    """First month (0 = January) of season 0 from monthly means, each shape (12,), at least one given.

    Season 2 is the three consecutive months that are warmest, or wettest where the temperature's annual range is
    below FLAT_AMPLITUDE. The earliest such span wins a tie.
    """
    if temperature is None and precipitation is None:
        raise ValueError("a season from the weather needs monthly temperature or precipitation")
    flat = temperature is None or float(np.ptp(temperature)) < FLAT_AMPLITUDE
    curve = precipitation if precipitation is not None and flat else temperature
    assert curve is not None
    three_months = curve + np.roll(curve, -1) + np.roll(curve, -2)
    return (int(np.argmax(np.round(three_months, 6))) - 6) % 12


def month_names(start: int, season: int) -> str:
    """The span of a season as text.

    >>> month_names(11, 2)
    'Jun-Aug'
    """
    first = (start + 3 * season) % 12
    return f"{MONTHS[first]}-{MONTHS[(first + 2) % 12]}"


def anchor_seasons(start: int, years: Sequence[int]) -> Anchors:
    """All seasons that hold a date of the years; `start` is the first month (0 = January) of season 0.

    A season of three months touches at most two calendar years, so what is left of it after clipping is one span.
    """
    check_years(years)
    wanted = set(years)
    rows = [
        (year, season, *span)
        for year in range(years[0] - 1, years[-1] + 1)
        for season in range(4)
        if (span := _clipped_span(year, (start + 3 * season) % 12, wanted)) is not None
    ]
    table = np.array(rows, dtype=np.int64)
    return Anchors(
        year=table[:, 0].astype(np.int16),
        season=table[:, 1].astype(np.int8),
        start=table[:, 2].astype(np.int32),
        end=table[:, 3].astype(np.int32),
    )


def _clipped_span(year: int, month: int, wanted: set[int]) -> tuple[int, int] | None:
    """First and last day of the three months from `month` (0 = January) of `year` that lie in wanted years."""
    months = [12 * (year - 1970) + month + step for step in range(3)]
    kept = [m for m in months if 1970 + m // 12 in wanted]
    if not kept:
        return None
    return _first_day(kept[0]), _first_day(kept[-1] + 1) - 1


def _first_day(months_since_1970: int) -> int:
    return int(np.datetime64(months_since_1970, "M").astype("datetime64[D]").astype(np.int64))
