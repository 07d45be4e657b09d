"""Weather of cells: mean temperature and precipitation of the twelve months, from NetCDF or Zarr grids.

Daily, monthly or climatological steps; values between grid points are bilinear, near coasts from the nearest
valid point within two grid steps. One month of the region's window is in memory at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import xarray as xr
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from geofm_pipeline.catalogs.items import is_url
from geofm_pipeline.covariates.gridded import open_gridded
from geofm_pipeline.covariates.result import Covariates
from geofm_pipeline.covariates.weather_variables import (
    MONTH_DAYS,
    OPTION,
    Variable,
    precipitation_variable,
    temperature_variable,
)
from geofm_pipeline.errors import InputError
from geofm_pipeline.years import Years
from geofm_sampling.tables import CELLS, WEATHER_PREFIX

COAST_STEPS = 2.0
"""Grid steps within which a missing value takes the nearest valid one."""
_MARGIN = 4  # grid points around the region's window
_BLOCK = 32  # time steps read at once
_WELL_COVERED = 0.9  # of a month's days
Floats = NDArray[np.float64]


def weather_monthly(cells: pa.Table, source: str, *, years: Years) -> Covariates:
    """Cells with float32 columns `wx_t01`…`wx_t12` (°C) and `wx_p01`…`wx_p12` (mm per month), NaN where unknown.

    Parameters
    ----------
    cells : CELLS
    source : NetCDF or Zarr by path or URL; two by a comma when temperature and precipitation are apart
    years : months are averaged over these years; a month they lack is averaged over the years the file has

    Raises
    ------
    InputError
        When a variable, a unit or a month is missing, or no cell is covered.
    """
    cells = CELLS.check(cells)
    datasets = [open_gridded(part, option=OPTION) for part in _parts(source)]
    try:
        variables = {"t": temperature_variable(datasets, source), "p": precipitation_variable(datasets, source)}
        notes: list[str] = []
        table = cells
        for letter, variable in variables.items():
            for month, values in enumerate(_months(cells, variable, years, source, notes), start=1):
                table = table.append_column(f"{WEATHER_PREFIX}{letter}{month:02d}", pa.array(values))
    finally:
        for dataset in datasets:
            dataset.close()
    _refuse_impossible(table, source)
    notes += [variable.assumed for variable in variables.values() if variable.assumed]
    return Covariates(table=CELLS.check(table), note="; ".join(dict.fromkeys([*notes, *_gaps(table, source)])))


_POSSIBLE = {"t": (-95.0, 65.0, "°C"), "p": (0.0, 12_000.0, "mm per month")}
"""Monthly means beyond these were never observed on Earth: then the units in the file are wrong."""


def _refuse_impossible(table: pa.Table, source: str) -> None:
    for letter, (low, high, unit) in _POSSIBLE.items():
        values = np.stack([table[f"{WEATHER_PREFIX}{letter}{month:02d}"].to_numpy() for month in range(1, 13)])
        known = values[np.isfinite(values)]
        if known.size and (known.min() < low or known.max() > high):
            raise InputError(
                f"{OPTION} {source}: monthly {'temperature' if letter == 't' else 'precipitation'} comes out at "
                f"{known.min():.4g} to {known.max():.4g} {unit}, which no place on Earth has ({low:g} to {high:g}): "
                "correct the units attribute in the file"
            )


def _parts(source: str) -> list[str]:
    parts = [part.strip() for part in source.split(",") if part.strip()]
    return [source] if is_url(source) and not all(is_url(part) for part in parts) else parts


def _months(
    cells: pa.Table, variable: Variable, years: Years, source: str, notes: list[str]
) -> list[NDArray[np.float32]]:
    steps = variable.steps
    absent = sorted(set(range(1, 13)) - set(steps.month.tolist()))
    if absent:
        raise InputError(
            f"{OPTION} {source}: {variable.data.name} has no values for months {', '.join(map(str, absent))}; strata "
            f"need all twelve: give whole years, or a climatology of twelve months"
        )
    window = _Window(variable, np.asarray(cells["lon"]), np.asarray(cells["lat"]))
    found = []
    for month in range(1, 13):
        chosen = _choose_steps(variable, month, years, notes)
        grid = window.mean(chosen) * variable.factor + variable.offset
        values = window.at_cells(grid)
        found.append((values * MONTH_DAYS[month - 1] if variable.per == "day" else values).astype(np.float32))
    return found


def _choose_steps(variable: Variable, month: int, years: Years, notes: list[str]) -> NDArray[np.int64]:
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


class _Window:
    """The part of a grid around some points, with each point's place in it."""

    def __init__(self, variable: Variable, lon: Floats, lat: Floats) -> None:
        self._variable = variable
        lats = np.asarray(variable.data[variable.lat].values, dtype=np.float64)
        lons = np.asarray(variable.data[variable.lon].values, dtype=np.float64)
        row = _position(lats, lat)
        column, self._cyclic = _longitude_position(lons, lon)
        self._inside = (np.abs(row - (lats.size - 1) / 2) <= lats.size / 2) & (
            self._cyclic | (np.abs(column - (lons.size - 1) / 2) <= lons.size / 2)
        )
        known = self._inside if self._inside.any() else np.zeros_like(self._inside)
        self._rows = _span(row[known], lats.size)
        self._cols = slice(0, lons.size) if self._cyclic else _span(column[known], lons.size)
        self._row = np.clip(row, 0, lats.size - 1) - self._rows.start
        self._col = (column if self._cyclic else np.clip(column, 0, lons.size - 1)) - self._cols.start

    def mean(self, steps: NDArray[np.int64]) -> Floats:
        """Mean over time steps of the stored values (unpacked, fill as NaN), shape (latitude, longitude)."""
        arrays = (self._variable.data, *self._variable.others)
        return np.asarray(np.mean([self._mean_of(array, steps) for array in arrays], axis=0))

    def at_cells(self, grid: Floats) -> Floats:
        """Bilinear values at the points; missing neighbours are left out, then the nearest valid one is taken."""
        height, width = grid.shape
        if not height or not width or not self._inside.any():
            return np.full(self._inside.shape, np.nan)
        r0, c0 = np.floor(self._row).astype(np.int64), np.floor(self._col).astype(np.int64)
        total, weight = np.zeros(r0.shape), np.zeros(r0.shape)
        for dr in (0, 1):
            for dc in (0, 1):
                share = np.abs(1 - dr - (self._row - r0)) * np.abs(1 - dc - (self._col - c0))
                value = grid[np.clip(r0 + dr, 0, height - 1), self._wrapped(c0 + dc, width)]
                valid = np.isfinite(value)
                total += np.where(valid, share * value, 0.0)
                weight += np.where(valid, share, 0.0)
        with np.errstate(invalid="ignore"):
            values = np.where(weight > 1e-9, total / np.where(weight > 1e-9, weight, 1.0), np.nan)
        return np.where(self._inside, self._from_coast(values, grid), np.nan)

    def _from_coast(self, values: Floats, grid: Floats) -> Floats:
        gaps = np.isnan(values)
        if not gaps.any() or not np.isfinite(grid).any():
            return values
        away, nearest = distance_transform_edt(~np.isfinite(grid), return_indices=True)
        row = np.clip(np.round(self._row[gaps]).astype(np.int64), 0, grid.shape[0] - 1)
        col = self._wrapped(np.round(self._col[gaps]).astype(np.int64), grid.shape[1])
        filled = grid[nearest[0][row, col], nearest[1][row, col]]
        values[gaps] = np.where(away[row, col] <= COAST_STEPS, filled, np.nan)
        return values

    def _wrapped(self, col: NDArray[np.int64], width: int) -> NDArray[np.int64]:
        return col % width if self._cyclic else np.clip(col, 0, width - 1)

    def _mean_of(self, array: xr.DataArray, steps: NDArray[np.int64]) -> Floats:
        variable = self._variable
        shape = (self._rows.stop - self._rows.start, self._cols.stop - self._cols.start)
        total, count = np.zeros(shape), np.zeros(shape)
        for start in range(0, steps.size, _BLOCK):
            block = array.isel(
                {variable.steps.dim: steps[start : start + _BLOCK], variable.lat: self._rows, variable.lon: self._cols}
            ).transpose(variable.steps.dim, variable.lat, variable.lon)
            values = _unpacked(block)
            valid = np.isfinite(values)
            total += np.where(valid, values, 0.0).sum(axis=0)
            count += valid.sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _unpacked(block: xr.DataArray) -> Floats:
    raw = np.asarray(block.values)
    values = raw.astype(np.float64)
    for name in ("_FillValue", "missing_value"):
        if name in block.attrs:
            values[np.isin(raw, np.ravel(block.attrs[name]))] = np.nan
    scale, offset = (float(np.ravel(block.attrs.get(n, d))[0]) for n, d in (("scale_factor", 1), ("add_offset", 0)))
    return values * scale + offset


