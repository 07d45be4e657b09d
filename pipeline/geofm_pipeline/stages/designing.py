"""From options to the numbers of the design: held-out share, strata factors, sizes of a wave, the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from geofm_pipeline.config import DEFAULT_SAMPLES, SampleConfig, parse_bytes
from geofm_pipeline.covariates.layer import layer_values
from geofm_pipeline.errors import InputError, OutputConflictError
from geofm_pipeline.hls.bands import PIXEL_M
from geofm_pipeline.stages.growing import earlier_waves, first_part
from geofm_pipeline.stages.project import project
from geofm_pipeline.workspace import Workspace
from geofm_pipeline.years import Years
from geofm_sampling import Design, Strata, draw_master, plan_record
from geofm_sampling.blocks import Split, draw_split, enough_blocks
from geofm_sampling.strata import stratum_of_cells
from geofm_sampling.tables import BY_PREFIX

AUTOMATIC_SHARE = 0.1
"""Held-out share where the region has enough blocks for it."""
FACTORS = ("land_cover", "climate", "season")


def design_of(config: SampleConfig, years: Years, *, share: float = 0.0) -> Design:
    """The part of the options that the statistics depend on; `share` is the held-out share that was resolved."""
    samples = config.samples or DEFAULT_SAMPLES
    held = config.heldout_samples if config.heldout_samples is not None else round(share * samples)
    return Design(
        samples=samples,
        years=years.years,
        chip_size=config.chip_size,
        timesteps=config.timesteps,
        min_gap=config.min_gap,
        max_gap=config.max_gap,
        min_clear=config.min_clear,
        allocation=config.allocation,
        power=config.power,
        floor=config.floor,
        cost_aware=config.cost_aware,
        heldout=share,
        heldout_samples=held if share else 0,
        block_km=config.block_km,
        buffer_km=config.buffer_km,
        information=config.information,
        entropy=config.entropy,
        novelty=config.novelty,
        draw=config.draw,
        joint_dates=config.joint_dates,
        seed=config.seed,
    )


def heldout_share(space: Workspace, config: SampleConfig, cells: pa.Table) -> float:
    """The held-out share: that of the first wave, else the option's, else 0.1 where there are blocks enough."""
    if space.wave > 1:
        return plan_record(pq.read_table(first_part(space).plan)).design.heldout
    if config.heldout is not None:
        return config.heldout
    lon, lat = cells["lon"].to_numpy(), cells["lat"].to_numpy()
    return AUTOMATIC_SHARE if enough_blocks(lon, lat, config.block_km, AUTOMATIC_SHARE) else 0.0


def split_of(space: Workspace, config: SampleConfig, share: float, cells: pa.Table, strata: Strata) -> Split:
    """Training and held-out ground of the cells; blocks that the first wave knew stay as they are.

    Raises
    ------
    InputError
        When no training ground is left.
    """
    try:
        return draw_split(
            cells["lon"].to_numpy(),
            cells["lat"].to_numpy(),
            stratum_of_cells(cells, strata),
            share=share,
            block_km=config.block_km,
            buffer_km=config.buffer_km,
            chip_km=config.chip_size * PIXEL_M / 1000,
            seed=config.seed,
            frozen=pq.read_table(first_part(space).blocks) if space.wave > 1 else None,
            names=strata.classes,
        )
    except ValueError as error:
        raise InputError(f"--heldout {share}: {error}") from error


def strata_factors(config: SampleConfig) -> tuple[str, ...]:
    """Names of the strata's factors: those that are known and `by_<attribute>` for layers.

    Raises
    ------
    InputError
        For a word that is neither a factor nor FILE:ATTRIBUTE.
    """
    names = tuple(word if word in FACTORS else BY_PREFIX + _layer(word)[1].lower() for word in config.factors)
    if len(set(names)) < len(names):
        raise InputError(
            f"--strata {config.strata} names two layers by one attribute: rename the attribute in one of the files"
        )
    return names


def _layer(word: str) -> tuple[str, str]:
    source, colon, attribute = word.rpartition(":")
    if not colon or not source or not attribute:
        raise InputError(
            f"--strata {word!r} is none of {', '.join(FACTORS)} and no FILE:ATTRIBUTE of a vector layer, "
            "such as ecoregions.json:BIOME_NAME"
        )
    return source, attribute


def with_layers(config: SampleConfig, cells: pa.Table) -> tuple[pa.Table, list[str]]:
    """Cells with a `by_` column for each vector layer of --strata, and what had to be said."""
    strata_factors(config)
    notes = []
    for word in config.factors:
        if word not in FACTORS:
            source, attribute = _layer(word)
            found = layer_values(cells, str(Path(source).expanduser().absolute()), attribute)
            cells = found.table
            if found.note:
                notes.append(found.note)
    return cells, notes


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one wave adds."""

    samples: int
    heldout: int


def wave_sizes(space: Workspace, whole: Design) -> Asked:
    """Samples that a wave adds so that all waves together have those of `whole`; all of them in the first.

    Raises
    ------
    OutputConflictError
        When the waves before have as many already.
    """
    before = [plan_record(pq.read_table(wave.plan)).design for wave in earlier_waves(space)]
    asked = sum(design.samples for design in before)
    if whole.samples <= asked:
        raise OutputConflictError(
            f"--extend --samples {whole.samples}: the waves of {space.root} were asked for {asked} together; name a "
            "larger number (held-out samples grow along with --samples, never alone)"
        )
    held = max(0, whole.heldout_samples - sum(design.heldout_samples for design in before))
    return Asked(samples=whole.samples - asked, heldout=held)


def of_wave(space: Workspace, whole: Design) -> Design:
    """The design with the sizes of this wave."""
    if space.wave == 1:
        return whole
    asked = wave_sizes(space, whole)
    return replace(whole, samples=asked.samples, heldout_samples=asked.heldout)


def within_budget(config: SampleConfig, design: Design, frame: pa.Table, scenes: pa.Table) -> Design:
    """The design with as many samples as --budget allows to read and to write; unchanged without a budget.

    Raises
    ------
    InputError
        When not even one sample fits.
    """
    budget = parse_bytes(config.budget, option="--budget")
    if budget is None:
        return design
    low, high = 0, frame.num_rows + 1  # `low` fits, `high` does not
    guess = min(_rough_samples(config, budget), frame.num_rows)
    while high - low > max(1, low // 100):
        trial = _resized(design, guess)
        sizes = project(frame, draw_master(frame, trial), scenes, config)
        if max(sizes.read_bytes, sizes.write_bytes) <= budget:
            low = guess
        else:
            high = guess
        guess = (low + high) // 2
    if low < 1:
        raise InputError(f"--budget {config.budget} is too small for a single sample; name a larger one")
    return _resized(design, low)


def _rough_samples(config: SampleConfig, budget: int) -> int:
    """Samples whose raw pixels fill the budget."""
    return max(1, budget // (config.timesteps * config.chip_size**2 * 10))


def _resized(design: Design, samples: int) -> Design:
    held = round(design.heldout * samples) if design.heldout_samples else 0
    return replace(design, samples=max(samples, 1), heldout_samples=held)
