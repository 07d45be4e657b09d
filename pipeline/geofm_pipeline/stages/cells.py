"""Cells of a run: owned ground cells with land cover, weather and expected clear share, a tile at a time.

Workers make one file per tile in `work/cells`; this process keeps a small record of each. A run that was stopped
continues with the tiles that are missing. The table at the end is read tile by tile into a file that memory maps, so
this process never holds it: 165 bytes a cell with land cover and weather (824,005 cells were 136 MB).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geofm_pipeline.access.routes import place_behind
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.card import Card, versions
from geofm_pipeline.cells import OwnershipReport
from geofm_pipeline.cluster import InProcess, Runner
from geofm_pipeline.covariates.class_index import ClassMap
from geofm_pipeline.covariates.clear_sky import expected_clear
from geofm_pipeline.covariates.cover_files import cover_places
from geofm_pipeline.covariates.land_cover import check_cover, cover_note, map_legend, map_of, sum_facts
from geofm_pipeline.covariates.legends import Legend, land_cover_names, with_legend
from geofm_pipeline.covariates.named_sources import (
    SourceRecord,
    described,
    named_source,
    weather_address,
)
from geofm_pipeline.covariates.tiles import TileFacts, TileTask, made_tile, make_tiles
from geofm_pipeline.covariates.weather import check_weather, sum_weather, weather_note
from geofm_pipeline.covariates.weather_prepare import prepare_weather
from geofm_pipeline.covariates.weather_shelf import PreparedWeather
from geofm_pipeline.digests import short_digest
from geofm_pipeline.errors import NothingFoundError
from geofm_pipeline.ground_coverage import ground_coverage
from geofm_pipeline.ownership import neighbours
from geofm_pipeline.progress import Progress
from geofm_pipeline.stages.inputs import Inputs
from geofm_pipeline.store.files import disk_errors, replacing, write_file
from geofm_pipeline.workspace import Workspace
from geofm_sampling import Design
from geofm_sampling.tables import CELLS, COVARIATE_PREFIXES, LAND_COVER_PREFIX, WEATHER_PREFIX
from geofm_sampling.unit import cells_per_side

__all__ = ["covariate_names", "land_cover_names", "make_cells", "say_notes"]

EMPTY_GROUND = 0.0
"""A cell with no land cover at all (the open sea in WorldCover and its like) is declared out of the frame."""
TILES_PER_TASK = 8
"""A tile of 196 cells takes about 30 ms: eight of them keep the scheduler's share small."""
_LAYOUT = 1  # of the tiles' files: another number makes them anew


@dataclass(frozen=True, kw_only=True)
class _Sources:
    """What cells are made from, opened once in this process."""

    land_cover: ClassMap | None
    weather: PreparedWeather | None

    @property
    def records(self) -> list[SourceRecord]:
        """Of the sources that have a name."""
        found = [source.record for source in (self.land_cover, self.weather) if source is not None]
        return [record for record in found if record is not None]

    @property
    def tally(self) -> Tally:
        """What opening them cost."""
        return sum((source.tally for source in (self.land_cover, self.weather) if source is not None), Tally())


def make_cells(
    space: Workspace,
    inputs: Inputs,
    design: Design,
    scenes: pa.Table,
    runner: Runner | None,
    progress: Progress,
    card: Card,
) -> pa.Table:
    """CELLS of the region with covariates, sorted by (tile, cell_row, cell_col), mapped from a file.

    Cells without any land cover are left out. Columns: those of CELLS, `cl_mean`, `lc_<code>`, `wx_<month>`; schema
    metadata hold the legend (geofm_pipeline.covariates.legends). Facts and notes go into the card's sections
    `inputs` and `frame`.

    Parameters
    ----------
    runner : where tiles are made; None is this process

    Raises
    ------
    NothingFoundError
        When no cell of the region is owned, or none has land cover.
    InputError, ArchiveError
        When a source of covariates cannot be used.
    """
    runner = runner or InProcess()
    folder = space.work / "cells"
    tiles = sorted(set(scenes["tile"].to_pylist()))
    say_notes(inputs.said, progress, card)
    sources = _open_sources(folder, inputs, tiles, runner, progress)
    card.reached("covariates", sources.tally)
    say_notes((record.sentence for record in sources.records), progress, card)
    tasks = _tasks(folder, inputs, design, expected_clear(scenes), tiles, sources)
    facts, cost = _make_tiles(tasks, runner, progress)
    card.reached("covariates", cost)
    report = _report(facts, inputs, design)
    if not report.cells:
        raise NothingFoundError(
            f"no cell of {design.chip_size} pixels has its centre in region {inputs.region.name} and in a tile of the "
            "catalogue; widen the region"
        )
    legend, notes = _judged(facts, inputs, design, sources)
    say_notes(filter(None, notes.values()), progress, card)
    cells = _assembled(folder, [task.path for task in tasks], facts, legend)
    _note_cells(cells, report, inputs, legend, {**notes, "sources": _plain(sources.records)}, progress, card)
    return cells


