"""The files of WorldCover and IO LULC that some tiles need, in closed form, and which of them there are.

WorldCover has a file per cell of 3° × 3° with land, IO LULC one per MGRS grid zone and year. Which ones a region needs
follows from its tiles; whether there is such a file (there is none of open sea) is asked by one byte each, many at
once, so no listing is needed and no header is read before a tile's pixels are. An answer of 404, or 403 where a bucket
may not be listed, is no file; anything else that is no data is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.routes import place_behind
from geofm_pipeline.access.services import Services
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource, ByteSource, reading_threads
from geofm_pipeline.covariates.class_index import ClassMap, ClassRaster, boxes_meet, nearest_year, tile_box
from geofm_pipeline.covariates.named_sources import (
    IO_LULC,
    WORLDCOVER,
    NamedSource,
    SourceRecord,
    cannot_read,
    explained,
)
from geofm_pipeline.errors import ArchiveError, ResourceError
from geofm_pipeline.lonlat import Box
from geofm_pipeline.store.files import write_file
from geofm_pipeline.years import Years

CELL = 3
"""Edge of a WorldCover file in degrees."""
_BANDS = "CDEFGHJKLMNPQRSTUVWX"  # 8° of latitude each from 80° S on, the last one 12°
_WIDER = {"31V": (0, 6), "32V": (3, 12), "31X": (0, 9), "33X": (9, 21), "35X": (21, 33), "37X": (33, 42)}
"""Zones of Norway and Svalbard: (west, east) of MGRS and the plain 6° together, whichever the map's makers kept to."""


@dataclass(frozen=True, kw_only=True)
class CoverFile:
    """A file that there may be."""

    place: str
    """Cell (N45E009) or zone (34S)."""
    box: Box
    """(west, south, east, north) in degrees."""


def worldcover_cells(tiles: Iterable[str]) -> list[CoverFile]:
    """The cells that some tiles touch, sorted; named by their south-west corner.

    >>> [file.place for file in worldcover_cells(["32TNS"])]
    ['N45E009']
    """
    found = set[tuple[int, int]]()
    for tile in tiles:
        west, south, east, north = tile_box(tile)
        for lat in _multiples(max(south, -90.0), min(north, 90.0 - 1e-9)):
            found |= {(lat, (lon + 180) % 360 - 180) for lon in _multiples(west, east)}
    return [
        CoverFile(
            place=f"{'S' if lat < 0 else 'N'}{abs(lat):02d}{'W' if lon < 0 else 'E'}{abs(lon):03d}",
            box=(float(lon), float(lat), float(lon + CELL), float(lat + CELL)),
        )
        for lat, lon in sorted(found)
    ]


def grid_zones(tiles: Iterable[str]) -> list[CoverFile]:
    """The MGRS grid zones that some tiles touch, sorted.

    >>> [file.place for file in grid_zones(["32TNS"])]
    ['32T']
    """
    zones, boxes, found = list(_ZONES), np.array(list(_ZONES.values())), dict[str, Box]()
    for tile in tiles:
        for number in np.flatnonzero(boxes_meet(boxes, tile_box(tile))):
            found[zones[number]] = _ZONES[zones[number]]
    return [CoverFile(place=zone, box=box) for zone, box in sorted(found.items())]


