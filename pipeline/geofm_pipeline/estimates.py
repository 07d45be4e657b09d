"""Estimates from a dataset folder: samples with the covariates of their cells, and the printed table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geofm_pipeline.errors import InputError
from geofm_pipeline.workspace import existing_waves
from geofm_sampling.estimation import estimate
from geofm_sampling.tables import COVARIATE_PREFIXES


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
        When the folder has no samples, or the column is none of theirs.
    """
    try:
        return estimate(
            samples_with_covariates(root),
            question.column,
            by=question.by,
            kind=question.kind,
            population=question.population,
            split=question.split,
            level=question.level,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def samples_with_covariates(root: Path) -> pa.Table:
    """samples.parquet with the frame's covariates of each sample, metadata kept."""
    waves = existing_waves(root)
    if not waves[0].samples.exists():
        raise InputError(f"{root} holds no samples.parquet yet: run its command to the end first")
    samples = pq.read_table(waves[0].samples)
    parts = {wave.part: wave for wave in waves}
    frames = [pq.read_table([str(file) for file in wave.frame_parts()]) for wave in parts.values()]
    names = [name for name in frames[0].column_names if name.startswith(COVARIATE_PREFIXES)]
    frame = pa.concat_tables([table.select(["unit", *names]) for table in frames])
    known = frame["unit"].to_numpy()
    order = np.argsort(known)
    at = pa.array(order[np.searchsorted(known[order], samples["unit"].to_numpy())])
    for name in names:
        samples = samples.append_column(name, frame[name].take(at))
    return samples


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
