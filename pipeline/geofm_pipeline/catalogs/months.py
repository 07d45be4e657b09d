"""The HLS STAC GeoParquet archive behind a network: one file per collection and month, read by ranges, several at once.

Every month of the years is accounted for: read, before the collection began, not published yet (so that none of the
months after it is there either), or an error. What was
found is compared with the number of granules that CMR counts, since the archive is not complete by promise. Only row
groups that the region may touch are fetched.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial

import pyarrow as pa
import shapely
from shapely.geometry import box

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.remote_file import RemoteFile
from geofm_pipeline.addresses import shown
from geofm_pipeline.catalogs import cmr
from geofm_pipeline.catalogs.geoparquet import file_batches
from geofm_pipeline.catalogs.items import ItemBatch
from geofm_pipeline.catalogs.merged import merged
from geofm_pipeline.catalogs.request import Request, answering
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.hls.bands import SENSORS, Sensor

DIALECT = "HLS STAC GeoParquet"
FILE = "{root}/{collection}/year={year}/month={month}/{collection}-{year}-{month}.parquet"
"""A month's file; months are not zero-padded (MAAP-Project/hls-stac-geoparquet-archive, constants.py)."""
COLLECTION: dict[Sensor, str] = {"L30": "HLSL30_2.0", "S30": "HLSS30_2.0"}
FIRST_MONTH: dict[Sensor, tuple[int, int]] = {"L30": (2013, 4), "S30": (2015, 11)}
"""(year, month) in which a collection begins."""
ENOUGH = 0.97
"""Share of CMR's granules below which the archive is called incomplete; about 0.99 is usual."""
_FILES_AT_ONCE = 4
_OPENED_AT_ONCE = 16
"""One small request each."""
_LOOKED_AHEAD = 6
"""Months after an absent one that are asked for, to tell a hole from the archive's end."""
_MANY_FILES, _SAY_EVERY_S = 10, 2.0
"""Of more files than this not each has a line of progress: every tenth one, or one after these seconds."""
_ABSENT = (Fault.MISSING, Fault.LOGIN)
"""Who may not list a bucket is answered 403 for a file that is not there, else 404."""
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, kw_only=True, order=True)
class Month:
    """A file of the archive."""

    year: int
    month: int
    sensor: Sensor

    @property
    def number(self) -> int:
        """Months since year 0."""
        return 12 * self.year + self.month - 1

    def after(self, count: int) -> Month:
        """The month of the same collection so many months later."""
        year, month = divmod(self.number + count, 12)
        return Month(year=year, month=month + 1, sensor=self.sensor)

    def __str__(self) -> str:
        return f"{COLLECTION[self.sensor]} {self.year}-{self.month:02d}"

    def address(self, root: str) -> str:
        """Where it is."""
        names = {"collection": COLLECTION[self.sensor], "year": self.year, "month": self.month}
        return FILE.format(root=root.rstrip("/"), **names)


