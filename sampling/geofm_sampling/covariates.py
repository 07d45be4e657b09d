"""What the strata are made of: the dominant land-cover group and weather statistics of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.tables import LAND_COVER_PREFIX, WEATHER_PREFIX

WORLDCOVER_GROUPS: Mapping[int, str] = {
    10: "tree",
    20: "shrub",
    30: "grass",
    40: "crop",
    50: "built",
    60: "bare",
    70: "snow_ice",
    80: "water",
    90: "wetland",  # herbaceous wetland
    95: "wetland",  # mangroves
    100: "moss",
}
"""Classes of ESA WorldCover 2020/2021 (Product User Manual v2.0, table 1) and their groups."""

ANY, UNKNOWN, MIXED = "any", "unknown", "mixed"
"""No map was given; the map does not show half of the cell; no group holds half of what it shows."""

POSSIBLE = {"t": (-95.0, 65.0), "p": (-1.0, 12_000.0)}
"""Monthly means in °C and sums in mm that the Earth knows, with some room: −89 to 57 °C were ever measured at an
instant, 9,300 mm in the wettest month (Cherrapunji, July 1861). Down to −1 mm is what interpolation leaves of none."""
TOO_DRY = 12.0
"""Annual sum in mm that precipitation in metres never reaches."""
_MISTAKE = {"t": "is it in kelvin or in tenths of a degree?", "p": "is it a fill value, or in another unit than mm?"}

DOMINANCE = 0.5
"""Share that makes a group dominant, and share of the cell that the map must show."""


def land_cover_codes(cells: pa.Table) -> list[int]:
    """Class codes of the `lc_` columns, ascending; ValueError for a column whose rest is no whole number."""
    names = [name for name in cells.column_names if name.startswith(LAND_COVER_PREFIX)]
    try:
        return sorted(int(name.removeprefix(LAND_COVER_PREFIX)) for name in names)
    except ValueError:
        raise ValueError(
            f"land-cover columns {names} must be named {LAND_COVER_PREFIX}<class code> with a whole-number code"
        ) from None


def dominant_groups(cells: pa.Table, groups: Mapping[int, str]) -> tuple[list[str], NDArray[np.int16]]:
    """Group names and each cell's index into them, shape (n,).

    A cell belongs to the group with at least half of the mapped part of it, else to `mixed`; where the map shows
    less than half of the cell, to `unknown`. A class without a group is a group of its own, `class_<code>`.

    Raises
    ------
    ValueError
        When a fraction is negative or the fractions of a cell sum to more than 1.
    """
    codes = land_cover_codes(cells)
    if not codes:
        return [ANY], np.zeros(cells.num_rows, dtype=np.int16)
    names = sorted({groups.get(code, f"class_{code}") for code in codes})
    share = np.zeros((len(names), cells.num_rows), dtype=np.float32)
    for code in codes:
        fraction = np.nan_to_num(_numbers(cells, f"{LAND_COVER_PREFIX}{code}"), nan=0.0)
        share[names.index(groups.get(code, f"class_{code}"))] += fraction
    mapped = share.sum(axis=0)
    if share.size and (share.min() < 0 or mapped.max() > 1.001):
        raise ValueError(
            f"land-cover fractions of a cell must be ≥ 0 and sum to at most 1, got {share.min():.3f} and a sum of "
            f"{mapped.max():.3f}; are they percentages or pixel counts?"
        )
    best = np.where(share.max(axis=0) >= DOMINANCE * mapped, share.argmax(axis=0), len(names))
    index = np.where(mapped < DOMINANCE, len(names) + 1, best)
    return [*names, MIXED, UNKNOWN], index.astype(np.int16)


def own_classes(cells: pa.Table, column: str) -> tuple[list[str], NDArray[np.int32]]:
    """Labels of a user's own `by_<name>` column and each cell's index into them, shape (n,).

    Null and empty values are `unknown`. A slash becomes a hyphen, since it parts the names of strata.

    Raises
    ------
    ValueError
        When the column is absent or holds no text.
    """
    if column not in cells.column_names:
        raise ValueError(f"these strata were fitted with the column {column}, the cells lack it: give its source")
    encoded = cells[column].combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    if not (pa.types.is_string(encoded.type.value_type) or pa.types.is_large_string(encoded.type.value_type)):
        raise ValueError(f"{column} is {cells.schema.field(column).type}, must be text: cast its values to strings")
    raw = [(value or "").strip().replace("/", "-") or UNKNOWN for value in encoded.dictionary.to_pylist()]
    names = sorted({*raw, UNKNOWN})
    place = np.array([*(names.index(label) for label in raw), names.index(UNKNOWN)], dtype=np.int32)
    return names, place[encoded.indices.fill_null(len(raw)).to_numpy(zero_copy_only=False).astype(np.int64)]


def land_cover_entropy(cells: pa.Table) -> NDArray[np.float32]:
    """Shannon entropy of the classes' shares of the mapped part of each cell, bits, shape (n,).

    0 where one class covers all of it, log2 of their number where classes cover equal parts; NaN where the map shows
    nothing. Fractions are those of :func:`dominant_groups`.
    """
    names = [f"{LAND_COVER_PREFIX}{code}" for code in land_cover_codes(cells)]
    mapped, sum_log = (np.zeros(cells.num_rows) for _ in range(2))
    for name in names:
        fraction = np.nan_to_num(_numbers(cells, name), nan=0.0).astype(np.float64)
        mapped += fraction
        sum_log += fraction * np.log2(np.where(fraction > 0.0, fraction, 1.0))
    some = np.where(mapped > 0.0, mapped, np.nan)
    # −Σ f/F log2(f/F) = log2 F − Σ f log2 f / F; rounding may leave −1e-16.
    return np.maximum(np.log2(some) - sum_log / some, 0.0).astype(np.float32)


def monthly(cells: pa.Table, letter: str) -> NDArray[np.float32] | None:
    """The twelve monthly columns `wx_t01`… or `wx_p01`… as shape (n, 12), NaN where unknown; None where absent.

    Raises
    ------
    ValueError
        When some of the twelve are missing, or a value is infinite or none that the Earth knows (POSSIBLE).
    """
    names = [f"{WEATHER_PREFIX}{letter}{month:02d}" for month in range(1, 13)]
    absent = [name for name in names if name not in cells.column_names]
    if len(absent) == 12:
        return None
    if absent:
        raise ValueError(f"the weather is incomplete: columns {', '.join(absent)} are missing; give all 12 or none")
    values = np.stack([_numbers(cells, name) for name in names], axis=1)
    low, high = POSSIBLE[letter]
    impossible = (values < low) | (values > high)
    if impossible.any():
        row, month = (int(i[0]) for i in impossible.nonzero())
        raise ValueError(
            f"{names[month]} of a cell is {values[row, month]:g}, must lie within {low:g} … {high:g} "
            f"{'°C' if letter == 't' else 'mm a month'} (NaN where unknown); {_MISTAKE[letter]}"
        )
    return values


def too_dry_notes(cells: pa.Table) -> list[str]:
    """A sentence where all cells have less rain a year than any place but the driest deserts: as a rule, metres."""
    rain = monthly(cells, "p")
    annual = rain.sum(axis=1) if rain is not None else np.empty(0)
    most = float(annual.max(initial=-1.0, where=np.isfinite(annual)))
    if not 0.0 <= most < TOO_DRY:
        return []
    return [f"The wettest cell has {most:.3g} mm of precipitation a year: is it given in metres, or per day or second?"]


def weather_statistics(
    temperature: NDArray[np.float32] | None, precipitation: NDArray[np.float32] | None
) -> tuple[Sequence[str], NDArray[np.float64]]:
    """Names and values, shape (n, S), of the statistics that clusters are made of; NaN where a month is unknown.

    Temperature gives the mean, the annual range and the coldest month (°C); precipitation log(1 + annual mm) and
    the seasonality index Σ|p_m − P/12| / P (Walsh & Lawler 1981); both together the log of 1 + P / (T + 10), the
    aridity index of de Martonne (1926) with T no lower than −5 °C.
    """
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    if temperature is not None:
        t = temperature.astype(np.float64)
        names += ["t_mean", "t_range", "t_min"]
        columns += [t.mean(axis=1), np.ptp(t, axis=1), t.min(axis=1)]
    if precipitation is not None:
        p = np.maximum(precipitation.astype(np.float64), 0.0)
        annual = p.sum(axis=1)
        names += ["p_log", "p_seasonality"]
        uneven = np.abs(p - annual[:, None] / 12).sum(axis=1)
        columns += [np.log1p(annual), uneven / np.maximum(annual, 1e-9)]
        if temperature is not None:
            names.append("wetness")
            columns.append(np.log1p(annual / (np.maximum(columns[0], -5.0) + 10.0)))
    return names, np.stack(columns, axis=1) if columns else np.zeros((0, 0))


def weather_extremes(
    temperature: NDArray[np.float32] | None, precipitation: NDArray[np.float32] | None
) -> tuple[Sequence[str], NDArray[np.float64]]:
    """Names and values, shape (n, S), of further statistics for reports; NaN where a month is unknown.

    The warmest month (°C) and log(1 + mm) of the wettest. Clusters are not made of them: the warmest month is the
    coldest plus the range, which clusters know, and the wettest follows from the annual sum and its seasonality.
    """
    names: list[str] = []
    columns: list[NDArray[np.float64]] = []
    if temperature is not None:
        names.append("t_max")
        columns.append(temperature.astype(np.float64).max(axis=1))
    if precipitation is not None:
        names.append("p_max_log")
        columns.append(np.log1p(np.maximum(precipitation.astype(np.float64), 0.0).max(axis=1)))
    return names, np.stack(columns, axis=1) if columns else np.zeros((0, 0))


def _numbers(cells: pa.Table, name: str) -> NDArray[np.float32]:
    """A column as float32, nulls as NaN."""
    return np.asarray(cells[name].to_numpy(), dtype=np.float32)
