"""Stage 2, plan: owned cells with covariates, the frozen strata and frame, and the ranked master draw."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_pipeline.card import Card
from geofm_pipeline.cells import owned_cells
from geofm_pipeline.config import SampleConfig
from geofm_pipeline.covariates import land_cover_fractions, weather_monthly
from geofm_pipeline.errors import NothingFoundError
from geofm_pipeline.progress import Progress
from geofm_pipeline.stages.inputs import Inputs
from geofm_pipeline.workspace import (
    Workspace,
    check_frame,
    commit_table,
    committed,
    named_frame,
    write_parquet,
    write_text,
)
from geofm_pipeline.years import Years
from geofm_sampling import Design, PlanRecord, build_frame, draw_master, fit_strata, plan_record
from geofm_sampling.covariates import WORLDCOVER_GROUPS, land_cover_codes
from geofm_sampling.tables import FRAME, LAND_COVER_PREFIX, PLAN, WEATHER_PREFIX
from geofm_sampling.unit import SEASONS, TILE_PIXELS

EMPTY_GROUND = 0.0
"""A cell with no land cover at all (the open sea in WorldCover and its like) is declared out of the frame."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What the plan stage hands on."""

    frame: pa.Table
    """FRAME without covariates."""
    plan: pa.Table
    """PLAN, with the design in its metadata."""
    digest: str
    """sha256 of plan.parquet, which names the frame's digest too."""


def design_of(config: SampleConfig, years: Years) -> Design:
    """The part of the options that the statistics depend on."""
    return Design(
        samples=config.samples,
        years=years.years,
        chip_size=config.chip_size,
        timesteps=config.timesteps,
        min_gap=config.min_gap,
        max_gap=config.max_gap,
        min_clear=config.min_clear,
        heldout=config.heldout,
        seed=config.seed,
    )


def make_plan(
    space: Workspace, inputs: Inputs, design: Design, scenes: pa.Table, progress: Progress, card: Card
) -> Planned:
    """Frame and plan: from the folder if a run before committed them, else made here."""
    digest = committed(space, space.plan)
    if digest is None:
        digest = _plan_anew(space, inputs, design, scenes, progress, card)
    plan = PLAN.check(pq.read_table(space.plan))
    check_frame(space)
    parts = [str(part) for part in sorted(space.frame.glob("*.parquet"))]  # by tile name, hence by unit
    frame = pq.read_table(parts, columns=[*FRAME.columns])
    return Planned(frame=FRAME.check(frame), plan=plan, digest=digest)


def land_cover_names(cells: pa.Table) -> Mapping[int, str]:
    """WorldCover's names for WorldCover's codes; a map with any other code has another legend, so no names at all."""
    codes = land_cover_codes(cells)
    return WORLDCOVER_GROUPS if all(code in WORLDCOVER_GROUPS for code in codes) else {}


