"""Estimates from a dataset folder: samples with the covariates of their cells, and the printed table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_pipeline.errors import InputError
from geofm_pipeline.workspace import existing_waves
from geofm_sampling.estimation import estimate
from geofm_sampling.tables import BY_PREFIX, COVARIATE_PREFIXES, LAND_COVER_PREFIX


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to estimate; fields as in :func:`geofm_sampling.estimation.estimate`."""

    column: str
    by: str | None = None
    kind: Literal["mean", "total"] = "mean"
    population: Literal["observable", "full"] = "observable"
    split: int = 0
    level: float = 0.95


def estimate_dataset(root: Path, question: Question) -> pa.Table:
    """Estimates over the population of a dataset folder, of a column of samples.parquet or a covariate of the frame.

    Raises
    ------
    InputError
        When the folder has no samples, or the column is none of theirs and of the frame's.
    """
    try:
        return estimate(
            samples_with_covariates(root, [name for name in (question.column, question.by) if name]),
            question.column,
            by=question.by,
            kind=question.kind,
            population=question.population,
            split=question.split,
            level=question.level,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def samples_with_covariates(root: Path, wanted: Sequence[str]) -> pa.Table:
    """samples.parquet with those of the `wanted` columns that are covariates of the frame, metadata kept.

    A part of the frame without the covariate (a class that it does not have) leaves 0 for land cover, NaN otherwise.
    """
    waves = existing_waves(root)
    if not waves[0].samples.exists():
        raise InputError(f"{root} holds no samples.parquet yet: run its command to the end first")
    samples = pq.read_table(waves[0].samples)
    files = [str(file) for part in {wave.part: wave for wave in waves}.values() for file in part.frame_parts()]
    known = {name for file in files for name in pq.read_schema(file).names if name.startswith(COVARIATE_PREFIXES)}
    strange = [name for name in wanted if name.startswith(COVARIATE_PREFIXES) and name not in known]
    if strange:
        raise InputError(f"the frame has no covariate {', '.join(strange)}; it has {', '.join(sorted(known))}")
    for name in sorted(known & set(wanted)):
        samples = samples.append_column(name, _covariate(files, name, samples["unit"].to_numpy()))
    return samples


def _covariate(files: Sequence[str], name: str, units: NDArray[np.uint64]) -> pa.ChunkedArray:
    """A covariate of some units, read file by file; files without it are passed over."""
    found: dict[int, object] = {}
    for file in files:
        if name in pq.read_schema(file).names:
            part = pq.read_table(file, columns=["unit", name])
            part = part.filter(pa.array(np.isin(part["unit"].to_numpy(), units)))
            found |= dict(zip(part["unit"].to_pylist(), part[name].to_pylist(), strict=True))
    empty = _nothing(name)
    return pa.chunked_array([pa.array([found.get(unit, empty) for unit in units.tolist()])])


def _nothing(name: str) -> object:
    """What a covariate is where the frame does not have it."""
    if name.startswith(BY_PREFIX):
        return "none"
    return 0.0 if name.startswith(LAND_COVER_PREFIX) else float("nan")


def as_text(table: pa.Table) -> str:
    """An estimate table in aligned columns, one line per domain."""
    names = [name for name in table.column_names if name != "note"]
    rows = [names, *([_cell(row[name]) for name in names] for row in table.to_pylist())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(names))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    notes = [f"{row['domain']}: {row['note']}" for row in table.to_pylist() if row["note"]]
    return "\n".join([*lines, *notes])


def _cell(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
