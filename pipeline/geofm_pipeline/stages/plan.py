"""Stage 2, plan: owned cells with covariates, the frozen strata and frame, and the ranked master draw."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_pipeline.card import Card
from geofm_pipeline.cluster import Runner
from geofm_pipeline.config import SampleConfig
from geofm_pipeline.errors import InputError, OutputConflictError
from geofm_pipeline.progress import Progress
from geofm_pipeline.stages.cells import covariate_names, land_cover_names, make_cells, say_notes
from geofm_pipeline.stages.designing import (
    design_of,
    heldout_share,
    of_wave,
    split_of,
    strata_factors,
    wave_sizes,
    with_layers,
    within_budget,
)
from geofm_pipeline.stages.frames import read_frame, write_frame
from geofm_pipeline.stages.growing import (
    first_part,
    last_of_part,
    looked_ranks,
    only_new_units,
    strata_path,
    with_old_ground,
)
from geofm_pipeline.stages.inputs import Inputs
from geofm_pipeline.waves import note_asked
from geofm_pipeline.workspace import (
    Workspace,
    commit_table,
    committed,
    named_frame,
    write_parquet,
    write_text,
)
from geofm_pipeline.years import Years
from geofm_sampling import Design, PlanRecord, Strata, build_frame, draw_master, fit_strata, next_wave, plan_record
from geofm_sampling.tables import PLAN
from geofm_sampling.unit import SEASONS

TILES_IN_PROCESS = 32
"""Tiles whose covariates take less time in this process than a cluster takes to start."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What the plan stage hands on."""

    frame: pa.Table
    """FRAME of the wave's part, without covariates."""
    plan: pa.Table
    """PLAN, with the design in its metadata."""
    digest: str
    """sha256 of plan.parquet, which names the frame's digest too."""

    @property
    def design(self) -> Design:
        """The design of the wave, as the plan holds it."""
        return plan_record(self.plan).design


def make_plan(
    space: Workspace,
    inputs: Inputs,
    config: SampleConfig,
    scenes: pa.Table,
    runner: Runner,
    progress: Progress,
    card: Card,
) -> Planned:
    """Frame and plan: from the folder if a run before committed them, else made here."""
    digest = committed(space, space.plan)
    if digest is None:
        if space.wave > space.part:
            digest = _next_ranks(space, config, progress, card)
        else:
            digest = _plan_anew(space, inputs, config, scenes, runner, progress, card)
    planned = Planned(frame=read_frame(space), plan=PLAN.check(pq.read_table(space.plan)), digest=digest)
    note_asked(space, planned.design.samples)
    return planned


