"""Phase 2: how many of the observable units each group gives, with what probabilities, and the draw.

A unit's *size* is its relative chance within its group: clip(entropy^ε · m^−½ · novelty^γ, med/8, 8·med), with m the
estimated number of frame units that look alike. Redundancy lowers a probability, it never deletes a unit: every
observable unit of phase 1 has π₂ > 0, which is what makes 1/π* unbiased. Held-out groups have equal sizes, because
they judge rather than teach. The local pivotal method then draws units apart in what they show and where they lie;
on real pixels that covered more and erred less than a draw along a curve, and sizes by entropy (ε = 1) did harm
(docs/evidence/coverage.md), hence ε = 0 by default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.allocation import allocate
from geofm_sampling.design import Design
from geofm_sampling.draws import draw
from geofm_sampling.information import sizes, spread
from geofm_sampling.master import stratum_order
from geofm_sampling.pivotal import ordered_pivotal
from geofm_sampling.plan import PlanRecord
from geofm_sampling.probabilities import capped_probabilities
from geofm_sampling.settling import Known, SecondPhase, Settled
from geofm_sampling.similarity import near_duplicates, novelty
from geofm_sampling.sizes import feasible_floor, plan_power
from geofm_sampling.tables import INFORMATION

Inform = Callable[[NDArray[np.uint64], pa.Array], pa.Table]
"""Given ascending unit ids and one granule id for each (its clearest in the anchor season), returns their INFORMATION
rows in that order. Must depend on its arguments only."""


def second_phase(
    settled: Settled,
    record: PlanRecord,
    wanted: NDArray[np.int64],
    inform: Inform | None,
    existing: NDArray[np.float32] | None,
) -> SecondPhase:
    """Draw `wanted` samples in all, as the plan's allocation shares them out among what is observable.

    Parameters
    ----------
    wanted : samples that each group can give, shape (G,); their sum per split is what is drawn
    inform : None where sizes are equal
    existing : descriptors of existing data, shape (k, D), or None
    """
    groups = record.frame_units.size
    seen = settled.observable
    observable = np.bincount(settled.group[seen], minlength=groups)
    known = _equal(settled) if inform is None else _informed(settled, record, inform, existing)
    s = np.full(groups, np.nan)
    if inform is not None and _uses_spread(record.design):
        training = seen & (settled.split == 0)
        shown = known.descriptors[training]
        s[record.split == 0] = spread(shown, settled.group[training], groups)[record.split == 0]
    counts = _counts(settled, record, np.minimum(wanted, observable), observable, s)
    probability = np.zeros(settled.unit.size)
    weight = settled.observable.astype(np.float64) if record.design.draw == "random" else known.size
    drawn = _draw(settled, record, counts, weight, known.descriptors, probability)
    return SecondPhase(
        known=known,
        probability=probability,
        drawn=drawn,
        spread=s,
        said=_said(settled, known) if inform is not None else (),
    )


def _uses_spread(design: Design) -> bool:
    """Neyman's allocation is made of S_h, the power allocation has it by default; the others are what they say."""
    return design.allocation == "neyman" or (design.allocation == "power" and design.spread)


def _equal(settled: Settled) -> Known:
    count = settled.unit.size
    return Known(
        entropy=np.full(count, np.nan, dtype=np.float32),
        descriptor=pa.array([[]] * count, pa.list_(pa.float32())),
        duplicates=np.full(count, np.nan, dtype=np.float32),
        novelty=np.ones(count, dtype=np.float32),
        size=settled.observable.astype(np.float64),
        descriptors=np.zeros((count, 0), dtype=np.float32),
    )


def _informed(settled: Settled, record: PlanRecord, inform: Inform, existing: NDArray[np.float32] | None) -> Known:
    """Sizes of the observable training units by what their overviews show; equal sizes for held-out ones."""
    plain = _equal(settled)
    rows = np.flatnonzero(settled.observable & (settled.split == 0))
    if not rows.size:
        return plain
    rows = rows[np.argsort(settled.unit[rows])]
    found = INFORMATION.check(inform(settled.unit[rows], clearest_granules(settled, rows)))
    if not np.array_equal(found["unit"].to_numpy(), settled.unit[rows]):
        raise ValueError("the information must have one row for each unit asked for, in the order of the units")
    entropy, group = found["entropy"].to_numpy(), settled.group[rows]
    lists = found["descriptor"].combine_chunks()
    descriptor, measured = descriptor_matrix(lists)
    # Look-alikes are counted in the ground of the split, not of all splits: without the chance of the split.
    share = settled.looked_share(record)[rows]
    duplicates = np.full(rows.size, np.nan)
    duplicates[measured] = near_duplicates(descriptor, group[measured], share[measured])
    fresh = np.ones(rows.size)
    if existing is not None and existing.size:
        fresh[measured] = novelty(descriptor, existing)
    design = record.design
    weight = sizes(entropy**design.entropy, duplicates, fresh, design.novelty, group)
    matrix = np.full((settled.unit.size, descriptor.shape[1]), np.nan, dtype=np.float32)
    matrix[rows[measured]] = descriptor
    return Known(
        entropy=_placed(plain.entropy, rows, entropy),
        descriptor=_placed_lists(lists, rows, settled.unit.size),
        duplicates=_placed(plain.duplicates, rows, duplicates),
        novelty=_placed(plain.novelty, rows, fresh),
        size=_placed(plain.size, rows, weight),
        descriptors=matrix,
    )


