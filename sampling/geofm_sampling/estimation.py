"""Estimates of means, ratios and totals from samples.parquet, with intervals that know the two phases.

    estimate("OUT/samples.parquet", "entropy", by="land_cover")

A mean is Hájek's ratio Σ w y / Σ w, a ratio Σ w y / Σ w x, a total the double expansion Σ w y; w is a column of
weights, y is 0 outside a domain. Variances are those of :mod:`geofm_sampling.variance` for the linearised variables
e = (y − ȳ)/Σ w, (y − R x)/Σ w x and y (Särndal, Swensson & Wretman 1992, §5.5–5.8). docs/estimation.md has the formulas
and what may be said. The counts of both phases come from the file's metadata, `geofm_phases`: a table whose rows
were dropped cannot be used; choose parts by `by`.

Costs about 1 µs per sample and domain.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from geofm_sampling.phases import PHASES, phases, phases_metadata
from geofm_sampling.sampled import COLUMNS, Sampled, join_phases
from geofm_sampling.variance import Variance, between_blocks, two_phase

__all__ = ["PHASES", "estimate", "phases", "phases_metadata"]

Floats = NDArray[np.float64]

SIMULATED_COVERAGE = (0.93, 0.98)
"""Lowest and highest coverage of nominal 95 % intervals over the worlds of docs/estimation.md, samples not too few."""
_FEW = 10
"""Degrees of freedom below which 95 % intervals were seen to cover 91 to 97 % (docs/estimation.md)."""


def estimate(
    samples: pa.Table | str | PathLike[str],
    column: str | ArrayLike,
    *,
    by: str | None = None,
    kind: Literal["mean", "total", "ratio"] = "mean",
    denominator: str | ArrayLike | None = None,
    weight: str | None = None,
    population: Literal["observable", "full"] = "observable",
    level: float = 0.95,
    split: int = 0,
    local: bool = True,
    cells: bool = False,
    blocks: bool | None = None,
) -> pa.Table:
    """Estimate a mean, ratio or total over the population that the samples were drawn from.

    Parameters
    ----------
    samples : samples.parquet or its table, all rows, schema metadata `geofm_phases`
    column : name of a numeric column, or numbers aligned with the rows of `samples`, shape (n,), such as a model's
        loss; what it holds at tombstones is ignored
    by : column whose values part the samples into domains; all samples are one domain if None
    kind : "mean" per unit, "total" over the units, or "ratio" of two totals
    denominator : like `column`, for a ratio; the area in km² gives means per area (with `column` times the area)
    weight : column of weights; `weight_design`, for the full population `weight_full`, if None
    population : "observable", or "full": with what clouds hid, assuming missing at random within response classes
    level : of the interval
    split : 0 samples of training ground, 1 of the held-out blocks
    local : variance from neighbours along the curve (Stevens & Olsen 2003) rather than whole strata
    cells : treat units of one ground cell as drawn together; for statements beyond the years of the frame
    blocks : add the variance between split blocks; by default for held-out samples and not for training, which is
        conditional on the split

    Returns
    -------
    One row per domain, in the order of the domain: domain (string), samples, clusters (ground cells), estimate,
    standard_error, low, high, deff_weights (Kish 1965: m Σ w² / (Σ w)²), deff_design (variance over that of a simple
    random sample of the same size, drawn with replacement), n_eff (samples / deff_design: of this variable), note.

    Raises
    ------
    ValueError
        When columns, metadata or samples are missing, rows were dropped, or a value of a total is not a number.
    """
    task = _Task(kind=kind, level=level, local=local, cells=cells, blocks=split == 1 if blocks is None else blocks)
    _check_task(task, split, denominator is not None)
    names = [name for name in (column, by, denominator) if isinstance(name, str)]
    weight = weight or ("weight_design" if population == "observable" else "weight_full")
    table = _table(samples, [*names, weight, *COLUMNS])
    record = phases(table)
    sampled = join_phases(table, record, weight=weight, population=population, split=split)
    y = _values(table, column, "column")[sampled.rows]
    x = np.ones(y.size) if denominator is None else _values(table, denominator, "denominator")[sampled.rows]
    if task.blocks and "block" not in table.column_names:
        raise ValueError("the samples have no column block: without it only blocks=False, conditional on the split")
    if not sampled.rows.size:
        raise ValueError(f"no sample of split {split} was written: there is nothing to estimate from")
    rows = [_row(name, inside, y, x, sampled, task) for name, inside in _domains(table, by, sampled.rows)]
    return pa.Table.from_pylist(rows, schema=_RESULT)


_RESULT = pa.schema(
    [
        ("domain", pa.string()),
        ("samples", pa.int64()),
        ("clusters", pa.int64()),
        *((name, pa.float64()) for name in ("estimate", "standard_error", "low", "high")),
        *((name, pa.float64()) for name in ("deff_weights", "deff_design", "n_eff")),
        ("note", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What to compute of each domain; fields as in :func:`estimate`."""

    kind: str
    level: float
    local: bool
    cells: bool
    blocks: bool


def _check_task(task: _Task, split: int, has_denominator: bool) -> None:
    if not 0.0 < task.level < 1.0:
        raise ValueError(f"level {task.level} of an interval must lie between 0 and 1, such as 0.95")
    if (task.kind == "ratio") != has_denominator:
        raise ValueError("a ratio needs a denominator, and nothing else has one")
    if split == 0 and task.blocks:
        raise ValueError("training ground is what held-out blocks left: its estimates are conditional on the split")


