"""Monthly means of a weather variable over years, streamed: time steps go by in blocks, twelve sums stay.

The needed part of a grid is cut into strips, rectangles that share no chunk of the file; a strip is one task and one
file, so memory is bounded by its points (about 250 MB) however many steps and rows a file has. Blocks of steps end with
the file's chunks, so that each is read once. Sums are made step by step, so they depend on neither blocks nor strips.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.covariates.gridded import UNREADABLE, unreadable
from geofm_pipeline.covariates.named_sources import explained
from geofm_pipeline.covariates.weather_grid import LatLonAxes, between, local_cols, span
from geofm_pipeline.covariates.weather_parts import Part
from geofm_pipeline.covariates.weather_shelf import seal
from geofm_pipeline.covariates.weather_source import opened_weather
from geofm_pipeline.covariates.weather_steps import MONTH_DAYS, OPTION, USUAL, Habits, steps_of_months
from geofm_pipeline.covariates.weather_variables import Variable, precipitation_variable, temperature_variable
from geofm_pipeline.errors import ArchiveError, GeofmError
from geofm_pipeline.store.files import replacing
from geofm_pipeline.years import Years

STRIP_POINTS = 1 << 20
"""Grid points of a strip at most: twelve sums and counts of them are 200 MB."""
BLOCK_BYTES = 32 << 20
"""Of time steps read at once, as float64, where chunks are no larger."""
DECODED_BYTES = 256 << 20
"""Of whole chunks that are decoded for one block."""
REMOTE_STEPS = 16
"""Time steps read at once at least, where each is a chunk of its own behind a network."""
LETTERS = ("t", "p")
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class StripTask:
    """Twelve monthly means of a variable on some rows; everything a worker needs."""

    path: Path
    """Where the means go, shape (12, rows, cols), float64, °C or mm per month."""
    source: str
    """As it was asked for."""
    letter: str
    """t or p."""
    years: Years
    part: Part
    """Of the grid."""
    access: Access


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Means on a rectangle of a grid."""

    row: int
    """Row of the grid where it begins."""
    col: int
    """Column of the grid where it begins."""
    months: Floats
    """Shape (12, rows, cols), °C or mm per month; maybe mapped from a file."""


@dataclass(frozen=True, kw_only=True)
class MonthlyMeans:
    """Twelve monthly means of a variable, on the part of its grid that a run needs."""

    axes: LatLonAxes
    strips: tuple[Strip, ...]
    """Disjoint; ground without any cell may lie between them."""

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
        for strip in self.strips:
            _, height, width = strip.months.shape
            low, high = max(first, strip.row), min(stop, strip.row + height)
            have = (columns >= strip.col) & (columns < strip.col + width)
            if low < high and have.any():
                rows = strip.months[:, low - strip.row : high - strip.row]
                part[:, low - first : high - first, have] = rows[:, :, columns[have] - strip.col]
        return part


def find_variable(datasets: Sequence[xr.Dataset], letter: str, source: str, habits: Habits = USUAL) -> Variable:
    """The temperature (t) or precipitation (p) of opened files; raises InputError when there is none."""
    return (temperature_variable if letter == "t" else precipitation_variable)(datasets, source, habits)


def variable_axes(variable: Variable) -> LatLonAxes:
    """The grid of a variable."""
    lat, lon = (np.asarray(variable.data[name].values, dtype=np.float64) for name in (variable.lat, variable.lon))
    return LatLonAxes(lat, lon)


def choose_steps(variable: Variable, years: Years, source: str) -> tuple[list[Ints], list[str]]:
    """Positions in the file of each of the twelve months' steps, and notes on what stood in for what.

    Raises
    ------
    InputError
        When a month has no values in any year.
    """
    return steps_of_months(variable.steps, years, source, name=str(variable.data.name), habits=variable.habits)


def chunks_of(variable: Variable) -> tuple[int, int, int] | None:
    """(time steps, rows, columns) of the file's chunks, None where it has none."""
    sizes = variable.data.encoding.get("preferred_chunks") or {}
    dims = (variable.steps.dim, variable.lat, variable.lon)
    return tuple(int(sizes[dim]) for dim in dims) if all(dim in sizes for dim in dims) else None  # type: ignore[return-value]  # three of them


def month_means(variable: Variable, chosen: Sequence[Ints], part: Part) -> Floats:
    """Means of the chosen steps of each month on a part of the grid, (12, rows, cols), in °C or mm per month."""
    arrays = (variable.data, *variable.others)
    means = np.mean([_means_of(variable, array, chosen, part) for array in arrays], axis=0)
    means = means * variable.factor + variable.offset
    if variable.per == "day":
        means *= np.array(MONTH_DAYS)[:, None, None]
    return np.asarray(means)


