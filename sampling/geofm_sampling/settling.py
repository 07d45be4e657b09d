"""From looked-at units to the RESPONSE table: what is known of them, the dates of the drawn, every probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.dates import Candidates, draw_sequences
from geofm_sampling.design import Design
from geofm_sampling.looking import STATE_NAMES, Found
from geofm_sampling.plan import PlanRecord
from geofm_sampling.tables import RESPONSE

DRAWN, OBSERVABLE = STATE_NAMES.index("drawn"), STATE_NAMES.index("observable")


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Everything known of the units of phase 1, sorted by (split, stratum, rank); every field has shape (n,)."""

    unit: NDArray[np.uint64]
    stratum: NDArray[np.int32]
    split: NDArray[np.int8]
    group: NDArray[np.int64]
    """split · H + stratum."""
    rank: NDArray[np.int32]
    chance: NDArray[np.float64]
    """Probability of the ground to be in its split."""
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    found: Sequence[Found]
    """What each batch of looks found, at least one, in any order of batches."""
    place: NDArray[np.int64]
    """Position of each unit in the concatenated batches, which may hold more units."""

    def column(self, name: str) -> NDArray[np.generic]:
        """A per-unit field of all batches, in the order of this record."""
        return np.concatenate([getattr(found, name) for found in self.found])[self.place]

    @property
    def observable(self) -> NDArray[np.bool_]:
        """Whether each unit is observable, shape (n,)."""
        return np.asarray(self.column("state") == OBSERVABLE)

    def pi1(self, record: PlanRecord) -> NDArray[np.float64]:
        """First-phase inclusion probabilities P(split) · k / N, shape (n,)."""
        return self.chance * self.looked_share(record)

    def looked_share(self, record: PlanRecord) -> NDArray[np.float64]:
        """k / N of each unit's group, shape (n,)."""
        looked = np.bincount(self.group, minlength=record.frame_units.size)
        return np.asarray((looked / np.maximum(record.frame_units, 1))[self.group])

    def candidates(self, rows: NDArray[np.int64]) -> tuple[Candidates, pa.Array]:
        """Clear granules of observable units, owner = position in `rows`, and their granule ids."""
        owner_of_place = np.full(sum(found.state.size for found in self.found), -1, dtype=np.int64)
        owner_of_place[self.place[rows]] = np.arange(rows.size)
        return _gathered(self.found, owner_of_place)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What phase 2 knows of the units of phase 1; every field has shape (n,) or (n, D)."""

    entropy: NDArray[np.float32]
    """Spectral entropy, bits; NaN where it was not measured."""
    descriptor: pa.Array
    """List of float32 per unit, empty where it was not measured."""
    descriptors: NDArray[np.float32]
    """The same as a matrix, NaN where it was not measured; D = 0 without information."""
    duplicates: NDArray[np.float32]
    """Estimated look-alikes in the group's frame, or NaN."""
    novelty: NDArray[np.float32]
    size: NDArray[np.float64]
    """Relative chance within the group, 1 on average over its observable units; 0 for the others."""


@dataclass(frozen=True, kw_only=True)
class SecondPhase:
    """What phase 2 knew, and whom it drew with which probability."""

    known: Known
    probability: NDArray[np.float64]
    """π₂ given phase 1, 0 for units that are not observable."""
    drawn: NDArray[np.int64]
    """Rows of the drawn units, ascending."""
    spread: NDArray[np.float64]
    """S_h of each group, shape (G,); NaN where it was not used."""
    said: tuple[str, ...]
    """What the user should know."""


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """Dates of the drawn units, one entry per (drawn unit, date), drawn units in the order of the record."""

    granule: pa.Array
    date: NDArray[np.int32]
    clear: NDArray[np.float32]
    probability: NDArray[np.float64]
    """Shape (drawn,)."""


def response_table(settled: Settled, second: SecondPhase, record: PlanRecord) -> pa.Table:
    """The RESPONSE table; `shard` and `row` are −1."""
    state = settled.column("state").astype(np.int8)
    state[second.drawn] = DRAWN
    pi1 = settled.pi1(record)
    dates = _dates(settled, second.drawn, record.design)
    p_dates = np.full(state.size, np.nan)
    p_dates[second.drawn] = dates.probability
    is_drawn = state == DRAWN
    offsets = pa.array(np.concatenate([[0], np.cumsum(is_drawn * record.design.timesteps)]).astype(np.int32))
    nowhere = np.full(state.size, -1, dtype=np.int32)
    return RESPONSE.check(
        pa.table(
            {
                "unit": settled.unit,
                "stratum": settled.stratum,
                "split": settled.split,
                "rank": settled.rank,
                "state": pa.DictionaryArray.from_arrays(pa.array(state), pa.array(STATE_NAMES)).cast(pa.string()),
                "observable": settled.observable,
                "dates_seen": settled.column("dates_seen").astype(np.int16),
                "dates_feasible": settled.column("dates_feasible").astype(np.int16),
                "clear_best": settled.column("clear_best").astype(np.float32),
                "entropy": second.known.entropy,
                "descriptor": second.known.descriptor,
                "duplicates": second.known.duplicates,
                "novelty": second.known.novelty,
                "size": second.known.size.astype(np.float32),
                "granules": pa.ListArray.from_arrays(offsets, dates.granule),
                "dates": pa.ListArray.from_arrays(offsets, pa.array(dates.date)),
                "clear": pa.ListArray.from_arrays(offsets, pa.array(dates.clear)),
                "p_dates": p_dates,
                "pi1": pi1,
                "pi2_given_phase1": second.probability,
                "pi_star": pi1 * second.probability,
                "shard": nowhere,
                "row": nowhere,
            }
        )
    )


def _dates(settled: Settled, chosen: NDArray[np.int64], design: Design) -> _Chosen:
    """One sequence for each chosen row."""
    candidates, granule = settled.candidates(chosen)
    sequences = draw_sequences(candidates, granule, settled.unit[chosen], design)
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
