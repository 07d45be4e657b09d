"""When the chips were seen: dates per month and sensor, and how clear the chosen dates are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from markupsafe import Markup
from numpy.typing import NDArray

from geofm_pipeline.report import svg, words
from geofm_pipeline.report.folder import Folder, with_state

SENSOR_WORDS = {"L30": "Landsat (L30)", "S30": "Sentinel-2 (S30)"}
_BINS = 20


@dataclass(frozen=True, kw_only=True)
class CalendarLine:
    """One sensor in one year."""

    year: int
    """Calendar year (UTC)."""
    sensor: str
    """Sensor in words."""
    months: Sequence[int]
    """Dates used in each of the twelve months."""

    @property
    def total(self) -> int:
        """Dates of the year."""
        return sum(self.months)


@dataclass(frozen=True, kw_only=True)
class DatesPanel:
    """What the section on dates shows."""

    lines: Sequence[CalendarLine]
    """By year and sensor."""
    top: int
    """Largest number of the calendar, for shading."""
    dates: int
    """Dates of all chips."""
    clear: Markup
    """Histogram of the clear share."""
    mean_clear: float
    """Mean clear share of all dates."""
    as_written: bool
    """Whether the shares were measured on the written pixels, else by screening."""
    below: int | None
    """Dates below the wanted share as written, which stay in the store."""
    min_clear: float | None
    """Clear share that was asked for."""


def dates_panel(folder: Folder) -> DatesPanel | None:
    """The panel; None where no unit was drawn yet."""
    places = folder.places
    if places is None or not places.num_rows:
        return None
    if folder.samples is not None:
        places = with_state(places, "written")
    written = "valid" in places.column_names
    shares = _flat(places["valid" if written else "clear"]).astype(np.float64)
    shares = shares[np.isfinite(shares)]
    if not shares.size:
        return None
    lines = _calendar(places)
    asked = folder.card.part("plan").part("design").number("min_clear")
    wanted = asked if asked is not None else folder.card.part("asked").number("min_clear")
    return DatesPanel(
        lines=lines,
        top=max(max(line.months) for line in lines),
        dates=sum(line.total for line in lines),
        clear=_histogram(shares, wanted),
        mean_clear=float(shares.mean()),
        as_written=written,
        below=int((shares < wanted - 1e-6).sum()) if wanted is not None and written else None,
        min_clear=wanted,
    )


def _flat(column: pa.ChunkedArray) -> NDArray[np.generic]:
    """The entries of a column of lists, one after the other."""
    return np.asarray(column.combine_chunks().flatten().to_numpy(zero_copy_only=False))


def _calendar(places: pa.Table) -> list[CalendarLine]:
    months = _flat(places["dates"]).astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    sensors = np.array([granule[4:7] for granule in _flat(places["granules"]).tolist()], dtype="U3")
    lines = []
    for year in np.unique(months // 12).tolist():
        for sensor in map(str, np.unique(sensors)):
            here = months[(months // 12 == year) & (sensors == sensor)] % 12
            counts = np.bincount(here, minlength=12).tolist()
            lines.append(CalendarLine(year=1970 + year, sensor=SENSOR_WORDS.get(sensor, sensor), months=counts))
    return lines


def _histogram(shares: NDArray[np.float64], wanted: float | None) -> Markup:
    """Bars of the share of usable pixels, with the share that was asked for."""
    start = float(np.floor(20 * min(float(shares.min()), wanted if wanted is not None else 1.0)) / 20)
    start = min(start, 0.95)
    counts, edges = np.histogram(np.clip(shares, start, 1.0), bins=_BINS, range=(start, 1.0))
    left, top, width, height = 46.0, 12.0, 480.0, 150.0
    marks = svg.ticks(float(counts.max()))
    drawn: list[Markup] = []
    for mark in marks:
        y = top + height * (1 - mark / marks[-1])
        drawn += [
            svg.line(left, y, left + width, y, "grid"),
            svg.text(left - 6, y + 4, words.number(mark), anchor="end"),
        ]
    step = width / _BINS
    for i, count in enumerate(counts.tolist()):
        tall = height * count / marks[-1]
        title = f"{words.count_of(count, 'date')} with {edges[i]:.0%} to {edges[i + 1]:.0%} clear"
        drawn.append(svg.bar(left + i * step + 1, top + height - tall, step - 2, tall, "bar", title))
    for value in np.linspace(start, 1.0, 5).tolist():
        x = left + width * (value - start) / (1 - start)
        drawn.append(svg.text(x, top + height + 18, words.percent(value), anchor="middle"))
    if wanted is not None and start <= wanted <= 1:
        x = left + width * (wanted - start) / (1 - start)
        drawn += [svg.line(x, top - 4, x, top + height, "limit")]
        drawn += [svg.text(x + 5, top + 6, f"asked: {words.percent(wanted)}", class_="label strong")]
    drawn.append(svg.text(left + width / 2, top + height + 36, "clear share of a chip at one date", anchor="middle"))
    title = f"Histogram of the clear share of {shares.size} dates, {words.percent(float(shares.mean()))} on average"
    return svg.picture(left + width + 24, top + height + 44, title, drawn)
