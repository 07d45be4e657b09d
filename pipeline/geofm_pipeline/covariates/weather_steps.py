"""Time steps of a weather file: which month each is, which may be used, and which stand for the requested years.

Hourly archives are too large to read whole: a source's habits say every how many hours a step is read. Steps are
counted from 1970 on, so the same hours are read whatever a file begins with; a stride that is no multiple of 24 goes
through all hours of the day.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geofm_pipeline.errors import InputError
from geofm_pipeline.years import Years

OPTION = "--weather"
MONTH_DAYS = (31.0, 28.25, 31.0, 30.0, 31.0, 30.0, 31.0, 31.0, 30.0, 31.0, 30.0, 31.0)
_REFORM = 1600  # before it calendars differ, and nobody measured weather
_SUBDAILY = 0.9  # days: shorter steps are parts of a day
_WELL_COVERED = 0.9  # of a month's days
_VALID = ("valid_time_start", "valid_time_stop")
"""Attributes of ARCO-ERA5: first and last day with values, since its time axis runs on to 2050."""
Ints = NDArray[np.int64]
Stamps = NDArray[np.datetime64]


@dataclass(frozen=True, kw_only=True)
class Habits:
    """What must be known of a source besides its metadata."""

    variables: Mapping[str, str] = field(default_factory=dict)
    """t and p → name of the variable; absent: found by standard name or usual name."""
    every_h: Mapping[str, int] = field(default_factory=dict)
    """t and p → hours from one step that is read to the next; absent: every step is read."""
    day_sums: bool = False
    """Hourly precipitation is the sum since 00 UTC, as in ERA5-Land: the value of 00 UTC is that of the day before."""
    stand_in_years: int | None = None
    """For years that the source lacks: so many of the nearest that it has; None takes all."""


USUAL = Habits()


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The time steps of a variable that may be used."""

    dim: str
    index: Ints
    """Position of each step in the file."""
    month: Ints
    """1-12 of each step."""
    year: Ints
    """Calendar year of each step, 0 for a climatology."""
    days: float
    """Length of a step in days; a month counts as 30.4."""
    thinned: str = ""
    """How steps were chosen among those in the file, '' where all are used."""

    @property
    def monthly(self) -> bool:
        """Steps are whole months."""
        return self.days > 27


def usable_steps(
    data: xr.DataArray, dim: str, source: str, *, letter: str, habits: Habits, valid: Mapping[str, object]
) -> Steps:
    """Steps of an undecoded variable.

    Parameters
    ----------
    dim : its time dimension
    letter : t or p
    valid : attributes of the file, for the days that have values

    Raises
    ------
    InputError
        When there are no times, or they cannot be read.
    """
    size = data.sizes[dim]
    time = data.coords[dim] if dim in data.coords else None  # noqa: SIM401 - get() makes up a coordinate
    numbered = time is not None and np.array_equal(np.asarray(time.values, dtype=object), np.arange(1, 13))
    if size == 12 and (time is None or numbered or "climatology" in time.attrs or _first_year(time) < _REFORM):
        whole = np.arange(12, dtype=np.int64)
        return Steps(dim=dim, index=whole, month=whole + 1, year=np.zeros(12, dtype=np.int64), days=30.4)
    if time is None:
        raise InputError(f"{OPTION} {source}: dimension {dim} of {data.name} has {size} steps and no times")
    stamps = _decoded(time, source)
    days = float(np.median(np.diff(stamps).astype(np.float64))) / 86_400.0 if size > 1 else 30.4
    kept, thinned = _within(stamps, valid), ""
    if days < _SUBDAILY:
        hours = stamps.astype("datetime64[h]").astype(np.int64)
        if habits.day_sums and letter == "p":
            kept &= hours % 24 == 0
            stamps, days = stamps - np.timedelta64(1, "h"), 1.0
        elif letter in habits.every_h:
            every = habits.every_h[letter]
            kept &= hours % every == 0
            thinned = f"{data.name} is read every {every}th hour ({8766 // every} hours a year)"
    return _dated(dim, np.flatnonzero(kept), stamps[kept], days, thinned)