def clearest_granules(settled: Settled, rows: NDArray[np.int64]) -> pa.Array:
    """Granule id of the clearest candidate in the anchor season of each row, the earliest if several; shape (n,)."""
    candidates, granule = settled.candidates(rows)
    inside = np.flatnonzero(candidates.anchor)
    order = inside[np.lexsort((inside, -candidates.clear[inside], candidates.owner[inside]))]
    owner = candidates.owner[order]
    first = order[np.concatenate([[True], owner[1:] != owner[:-1]])] if order.size else order
    return granule.take(pa.array(first)).cast(pa.string())


def descriptor_matrix(lists: pa.Array) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Descriptors that are not empty as a matrix (k, D), and which rows they belong to, shape (n,)."""
    length = np.diff(lists.offsets.to_numpy())
    measured = length > 0
    width = int(length.max(initial=0))
    if np.any(length[measured] != width):
        raise ValueError(f"descriptors must have one length, got {np.unique(length[measured]).tolist()}")
    flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return flat.reshape(-1, max(width, 1)), measured


_T = TypeVar("_T", bound=np.generic)


def _placed(base: NDArray[_T], rows: NDArray[np.int64], values: NDArray[np.generic]) -> NDArray[_T]:
    result = base.copy()
    result[rows] = values
    return result


def _placed_lists(lists: pa.Array, rows: NDArray[np.int64], count: int) -> pa.Array:
    """The lists at their rows of `count`, empty ones elsewhere."""
    at = np.full(count, len(lists), dtype=np.int64)
    at[rows] = np.arange(rows.size)
    return pa.concat_arrays([lists, pa.array([[]], lists.type)]).take(pa.array(at))


def _counts(
    settled: Settled,
    record: PlanRecord,
    wanted: NDArray[np.int64],
    observable: NDArray[np.int64],
    s: NDArray[np.float64],
) -> NDArray[np.int64]:
    """n of each group, shape (G,): N̂^q · S_h among the observable for training, as planned for held-out ground."""
    result, design = wanted.copy(), record.design
    here = record.split == 0
    total = int(wanted[here].sum())
    if total and (design.cost_aware or np.isfinite(s[here]).all()):
        looked = np.bincount(settled.group, minlength=observable.size)
        share = observable / np.maximum(looked, 1)
        cost = np.where(share > 0, 1.0 / np.maximum(share, 1e-9), 1.0)
        result[here] = allocate(
            (record.frame_units * share)[here],
            total,
            power=plan_power(design),
            # Who was planned for stays: no observable unit of such a group may lose its chance.
            floor=np.maximum(feasible_floor(observable[here], total, design), wanted[here] > 0),
            caps=observable[here],
            spread=s[here] if np.isfinite(s[here]).all() else None,
            cost=cost[here] if design.cost_aware else None,
        )
    return result


def _draw(
    settled: Settled,
    record: PlanRecord,
    counts: NDArray[np.int64],
    size: NDArray[np.float64],
    descriptors: NDArray[np.float32],
    probability: NDArray[np.float64],
) -> NDArray[np.int64]:
    """Rows of the drawn units, ascending; fills `probability` with π₂ of the observable units."""
    rows = np.flatnonzero(settled.observable)
    rows = rows[np.argsort(settled.unit[rows])]
    if not rows.size:
        return rows
    along = stratum_order(
        settled.unit[rows], settled.group[rows].astype(np.int32), settled.lon[rows], settled.lat[rows]
    )
    rows = rows[along]
    ends = np.cumsum(np.bincount(settled.group[rows], minlength=counts.size))
    picks = []
    for number in np.flatnonzero(counts).tolist():
        part = rows[ends[number - 1] if number else 0 : ends[number]]
        chance = capped_probabilities(size[part], int(counts[number]))
        probability[part] = chance
        purpose = f"phase2/{record.group_names[number]}"
        if record.design.draw == "pivotal" and np.all(chance == chance[0]):  # exact in whole numbers
            picked = ordered_pivotal(
                population=part.size, draws=int(counts[number]), seed=record.design.seed, purpose=purpose
            )
        else:
            picked = draw(
                chance,
                method=record.design.draw,
                seed=record.design.seed,
                purpose=purpose,
                ids=settled.unit[part],
                coordinates=_coordinates(settled, part, descriptors[part]),
            )
        picks.append(part[picked])
    return np.sort(np.concatenate(picks))


def _coordinates(settled: Settled, part: NDArray[np.int64], descriptors: NDArray[np.float32]) -> NDArray[np.float64]:
    """What a unit shows and where it lies, shape (n, D + 3); a unit without a descriptor has the group's mean.

    Place is a point of the unit sphere: 200 km count as much as the reflectance by which units look alike (0.03).
    """
    lon, lat = np.radians(settled.lon[part]), np.radians(settled.lat[part])
    ground = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=1)
    known: NDArray[np.bool_] = np.asarray(np.isfinite(descriptors).all(axis=1))
    if not known.any():
        return ground
    shown = np.where(known[:, None], descriptors, descriptors[known].mean(axis=0, dtype=np.float64))
    return np.concatenate([shown, ground], axis=1)


def _said(settled: Settled, known: Known) -> tuple[str, ...]:
    asked = settled.observable & (settled.split == 0)
    blind = int(np.isnan(known.entropy[asked]).sum())
    if not blind:
        return ()
    return (f"The overviews of {blind} of {int(asked.sum())} observable units say nothing; they got average sizes.",)