def strata_sizes(cells: int) -> tuple[int, int]:
    """(climate clusters, cells below which a class is merged): 6 and 16, fewer and smaller where cells are few.

    An eighth of the cells keeps the classes of a small region few and filled: 24 cells give 3 clusters.
    """
    return min(6, max(1, cells // 8)), min(16, max(2, cells // 8))


def _plan_anew(
    space: Workspace,
    inputs: Inputs,
    config: SampleConfig,
    scenes: pa.Table,
    runner: Runner,
    progress: Progress,
    card: Card,
) -> str:
    many = len(set(scenes["tile"].to_pylist())) > TILES_IN_PROCESS
    base = design_of(config, inputs.years)
    cells = make_cells(space, inputs, base, scenes, runner if many else None, progress, card)
    cells, notes = with_layers(config, cells)
    if space.wave > 1:
        cells = with_old_ground(space, cells, inputs.region, config.chip_size)
        strata = Strata.from_json(strata_path(first_part(space)).read_text())
    else:
        strata = _fit(cells, config)
    share = heldout_share(space, config, cells)
    if config.heldout_samples and not share:
        notes.append(f"--heldout-samples {config.heldout_samples} has no effect: no ground is held out (--heldout).")
    split = split_of(space, config, share, cells, strata)
    frame = build_frame(cells, strata, years=inputs.years.years, chip_size=config.chip_size, split=split)
    notes += split.notes
    if space.wave > 1:
        frame, found = only_new_units(space, frame)
        notes += found
    design = of_wave(space, design_of(config, inputs.years, share=share))
    plan = _drawn(frame, within_budget(config, design, frame, scenes))
    write_frame(space, frame, cells)
    write_text(strata_path(space), strata.to_json() + "\n")
    write_parquet(space.blocks, split.blocks)
    digest = commit_table(space, space.plan, named_frame(space, PLAN.describe(plan)))
    shutil.rmtree(space.work / "cells", ignore_errors=True)  # kept only for a plan that was stopped
    _note_plan(card, progress, frame, cells, plan, notes, digest)
    return digest


def _fit(cells: pa.Table, config: SampleConfig) -> Strata:
    clusters, min_cells = strata_sizes(cells.num_rows)
    return fit_strata(
        cells,
        clusters=clusters,
        min_cells=min_cells,
        groups=land_cover_names(cells),
        seed=config.seed,
        factors=strata_factors(config),
    )


def _further(plan: pa.Table, looked: NDArray[np.int64], design: Design, space: Workspace) -> pa.Table:
    try:
        return next_wave(plan, looked, design)
    except ValueError as error:
        raise OutputConflictError(f"--extend {space.root}: {error}; name more years or ground instead") from error


def _drawn(frame: pa.Table, design: Design) -> pa.Table:
    try:
        return draw_master(frame, design)
    except ValueError as error:
        raise InputError(f"nothing can be drawn: {error}") from error


def _next_ranks(space: Workspace, config: SampleConfig, progress: Progress, card: Card) -> str:
    """A further wave on ground that has a plan: its next ranks."""
    before = last_of_part(space)
    plan = PLAN.check(pq.read_table(before.plan))
    old = plan_record(plan).design
    asked = wave_sizes(space, design_of(config, Years(years=old.years), share=old.heldout))
    design = replace(old, samples=asked.samples, heldout_samples=asked.heldout)
    wave = _further(plan, looked_ranks(before).ranks, design, space)
    digest = commit_table(space, space.plan, named_frame(space, PLAN.describe(wave)))
    card.set(
        "plan", {"digest": digest, "design": json.loads(design.to_json()), "strata": _strata_rows(plan_record(wave))}
    )
    say_notes(plan_record(wave).notes, progress, card)
    progress.say(f"plan: wave {space.wave} takes the next ranks of wave {before.wave}: {asked.samples:,} samples more")
    return digest


def _note_plan(
    card: Card,
    progress: Progress,
    frame: pa.Table,
    cells: pa.Table,
    plan: pa.Table,
    notes: Sequence[str],
    digest: str,
) -> None:
    record = plan_record(plan)
    seasons, split = np.bincount(frame["season"].to_numpy(), minlength=SEASONS), frame["split"].to_numpy()
    facts = {
        "units": frame.num_rows,
        "seasons": {str(season): int(count) for season, count in enumerate(seasons)},
        "splits": {name: int((split == code).sum()) for name, code in SPLITS.items()},
        "strata": int((record.frame_units.reshape(record.splits, -1).sum(axis=0) > 0).sum()),
        "covariates": covariate_names(cells),
    }
    card.set("frame", {**card.section("frame"), **facts})
    card.set("plan", {"digest": digest, "design": json.loads(record.design.to_json()), "strata": _strata_rows(record)})
    say_notes([*record.notes, *notes], progress, card)
    progress.say(
        f"plan: {frame.num_rows:,} units in {facts['strata']} strata, {plan.num_rows:,} ranked, "
        f"{int(record.first_look.sum()):,} in the first look"
    )


SPLITS = {"training": 0, "held-out": 1, "buffer": -1}
"""Names of the codes of a frame's split."""


def _strata_rows(record: PlanRecord) -> list[dict[str, object]]:
    table = record.table().rename_columns(["stratum", "split", "name", "N", "M", "start", "n1", "n"])
    return [row for row in table.to_pylist() if row["N"]]
