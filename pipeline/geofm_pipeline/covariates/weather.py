"""Weather of cells: mean temperature and precipitation of the twelve months, from NetCDF or Zarr grids.

Daily, monthly or climatological steps are averaged once into twelve grids of the ground that a run needs
(geofm_pipeline.covariates.weather_months); cells then take values between grid points, near coasts from the nearest
valid point within two grid steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.access.settings import Access
from geofm_pipeline.covariates.result import Covariates, by_tile
from geofm_pipeline.covariates.weather_months import LETTERS, MonthlyMeans
from geofm_pipeline.covariates.weather_prepare import means_in_memory
from geofm_pipeline.covariates.weather_steps import OPTION
from geofm_pipeline.errors import InputError
from geofm_pipeline.years import Years
from geofm_sampling.tables import CELLS, WEATHER_PREFIX

_POSSIBLE = {"t": (-95.0, 65.0, "°C"), "p": (0.0, 12_000.0, "mm per month")}
"""Monthly means beyond these were never observed on Earth: then the units in the file are wrong."""
_DRY = 1.0
"""mm per month: packed precipitation strays below zero by rounding; more than this is a wrong unit or fill value."""


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


def weather_monthly(cells: pa.Table, source: str, *, years: Years, access: Access | None = None) -> Covariates:
    """Cells with float32 columns `wx_t01`…`wx_t12` (°C) and `wx_p01`…`wx_p12` (mm per month), NaN where unknown.

    Parameters
    ----------
    cells : CELLS
    source : NetCDF or Zarr by path or URL; two by a comma when temperature and precipitation are apart; or a source
        with a name (geofm_pipeline.covariates.named_sources)
    years : months are averaged over these years; a month they lack is averaged over the years the file has

    Raises
    ------
    InputError
        When a variable, a unit or a month is missing, the grid is none of latitude and longitude, or no cell is
        covered.
    """
    cells = CELLS.check(cells)
    tiles = list(by_tile(cells))
    means, notes = means_in_memory([tile for tile, _ in tiles], source, years=years, access=access)
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
