"""The local pivotal method: exact probabilities, and near units are seldom drawn together.

Grafström, Lundström & Schelin (2012), first method (LPM 1): pick a unit at random; if its nearest neighbour has it
as its own nearest neighbour, the two *fight*: one of them is decided (drawn or left out) and the other carries
what is left of both probabilities. Repeat until all are decided. One unit after the other is slow, so here all mutual
pairs of a round fight at once, **with the same result**:

1. A mutual pair stays mutual until it fights. Others being decided can only take units away, which leaves the nearest
   neighbours of the two as they are; and neither can fight anyone else, since it fights its nearest neighbour only.
2. Fights of two mutual pairs touch different units, so they may be fought in either order, or together.
3. A fight decides one of the two, so a pair fights at most once, and its random number can be a hash of the pair.

By 1 and 2 every order of fights can be turned into every other by swaps that change nothing, so the sample is a
function of the random numbers alone: rounds give what LPM 1 gives, to the unit, and so have its distribution.
In the plane about 62 % of random points are in mutual pairs, so a third of the units is decided in each round, and the
work is a geometric series of k-d tree queries: about 3 µs and 200 bytes per unit in the plane.

Probabilities are kept as whole multiples of 2⁻⁶⁴ (:mod:`geofm_sampling.probabilities`): the sum never drifts and the
number drawn is always exactly the sum.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from geofm_sampling.hashing import hashed_uniform, hashed_words, splitmix64
from geofm_sampling.probabilities import whole_shares

BLUR = 1e-3
"""Units are moved by up to this share of the distance to their nearest neighbour. On a grid all neighbours are equally
near, and where spacing grows steadily only one pair at an end would be mutual; the shift breaks both at random."""

_RESOLUTION = 1e-13
"""Units nearer to each other than about this share of the extent of all count as being at one place."""

_STALE = 0.75
"""A new k-d tree is built when no more than this share of the units in it is undecided."""


def local_pivotal(
    probabilities: ArrayLike, coordinates: ArrayLike, *, ids: NDArray[np.uint64], seed: int, purpose: str
) -> NDArray[np.int64]:
    """Positions of the drawn units, ascending; their number is the sum of the probabilities, always.

    Units at the same place fight each other first, until at most one of them is undecided. Distances that differ by
    less than two thousandths count as equal (see BLUR). The order of rows changes nothing: the units drawn
    are the same.

    Parameters
    ----------
    probabilities : π, shape (n,), above 0 and at most 1, with a whole sum
    coordinates : finite, shape (n, d), in any unit; distance is Euclidean, so for places on the globe give
        x, y, z on the sphere rather than degrees, and scale covariates to be comparable
    ids : unit ids, each once, shape (n,)
    seed, purpose : of the random numbers, which belong to pairs of units

    Raises
    ------
    ValueError
        When a probability or the sum is impossible, or coordinates are not finite or of another shape.
    """
    pi = np.asarray(probabilities, dtype=np.float64)
    place = _normalised(coordinates, pi.size)
    by_id = np.argsort(ids)  # from here on nothing depends on the order of rows
    shares = whole_shares(pi[by_id])
    if not shares.draws:
        return np.sort(by_id[shares.certain])
    unit = by_id[shares.open]
    ring = _Ring(shares.words, ids[unit], seed, purpose)
    points = place[unit]
    _fight_at_one_place(ring, points)
    left = np.flatnonzero(ring.words)
    left = left[_tree(points[left]).indices]  # in the order of leaves, which halves the time of later queries
    _fight_in_rounds(ring, left, _blurred(points[left], ring.key[left]))
    return np.sort(np.concatenate([by_id[shares.certain], unit[ring.drawn]]))


class _Ring:
    """Where units fight: their words (0 when decided), whether they were drawn, and their hashes, all shape (n,)."""

    def __init__(self, words: NDArray[np.uint64], ids: NDArray[np.uint64], seed: int, purpose: str) -> None:
        self.words = words.copy()
        self.drawn = np.zeros(words.size, dtype=np.bool_)
        self.key = hashed_words(seed, purpose + "/unit", ids)
        self._seed, self._purpose = seed, purpose + "/fight"

    def fight(self, one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
        """Let disjoint pairs of undecided units fight; the outcome depends on which two meet, not on who is `one`.

        With a + b ≤ 1 the winner, `one` with probability a / (a + b), carries a + b and the loser is left out. Above
        1 the winner, `one` with probability (1 − b) / (2 − a − b), is drawn and the loser carries a + b − 1.
        """
        swap = self.key[one] > self.key[other]
        one, other = np.where(swap, other, one), np.where(swap, one, other)
        a, b = self.words[one], self.words[other]
        carried = a + b  # modulo 1
        full = carried < a
        weight_one, weight_other = np.where(full, -b, a).astype(np.float64), np.where(full, -a, b).astype(np.float64)
        u = hashed_uniform(self._seed, self._purpose, splitmix64(self.key[one]) + self.key[other])
        wins = u * (weight_one + weight_other) < weight_one
        winner, loser = np.where(wins, one, other), np.where(wins, other, one)
        self.drawn[winner] = full
        self.words[winner] = np.where(full, 0, carried)
        self.words[loser] = np.where(full, carried, 0)


def _normalised(coordinates: ArrayLike, size: int) -> NDArray[np.float64]:
    place = np.asarray(coordinates, dtype=np.float64)
    if place.ndim != 2 or place.shape[0] != size or place.shape[1] < 1:
        raise ValueError(f"coordinates must be one row of numbers per unit, shape ({size}, d), got {place.shape}")
    if not np.all(np.abs(place) < 1e150):  # false for NaN too; differences must stay finite
        raise ValueError(
            "coordinates must be finite and below 1e150: leave units without a place out of the population and say so"
        )
    if not size:
        return place
    low, high = place.min(axis=0), place.max(axis=0)
    # Within −1 … 1, so that neither offsets nor units cost digits; adding 0 turns −0 into 0: equal places, equal bits.
    return np.asarray((place - (low + high) / 2) / (float((high - low).max()) or 1.0) * 2 + 0.0)


def _fight_at_one_place(ring: _Ring, points: NDArray[np.float64]) -> None:
    """Fights among units at the same place, in hashed order, until at most one of each place is undecided."""
    where = np.zeros(len(points), dtype=np.uint64)
    for axis in points.T:
        where = splitmix64(where ^ np.ascontiguousarray(axis).view(np.uint64))
    order = np.argsort(where)
    same = where[order[1:]] == where[order[:-1]]
    if not same.any():
        return
    shared = order[np.concatenate([same, [False]]) | np.concatenate([[False], same])]
    shared = shared[np.lexsort((ring.key[shared], where[shared]))]
    while True:
        here = where[shared]
        new = np.concatenate([[True], here[1:] != here[:-1]])
        number = np.arange(here.size) - np.maximum.accumulate(np.where(new, np.arange(here.size), 0))
        first = np.flatnonzero((number[:-1] % 2 == 0) & ~new[1:])
        if not first.size:
            return
        ring.fight(shared[first], shared[first + 1])
        shared = shared[ring.words[shared] != 0]


def _blurred(points: NDArray[np.float64], key: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The points, moved along every axis by a hashed amount of up to BLUR of the distance to the nearest."""
    if len(points) < 2:
        return points  # no neighbour
    nearest = np.asarray(_tree(points).query(points, k=2)[0])[:, 1]
    shift = np.stack([hashed_uniform(axis, "blur", key) for axis in range(points.shape[1])], axis=1)
    return np.asarray(points + (2 * shift - 1) * np.maximum(BLUR * nearest, _RESOLUTION)[:, None])


