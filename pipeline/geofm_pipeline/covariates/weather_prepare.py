"""Monthly means of the ground that a run needs, in files for its workers, and kept for the next run.

A strip is made once: it stays in the run's folder, and for sources with a name also in the user's cache, by a key of
address, years, time steps and place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.cluster import Runner
from geofm_pipeline.covariates.class_index import file_stamp
from geofm_pipeline.covariates.named_sources import NamedSource, SourceRecord, named_source
from geofm_pipeline.covariates.weather_grid import LatLonAxes
from geofm_pipeline.covariates.weather_months import (
    LETTERS,
    STRIP_POINTS,
    MeansFile,
    MonthlyMeans,
    Strip,
    StripTask,
    choose_steps,
    chunks_of,
    find_variable,
    month_means,
    strip_means,
    variable_axes,
)
from geofm_pipeline.covariates.weather_parts import Part, grid_parts, tile_parts
from geofm_pipeline.covariates.weather_shelf import MeansShelf, PreparedWeather, seal
from geofm_pipeline.covariates.weather_source import opened_weather, source_addresses
from geofm_pipeline.covariates.weather_steps import OPTION, lacking_years
from geofm_pipeline.covariates.weather_variables import Variable
from geofm_pipeline.digests import short_digest
from geofm_pipeline.progress import Progress
from geofm_pipeline.workspace import write_text
from geofm_pipeline.years import Years

CHUNK_BYTES = 128 << 20
"""Of one chunk's time steps, stored, on a strip: longer chunks make smaller strips."""
_LAYOUT = 2  # of the files: another number makes them anew


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What of one variable is averaged."""

    letter: str
    axes: LatLonAxes
    parts: tuple[Part, ...]
    chosen: tuple[NDArray[np.int64], ...]
    notes: tuple[str, ...]
    used: tuple[int, ...]
    """Years of the chosen steps, none of a climatology's."""
    lacking: tuple[int, ...]
    """Requested years without any step."""


