"""Weather of cells: mean temperature and precipitation of the twelve months, from NetCDF or Zarr grids.

Daily, monthly or climatological steps are averaged once into twelve grids of the ground that a run needs
(geofm_pipeline.covariates.weather_months); cells then take values between grid points, near coasts from the nearest
valid point within two grid steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.cluster import Runner
from geofm_pipeline.covariates.class_index import file_stamp
from geofm_pipeline.covariates.gridded import open_gridded
from geofm_pipeline.covariates.result import Covariates, by_tile, tile_points
from geofm_pipeline.covariates.weather_grid import LatLonAxes, span
from geofm_pipeline.covariates.weather_months import (
    LETTERS,
    STRIP_POINTS,
    MeansFile,
    MonthlyMeans,
    Strip,
    StripTask,
    choose_steps,
    find_variable,
    month_means,
    strip_means,
    variable_axes,
)
from geofm_pipeline.covariates.weather_variables import OPTION, Variable, weather_parts
from geofm_pipeline.digests import short_digest
from geofm_pipeline.errors import InputError
from geofm_pipeline.workspace import write_text
from geofm_pipeline.years import Years
from geofm_sampling.tables import CELLS, WEATHER_PREFIX

_POSSIBLE = {"t": (-95.0, 65.0, "°C"), "p": (0.0, 12_000.0, "mm per month")}
"""Monthly means beyond these were never observed on Earth: then the units in the file are wrong."""
_DRY = 1.0
"""mm per month: packed precipitation strays below zero by rounding; more than this is a wrong unit or fill value."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class WeatherFacts:
    """What the weather knows of some cells; facts of tiles add up."""

    cells: int
    """Cells asked about."""
    known: int
    """Of those, cells with all months of both variables."""
    low: tuple[float, ...]
    """Lowest value of temperature (°C) and precipitation (mm per month), NaN where nothing is known."""
    high: tuple[float, ...]
    """Highest values."""