def _position(axis: Floats, values: Floats) -> Floats:
    """Fractional index of values on a monotonic axis, continued beyond its ends with the outer steps."""
    index = np.arange(axis.size, dtype=np.float64)
    if axis.size > 1 and axis[0] > axis[-1]:
        axis, index = axis[::-1], index[::-1]
    inner = np.interp(values, axis, index)
    if axis.size < 2:
        return np.asarray(inner)
    low, high = (values - axis[0]) / (axis[1] - axis[0]), (values - axis[-1]) / (axis[-1] - axis[-2])
    inner = np.where(values < axis[0], index[0] + low * (index[1] - index[0]), inner)
    return np.where(values > axis[-1], index[-1] + high * (index[-1] - index[-2]), inner)


def _longitude_position(axis: Floats, lon: Floats) -> tuple[Floats, bool]:
    """Fractional column of longitudes on an axis of 0-360 or ±180, and whether the axis runs round the Earth."""
    step = float(np.median(np.abs(np.diff(axis)))) if axis.size > 1 else 360.0
    west = float(axis.min()) - step / 2
    turned = west + (lon - west) % 360.0
    cyclic = abs(axis.size * step - 360.0) < step / 2
    return _position(axis, turned), bool(cyclic)


def _span(positions: Floats, size: int) -> slice:
    if not positions.size:
        return slice(0, 0)
    first = max(int(np.floor(positions.min())) - _MARGIN, 0)
    return slice(first, min(int(np.ceil(positions.max())) + _MARGIN + 1, size))


def _gaps(table: pa.Table, source: str) -> Sequence[str]:
    names = [name for name in table.column_names if name.startswith(WEATHER_PREFIX)]
    known = np.all([np.isfinite(np.asarray(table[name])) for name in names], axis=0)
    if table.num_rows and not known.any():
        raise InputError(
            f"{OPTION} {source} covers none of the region's cells: give a file that covers the region, or leave "
            f"{OPTION} out to stratify without climate"
        )
    return [] if known.all() else [f"{(~known).sum():,} of {known.size:,} cells have no weather"]