def _multiples(low: float, high: float) -> range:
    """Multiples of CELL whose cells touch a span of degrees."""
    return range(int(low // CELL) * CELL, int(high // CELL) * CELL + CELL, CELL)


def _zone_box(number: int, band: str) -> Box:
    name, plain = f"{number:02d}{band}", (6 * number - 186, 6 * number - 180)
    west, east = _WIDER.get(name, plain)
    south = -80 + 8 * _BANDS.index(band)
    return float(west), float(south), float(east), float(84 if band == "X" else south + 8)


_ZONES: Mapping[str, Box] = {
    f"{number:02d}{band}": _zone_box(number, band) for number in range(1, 61) for band in _BANDS
}


def named_map(
    named: NamedSource, tiles: Sequence[str], *, years: Years, access: Access, shelf: Path | None = None
) -> ClassMap:
    """The rasters of WorldCover or IO LULC around some tiles, of the year nearest to `years`.

    Parameters
    ----------
    shelf : folder of the user's cache where files that there are, are noted, so that nobody asks for them again

    Raises
    ------
    ArchiveError
        When the service does not answer or has none of the files; the message names the choice to go on without it.
    """
    archive = ArchiveSource(access)
    have = cover_years(named, access.services)
    year = nearest_year(have, years.years)
    files = (worldcover_cells if named is WORLDCOVER else grid_zones)(tiles)
    hrefs = [cover_href(named, access.services, file, year) for file in files]
    there = _present(named, archive, hrefs, access.in_flight, _Known(shelf))
    rasters = [
        ClassRaster(path=href, box=file.box, stamp="", listed=True, names=())
        for file, href, exists in zip(files, hrefs, there, strict=True)
        if exists
    ]
    lacking = tuple(wanted for wanted in years.years if wanted not in have)
    record = SourceRecord(
        source=named,
        address=cover_href(named, access.services, None, year),
        years_used=(year,),
        years_lacking=lacking,
        absent_files=len(files) - len(rasters),
    )
    return ClassMap(
        source=named.name,
        rasters=tuple(sorted(rasters, key=lambda raster: raster.path)),
        year=year,
        note=_note(named, have, year, years, files, rasters),
        record=record,
        tally=archive.tally,
    )


def cover_years(named: NamedSource, services: Services) -> tuple[int, ...]:
    """Years that a source has."""
    return tuple(sorted(services.worldcover)) if named is WORLDCOVER else tuple(services.io_lulc_years)


def cover_href(named: NamedSource, services: Services, file: CoverFile | None, year: int) -> str:
    """Address of a file, or with its place in braces."""
    if named is WORLDCOVER:
        return services.worldcover[year].format(cell="{cell}" if file is None else file.place)
    assert named is IO_LULC
    zone = "{zone}" if file is None else file.place
    return services.io_lulc.format(zone=zone, year=year, next_year=year + 1)


def cover_places(named: NamedSource, services: Services) -> list[str]:
    """Where the files of all years are really read, with their places in braces."""
    years = cover_years(named, services)
    return [place_behind(cover_href(named, services, None, year), services) for year in years]


def _present(
    named: NamedSource, archive: ByteSource, hrefs: Sequence[str], in_flight: int, known: _Known
) -> list[bool]:
    """Whether there is a file at each address; some must be. Only addresses that are not known are asked."""
    there = known.hrefs()
    unknown = [href for href in hrefs if href not in there]
    count = max(1, min(in_flight, len(unknown)))
    with explained(named.option, named.name), reading_threads(archive, count, "cover") as threads:
        found = dict(zip(unknown, threads.map(_asker(archive), unknown), strict=True))
    known.add({href for href, answer in found.items() if answer is None})
    answers = [found.get(href) for href in hrefs]
    refusals = [answer for answer in answers if isinstance(answer, FetchError)]
    if refusals and len(refusals) == len(answers):
        if all(error.fault == Fault.MISSING for error in refusals):
            raise ArchiveError(
                f"{named.option} {named.name} ({named.title}) has none of the {len(answers)} files that the region "
                f"needs, e.g. {hrefs[0]}: the region may be open sea, or the files have moved (--services corrects "
                f"addresses); go on without it: {named.option} none"
            )
        raise ArchiveError(cannot_read(named.option, named.name, refusals[0]))
    return [answer is None for answer in answers]


class _Known:
    """Addresses at which there is a file, in the user's cache; absent ones are not kept, since they may come."""

    def __init__(self, shelf: Path | None) -> None:
        self._path = None if shelf is None else shelf / "files.json"

    def hrefs(self) -> set[str]:
        """The addresses, none without a cache."""
        try:
            found = json.loads(self._path.read_text()) if self._path is not None else []
        except (OSError, ValueError):
            return set()
        return {href for href in found if isinstance(href, str)} if isinstance(found, list) else set()

    def add(self, hrefs: set[str]) -> None:
        """Keep more; gives up quietly where it cannot write."""
        if self._path is None or not hrefs:
            return
        with suppress(OSError, ResourceError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._path, json.dumps(sorted(self.hrefs() | hrefs)).encode(), self._path.parent)


def _asker(archive: ByteSource) -> Callable[[str], FetchError | None]:
    def ask(href: str) -> FetchError | None:
        """None where there is a file, the error where there is none or access is refused; raises all others."""
        try:
            archive.read(href, 0, 1)
        except FetchError as error:
            if error.fault not in (Fault.MISSING, Fault.LOGIN):
                raise
            archive.tally.expected(error.fault, "places without a land-cover file")
            return error
        return None

    return ask


def _note(
    named: NamedSource,
    have: tuple[int, ...],
    year: int,
    years: Years,
    files: Sequence[CoverFile],
    rasters: Sequence[ClassRaster],
) -> str:
    notes = []
    if len(have) > 1 and years.years != (year,):
        notes.append(
            f"of the years {Years(years=have)} of {named.name}, {year} is nearest to {years}: it is used for all"
        )
    absent = len(files) - len(rasters)
    if absent:
        notes.append(f"{named.name} has no file for {absent} of {len(files)} places of the region (open sea)")
    return "; ".join(notes)