def wanted_months(request: Request) -> list[Month]:
    """Months that hold a day of the years or the day before or after, from each collection's first month on."""
    days = [(first - 1, last + 1) for first, last in request.years.spans]
    ends = [tuple(_EPOCH + timedelta(days=day) for day in span) for span in days]
    numbers = sorted({n for first, last in ends for n in range(_number(first), _number(last) + 1)})
    return [
        Month(year=number // 12, month=number % 12 + 1, sensor=sensor)
        for number in numbers
        for sensor in SENSORS
        if (number // 12, number % 12 + 1) >= FIRST_MONTH[sensor]
    ]


def _number(day: date) -> int:
    return 12 * day.year + day.month - 1


class MonthlyArchive:
    """One search of the archive.

    Raises
    ------
    ArchiveError
        From all methods: when the archive cannot be reached, lacks a month in its middle, or has a damaged file.
    """

    def __init__(self, request: Request) -> None:
        self._request, self._root = request, request.access.services.geoparquet
        self._shown = shown(self._root)
        self._found: Counter[Sensor] = Counter()
        """Granules that touch the region's boxes, as CMR counts them."""
        self._lock = threading.Lock()

    def batches(self) -> Iterator[ItemBatch]:
        """Items of the months that are there; then says how they compare with CMR's count."""
        months = self._files()
        milestones = Milestones(len(months))
        streams = [partial(self._month, month, file, milestones) for month, file in months.items()]
        yield from merged(streams, at_once=_FILES_AT_ONCE)
        for sensor in SENSORS:
            if any(month.sensor == sensor for month in wanted_months(self._request)):
                self._compare(sensor)

    def extent(self) -> str:
        """What was looked at, for the message of an empty search."""
        months = wanted_months(self._request)
        if not months:
            return "the archive begins in April 2013"
        return f"its monthly files from {months[0]} to {months[-1]} hold none there, as far as they are published"

    def _files(self) -> dict[Month, RemoteFile]:
        """The wanted months that are there; says which are not there yet."""
        wanted = wanted_months(self._request)
        with answering(self._shown):
            opened = dict(merged([partial(self._opened, month) for month in wanted], at_once=_OPENED_AT_ONCE))
        found = {month: file for month in wanted if (file := opened[month]) is not None}
        if wanted and not found:
            self._check_reachable()
        absent = [month for month in wanted if opened[month] is None]
        self._check_holes(sorted(found), absent)
        self._check_end(absent)
        late = [month for month in absent if month.year in self._request.years]
        if late:
            self._request.note(
                f"The HLS STAC GeoParquet archive does not hold {_listed(late)} yet, so no granule of that time is "
                "found there; --catalog cmr has those of the last days, too."
            )
        return found

    def _opened(self, month: Month) -> Iterator[tuple[Month, RemoteFile | None]]:
        yield month, self._open(month)

    def _open(self, month: Month) -> RemoteFile | None:
        try:
            return RemoteFile(self._request.source, month.address(self._root))
        except FetchError as error:
            if error.fault in _ABSENT:
                return None
            raise

    def _check_reachable(self) -> None:
        """Raise when not even the first month of a collection can be had: then nothing is known about any other."""
        first = [Month(year=year, month=month, sensor=sensor) for sensor, (year, month) in FIRST_MONTH.items()]
        with answering(self._shown):
            there = [month for month in first if self._open(month) is not None]
        if not there:
            raise ArchiveError(
                f"{self._shown} does not answer for any month, not even for {first[0]}, which must be there: it has "
                "moved or is closed to the public; name its new place with --services, or use another --catalog"
            )

    def _check_holes(self, found: list[Month], absent: list[Month]) -> None:
        """Raise when a month is absent that lies before another one of its collection, or long before the newest."""
        newest = max((month.number for month in found), default=0)
        for month in absent:
            later = any(other.sensor == month.sensor and other.number > month.number for other in found)
            if later or month.number < newest - 1:
                raise self._hole(month)

    def _check_end(self, absent: list[Month]) -> None:
        """Raise when one of the months after a run of absent ones is there: then they are no end but a hole."""
        for last in absent:
            if last.after(1) in absent:
                continue
            with answering(self._shown):
                hole = any(self._open(last.after(count)) is not None for count in range(1, _LOOKED_AHEAD + 1))
            if hole:
                first = last
                while first.after(-1) in absent:
                    first = first.after(-1)
                raise self._hole(first)

    def _hole(self, month: Month) -> ArchiveError:
        return ArchiveError(
            f"{self._shown} lacks {month} although later months are there: a search would silently miss granules; run "
            "the same command later, or use another --catalog"
        )

    def _month(self, month: Month, file: RemoteFile, milestones: Milestones) -> Iterator[ItemBatch]:
        request, items = self._request, 0
        with answering(shown(month.address(self._root))):
            batches = file_batches(
                pa.PythonFile(file, mode="r"),
                region=request.region,
                years=request.years,
                base=month.address(self._root),
            )
            for batch in batches:
                items += len(batch.ids)
                self._count(month.sensor, batch)
                yield batch
        with self._lock:
            if milestones.is_due():
                request.say(
                    f"catalogue: {milestones.done:,} of {milestones.total:,} monthly files, {month}: {items:,} items"
                )

    def _count(self, sensor: Sensor, batch: ItemBatch) -> None:
        boxes = [box(*edges) for edges in self._request.region.boxes]
        touching = sum(int(shapely.intersects(ground, batch.geometry).sum()) for ground in boxes)
        with self._lock:
            self._found[sensor] += touching

    def _compare(self, sensor: Sensor) -> None:
        request, found = self._request, self._found[sensor]
        try:
            counted = cmr.count(request, sensor)
        except ArchiveError as error:
            request.note(
                f"Whether the archive is complete for {sensor} was not checked, because {str(error).split(';')[0]}."
            )
            return
        if not counted:
            return
        share = f"{found:,} of the {counted:,} {sensor} granules that CMR counts there ({100 * found / counted:.1f} %)"
        if found < ENOUGH * counted:
            request.note(
                f"Warning: the HLS STAC GeoParquet archive has only {share}; --catalog cmr searches CMR itself."
            )
        else:
            request.note(f"The HLS STAC GeoParquet archive has {share}.")


class Milestones:
    """Which of so many files have a line of progress: each of a few, else every tenth, after a pause, and the last."""

    def __init__(self, total: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done = total, 0
        self._clock, self._said = clock, clock()

    def is_due(self) -> bool:
        """Count a file that is done."""
        self.done += 1
        now = self._clock()
        tenth = self.total <= _MANY_FILES or self.done % 10 == 0 or self.done == self.total
        if tenth or now - self._said >= _SAY_EVERY_S:
            self._said = now
            return True
        return False


def _listed(months: list[Month]) -> str:
    names = [str(month) for month in months]
    return ", ".join(names) if len(names) <= 4 else f"{names[0]} to {names[-1]} ({len(names)} monthly files)"
