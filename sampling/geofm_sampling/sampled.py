"""Written samples joined with the counts of their phases, in the order of the draw: what every estimate needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.hilbert import hilbert_of_ground
from geofm_sampling.unit import ground_cells
from geofm_sampling.variance import Draw, Strata, collapse

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
KEYS = ("wave", "part", "split", "stratum")
"""What names a record of the phases."""
COLUMNS = ("wave", "split", "stratum", "unit", "lon", "lat", "pi1", "weight_design")
"""Columns of samples.parquet that every estimate needs."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The written samples of one split in the order of the draw, with what every estimate of them needs."""

    rows: NDArray[np.int64]
    """Row of each in the table."""
    draw: Draw
    weight: Floats
    """Weight asked for."""
    ratio: Floats
    """Weight asked for over a · b of the draw: 1, or what trimming, raking and coarser response classes did."""
    notes: tuple[str, ...]
    """What holds for all estimates."""


def join_phases(table: pa.Table, record: pa.Table, *, weight: str, population: str, split: int) -> Sampled:
    """The written samples of a split.

    Parameters
    ----------
    table : rows of samples.parquet with COLUMNS, `weight` and, where there are any, `part` and `block`
    record : PHASES records
    weight : column of the weights asked for
    population : "observable", or "full": phase 2 then includes the response of the seen units of a group

    Raises
    ------
    ValueError
        When rows were dropped, or weights, probabilities and records do not belong together.
    """
    if "part" not in table.column_names:
        table = table.append_column("part", pa.array(np.ones(table.num_rows, dtype=np.int16)))
    rows = np.flatnonzero((table["split"].to_numpy() == split) & (table["weight_design"].to_numpy() > 0))
    group = _groups(table, record, rows, split)
    reached = "observable" if population == "observable" else "seen"
    stratum = _variance_strata(record, split, reached)
    unit = table["unit"].to_numpy()[rows]
    along = hilbert_of_ground(table["lon"].to_numpy()[rows], table["lat"].to_numpy()[rows])
    order = np.lexsort((unit, along, stratum[group]))
    rows, group, unit = rows[order], group[order], unit[order]
    first = record["lambda"].to_numpy()[group] / table["pi1"].to_numpy()[rows]
    answered = record["observable"].to_numpy() / np.maximum(record[reached].to_numpy(), 1)
    second = _second(table["weight_design"].to_numpy()[rows], first) / answered[group]
    draw = Draw(
        stratum=stratum[group],
        first=first,
        second=second,
        cell=np.unique(ground_cells(unit), return_inverse=True)[1],
        block=_blocks(table, rows),
        p_block=np.minimum(record["lambda"].to_numpy()[group] / (first * _planned(record)[group]), 1.0),
        strata=_counts(record, stratum, reached),
    )
    used = table[weight].to_numpy()[rows]
    return Sampled(
        rows=rows, draw=draw, weight=used, ratio=used / (first * second), notes=_notes(record, stratum, split)
    )


def _blocks(table: pa.Table, rows: Ints) -> Ints:
    """Split block of each row; one block for all where the table knows none."""
    if "block" not in table.column_names:
        return np.zeros_like(rows)
    return np.asarray(table["block"].to_numpy()[rows], dtype=np.int64)


def _groups(table: pa.Table, record: pa.Table, rows: Ints, split: int) -> Ints:
    """Record of each of the rows; all written samples of all records must be there."""
    place = {key: g for g, key in enumerate(zip(*(record[name].to_pylist() for name in KEYS), strict=True))}
    own = zip(*(table[name].to_numpy()[rows].tolist() for name in KEYS), strict=True)
    group = np.array([place.get(key, -1) for key in own], dtype=np.int64)
    if np.any(group < 0):
        raise ValueError(f"{np.sum(group < 0)} samples belong to a wave, split or stratum unknown to the metadata")
    found = np.bincount(group, minlength=record.num_rows)
    written = record["written"].to_numpy()
    missing = (found != written) & (record["split"].to_numpy() == split)
    if missing.any():
        raise ValueError(
            f"{missing.sum()} groups hold {found[missing].sum()} samples where {written[missing].sum()} "
            "were written: give all rows and choose among them by `by`, because a variance needs the samples outside a "
            "domain too"
        )
    return group


def _second(weight: Floats, first: Floats) -> Floats:
    """b = 1/(π₂ r_read), at least 1."""
    second = weight / first
    if np.any(second < 1.0 - 1e-6):
        raise ValueError(
            f"weight_design is below λ/pi1 in {np.sum(second < 1.0 - 1e-6)} rows, as if phase 2 had drawn a unit more "
            "than once: weights and metadata are not of one run"
        )
    return np.maximum(second, 1.0)


def _planned(record: pa.Table) -> Floats:
    """k/N of each record."""
    share: Floats = record["looked"].to_numpy() / np.maximum(record["frame"].to_numpy(), 1)
    return share


def _variance_strata(record: pa.Table, split: int, reached: str) -> Ints:
    """Variance stratum of each record, −1 without samples or of another split."""
    of = {name: record[name].to_numpy().astype(np.int64) for name in (*KEYS, "frame", "looked", reached, "written")}
    written = np.where(of["split"] == split, of["written"], 0)
    certain = (of["looked"] == of["frame"]) & (of[reached] == of["written"])
    family = np.unique(np.stack([of[name] for name in KEYS[:3]]), axis=1, return_inverse=True)[1]
    return collapse(written=written, certain=certain, family=family.ravel())


def _counts(record: pa.Table, stratum: Ints, reached: str) -> Strata:
    """Counts of the variance strata; the finite population is shared by the waves as λ says."""
    inside = stratum >= 0
    number = int(stratum.max(initial=-1)) + 1

    def summed(values: Floats) -> Floats:
        return np.bincount(stratum[inside], weights=values[inside], minlength=number).astype(np.float64)

    return Strata(
        frame=summed(record["frame"].to_numpy() * record["lambda"].to_numpy()),
        looked=summed(record["looked"].to_numpy().astype(np.float64)),
        reached=summed(record[reached].to_numpy().astype(np.float64)),
    )


def _notes(record: pa.Table, stratum: Ints, split: int) -> tuple[str, ...]:
    """What a reader of any estimate must know: joined groups, and units that no sample stands for."""
    notes, here = list[str](), record["split"].to_numpy() == split
    joined = int(np.sum(np.bincount(stratum[stratum >= 0]) > 1))
    if joined:
        members = int(np.sum(np.bincount(stratum[stratum >= 0])[stratum[stratum >= 0]] > 1))
        notes.append(f"{members} groups were joined to {joined} for the variance, as some had a single sample")
    observable, written = record["observable"].to_numpy(), record["written"].to_numpy()
    looked, frame = record["looked"].to_numpy(), record["frame"].to_numpy()
    if (lost := here & (observable > 0) & (written == 0)).any():
        notes.append(f"{lost.sum()} groups with observable units have no sample: no weight stands for them")
    if (never := here & (looked == 0) & (frame > 0)).any():
        seen = {key for key, k in _part_keys(record) if k}
        alone = sum(1 for (key, _), gone in zip(_part_keys(record), never, strict=True) if gone and key not in seen)
        if alone:
            notes.append(f"{alone} groups of the frame were never looked at and are not represented")
    return tuple(notes)


def _part_keys(record: pa.Table) -> list[tuple[tuple[int, ...], int]]:
    """(part, split, stratum) and the units looked at, of each record."""
    keys = zip(*(record[name].to_pylist() for name in KEYS[1:]), strict=True)
    return list(zip(keys, record["looked"].to_pylist(), strict=True))