def _plain(records: Iterable[SourceRecord]) -> list[dict[str, object]]:
    """Records for JSON."""
    return [record.as_dict() for record in records]


def covariate_names(cells: pa.Table) -> list[str]:
    """Columns that a source of covariates gave."""
    return [name for name in cells.column_names if name.startswith(COVARIATE_PREFIXES)]


def say_notes(notes: Iterable[str], progress: Progress, card: Card) -> None:
    """Say each sentence once, on the terminal and in the card."""
    for note in notes:
        if card.say(note):
            progress.say(f"plan: {note}")


def _open_sources(folder: Path, inputs: Inputs, tiles: Sequence[str], runner: Runner, progress: Progress) -> _Sources:
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    land_cover = weather = None
    if inputs.land_cover is not None:
        progress.say(f"plan: land cover from {described('--land-cover', inputs.land_cover)}")
        land_cover = map_of(
            inputs.land_cover,
            tiles,
            years=inputs.years,
            access=inputs.access,
            runner=runner,
            shelf=_shelf(inputs, "land_cover"),
        )
    if inputs.weather is not None:
        progress.say(f"plan: weather from {described('--weather', inputs.weather)}")
        weather = prepare_weather(
            folder / "weather" / _place(inputs, "weather"),
            tiles,
            inputs.weather,
            years=inputs.years,
            runner=runner,
            access=inputs.access,
            cache=_shelf(inputs, "weather"),
            progress=progress,
        )
    return _Sources(land_cover=land_cover, weather=weather)


def _shelf(inputs: Inputs, name: str) -> Path | None:
    """Folder of the user's cache for what was read of a named source at its place."""
    return None if inputs.cache is None else inputs.cache / name / _place(inputs, name)


def _place(inputs: Inputs, name: str) -> str:
    """Digest of where a named source is really read, '' for paths, URLs and none.

    With --services another endpoint may serve other data by the same s3:// or gs:// address.
    """
    services = inputs.access.services
    if name == "land_cover":
        cover = named_source("--land-cover", inputs.land_cover or "")
        return "" if cover is None else short_digest(cover_places(cover, services))
    weather = named_source("--weather", inputs.weather or "")
    return "" if weather is None else short_digest(place_behind(weather_address(weather, services), services))


def _tasks(
    folder: Path,
    inputs: Inputs,
    design: Design,
    clear: Mapping[str, float],
    tiles: Sequence[str],
    sources: _Sources,
) -> list[TileTask]:
    """One task per tile; its key is made of all that its file depends on, and of nothing else."""
    wkb = shapely.to_wkb(inputs.region.geometry)
    region = folder / f"region-{short_digest(wkb.hex())}.wkb"
    if not region.exists():
        write_file(region, wkb, folder)
    near = neighbours(tiles)
    named = sources.land_cover is not None and sources.land_cover.record is not None
    shelf = _shelf(inputs, "land_cover") if named else None
    places = [_place(inputs, "land_cover"), _place(inputs, "weather")]
    common = [_LAYOUT, versions(), region.name, design.chip_size, sources.weather and sources.weather.digest, places]
    tasks = []
    for tile in tiles:
        rasters = None if sources.land_cover is None else sources.land_cover.touching(tile)
        stamps = None if rasters is None else [(raster.path, raster.stamp) for raster in rasters]
        tasks.append(
            TileTask(
                path=folder / f"{tile}.parquet",
                key=short_digest([common, near[tile], tile, clear[tile], stamps]),
                tile=tile,
                present=near[tile],
                region=region,
                chip_size=design.chip_size,
                clear=clear[tile],
                rasters=None if rasters is None else tuple(raster.path for raster in rasters),
                weather=() if sources.weather is None else sources.weather.files,
                access=inputs.access,
                map_name=inputs.land_cover or "",
                shelf=shelf,
            )
        )
    return tasks


def _make_tiles(tasks: Sequence[TileTask], runner: Runner, progress: Progress) -> tuple[list[TileFacts], Tally]:
    """Facts of all tiles in order and what reading cost; only those without a file of their key are made."""
    wanted = {task.path for task in tasks}
    for old in set(tasks[0].path.parent.glob("*.parquet")) - wanted if tasks else ():
        old.unlink()
    facts = {task.tile: made for task in tasks if (made := made_tile(task.path, task.key)) is not None}
    missing = [task for task in tasks if task.tile not in facts]
    if facts and missing:
        progress.say(f"plan: cells of {len(facts):,} of {len(tasks):,} tiles are there already")
    batches = [missing[start : start + TILES_PER_TASK] for start in range(0, len(missing), TILES_PER_TASK)]
    results = runner.run(make_tiles, batches)
    counted = progress.count(
        results, total=len(missing), label="cells", unit="tiles", size=lambda done: len(batches[done[0]])
    )
    cost = Tally()
    for _, batch in counted if missing else ():
        facts |= {fact.tile: fact for fact in batch.facts}
        cost += batch.tally
    return [facts[task.tile] for task in tasks], cost


