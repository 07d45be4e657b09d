"""Phase 1: the ranked master draw of every stratum, for training and for held-out ground.

The units of a stratum are ordered along (Hilbert curve, cell, time). An ordered pivotal draw takes M_h of the N_h;
their ranks come from an order whose every prefix is spread evenly. The first k ranks are therefore a spatially
balanced probability sample in which each unit has the inclusion probability
π₁ = P(split) · (M_h / N_h) · (k / M_h), exactly; P(split) is P(eligible) for training and p_b for held-out ground.
Costs about 1 µs and 100 bytes per unit of the frame.
"""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.design import Design
from geofm_sampling.frame import METADATA
from geofm_sampling.hilbert import hilbert_of_ground
from geofm_sampling.pivotal import balanced_order, ordered_pivotal
from geofm_sampling.plan import PlanRecord, group_numbers, plan_record, with_record
from geofm_sampling.sizes import planned_sizes
from geofm_sampling.tables import FRAME, PLAN
from geofm_sampling.unit import ground_cells


def draw_master(frame: pa.Table, design: Design) -> pa.Table:
    """The PLAN table of a frame, sorted by (split, stratum, rank); its record is read by :func:`plan_record`.

    Raises
    ------
    ValueError
        When the frame is empty, unsorted, has no training ground, or was made for another chip size or other years.
    """
    frame = FRAME.check(frame)
    unit = frame["unit"].to_numpy()
    if not unit.size:
        raise ValueError("the frame is empty: there is nothing to draw from")
    if np.any(unit[1:] <= unit[:-1]):
        raise ValueError("the frame must be sorted by unit and hold each unit once, as build_frame makes it")
    names = _stratum_names(frame)
    group = group_numbers(frame, len(names))
    record = _allocated(frame, group, names, design)
    inside = np.flatnonzero(group >= 0)
    order = inside[
        stratum_order(
            unit[inside],
            group[inside].astype(np.int32),
            frame["lon"].to_numpy()[inside],
            frame["lat"].to_numpy()[inside],
        )
    ]
    ends = np.cumsum(record.frame_units)
    sizes = zip(record.frame_units, record.master_units, ends, record.group_names, strict=True)
    chosen = [order[end - size : end][_ranked(size, master, design.seed, name)] for size, master, end, name in sizes]
    ranks = [np.arange(master, dtype=np.int32) for master in record.master_units]
    return _plan_table(frame, np.concatenate(chosen), np.concatenate(ranks), record)


def next_wave(plan: pa.Table, looked: NDArray[np.int64], design: Design) -> pa.Table:
    """The PLAN of a further wave: the ranks of a plan that no wave has looked at, for `design.samples` more samples.

    The ranks behind all looks are again in random order, given what was seen: a probability sample of what is left.
    How waves are put together is :func:`geofm_sampling.weights.wave_shares`.

    Parameters
    ----------
    plan : the plan of the wave before, over the same frame
    looked : ranks of that plan that were looked at, looks ahead included, shape (G,)
    design : as before, but for the number of samples

    Raises
    ------
    ValueError
        When the design differs in anything but the numbers of samples, or no rank is left that it asks for.
    """
    plan, before = PLAN.check(plan), plan_record(plan)
    same = replace(design, samples=before.design.samples, heldout_samples=before.design.heldout_samples)
    if same != before.design:
        raise ValueError("a further wave must have the design of the one before; only the samples may differ")
    left = before.master_units - looked
    if not left.sum():
        raise ValueError("every rank of the plan was looked at before: no unit is left for a further wave")
    target, first, notes = planned_sizes(before.frame_units, left, design, before.splits)
    if not target.sum():
        raise ValueError("every rank that this wave may use was looked at before: no unit is left for a further wave")
    record = replace(
        before,
        design=design,
        master_units=left,
        start=before.start + looked,
        first_look=first,
        target=target,
        notes=notes,
    )
    rank = plan["rank"].to_numpy()
    keep = rank >= record.start[before.group(plan)]
    return with_record(plan.filter(pa.array(keep)), record)


def stratum_order(
    unit: NDArray[np.uint64], stratum: NDArray[np.int32], lon: NDArray[np.float64], lat: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Rows sorted by (stratum, Hilbert curve, cell, time), shape (n,); `unit` must be ascending.

    The curve is computed once per ground cell; sorting by cell keeps a cell's seasons together, and because ids
    ascend with time within a cell, stable sorts leave them in order of time.
    """
    new_cell = np.concatenate([[True], ground_cells(unit[1:]) != ground_cells(unit[:-1])])
    first = np.flatnonzero(new_cell)
    length = np.diff(np.append(first, unit.size))
    along = np.argsort(hilbert_of_ground(lon[first], lat[first]), kind="stable")
    starts = np.cumsum(length[along]) - length[along]
    by_curve = np.repeat(first[along] - starts, length[along]) + np.arange(unit.size)
    # numpy sorts 16-bit keys by radix, in linear time.
    key = stratum.astype(np.int16 if stratum.max(initial=0) < 2**15 else np.int32)[by_curve]
    return by_curve[np.argsort(key, kind="stable")]


def _ranked(size: int, master: int, seed: int, name: str) -> NDArray[np.int64]:
    """Positions of the master draw in a group's ordered list, by rank, shape (M,)."""
    drawn = ordered_pivotal(population=int(size), draws=int(master), seed=seed, purpose=f"master/{name}")
    return drawn[balanced_order(int(master), seed=seed, purpose=f"rank/{name}")]


def _stratum_names(frame: pa.Table) -> tuple[str, ...]:
    given = _given(frame).get("stratum_names")
    return tuple(given or (f"stratum {h}" for h in range(int(frame["stratum"].to_numpy().max()) + 1)))


def _given(frame: pa.Table) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads((frame.schema.metadata or {}).get(METADATA, b"{}"))
    return found


def _allocated(frame: pa.Table, group: NDArray[np.int64], names: tuple[str, ...], design: Design) -> PlanRecord:
    splits = 2 if design.heldout > 0 else 1
    if not splits - 1 and group.max(initial=-1) >= len(names):
        raise ValueError("the frame has held-out ground, the design has none: build the frame without a split")
    sizes = np.bincount(group[group >= 0], minlength=splits * len(names))
    if not sizes[: len(names)].any():
        raise ValueError("the frame has no training ground: lower the held-out share or the size of blocks")
    target, first, notes = planned_sizes(sizes, sizes, design, splits)
    return PlanRecord(
        design=design,
        strata_digest=str(_given(frame).get("strata_digest", "")),
        names=names,
        frame_units=sizes,
        master_units=np.minimum(sizes, np.maximum(design.master_factor * first, design.master_least)),
        start=np.zeros_like(sizes),
        first_look=first,
        target=target,
        notes=(*_given(frame).get("notes", ()), *notes),
    )


def _plan_table(frame: pa.Table, rows: NDArray[np.int64], rank: NDArray[np.int32], record: PlanRecord) -> pa.Table:
    split = frame["split"].to_numpy()[rows]
    chance = np.where(split == 1, frame["p_heldout"].to_numpy()[rows], frame["p_eligible"].to_numpy()[rows])
    table = pa.table(
        {
            "unit": frame["unit"].to_numpy()[rows],
            "stratum": frame["stratum"].to_numpy()[rows],
            "split": split,
            "rank": rank,
            "first_look": np.zeros(rank.size, dtype=np.bool_),
            "p_split": chance,
            "pi1": chance,
        }
    )
    return with_record(table, record)
