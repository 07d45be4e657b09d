"""Monthly means of a weather variable over years, streamed: time steps go by in blocks, twelve sums stay.

A grid is cut into strips of rows; a strip is one task and one file, so memory is bounded by its points (about 250 MB)
however many steps and rows a file has. Sums are made step by step, so they depend on neither blocks nor strips.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geofm_pipeline.covariates.gridded import open_gridded
from geofm_pipeline.covariates.weather_grid import LatLonAxes, between, local_cols, span
from geofm_pipeline.covariates.weather_variables import (
    MONTH_DAYS,
    OPTION,
    Variable,
    precipitation_variable,
    temperature_variable,
    weather_parts,
)
from geofm_pipeline.errors import InputError
from geofm_pipeline.store.files import replacing
from geofm_pipeline.years import Years

STRIP_POINTS = 1 << 20
"""Grid points of a strip at most: twelve sums and counts of them are 200 MB."""
BLOCK_BYTES = 32 << 20
"""Of time steps read at once, as float64."""
_WELL_COVERED = 0.9  # of a month's days
LETTERS = ("t", "p")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class StripTask:
    """Twelve monthly means of a variable on some rows; everything a worker needs."""

    path: Path
    """Where the means go, shape (12, rows, cols), float64, °C or mm per month."""
    source: str
    letter: str
    """t or p."""
    years: Years
    rows: tuple[int, int]
    """(first, stop) on the grid."""
    cols: tuple[int, int]


@dataclass(frozen=True)
class Strip:
    """Means on some rows of a grid."""

    first: int
    """Row of the grid where it begins."""
    months: Floats
    """Shape (12, rows, cols), °C or mm per month; maybe mapped from a file."""


@dataclass(frozen=True, kw_only=True)
class MonthlyMeans:
    """Twelve monthly means of a variable, on the part of its grid that a run needs."""

    axes: LatLonAxes
    cols: tuple[int, int]
    """(first, stop) of the columns that the strips have."""
    strips: tuple[Strip, ...]
    """Ascending; rows without any cell may lie between them."""

    def at(self, lon: Floats, lat: Floats) -> Floats:
        """Values at points that lie near each other (one tile), shape (12, n); NaN off the grid or over the sea."""
        found = np.full((12, lon.size), np.nan)
        row, col = self.axes.rows(lat), self.axes.cols(lon)
        inside = self.axes.inside(row, col)
        if not inside.any():
            return found
        row, col = np.clip(row[inside], 0, self.axes.lat.size - 1), col[inside]
        columns, col = local_cols(col, self.axes)
        first, stop = span(row, self.axes.lat.size)
        part = self._part(first, stop, columns)
        for month in range(12):
            found[month, inside] = between(part[month], row - first, col)
        return found

    def _part(self, first: int, stop: int, columns: Ints) -> Floats:
        """Means [12, stop - first, columns], NaN where no strip has them."""
        part = np.full((12, stop - first, columns.size), np.nan)
        have = (columns >= self.cols[0]) & (columns < self.cols[1])
        for strip in self.strips:
            low, high = max(first, strip.first), min(stop, strip.first + strip.months.shape[1])
            if low < high:
                rows = strip.months[:, low - strip.first : high - strip.first]
                part[:, low - first : high - first, have] = rows[:, :, columns[have] - self.cols[0]]
        return part


def find_variable(datasets: Sequence[xr.Dataset], letter: str, source: str) -> Variable:
    """The temperature (t) or precipitation (p) of opened files; raises InputError when there is none."""
    return (temperature_variable if letter == "t" else precipitation_variable)(datasets, source)


def variable_axes(variable: Variable) -> LatLonAxes:
    """The grid of a variable."""
    lat, lon = (np.asarray(variable.data[name].values, dtype=np.float64) for name in (variable.lat, variable.lon))
    return LatLonAxes(lat, lon)


def choose_steps(variable: Variable, years: Years, source: str) -> tuple[list[Ints], list[str]]:
    """Time steps of each of the twelve months, and notes on what stood in for what.

    Raises
    ------
    InputError
        When a month has no values in any year.
    """
    steps, notes = variable.steps, list[str]()
    absent = sorted(set(range(1, 13)) - set(steps.month.tolist()))
    if absent:
        raise InputError(
            f"{OPTION} {source}: {variable.data.name} has no values for months {', '.join(map(str, absent))}; strata "
            f"need all twelve: give whole years, or a climatology of twelve months"
        )
    return [_steps_of(variable, month, years, notes) for month in range(1, 13)], list(dict.fromkeys(notes))


def _steps_of(variable: Variable, month: int, years: Years, notes: list[str]) -> Ints:
    steps = variable.steps
    of_month = steps.month == month
    if steps.year[of_month].max() == 0:
        notes.append(f"{variable.data.name} is a climatology, the same for all years")
        return np.flatnonzero(of_month)
    wanted = of_month & np.isin(steps.year, years.years)
    if not wanted.any():
        first, last = int(steps.year.min()), int(steps.year.max())
        notes.append(f"{variable.data.name} lacks some months of {years}: averages of {first}-{last} stand in")
        wanted = of_month
    chosen = np.flatnonzero(wanted)
    days = chosen.size * min(steps.days, 31.0) / np.unique(steps.year[chosen]).size
    if days < _WELL_COVERED * MONTH_DAYS[month - 1]:
        notes.append(f"{variable.data.name} of month {month} rests on {days:.0f} of {MONTH_DAYS[month - 1]:.0f} days")
    return chosen


def month_means(variable: Variable, chosen: Sequence[Ints], rows: tuple[int, int], cols: tuple[int, int]) -> Floats:
    """Means of the chosen steps of each month on a part of the grid, (12, rows, cols), in °C or mm per month."""
    arrays = (variable.data, *variable.others)
    means = np.mean([_means_of(variable, array, chosen, rows, cols) for array in arrays], axis=0)
    means = means * variable.factor + variable.offset
    if variable.per == "day":
        means *= np.array(MONTH_DAYS)[:, None, None]
    return np.asarray(means)


def _means_of(
    variable: Variable, array: xr.DataArray, chosen: Sequence[Ints], rows: tuple[int, int], cols: tuple[int, int]
) -> Floats:
    month = np.concatenate([np.full(steps.size, number) for number, steps in enumerate(chosen)])
    steps = np.concatenate(list(chosen))
    order = np.argsort(steps, kind="stable")  # as they lie in the file, so that every chunk of it is read once
    steps, month = steps[order], month[order]
    shape = (12, rows[1] - rows[0], cols[1] - cols[0])
    total, count = np.zeros(shape), np.zeros(shape, dtype=np.int32)
    block = max(1, BLOCK_BYTES // max(8 * shape[1] * shape[2], 1))
    for start in range(0, steps.size, block):
        values = _read(variable, array, steps[start : start + block], rows, cols)
        valid = np.isfinite(values)
        values[~valid] = 0.0
        for at, number in enumerate(month[start : start + block]):
            total[number] += values[at]
            count[number] += valid[at]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan))


def _read(variable: Variable, array: xr.DataArray, steps: Ints, rows: tuple[int, int], cols: tuple[int, int]) -> Floats:
    """Unpacked values [steps, rows, cols], fill as NaN."""
    run = steps.size == steps[-1] - steps[0] + 1
    times = slice(int(steps[0]), int(steps[-1]) + 1) if run else steps
    window = {variable.steps.dim: times, variable.lat: slice(*rows), variable.lon: slice(*cols)}
    block = array.isel(window).transpose(variable.steps.dim, variable.lat, variable.lon)
    raw = np.asarray(block.values)
    values = raw.astype(np.float64)
    for name in ("_FillValue", "missing_value"):
        if name in block.attrs:
            values[np.isin(raw, np.ravel(block.attrs[name]))] = np.nan
    scale, offset = (float(np.ravel(block.attrs.get(n, d))[0]) for n, d in (("scale_factor", 1), ("add_offset", 0)))
    return values * scale + offset


def strip_means(task: StripTask) -> Path:
    """Make the means of a strip and put them in their file; running it twice writes the same bytes."""
    datasets = [open_gridded(part, option=OPTION) for part in weather_parts(task.source)]
    try:
        variable = find_variable(datasets, task.letter, task.source)
        chosen, _ = choose_steps(variable, task.years, task.source)
        means = month_means(variable, chosen, task.rows, task.cols)
    finally:
        for dataset in datasets:
            dataset.close()
    with replacing(task.path, task.path.parent) as fd, os.fdopen(fd, "wb", closefd=False) as stream:
        np.save(stream, means)
    return task.path


@dataclass(frozen=True, kw_only=True)
class MeansFile:
    """Where the strips of one variable lie, as JSON beside them."""

    lat: tuple[float, ...]
    lon: tuple[float, ...]
    cols: tuple[int, int]
    strips: tuple[tuple[int, str], ...]
    """(first row, file name)."""

    def to_json(self) -> str:
        """Inverse of :func:`load_means`, but for the arrays."""
        return json.dumps(asdict(self))


def load_means(path: Path) -> MonthlyMeans:
    """Means of a MeansFile with its strips mapped, not read."""
    record = json.loads(path.read_text())
    return MonthlyMeans(
        axes=LatLonAxes(np.array(record["lat"]), np.array(record["lon"])),
        cols=tuple(record["cols"]),
        strips=tuple(Strip(first, np.load(path.parent / name, mmap_mode="r")) for first, name in record["strips"]),
    )