def _means_of(variable: Variable, array: xr.DataArray, chosen: Sequence[Ints], part: Part) -> Floats:
    month = np.concatenate([np.full(steps.size, number) for number, steps in enumerate(chosen)])
    steps = np.concatenate(list(chosen))
    order = np.argsort(steps, kind="stable")  # as they lie in the file, so that every chunk of it is read once
    steps, month = steps[order], month[order]
    shape = (12, part.rows[1] - part.rows[0], part.cols[1] - part.cols[0])
    total, count = np.zeros(shape), np.zeros(shape, dtype=np.int32)
    chunks = chunks_of(variable)
    most = max(1 if chunks is None else REMOTE_STEPS, BLOCK_BYTES // max(8 * part.points, 1))
    if chunks is not None:
        most = min(most, chunks[0] * max(1, DECODED_BYTES // _decoded_bytes(array, chunks, part)))
    for start, stop in _blocks(steps, 1 if chunks is None else chunks[0], most):
        raw = _read(variable, array, steps[start:stop], part)
        for values, number in zip(raw, month[start:stop], strict=True):
            unpacked = _unpacked(values, array)
            valid = np.isfinite(unpacked)
            total[number] += np.where(valid, unpacked, 0.0)
            count[number] += valid
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(count > 0, total / count, np.nan))


def _decoded_bytes(array: xr.DataArray, chunks: tuple[int, int, int], part: Part) -> int:
    """Bytes of the chunks that one chunk of time steps has on a part of the grid."""
    touched = 1
    for (first, stop), size in zip((part.rows, part.cols), chunks[1:], strict=True):
        touched *= (stop - 1) // size - first // size + 1
    return touched * int(np.prod(chunks)) * array.dtype.itemsize


def _blocks(steps: Ints, chunk: int, most: int) -> list[tuple[int, int]]:
    """(start, stop) of runs of ascending steps that end with chunks, of at most `most` steps but at least one chunk."""
    ends = np.r_[np.flatnonzero(np.diff(steps // chunk)) + 1, steps.size]
    blocks, start, last = [], 0, 0
    for end in ends.tolist():
        if end - start > most and last > start:
            blocks.append((start, last))
            start = last
        last = end
    return [*blocks, (start, last)] if last > start else blocks


def _read(variable: Variable, array: xr.DataArray, steps: Ints, part: Part) -> NDArray[np.generic]:
    """Stored values [steps, rows, cols]."""
    run = steps.size == steps[-1] - steps[0] + 1
    times = slice(int(steps[0]), int(steps[-1]) + 1) if run else steps
    window = {variable.steps.dim: times, variable.lat: slice(*part.rows), variable.lon: slice(*part.cols)}
    block = array.isel(window).transpose(variable.steps.dim, variable.lat, variable.lon)
    with _decoding(variable.source):
        return np.asarray(block.values)


def _unpacked(raw: NDArray[np.generic], array: xr.DataArray) -> Floats:
    """Values of stored ones, fill as NaN."""
    values = raw.astype(np.float64)
    for name in ("_FillValue", "missing_value"):
        if name in array.attrs:
            values[np.isin(raw, np.ravel(array.attrs[name]))] = np.nan
    scale, offset = (float(np.ravel(array.attrs.get(n, d))[0]) for n, d in (("scale_factor", 1), ("add_offset", 0)))
    return values * scale + offset


def strip_means(task: StripTask) -> Tally:
    """Make the means of a strip, put them in their file and say what it cost; a second time writes the same bytes."""
    archive = ArchiveSource(task.access)
    with opened_weather(task.source, archive) as (datasets, habits):
        variable = find_variable(datasets, task.letter, task.source, habits)
        chosen, _ = choose_steps(variable, task.years, task.source)
        means = month_means(variable, chosen, task.part)
    with replacing(task.path, task.path.parent) as fd, os.fdopen(fd, "wb", closefd=False) as stream:
        np.save(stream, means)
    seal(task.path)
    return archive.tally


@contextmanager
def _decoding(source: str) -> Iterator[None]:
    """Name the source of what goes wrong while values are read."""
    try:
        with explained(OPTION, source):
            yield
    except GeofmError:
        raise
    except UNREADABLE as error:
        raise ArchiveError(unreadable(OPTION, source, error)) from error


@dataclass(frozen=True, kw_only=True)
class MeansFile:
    """Where the strips of one variable lie, as JSON beside them."""

    lat: tuple[float, ...]
    lon: tuple[float, ...]
    strips: tuple[tuple[int, int, str], ...]
    """(first row, first column, file name)."""

    def to_json(self) -> str:
        """Inverse of :func:`load_means`, but for the arrays."""
        return json.dumps(asdict(self))


def load_means(path: Path) -> MonthlyMeans:
    """Means of a MeansFile with its strips mapped, not read."""
    record = json.loads(path.read_text())
    return MonthlyMeans(
        axes=LatLonAxes(np.array(record["lat"]), np.array(record["lon"])),
        strips=tuple(
            Strip(row=row, col=col, months=np.load(path.parent / name, mmap_mode="r"))
            for row, col, name in record["strips"]
        ),
    )
