"""Dates of a sample: which units have a feasible sequence, and one drawn with a known probability.

A *candidate* is a granule of a unit that is clear enough. A *sequence* is T candidates, the first in the anchor
season, each next one min_gap to max_gap days after the one before. A sequence's weight is the product of its
clear shares; one is drawn with probability proportional to its weight, by summing the weights of all ways onward
from every candidate, last step first (forward-filtering, backward-sampling with time reversed), never by listing.

*Joint* dates let units share granules: each step is a race, the candidate with the least −log(u) / weight wins, and u
belongs to the granule instead of the unit. Each unit's probabilities are the same as alone, but units with like
candidates mostly run the same race, so fewer granules are opened (coordinated samples; Cohen & Kaplan 2013).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.design import Design
from geofm_sampling.hashing import hashed_uniform

_STRIDE = 1 << 20
"""Distance in days between consecutive units on the common time line: more than any date plus any gap."""
_CHUNK = 1 << 14
"""Units whose windows are spread out into one array at a time."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """Clear granules of some units, sorted by (unit, date, granule); every field has shape (c,)."""

    owner: NDArray[np.int64]
    """Position of the unit in the caller's list, ascending."""
    date: NDArray[np.int64]
    """Days since 1970-01-01, 0 ≤ date < 2²⁰ − 3660."""
    clear: NDArray[np.float64]
    """Clear share, above 0."""
    anchor: NDArray[np.bool_]
    """Whether the date lies in the unit's anchor season."""


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """One drawn sequence per unit."""

    rows: NDArray[np.int64]
    """Candidate numbers in order of date, shape (n, T)."""
    probability: NDArray[np.float64]
    """Probability of the drawn sequence among all feasible ones of its unit, shape (n,)."""


def windows(candidates: Candidates, design: Design) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and one past the last candidate that may follow each candidate, both shape (c,)."""
    line = candidates.owner * _STRIDE + candidates.date
    return (
        np.searchsorted(line, line + design.min_gap, side="left"),
        np.searchsorted(line, line + design.max_gap, side="right"),
    )


def feasible_starts(candidates: Candidates, design: Design) -> NDArray[np.bool_]:
    """Whether each candidate is the first of at least one feasible sequence, shape (c,)."""
    low, high = windows(candidates, design)
    reaches = np.ones(candidates.date.size, dtype=np.bool_)
    for _ in range(design.timesteps - 1):
        count = np.concatenate([[0], np.cumsum(reaches)])
        reaches = count[high] > count[low]
    return reaches & candidates.anchor


def draw_sequences(candidates: Candidates, granule: pa.Array, units: NDArray[np.uint64], design: Design) -> Sequences:
    """One sequence for each unit, all of them with a feasible one.

    The uniform numbers are hashes of (seed, step, unit), or of (seed, step, granule) where dates are joint, so a
    unit's dates depend on its own candidates only.

    Parameters
    ----------
    granule : granule id of each candidate, shape (c,)
    units : the ids behind `owner`, shape (n,)

    Raises
    ------
    ValueError
        When a unit has no feasible sequence.
    """
    low, high = windows(candidates, design)
    onward = _onward_weights(candidates, low, high, design.timesteps)
    count = units.size
    first = np.searchsorted(candidates.owner, np.arange(count), side="left")
    last = np.searchsorted(candidates.owner, np.arange(count), side="right")
    rows = np.empty((count, design.timesteps), dtype=np.int64)
    probability = np.ones(count)
    runner = _granule_words(granule) if design.joint_dates else np.zeros(0, dtype=np.uint64)
    for step in range(design.timesteps):
        weight = onward[step] * candidates.anchor if step == 0 else onward[step]
        uniform = hashed_uniform(design.seed, f"dates/{step}", runner if design.joint_dates else units)
        for start in range(0, count, _CHUNK):
            part = slice(start, start + _CHUNK)
            if design.joint_dates:
                rows[part, step], p = _race(weight, first[part], last[part], uniform)
            else:
                rows[part, step], p = _pick(weight, first[part], last[part], uniform[part])
            probability[part] *= p
        first, last = low[rows[:, step]], high[rows[:, step]]
    return Sequences(rows=rows, probability=probability)


def _granule_words(granule: pa.Array) -> NDArray[np.uint64]:
    """A 64-bit number of each granule id, shape kept."""
    encoded = granule if pa.types.is_dictionary(granule.type) else granule.dictionary_encode()
    digests = [hashlib.blake2b(name.encode(), digest_size=8).digest() for name in encoded.dictionary.to_pylist()]
    words = np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
    return words[encoded.indices.to_numpy(zero_copy_only=False)] if words.size else np.zeros(0, dtype=np.uint64)


def _onward_weights(
    candidates: Candidates, low: NDArray[np.int64], high: NDArray[np.int64], timesteps: int
) -> list[NDArray[np.float64]]:
    """Summed weights of all sequences of the remaining dates that start at each candidate, by step."""
    weights = [candidates.clear]
    for _ in range(timesteps - 1):
        weights.append(candidates.clear * _window_sums(weights[-1], low, high))
    return weights[::-1]


def _window_sums(values: NDArray[np.float64], low: NDArray[np.int64], high: NDArray[np.int64]) -> NDArray[np.float64]:
    """Σ values[low:high] of each window, shape (c,).

    Summed window by window, not as differences of one running sum: a small window keeps its digits beside large
    ones, and its sum is the same bits whatever other units are in the table.
    """
    if not values.size:
        return values.copy()
    bounds = np.stack([low, high], axis=1).ravel()
    sums = np.add.reduceat(np.append(values, 0.0), bounds)[::2]
    return np.where(high > low, sums, 0.0)


def _shares(
    weight: NDArray[np.float64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Candidate numbers and weights of each range first … last − 1, zero beyond it; both shape (n, width).

    Raises
    ------
    ValueError
        When a range holds no positive weight.
    """
    width = int((last - first).max(initial=0))
    column = first[:, None] + np.arange(max(width, 1))
    inside = column < last[:, None]
    column = np.where(inside, column, 0)
    shares = np.where(inside, weight[column], 0.0) if weight.size else np.zeros(column.shape)
    if np.any(shares.max(axis=1, initial=0.0) <= 0):
        raise ValueError("a unit without a feasible sequence of dates cannot be given dates")
    return column, shares


def _pick(
    weight: NDArray[np.float64], first: NDArray[np.int64], last: NDArray[np.int64], uniform: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One candidate of each range with probability ∝ weight, and that probability; shapes (n,)."""
    _, shares = _shares(weight, first, last)
    total = np.cumsum(shares, axis=1)
    # The last candidate of positive weight catches a uniform number that rounding puts beyond the total.
    place = np.minimum((total <= (uniform * total[:, -1])[:, None]).sum(axis=1), _last_positive(shares))
    probability = np.take_along_axis(shares, place[:, None], axis=1)[:, 0] / total[:, -1]
    return first + place, probability


def _race(
    weight: NDArray[np.float64], first: NDArray[np.int64], last: NDArray[np.int64], uniform: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Like :func:`_pick`, by an exponential race with one uniform number per candidate, shape (c,)."""
    column, shares = _shares(weight, first, last)
    with np.errstate(divide="ignore"):
        time = np.where(shares > 0, -np.log1p(-uniform[column]) / shares, np.inf)
    place = time.argmin(axis=1)
    probability = np.take_along_axis(shares, place[:, None], axis=1)[:, 0] / np.cumsum(shares, axis=1)[:, -1]
    return first + place, probability


def _last_positive(shares: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.asarray(shares.shape[1] - 1 - (shares[:, ::-1] > 0).argmax(axis=1))
