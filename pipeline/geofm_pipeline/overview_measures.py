"""The information of units of one granule: read its overview, measure what the clear pixels say.

The task of :mod:`geofm_pipeline.inform`. Cost: seven headers of 16 KB and, of each of the seven files, about 20 KB per
64 cells; 1 ms of work per unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.access.source import ByteSource, reading_threads
from geofm_pipeline.chips import ReadStats
from geofm_pipeline.cog.overview import Overview, read_overview
from geofm_pipeline.errors import BlockReadError
from geofm_pipeline.hls import bands, fmask
from geofm_pipeline.scenes import SceneRef
from geofm_sampling.contract import Column, TableContract
from geofm_sampling.information import LEAST_PIXELS, descriptors, spectral_entropies
from geofm_sampling.tables import INFORMATION
from geofm_sampling.unit import unpack_units

OK = ""
TOO_FEW = f"fewer than {LEAST_PIXELS} clear pixels in the overview"
FINAL = (OK, TOO_FEW)
"""Causes that a second run need not look into again; unreadable files may have come back."""

MEASURED = TableContract(
    name="measured information",
    columns={
        **INFORMATION.columns,
        "granule_id": Column(type=pa.string(), meaning="granule whose overview was read"),
        "cause": Column(type=pa.string(), meaning="why there is no information; empty where there is"),
    },
)
"""What was measured of units of one tile; chip size and mask rule are the same in one table."""


@dataclass(frozen=True, kw_only=True)
class InformBatch:
    """Granules of one tile and the units to read of each; small and picklable."""

    tile: str
    scenes: tuple[SceneRef, ...]
    units: tuple[NDArray[np.uint64], ...]
    """Packed ids, one array per scene."""
    chip_size: int
    rule: fmask.MaskRule
    source: ByteSource
    threads: int
    """Granules read at once from local files."""


@dataclass(frozen=True, kw_only=True)
class Informed:
    """What a batch found and what it cost."""

    tile: str
    table: pa.Table
    """MEASURED."""
    stats: ReadStats


def inform_batch(batch: InformBatch) -> Informed:
    """MEASURED rows of a batch; a transient fault is raised as BlockReadError."""
    source = batch.source.twin()
    read = partial(_inform_granule, chip_size=batch.chip_size, rule=batch.rule, source=source)
    threads = source.at_once(batch.scenes[0].fmask, local=batch.threads)
    with reading_threads(source, threads, "inform") as pool:
        parts = list(pool.map(read, batch.scenes, batch.units))
    stats = ReadStats(tally=source.tally)
    for _, cost in parts:
        stats = stats + cost
    return Informed(tile=batch.tile, table=pa.concat_tables([table for table, _ in parts]), stats=stats)


def _inform_granule(
    scene: SceneRef, units: NDArray[np.uint64], *, chip_size: int, rule: fmask.MaskRule, source: ByteSource
) -> tuple[pa.Table, ReadStats]:
    """MEASURED rows of units of one granule, and the cost."""
    place, stats = unpack_units(units), ReadStats()
    try:
        found = read_overview(
            source,
            scene,
            rows=place.cell_row.tolist(),
            cols=place.cell_col.tolist(),
            chip_size=chip_size,
            stats=stats,
        )
    except BlockReadError as error:
        if error.transient:
            raise
        return _rows(units, scene.granule_id, causes=[_cause(error)] * units.size), stats
    return _measure(units, scene.granule_id, found, rule), stats


def _measure(units: NDArray[np.uint64], granule: str, found: Overview, rule: fmask.MaskRule) -> pa.Table:
    valid = fmask.clear(found.fmask, rule) & (found.image != bands.FILL).all(axis=1)
    entropy, numbers = spectral_entropies(found.image, valid), descriptors(found.image, valid)
    causes = [TOO_FEW if np.isnan(value) else OK for value in entropy]
    for cell, error in found.faults.items():
        causes[cell] = _cause(error)
    return _rows(units, granule, causes=causes, entropy=entropy, numbers=numbers)


def _cause(error: BlockReadError) -> str:
    return f"{error.band}: {error.cause}"


def _rows(
    units: NDArray[np.uint64],
    granule: str,
    *,
    causes: list[str],
    entropy: NDArray[np.float32] | None = None,
    numbers: NDArray[np.float32] | None = None,
) -> pa.Table:
    """A MEASURED table; NaN and an empty list where there is a cause."""
    bad = np.array([cause != OK for cause in causes])
    values = np.full(units.size, np.nan, dtype=np.float32) if entropy is None else np.where(bad, np.nan, entropy)
    lists = [[] if numbers is None or bad[i] else numbers[i] for i in range(units.size)]
    columns = {
        "unit": units,
        "entropy": values.astype(np.float32),
        "descriptor": pa.array(lists, type=INFORMATION.columns["descriptor"].type),
        "granule_id": [granule] * units.size,
        "cause": causes,
    }
    return MEASURED.check(pa.table(columns, schema=MEASURED.schema()))