@dataclass(frozen=True, kw_only=True)
class PreparedWeather:
    """Monthly means in files, for the workers."""

    files: tuple[Path, ...]
    """MeansFile of temperature and of precipitation."""
    digest: str
    """Of the source, the years and the means' place on the grid."""
    notes: tuple[str, ...]
    """What stood in for what."""


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
        When a variable, a unit or a month is missing, the grid is none of latitude and longitude, or no cell is
        covered.
    """
    cells = CELLS.check(cells)
    tiles = list(by_tile(cells))
    means, notes = _means_in_memory([tile for tile, _ in tiles], source, years)
    values = np.full((24, cells.num_rows), np.nan, dtype=np.float32)
    facts = []
    for _, rows in tiles:
        found, seen = tile_weather(cells.take(pa.array(rows)), means)
        values[:, rows] = found
        facts.append(seen)
    table = cells
    for name, column in zip(weather_columns(), values, strict=True):
        table = table.append_column(name, pa.array(column))
    whole = sum_weather(facts)
    check_weather(whole, source)
    return Covariates(table=CELLS.check(table), note="; ".join([*notes, *weather_note(whole)]))


def weather_columns() -> list[str]:
    """`wx_t01` … `wx_t12`, `wx_p01` … `wx_p12`."""
    return [f"{WEATHER_PREFIX}{letter}{month:02d}" for letter in LETTERS for month in range(1, 13)]


def tile_weather(cells: pa.Table, means: Sequence[MonthlyMeans]) -> tuple[NDArray[np.float32], WeatherFacts]:
    """Values of the cells of one tile in the order of weather_columns, shape (24, n), and their facts."""
    lon, lat = (np.asarray(cells[name], dtype=np.float64) for name in ("lon", "lat"))
    found = np.stack([part.at(lon, lat) for part in means]).astype(np.float32)  # [2, 12, n]
    rain = found[1]
    rain[(rain < 0) & (rain > -_DRY)] = 0.0
    known = np.isfinite(found).all(axis=(0, 1))
    finite = [part[np.isfinite(part)] for part in found]
    facts = WeatherFacts(
        cells=cells.num_rows,
        known=int(known.sum()),
        low=tuple(float(part.min()) if part.size else float("nan") for part in finite),
        high=tuple(float(part.max()) if part.size else float("nan") for part in finite),
    )
    return found.reshape(24, -1), facts


def sum_weather(facts: Iterable[WeatherFacts]) -> WeatherFacts:
    """Facts of all tiles together."""
    known = list(facts)
    nothing = [(float("nan"), float("nan"))]
    return WeatherFacts(
        cells=sum(part.cells for part in known),
        known=sum(part.known for part in known),
        low=tuple(np.fmin.reduce([part.low for part in known] or nothing, axis=0).tolist()),
        high=tuple(np.fmax.reduce([part.high for part in known] or nothing, axis=0).tolist()),
    )


def check_weather(facts: WeatherFacts, source: str) -> None:
    """Raise InputError when values are impossible or no cell has any weather."""
    for letter, low, high in zip(LETTERS, facts.low, facts.high, strict=True):
        least, most, unit = _POSSIBLE[letter]
        if low < least or high > most:
            raise InputError(
                f"{OPTION} {source}: monthly {'temperature' if letter == 't' else 'precipitation'} comes out at "
                f"{low:.4g} to {high:.4g} {unit}, which no place on Earth has ({least:g} to {most:g}): "
                "correct the units attribute, or the fill value, in the file"
            )
    if facts.cells and not facts.known:
        raise InputError(
            f"{OPTION} {source} covers none of the region's cells: give a file that covers the region, or leave "
            f"{OPTION} out to stratify without climate"
        )


def weather_note(facts: WeatherFacts) -> list[str]:
    """How many cells have no weather, with their share."""
    without = facts.cells - facts.known
    if not without:
        return []
    share = 100 * without / facts.cells
    return [f"{without:,} of {facts.cells:,} cells have no weather ({share:.2g} %): a climate class of their own"]


def prepare_weather(
    folder: Path, tiles: Sequence[str], source: str, *, years: Years, runner: Runner
) -> PreparedWeather:
    """Monthly means of both variables around the tiles, in files of `folder`; strips that are there already stay.

    Raises
    ------
    InputError
        As weather_monthly does.
    """
    parts = weather_parts(source)
    datasets = [open_gridded(part, option=OPTION) for part in parts]
    stamp = [(part, file_stamp(part)) for part in parts]
    tasks: list[StripTask] = []
    files, notes = [], list[str]()
    try:
        for letter in LETTERS:
            variable = find_variable(datasets, letter, source)
            notes += _notes(variable, years, source)
            axes = variable_axes(variable)
            rows, cols = _needed(axes, tiles)
            key = short_digest([stamp, letter, years.years, axes.lat.tolist(), axes.lon.tolist(), cols])
            strips = [(span, folder / f"{letter}-{key}-{span[0]}-{span[1]}.npy") for span in _strips(rows, cols)]
            tasks += [
                StripTask(path=path, source=source, letter=letter, years=years, rows=span, cols=cols)
                for span, path in strips
                if not path.exists()
            ]
            files.append(_write_means(folder / f"{letter}-{key}.json", axes, cols, strips))
    finally:
        for dataset in datasets:
            dataset.close()
    for _ in runner.run(strip_means, tasks):
        pass
    digest = short_digest([path.read_text() for path in files])
    return PreparedWeather(files=tuple(files), digest=digest, notes=tuple(dict.fromkeys(notes)))


def _write_means(
    path: Path, axes: LatLonAxes, cols: tuple[int, int], strips: Sequence[tuple[tuple[int, int], Path]]
) -> Path:
    """The JSON beside the strips; `strips` are ((first row, stop row), file)."""
    record = MeansFile(
        lat=tuple(axes.lat.tolist()),
        lon=tuple(axes.lon.tolist()),
        cols=cols,
        strips=tuple((span[0], file.name) for span, file in strips),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, record.to_json())
    return path


def _means_in_memory(tiles: Sequence[str], source: str, years: Years) -> tuple[list[MonthlyMeans], list[str]]:
    datasets = [open_gridded(part, option=OPTION) for part in weather_parts(source)]
    try:
        means, notes = [], list[str]()
        for letter in LETTERS:
            variable = find_variable(datasets, letter, source)
            notes += _notes(variable, years, source)
            axes = variable_axes(variable)
            chosen, _ = choose_steps(variable, years, source)
            rows, cols = _needed(axes, tiles)
            strips = tuple(Strip(span[0], month_means(variable, chosen, span, cols)) for span in _strips(rows, cols))
            means.append(MonthlyMeans(axes=axes, cols=cols, strips=strips))
    finally:
        for dataset in datasets:
            dataset.close()
    return means, list(dict.fromkeys(notes))


def _notes(variable: Variable, years: Years, source: str) -> list[str]:
    return [*choose_steps(variable, years, source)[1], *([variable.assumed] if variable.assumed else [])]


def _needed(axes: LatLonAxes, tiles: Sequence[str]) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """Runs of rows (first, stop) that some tile needs, and the columns that all of them need."""
    rows, cols = np.zeros(axes.lat.size, dtype=bool), []
    for tile in tiles:
        lon, lat = tile_points(tile)
        row, col = axes.rows(lat), axes.cols(lon)
        inside = axes.inside(row, col)
        if inside.any():
            first, stop = span(np.clip(row[inside], 0, axes.lat.size - 1), axes.lat.size)
            rows[first:stop] = True
            cols += [float(col[inside].min()), float(col[inside].max())]
    edges = np.flatnonzero(np.diff(np.r_[False, rows, False].astype(np.int8)))
    runs = [(int(first), int(stop)) for first, stop in zip(edges[::2], edges[1::2], strict=True)]
    width = axes.lon.size
    return runs, (0, width) if axes.cyclic else span(np.clip(np.array(cols), 0, width - 1), width)


def _strips(runs: Sequence[tuple[int, int]], cols: tuple[int, int]) -> list[tuple[int, int]]:
    """Runs of rows cut so that none has more than STRIP_POINTS points."""
    most = max(1, STRIP_POINTS // max(cols[1] - cols[0], 1))
    return [(at, min(at + most, stop)) for first, stop in runs for at in range(first, stop, most)]