def _table(samples: pa.Table | str | PathLike[str], columns: list[str]) -> pa.Table:
    """The table with the wanted columns and, where there are any, `part` and `block`."""
    schema: pa.Schema = pq.read_schema(samples) if isinstance(samples, str | PathLike) else samples.schema
    if missing := sorted(set(columns) - set(schema.names)):
        raise ValueError(f"the samples have no column {', '.join(missing)}; they have {', '.join(schema.names)}")
    wanted = list(dict.fromkeys([*columns, *(name for name in ("part", "block") if name in schema.names)]))
    return pq.read_table(samples, columns=wanted) if isinstance(samples, str | PathLike) else samples.select(wanted)


def _values(table: pa.Table, given: str | ArrayLike, what: str) -> Floats:
    if isinstance(given, str):
        kind = table.schema.field(given).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise ValueError(f"{what} {given} holds {kind}, not numbers; reduce it to one number per sample first")
        return np.asarray(table[given].cast(pa.float64()).to_numpy(), dtype=np.float64)
    values = np.asarray(given, dtype=np.float64)
    if values.shape != (table.num_rows,):
        raise ValueError(f"{what} has shape {values.shape}, must have one number for each of {table.num_rows} rows")
    return values


def _domains(table: pa.Table, by: str | None, rows: NDArray[np.int64]) -> list[tuple[str, NDArray[np.bool_]]]:
    if by is None:
        return [("all", np.ones(rows.size, dtype=np.bool_))]
    if by == "wave":
        raise ValueError("waves share one population and are no parts of it: estimate by part, or without by")
    if pa.types.is_nested(table.schema.field(by).type):
        raise ValueError(f"by {by} holds {table.schema.field(by).type}: domains need one value per sample")
    label = np.array(table[by].to_pylist(), dtype=object)[rows]
    return [(str(value), label == value) for value in sorted(set(label.tolist()), key=lambda v: (v is None, v))]


def _row(
    name: str, inside: NDArray[np.bool_], y: Floats, x: Floats, sampled: Sampled, task: _Task
) -> dict[str, str | int | float]:
    """One row of the result."""
    inside, notes = _known(inside, y, x, task)
    w = sampled.weight * inside
    y, x = np.where(inside, y, 0.0), np.where(inside, x, 0.0)
    size, below = float(w.sum()), float((w * x).sum())
    if task.kind == "total":
        value, e = float((w * y).sum()), y
    else:
        value = float((w * y).sum()) / below if below else float("nan")
        e = np.where(inside, (y - value * x) / below, 0.0) if below else np.zeros(y.size)
    variance, more = _variance(e * sampled.ratio, inside, sampled, task)
    error, samples = float(np.sqrt(variance.value)), int(inside.sum())
    if samples < 2 and task.kind != "total":
        error, more = float("nan"), [*more, "no variance can be seen in fewer than two samples"]
    if np.isnan(variance.value):
        more = [*more, "no variance can be told: the domain lies nearly all in a late wave"]
    more += _doubts(variance)
    reach = float(stdtrit(variance.freedom, 0.5 + task.level / 2)) * error
    kish = samples * float((w**2).sum()) / size**2 if size else float("nan")
    simple = _simple(e, sampled.weight, inside, whole=task.kind == "total")
    deff = variance.value / simple if simple > 0 else float("nan")
    return {
        "domain": name,
        "samples": samples,
        "clusters": int(np.unique(sampled.draw.cell[inside]).size),
        "estimate": value,
        "standard_error": error,
        "low": value - reach,
        "high": value + reach,
        "deff_weights": kish,
        "deff_design": deff,
        "n_eff": samples / deff if deff > 0 else float("nan"),
        "note": "; ".join([*notes, *more, *sampled.notes]),
    }


def _known(inside: NDArray[np.bool_], y: Floats, x: Floats, task: _Task) -> tuple[NDArray[np.bool_], list[str]]:
    """The samples of the domain with a value, and what to say of the others."""
    known = inside & np.isfinite(y) & np.isfinite(x)
    lost = int(inside.sum() - known.sum())
    if lost and task.kind == "total":
        raise ValueError(f"{lost} samples have no value: a total cannot leave them out; estimate a mean, or fill them")
    notes = [f"{lost} samples without a value are left out, as if they were like the others"] if lost else []
    return known, notes


def _doubts(variance: Variance) -> list[str]:
    if np.isnan(variance.value):
        return ["no variance: a single sample, or a single split block, stands for others"]
    if variance.value > 0 and variance.freedom < _FEW:
        return [f"rough interval: {variance.freedom:.1f} degrees of freedom"]
    return []


def _variance(e: Floats, inside: NDArray[np.bool_], sampled: Sampled, task: _Task) -> tuple[Variance, list[str]]:
    given = two_phase(e, sampled.draw, local=task.local, cells=task.cells, inside=inside)
    if not task.blocks:
        return given, ["conditional on the split"] if np.any(sampled.draw.p_block < 1.0 - 1e-9) else []
    return between_blocks(e, sampled.draw, given), []


def _simple(e: Floats, weight: Floats, inside: NDArray[np.bool_], *, whole: bool) -> float:
    """Variance of the same estimate from a simple random sample of equal size, drawn with replacement.

    `whole`: a total is estimated from all samples, of which those outside the domain are 0; else the domain is drawn.
    """
    w = weight if whole else weight * inside
    n, size = int(np.sum(w > 0)), float(w.sum())
    if n < 2:
        return float("nan")
    mean = float((w * e).sum()) / size
    return size**2 * float((w * (e - mean) ** 2).sum()) / size / (n - 1)
