"""What a look says about units: seen and feasible dates, the state of each unit, the candidates worth keeping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.dates import Candidates, feasible_starts
from geofm_sampling.design import Design
from geofm_sampling.tables import LOOK, STATES

STATE_NAMES = tuple(STATES)
"""States by number, in the order of geofm_sampling.tables.STATES."""
_OBSERVABLE, _REASONS = STATE_NAMES.index("observable"), STATE_NAMES.index("no_scene")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Units that were looked at, in ascending order of id; every field has shape (n,)."""

    unit: NDArray[np.uint64]
    season_start: NDArray[np.int64]
    """First anchor day, days since 1970-01-01."""
    season_end: NDArray[np.int64]
    """Last anchor day, inclusive."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the look found: one entry per asked unit, and the candidates of the observable ones."""

    state: NDArray[np.int8]
    """Number in STATE_NAMES: `observable` or the reason why not, shape (n,)."""
    dates_seen: NDArray[np.int16]
    dates_feasible: NDArray[np.int16]
    clear_best: NDArray[np.float32]
    candidates: Candidates
    """Clear granules of the observable units; `owner` is the position among the asked units."""
    granule: pa.Array
    """Granule id of each candidate, dictionary-encoded."""


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Look rows within reach, sorted by (unit, date, granule); every field has shape (r,)."""

    owner: NDArray[np.int64]
    date: NDArray[np.int64]
    covered: NDArray[np.float64]
    clear: NDArray[np.float64]
    granule: pa.DictionaryArray
    in_season: NDArray[np.bool_]


def examine(asked: Asked, look: pa.Table, design: Design) -> Found:
    """Judge the asked units by their rows of a LOOK table, whose order does not matter.

    A row of NaN shares is a granule whose Fmask could not be read. Rows outside a unit's reach (its anchor season
    and the (T − 1) · max_gap days after it) are ignored, repeated rows count once.

    Raises
    ------
    ValueError
        When a row is of a unit that was not asked for, lies outside the years or holds an impossible share.
    """
    rows = _sorted_rows(asked, LOOK.check(look), design)
    size = asked.unit.size
    feasible = rows.clear >= design.min_clear
    candidates = Candidates(
        owner=rows.owner[feasible],
        date=rows.date[feasible],
        clear=rows.clear[feasible],
        anchor=rows.in_season[feasible],
    )
    observable = np.zeros(size, dtype=np.bool_)
    observable[candidates.owner[feasible_starts(candidates, design)]] = True
    keep = observable[candidates.owner]
    return Found(
        state=np.where(observable, _OBSERVABLE, _reasons(rows, size, design.min_clear)).astype(np.int8),
        dates_seen=_count(rows.owner[rows.covered > 0], size),
        dates_feasible=_count(rows.owner[feasible], size),
        clear_best=_largest(rows.owner, np.where(rows.in_season, rows.clear, np.nan), size).astype(np.float32),
        candidates=Candidates(
            owner=candidates.owner[keep],
            date=candidates.date[keep],
            clear=candidates.clear[keep],
            anchor=candidates.anchor[keep],
        ),
        granule=rows.granule.take(pa.array(np.flatnonzero(feasible)[keep])),
    )


def _reasons(rows: _Rows, size: int, min_clear: float) -> NDArray[np.int8]:
    """Number of the first reason that holds for each unit if it is not observable, shape (n,)."""
    owner, covered, clear = rows.owner[rows.in_season], rows.covered[rows.in_season], rows.clear[rows.in_season]
    scenes = np.bincount(owner, minlength=size)
    read = np.bincount(owner[~np.isnan(covered)], minlength=size)
    most_covered, most_clear = _largest(owner, covered, size), _largest(owner, clear, size)
    conditions = (
        scenes == 0,
        (read > 0) & ~(most_covered > 0),
        read == 0,
        most_covered < min_clear,
        most_clear < min_clear,
    )
    assert len(conditions) == len(STATE_NAMES) - _REASONS - 1, "gap_rule is what remains"
    return np.select(conditions, [np.int8(_REASONS + i) for i in range(5)], np.int8(_REASONS + 5)).astype(np.int8)


def _sorted_rows(asked: Asked, look: pa.Table, design: Design) -> _Rows:
    unit, date = look["unit"].to_numpy(), look["date"].to_numpy().astype(np.int64)
    owner = np.searchsorted(asked.unit, unit)
    known = asked.unit[np.minimum(owner, asked.unit.size - 1)] == unit if asked.unit.size else unit < 0
    if not known.all():
        raise ValueError(f"the look holds unit {unit[~known][0]}, which was not asked for: look at the given units")
    covered, clear = (np.asarray(look[name].to_numpy(), dtype=np.float64) for name in ("covered", "clear"))
    _check_look(date, covered, clear, design)
    start, end = asked.season_start[owner], asked.season_end[owner]
    near = np.flatnonzero((date >= start) & (date <= end + design.reach))
    granule = _encoded(look["granule_id"])
    code = granule.indices.to_numpy(zero_copy_only=False)[near]
    order = np.lexsort((code, owner[near] * (1 << 20) + date[near]))
    first = np.ones(order.size, dtype=np.bool_)
    rank, key = code[order], (owner[near] * (1 << 20) + date[near])[order]
    first[1:] = (rank[1:] != rank[:-1]) | (key[1:] != key[:-1])
    kept = near[order[first]]
    return _Rows(
        owner=owner[kept],
        date=date[kept],
        covered=covered[kept],
        clear=clear[kept],
        granule=granule.take(pa.array(kept)),
        in_season=(date[kept] <= end[kept]),
    )


def _check_look(
    date: NDArray[np.int64], covered: NDArray[np.float64], clear: NDArray[np.float64], design: Design
) -> None:
    if np.any(np.isnan(covered) != np.isnan(clear)):
        raise ValueError("a look row has one share and lacks the other: both are NaN where the Fmask is unreadable")
    if np.any(clear < 0) or np.any(covered > 1) or np.any(clear > covered + 1e-6):
        raise ValueError("shares of a look must satisfy 0 ≤ clear ≤ covered ≤ 1; both are shares of all pixels")
    year = date.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970
    outside = ~np.isin(year, design.years)
    if outside.any():
        day = date[outside][0].astype("datetime64[D]")
        raise ValueError(f"the look holds the date {day}, outside the years {design.years}: look within them only")


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Granule ids as a dictionary sorted by id, so that codes order rows as ids do."""
    values = column.combine_chunks()
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    names = np.array(values.dictionary.to_pylist(), dtype=object)
    distinct, code = np.unique(names, return_inverse=True) if names.size else (names, np.zeros(0, dtype=np.int64))
    indices = values.indices.to_numpy(zero_copy_only=False)
    return pa.DictionaryArray.from_arrays(
        pa.array(code[indices].astype(np.int32)), pa.array(distinct.tolist(), type=pa.string())
    )


def _count(owner: NDArray[np.int64], size: int) -> NDArray[np.int16]:
    return np.bincount(owner, minlength=size).astype(np.int16)


def _largest(owner: NDArray[np.int64], values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Largest value of each unit, ignoring NaN; NaN where it has none; shape (n,). `owner` must ascend."""
    result = np.full(size, np.nan)
    good = ~np.isnan(values)
    owner, values = owner[good], values[good]
    if owner.size:
        first = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
        result[owner[first]] = np.maximum.reduceat(values, first)
    return result