def prepare_weather(
    folder: Path,
    tiles: Sequence[str],
    source: str,
    *,
    years: Years,
    runner: Runner,
    access: Access | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> PreparedWeather:
    """Monthly means of both variables around the tiles, in files of `folder`; strips that are there already stay.

    Parameters
    ----------
    source : path or URL, two by a comma, or a source with a name
    cache : folder where strips of named sources are kept for other runs, None for none
    progress : where it is said how far the strips are

    Raises
    ------
    InputError
        As weather_monthly does.
    ArchiveError
        When the source cannot be read.
    """
    access, named = access or Access(), named_source(OPTION, source)
    files = source_addresses(source, access.services)
    inputs = [_LAYOUT, files, named and asdict(named.habits), years.years, sorted(tiles)]
    shelf = MeansShelf(None if named is None else cache, inputs)
    folder.mkdir(parents=True, exist_ok=True)
    kept = shelf.whole(folder)
    if kept is not None:
        return kept
    plans, cost = _plans(tiles, source, years, access)
    stamp = [(file, file_stamp(file)) for file in files]
    strips = {plan.letter: _named_strips(folder, plan, stamp, years) for plan in plans}
    tasks = [
        StripTask(path=path, source=source, letter=letter, years=years, part=part, access=access)
        for letter, found in strips.items()
        for part, path in found
        if not shelf.fetched(path)
    ]
    done = runner.run(strip_means, tasks)
    if progress is not None and tasks:
        done = progress.count(done, total=len(tasks), label="weather", unit="parts")
    prepared = PreparedWeather(
        tally=cost + sum((spent for _, spent in done), Tally()),
        files=tuple(_write_means(folder, plan, strips[plan.letter]) for plan in plans),
        digest=short_digest([[path.name for _, path in found] for found in strips.values()]),
        notes=tuple(dict.fromkeys(note for plan in plans for note in plan.notes)),
        record=None if named is None else _record(named, files[0], plans),
    )
    shelf.keep(prepared, [path for found in strips.values() for _, path in found])
    return prepared


def _plans(tiles: Sequence[str], source: str, years: Years, access: Access) -> tuple[list[_Plan], Tally]:
    """What is averaged of temperature and of precipitation, and what finding out cost."""
    archive = ArchiveSource(access)
    with opened_weather(source, archive) as (datasets, habits):
        variables = [(letter, find_variable(datasets, letter, source, habits)) for letter in LETTERS]
        plans = [_planned(variable, letter, tiles, years, source) for letter, variable in variables]
    return plans, archive.tally


def means_in_memory(
    tiles: Sequence[str], source: str, *, years: Years, access: Access | None = None
) -> tuple[list[MonthlyMeans], list[str]]:
    """Monthly means of both variables around the tiles and notes, without files."""
    with opened_weather(source, ArchiveSource(access)) as (datasets, habits):
        means, notes = [], list[str]()
        for letter in LETTERS:
            variable = find_variable(datasets, letter, source, habits)
            plan = _planned(variable, letter, tiles, years, source)
            notes += plan.notes
            strips = (
                Strip(row=part.rows[0], col=part.cols[0], months=month_means(variable, plan.chosen, part))
                for part in plan.parts
            )
            means.append(MonthlyMeans(axes=plan.axes, strips=tuple(strips)))
    return means, list(dict.fromkeys(notes))


def _planned(variable: Variable, letter: str, tiles: Sequence[str], years: Years, source: str) -> _Plan:
    chosen, notes = choose_steps(variable, years, source)
    axes, chunks = variable_axes(variable), chunks_of(variable)
    most = (
        STRIP_POINTS if chunks is None else min(STRIP_POINTS, CHUNK_BYTES // (chunks[0] * variable.data.dtype.itemsize))
    )
    parts = grid_parts(tile_parts(axes, tiles), chunks=None if chunks is None else chunks[1:], most=max(1, most))
    steps = variable.steps
    of_step = dict(zip(steps.index.tolist(), steps.year.tolist(), strict=True))
    used = sorted({of_step[step] for month in chosen for step in month.tolist()} - {0})
    return _Plan(
        letter=letter,
        axes=axes,
        parts=tuple(parts),
        chosen=tuple(chosen),
        notes=(*notes, *([variable.assumed] if variable.assumed else [])),
        used=tuple(used),
        lacking=lacking_years(steps, years),
    )


def _named_strips(folder: Path, plan: _Plan, stamp: object, years: Years) -> list[tuple[Part, Path]]:
    """Each strip with a file name that says all its content depends on."""
    steps = [month.tolist() for month in plan.chosen]
    key = short_digest(
        [_LAYOUT, stamp, plan.letter, years.years, plan.axes.lat.tolist(), plan.axes.lon.tolist(), steps]
    )
    return [
        (part, folder / f"{plan.letter}-{key}-{'-'.join(map(str, (*part.rows, *part.cols)))}.npy")
        for part in plan.parts
    ]


def _write_means(folder: Path, plan: _Plan, strips: Sequence[tuple[Part, Path]]) -> Path:
    """The JSON beside the strips."""
    record = MeansFile(
        lat=tuple(plan.axes.lat.tolist()),
        lon=tuple(plan.axes.lon.tolist()),
        strips=tuple((part.rows[0], part.cols[0], file.name) for part, file in strips),
    )
    path = folder / f"{plan.letter}-{short_digest([file.name for _, file in strips])}.json"
    write_text(path, record.to_json())
    seal(path)
    return path


def _record(named: NamedSource, address: str, plans: Sequence[_Plan]) -> SourceRecord:
    used = sorted({year for plan in plans for year in plan.used})
    lacking = sorted({year for plan in plans for year in plan.lacking})
    return SourceRecord(source=named, address=address, years_used=tuple(used), years_lacking=tuple(lacking))
