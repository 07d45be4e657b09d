"""Years: the calendar years (UTC) a run may use, from `2019-2021`, `2019,2021`, 2022 or [2019, 2021]."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofm_pipeline.errors import InputError

FIRST_YEAR = 2013
"""HLS v2.0 begins on 2013-04-11 with the first Landsat 8 granules."""
LAST_YEAR = 2100
_EPOCH = date(1970, 1, 1).toordinal()
_PART = re.compile(r"(\d{4})(?:\s*-\s*(\d{4}))?")


@dataclass(frozen=True, kw_only=True)
class Years:
    """Calendar years in UTC; `str()` gives the shortest text that parses to the same years."""

    years: tuple[int, ...]
    """Ascending, without repeats, never empty."""

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Runs of consecutive years as (first, last), ascending."""
        runs: list[tuple[int, int]] = []
        for year in self.years:
            if runs and runs[-1][1] == year - 1:
                runs[-1] = (runs[-1][0], year)
            else:
                runs.append((year, year))
        return tuple(runs)

    @property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """Runs of consecutive years as (first day, last day), inclusive, days since 1970-01-01."""
        return tuple((_day(first, 1, 1), _day(last, 12, 31)) for first, last in self.ranges)

    @property
    def first_day(self) -> int:
        """January 1 of the first year, days since 1970-01-01."""
        return self.spans[0][0]

    @property
    def last_day(self) -> int:
        """December 31 of the last year, days since 1970-01-01."""
        return self.spans[-1][1]

    def contains_days(self, days: ArrayLike) -> NDArray[np.bool_]:
        """True where a day (days since 1970-01-01, UTC) lies in one of the years, shape kept."""
        values = np.asarray(days)
        inside = np.zeros(values.shape, dtype=bool)
        for first, last in self.spans:
            inside |= (values >= first) & (values <= last)
        return inside

    def __contains__(self, year: object) -> bool:
        return year in self.years

    def __str__(self) -> str:
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self.ranges)


def parse_years(value: str | int | Sequence[str | int]) -> Years:
    """Years from `2019-2021`, `2019,2021`, a number or a list of these; raises InputError naming the part at fault."""
    if isinstance(value, bool) or not isinstance(value, (str, int, Sequence)):
        raise InputError(f"years {value!r} cannot be read: {_RULE}")
    parts = value.split(",") if isinstance(value, str) else [value] if isinstance(value, int) else list(value)
    years = sorted({year for part in parts for year in _years_of(part)})
    if not years:
        raise InputError(f"years {value!r} name no year: {_RULE}")
    return Years(years=tuple(years))


_RULE = "give years of the archive as 2019-2021, 2019,2021 or 2022"


def _years_of(part: str | int) -> range:
    text = "" if isinstance(part, bool) else str(part).strip()
    match = _PART.fullmatch(text)
    if match is None:
        raise InputError(f"years: {part!r} is neither a year nor a range of years; {_RULE}")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise InputError(f"years {text!r} run backwards; write {last}-{first}")
    if first < FIRST_YEAR or last > LAST_YEAR:
        raise InputError(
            f"years {text!r} lie outside {FIRST_YEAR}-{LAST_YEAR}: HLS v2.0 begins in April {FIRST_YEAR}; {_RULE}"
        )
    return range(first, last + 1)


def _day(year: int, month: int, day: int) -> int:
    return date(year, month, day).toordinal() - _EPOCH
