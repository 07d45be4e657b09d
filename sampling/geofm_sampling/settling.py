"""From looked-at units to the RESPONSE table: phase-2 draw, dates, probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.dates import Candidates, draw_sequences
from geofm_sampling.design import Design
from geofm_sampling.looking import STATE_NAMES, Found
from geofm_sampling.master import PlanRecord, stratum_order
from geofm_sampling.pivotal import ordered_pivotal
from geofm_sampling.tables import RESPONSE

_DRAWN, _OBSERVABLE = STATE_NAMES.index("drawn"), STATE_NAMES.index("observable")


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Everything known of the units of phase 1, sorted by (stratum, rank); every field has shape (n,)."""

    unit: NDArray[np.uint64]
    stratum: NDArray[np.int32]
    rank: NDArray[np.int32]
    eligible: NDArray[np.float64]
    """P(eligible)."""
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    found: Sequence[Found]
    """What each batch of looks found, at least one, in any order of batches."""
    place: NDArray[np.int64]
    """Position of each unit in the concatenated batches, which may hold more units."""

    def column(self, name: str) -> NDArray[np.generic]:
        """A per-unit field of all batches, in the order of this record."""
        return np.concatenate([getattr(found, name) for found in self.found])[self.place]


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """Dates of the drawn units, one entry per (drawn unit, date), drawn units in the order of the record."""

    granule: pa.Array
    date: NDArray[np.int32]
    clear: NDArray[np.float32]
    probability: NDArray[np.float64]
    """Shape (drawn,)."""


def response_table(settled: Settled, record: PlanRecord, wanted: NDArray[np.int64]) -> pa.Table:
    """The RESPONSE table with `wanted` observable units of each stratum, or all, by equal-probability pivotal."""
    state = settled.column("state").astype(np.int8)
    looked = np.bincount(settled.stratum, minlength=len(record.names))
    observable = np.bincount(settled.stratum[state == _OBSERVABLE], minlength=len(record.names))
    drawn = np.minimum(wanted, observable)
    chosen = _second_phase(settled, state, observable, drawn, record)
    can_be_drawn = state == _OBSERVABLE
    state[chosen] = _DRAWN
    pi1 = settled.eligible * (looked / np.maximum(record.frame_units, 1))[settled.stratum]
    pi2 = np.where(can_be_drawn, (drawn / np.maximum(observable, 1))[settled.stratum], 0.0)
    dates = _dates(settled, chosen, record.design)
    p_dates = np.full(state.size, np.nan)
    p_dates[chosen] = dates.probability
    is_drawn = np.zeros(state.size, dtype=np.bool_)
    is_drawn[chosen] = True
    offsets = pa.array(np.concatenate([[0], np.cumsum(is_drawn * record.design.timesteps)]).astype(np.int32))
    nowhere = np.full(state.size, -1, dtype=np.int32)
    return RESPONSE.check(
        pa.table(
            {
                "unit": settled.unit,
                "stratum": settled.stratum,
                "rank": settled.rank,
                "state": pa.DictionaryArray.from_arrays(pa.array(state), pa.array(STATE_NAMES)).cast(pa.string()),
                "observable": can_be_drawn,
                "dates_seen": settled.column("dates_seen").astype(np.int16),
                "dates_feasible": settled.column("dates_feasible").astype(np.int16),
                "clear_best": settled.column("clear_best").astype(np.float32),
                "granules": pa.ListArray.from_arrays(offsets, dates.granule),
                "dates": pa.ListArray.from_arrays(offsets, pa.array(dates.date)),
                "clear": pa.ListArray.from_arrays(offsets, pa.array(dates.clear)),
                "p_dates": p_dates,
                "pi1": pi1,
                "pi2_given_phase1": pi2,
                "pi_star": pi1 * pi2,
                "shard": nowhere,
                "row": nowhere,
            }
        )
    )


def _second_phase(
    settled: Settled,
    state: NDArray[np.int8],
    observable: NDArray[np.int64],
    drawn: NDArray[np.int64],
    record: PlanRecord,
) -> NDArray[np.int64]:
    """Rows of the drawn units, ascending: `drawn` of the `observable` ones of each stratum, along the curve."""
    rows = np.flatnonzero(state == _OBSERVABLE)
    rows = rows[np.argsort(settled.unit[rows])]
    if not rows.size:
        return rows
    rows = rows[stratum_order(settled.unit[rows], settled.stratum[rows], settled.lon[rows], settled.lat[rows])]
    ends = np.cumsum(observable)
    picks = [
        end - size + ordered_pivotal(population=size, draws=n, seed=record.design.seed, purpose=f"phase2/{name}")
        for size, n, end, name in zip(observable.tolist(), drawn.tolist(), ends.tolist(), record.names, strict=True)
    ]
    return np.sort(rows[np.concatenate(picks)])


def _dates(settled: Settled, chosen: NDArray[np.int64], design: Design) -> _Chosen:
    """One sequence for each chosen row; candidates of all batches are brought into the order of the chosen rows."""
    owner_of_place = np.full(sum(found.state.size for found in settled.found), -1, dtype=np.int64)
    owner_of_place[settled.place[chosen]] = np.arange(chosen.size)
    candidates, granule = _gathered(settled.found, owner_of_place)
    sequences = draw_sequences(candidates, settled.unit[chosen], design)
    rows = sequences.rows.ravel()
    return _Chosen(
        granule=granule.take(pa.array(rows)),
        date=candidates.date[rows].astype(np.int32),
        clear=candidates.clear[rows].astype(np.float32),
        probability=sequences.probability,
    )


def _gathered(found: Sequence[Found], owner_of_place: NDArray[np.int64]) -> tuple[Candidates, pa.Array]:
    """The candidates of the chosen units from all batches, sorted by their new owner, and their granule ids."""
    sizes = np.array([f.state.size for f in found], dtype=np.int64)
    first_place = np.cumsum(sizes) - sizes
    owners = [owner_of_place[first + f.candidates.owner] for first, f in zip(first_place, found, strict=True)]
    kept = [np.flatnonzero(owner >= 0) for owner in owners]
    owner = np.concatenate([o[k] for o, k in zip(owners, kept, strict=True)])
    order = np.argsort(owner, kind="stable")
    parts = list(zip(found, kept, strict=True))
    granules = [f.granule.take(pa.array(k)).cast(pa.string()) for f, k in parts]
    return (
        Candidates(
            owner=owner[order],
            date=np.concatenate([f.candidates.date[k] for f, k in parts])[order],
            clear=np.concatenate([f.candidates.clear[k] for f, k in parts])[order],
            anchor=np.concatenate([f.candidates.anchor[k] for f, k in parts])[order],
        ),
        pa.concat_arrays(granules).take(pa.array(order)),
    )