def _dated(dim: str, index: Ints, stamps: Stamps, days: float, thinned: str) -> Steps:
    months = stamps.astype("datetime64[M]").astype(np.int64)
    return Steps(dim=dim, index=index, month=months % 12 + 1, year=1970 + months // 12, days=days, thinned=thinned)


def _within(stamps: Stamps, valid: Mapping[str, object]) -> NDArray[np.bool_]:
    """Steps between the first and the last day with values, where a file says them."""
    kept = np.ones(stamps.size, dtype=bool)
    first, last = (str(valid.get(name, ""))[:10] for name in _VALID)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", first):
        kept &= stamps >= np.datetime64(first)
    if re.fullmatch(r"\d{4}-\d\d-\d\d", last):
        kept &= stamps < np.datetime64(last) + np.timedelta64(1, "D")
    return kept


def steps_of_months(
    steps: Steps, years: Years, source: str, *, name: str, habits: Habits = USUAL
) -> tuple[list[Ints], list[str]]:
    """Positions in the file of each of the twelve months' steps, and notes on what stood in for what.

    Parameters
    ----------
    name : of the variable, for the notes

    Raises
    ------
    InputError
        When a month has no values in any year.
    """
    absent = sorted(set(range(1, 13)) - set(steps.month.tolist()))
    if absent:
        raise InputError(
            f"{OPTION} {source}: {name} has no values for months {', '.join(map(str, absent))}; strata "
            f"need all twelve: give whole years, or a climatology of twelve months"
        )
    notes = [steps.thinned] if steps.thinned else []
    chosen = [_steps_of(steps, month, years, name, habits, notes) for month in range(1, 13)]
    return chosen, list(dict.fromkeys(notes))


def lacking_years(steps: Steps, years: Years) -> tuple[int, ...]:
    """Requested years of which there is no step at all; none of a climatology's."""
    known = set(np.unique(steps.year).tolist())
    return () if known == {0} else tuple(year for year in years.years if year not in known)


def _steps_of(steps: Steps, month: int, years: Years, name: str, habits: Habits, notes: list[str]) -> Ints:
    of_month = steps.month == month
    if steps.year[of_month].max() == 0:
        notes.append(f"{name} is a climatology, the same for all years")
        return np.asarray(steps.index[of_month])
    wanted = of_month & np.isin(steps.year, years.years)
    if not wanted.any():
        there = np.unique(steps.year[of_month])
        if habits.stand_in_years is not None:
            away = np.abs(there[:, None] - np.array(years.years)).min(axis=1)
            there = np.sort(there[np.argsort(away, kind="stable")][: habits.stand_in_years])
            span = (int(there[0]), int(there[-1]))
        else:
            span = (int(steps.year.min()), int(steps.year.max()))
        notes.append(f"{name} lacks some months of {years}: averages of {span[0]}-{span[1]} stand in")
        wanted = of_month & np.isin(steps.year, there)
    elif lacking := lacking_years(steps, years):
        notes.append(f"{name} has nothing of {', '.join(map(str, lacking))}: the other years stand alone")
    count = np.unique(steps.year[wanted]).size
    days = int(wanted.sum()) * min(steps.days, 31.0) / count
    if days < _WELL_COVERED * MONTH_DAYS[month - 1] and not steps.thinned:
        notes.append(f"{name} of month {month} rests on {days:.0f} of {MONTH_DAYS[month - 1]:.0f} days")
    return np.asarray(steps.index[wanted])


def _first_year(time: xr.DataArray) -> float:
    """Year of the first step to within one, without a calendar: long-term means are often dated to year 1 or 0."""
    match = re.match(r"(\w+) since (\d+)", str(time.attrs.get("units", "")))
    per_year = {"hours": 8766.0, "days": 365.25, "months": 12.0}.get(match[1].lower()) if match else None
    if match is None or per_year is None:
        return float(_REFORM)
    return int(match[2]) + float(np.asarray(time.values).flat[0]) / per_year


def _decoded(time: xr.DataArray, source: str) -> Stamps:
    try:
        values = xr.decode_cf(time.to_dataset(name="steps"))["steps"]
        return np.asarray(values.values).astype("datetime64[s]")
    except (ValueError, TypeError, KeyError, OverflowError, ImportError) as error:
        raise InputError(
            f"{OPTION} {source}: times of {time.name} ({time.attrs.get('units', 'no units')}, calendar "
            f"{time.attrs.get('calendar', 'standard')}) cannot be read: {error}; convert them to the standard calendar"
        ) from error


def attributes(datasets: Sequence[xr.Dataset]) -> dict[str, object]:
    """Attributes of all files together, the first file's counting most."""
    return {name: value for dataset in reversed(datasets) for name, value in dataset.attrs.items()}