def _tree(points: NDArray[np.float64]) -> cKDTree:
    return cKDTree(points, compact_nodes=False, balanced_tree=False)


def _fight_in_rounds(ring: _Ring, unit: NDArray[np.int64], points: NDArray[np.float64]) -> None:
    """Rounds of all mutual pairs until every unit is decided; `unit` are the undecided ones, (m,), at `points`."""
    near = np.full(unit.size, -1)
    while unit.size:
        tree, alive = _tree(points), np.ones(unit.size, dtype=np.bool_)
        lost = np.flatnonzero(near < 0)
        while True:
            near[lost] = _nearest(tree, points, lost, alive)
            one = _mutual(near, alive)
            ring.fight(unit[one], unit[near[one]])
            alive = ring.words[unit] != 0
            if np.count_nonzero(alive) <= _STALE * unit.size:
                break
            lost = np.flatnonzero(alive & ~alive[near])
        kept = np.flatnonzero(alive)
        new_place = np.where(alive, np.cumsum(alive) - 1, -1)
        unit, points, near = unit[kept], points[kept], new_place[near[kept]]


def _mutual(near: NDArray[np.int64], alive: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The first unit of every mutual pair of undecided units; never empty."""
    place = np.arange(near.size)
    one = np.flatnonzero(alive & (near[near] == place) & (place < near))
    if one.size:
        return one
    # Only distances that are equal to the last bit can chase each other in a circle: then any neighbours may fight.
    return np.flatnonzero(alive)[:1]


def _nearest(
    tree: cKDTree, points: NDArray[np.float64], wanted: NDArray[np.int64], alive: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """For each wanted unit the nearest other undecided one, shape of `wanted`; asks for more where all are decided."""
    result = np.empty(wanted.size, dtype=np.int64)
    open_, k = np.arange(wanted.size), 2 if alive.all() else 6
    while open_.size:
        k = min(k, alive.size)
        found = np.asarray(tree.query(points[wanted[open_]], k=k)[1])
        good = alive[found] & (found != wanted[open_][:, None])
        column = good.argmax(axis=1)
        has = good[np.arange(open_.size), column]
        result[open_[has]] = found[np.flatnonzero(has), column[has]]
        open_, k = open_[~has], 4 * k
    return result