def _report(facts: Sequence[TileFacts], inputs: Inputs, design: Design) -> OwnershipReport:
    return OwnershipReport(
        tiles=sum(fact.cells > 0 for fact in facts),
        cells=sum(fact.cells for fact in facts),
        area_km2=math.fsum(fact.area_km2 for fact in facts),
        cells_of_tiles=len(facts) * cells_per_side(design.chip_size) ** 2,
        owned_of_tiles=sum(fact.owned for fact in facts),
        coverage=ground_coverage([fact.tile for fact in facts], inputs.region, chip_size=design.chip_size),
    )


def _judged(
    facts: Sequence[TileFacts], inputs: Inputs, design: Design, sources: _Sources
) -> tuple[Legend | None, dict[str, str | None]]:
    """Legend and notes of the sources over the whole region; raises where one cannot be used."""
    legend, notes = None, dict[str, str | None](land_cover_note=None, weather_note=None)
    if sources.land_cover is not None:
        cover = sum_facts(fact.cover for fact in facts if fact.cover is not None)
        check_cover(cover, sources.land_cover)
        legend = map_legend(sources.land_cover, cover, inputs.legend)
        said = (sources.land_cover.note, cover_note(cover, design.chip_size), legend.note)
        notes["land_cover_note"] = "; ".join(filter(None, said))
    if sources.weather is not None and inputs.weather is not None:
        weather = sum_weather(fact.weather for fact in facts if fact.weather is not None)
        check_weather(weather, inputs.weather)
        notes["weather_note"] = "; ".join([*sources.weather.notes, *weather_note(weather)])
    return legend, notes


def _assembled(folder: Path, paths: Sequence[Path], facts: Sequence[TileFacts], legend: Legend | None) -> pa.Table:
    """The tiles' cells in one table that is mapped from a file, which has no name any more."""
    codes = sorted({code for fact in facts if fact.cover is not None for code in fact.cover.codes})
    target = folder / "cells.arrow"
    parts = (_with_ground(_with_all_classes(pq.read_table(path), codes)) for path in paths)
    first = next(parts)
    with (
        replacing(target, folder) as fd,
        os.fdopen(fd, "wb", closefd=False) as stream,
        pa.ipc.new_file(stream, first.schema) as writer,
    ):
        writer.write_table(first)
        for part in parts:
            writer.write_table(part)
    table = pa.ipc.open_file(pa.memory_map(str(target))).read_all()
    target.unlink()
    table = CELLS.check(table)
    return table if legend is None else with_legend(table, legend)


def _with_all_classes(part: pa.Table, codes: Sequence[int]) -> pa.Table:
    """A tile's cells with a column for every class of the region, in order of the codes, before the weather."""
    names = [f"{LAND_COVER_PREFIX}{code}" for code in codes]
    nothing = pa.array(np.zeros(part.num_rows, dtype=np.float32))
    columns = {name: part[name] if name in part.column_names else nothing for name in names}
    rest = [name for name in part.column_names if not name.startswith(LAND_COVER_PREFIX)]
    at = next((i for i, name in enumerate(rest) if name.startswith(WEATHER_PREFIX)), len(rest))
    ordered = {**{n: part[n] for n in rest[:at]}, **columns, **{n: part[n] for n in rest[at:]}}
    return pa.table(ordered)


def _with_ground(part: pa.Table) -> pa.Table:
    """Cells that have any land cover; all of them where there is no map."""
    names = [name for name in part.column_names if name.startswith(LAND_COVER_PREFIX)]
    if not names:
        return part
    total = np.sum([part[name].to_numpy() for name in names], axis=0)
    return part.filter(pa.array(total > EMPTY_GROUND))


def _note_cells(
    cells: pa.Table,
    report: OwnershipReport,
    inputs: Inputs,
    legend: Legend | None,
    notes: Mapping[str, object],
    progress: Progress,
    card: Card,
) -> None:
    dropped = report.cells - cells.num_rows
    if dropped:
        said = f"{dropped:,} of {report.cells:,} cells have no land cover at all in the map: out of the frame."
        say_notes([said], progress, card)
    named = None if legend is None else f"{legend.title}, {legend.why}"
    card.set("inputs", {**_input_facts(inputs), **notes, "land_cover_legend": named})
    extent = {"cells": cells.num_rows, "area_km2": float(cells["area_km2"].to_numpy().sum(dtype=np.float64))}
    card.set("frame", {**report.as_dict(), **extent, "out_of_frame_cells": dropped})


def _input_facts(inputs: Inputs) -> dict[str, object]:
    return {
        "region": inputs.region.name,
        "bbox": list(inputs.region.geometry.bounds),
        "years": list(inputs.years.years),
        "catalog": inputs.catalog,
        "land_cover": inputs.land_cover,
        "weather": inputs.weather,
    }