def strata_sizes(cells: int) -> tuple[int, int]:
    """(climate clusters, cells below which a class is merged): 6 and 16, fewer and smaller where cells are few.

    An eighth of the cells keeps the classes of a small region few and filled: 24 cells give 3 clusters.
    """
    return min(6, max(1, cells // 8)), min(16, max(2, cells // 8))


def _plan_anew(
    space: Workspace, inputs: Inputs, design: Design, scenes: pa.Table, progress: Progress, card: Card
) -> str:
    cells = _cells(inputs, design, scenes, progress, card)
    clusters, min_cells = strata_sizes(cells.num_rows)
    names = land_cover_names(cells)
    strata = fit_strata(cells, clusters=clusters, min_cells=min_cells, groups=names, seed=design.seed)
    frame = build_frame(cells, strata, years=design.years, chip_size=design.chip_size)
    plan = draw_master(frame, design)
    _write_frame(space, frame, cells)
    write_text(space.frame / "strata.json", strata.to_json() + "\n")
    plan = named_frame(space, PLAN.describe(plan))
    digest = commit_table(space, space.plan, plan)
    _note_plan(card, progress, frame, cells, plan, design, digest)
    return digest


def _cells(inputs: Inputs, design: Design, scenes: pa.Table, progress: Progress, card: Card) -> pa.Table:
    tiles = sorted(set(scenes["tile"].to_pylist()))
    progress.say(f"plan: cells of {len(tiles):,} tiles")
    owned = owned_cells(tiles, inputs.region, chip_size=design.chip_size)
    if not owned.table.num_rows:
        raise NothingFoundError(
            f"no cell of {design.chip_size} pixels has its centre in region {inputs.region.name} and in a tile of the "
            "catalogue; widen the region"
        )
    cells = owned.table
    notes: dict[str, str | None] = {"land_cover_note": None, "weather_note": None}
    if inputs.land_cover is not None:
        progress.say(f"plan: land cover of {cells.num_rows:,} cells from {inputs.land_cover}")
        covered = land_cover_fractions(cells, inputs.land_cover, progress=progress.say)
        cells, notes["land_cover_note"] = covered.table, covered.note
    if inputs.weather is not None:
        progress.say(f"plan: weather of {cells.num_rows:,} cells from {inputs.weather}")
        covered = weather_monthly(cells, inputs.weather, years=inputs.years)
        cells, notes["weather_note"] = covered.table, covered.note
    _say(filter(None, notes.values()), progress, card)
    kept = _with_ground(cells)
    dropped = cells.num_rows - kept.num_rows
    if dropped:
        _say(
            [f"{dropped:,} of {cells.num_rows:,} cells have no land cover at all in the map: out of the frame."],
            progress,
            card,
        )
    card.set("inputs", {**_input_facts(inputs), **notes})
    card.set("frame", {**owned.report.as_dict(), **_extent(kept), "out_of_frame_cells": dropped})
    return kept


def _extent(cells: pa.Table) -> dict[str, object]:
    return {"cells": cells.num_rows, "area_km2": float(cells["area_km2"].to_numpy().sum(dtype=np.float64))}


def _input_facts(inputs: Inputs) -> dict[str, object]:
    return {
        "region": inputs.region.name,
        "bbox": list(inputs.region.geometry.bounds),
        "years": list(inputs.years.years),
        "catalog": inputs.catalog,
        "land_cover": inputs.land_cover,
        "weather": inputs.weather,
    }


def _with_ground(cells: pa.Table) -> pa.Table:
    """Cells that have any land cover; all of them where there is no map."""
    names = [name for name in _covariates(cells) if name.startswith(LAND_COVER_PREFIX)]
    if not names:
        return cells
    total = np.nansum(np.stack([cells[name].to_numpy() for name in names]), axis=0)
    kept = cells.filter(pa.array(total > EMPTY_GROUND))
    if not kept.num_rows:
        raise NothingFoundError(
            f"the land-cover map has no class in any of the {cells.num_rows:,} cells of the region: it does not cover "
            "the region, or its nodata value is wrong; name another with --land-cover, or leave it out"
        )
    return kept


def _write_frame(space: Workspace, frame: pa.Table, cells: pa.Table) -> None:
    """One file per tile with the cells' covariates; rows are in order of the unit id, so a tile's rows lie together."""
    tiles = frame["tile"].to_numpy(zero_copy_only=False)
    cell_tiles = cells["tile"].to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.r_[True, tiles[1:] != tiles[:-1]])
    for old in space.frame.glob("*.parquet"):
        old.unlink()
    for start, stop in zip(starts, np.r_[starts[1:], len(tiles)], strict=True):
        tile = str(tiles[start])
        part = _with_covariates(frame.slice(start, stop - start), cells.filter(pa.array(cell_tiles == tile)))
        write_parquet(space.frame / f"{tile}.parquet", FRAME.describe(part))


def _with_covariates(frame: pa.Table, cells: pa.Table) -> pa.Table:
    """Frame rows of one tile with the covariates of their cells."""

    def places(table: pa.Table) -> NDArray[np.int64]:
        row, col = (table[name].to_numpy().astype(np.int64) for name in ("cell_row", "cell_col"))
        return np.asarray(row * TILE_PIXELS + col)

    order = np.argsort(places(cells))
    at = pa.array(order[np.searchsorted(places(cells)[order], places(frame))])
    for name in _covariates(cells):
        frame = frame.append_column(name, cells[name].take(at))
    return frame


def _covariates(cells: pa.Table) -> list[str]:
    return [name for name in cells.column_names if name.startswith((LAND_COVER_PREFIX, WEATHER_PREFIX))]


def _note_plan(
    card: Card, progress: Progress, frame: pa.Table, cells: pa.Table, plan: pa.Table, design: Design, digest: str
) -> None:
    record = plan_record(plan)
    seasons = np.bincount(frame["season"].to_numpy(), minlength=SEASONS)
    facts = {
        "units": frame.num_rows,
        "seasons": {str(season): int(count) for season, count in enumerate(seasons)},
        "strata": int((record.frame_units > 0).sum()),
        "covariates": _covariates(cells),
    }
    card.set("frame", {**card.section("frame"), **facts})
    card.set("plan", {"digest": digest, "design": json.loads(design.to_json()), "strata": _strata_rows(record)})
    _say(record.notes, progress, card)
    progress.say(
        f"plan: {frame.num_rows:,} units in {facts['strata']} strata, {plan.num_rows:,} ranked, "
        f"{int(record.first_look.sum()):,} in the first look"
    )


def _say(notes: Iterable[str], progress: Progress, card: Card) -> None:
    for note in notes:
        if card.say(note):
            progress.say(f"plan: {note}")


def _strata_rows(record: PlanRecord) -> list[dict[str, object]]:
    return [
        {"stratum": h, "name": name, "N": int(size), "M": int(master), "n1": int(first), "n": int(target)}
        for h, (name, size, master, first, target) in enumerate(
            zip(record.names, record.frame_units, record.master_units, record.first_look, record.target, strict=True)
        )
        if size
    ]
