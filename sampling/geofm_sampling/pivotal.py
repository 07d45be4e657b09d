"""Draws along an ordered list: ordered pivotal sampling and an order whose every prefix is balanced.

Equal probabilities are exact ratios of whole numbers, whatever the list holds; unequal ones are kept in whole numbers
too (:mod:`geofm_sampling.probabilities`). Costs: an equal-probability draw of m units is O(m) however long the list,
an unequal one O(N), about 0.1 µs per unit; the balanced order is O(m log m), about 0.3 µs per unit.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofm_sampling.hashing import hashed_uniform, hashed_words
from geofm_sampling.probabilities import ONE, WholeShares, whole_shares


def ordered_pivotal(*, population: int, draws: int, seed: int, purpose: str) -> NDArray[np.int64]:
    """Positions of `draws` units of a list of `population`, each with probability draws / population; ascending.

    Deville's systematic form of the ordered pivotal method (Deville & Tillé 1998, Chauvet 2012): the list is laid
    out on a line, each unit `draws` long, and cut into `draws` intervals of length `population`. Each interval
    takes one unit; the unit that straddles a cut is taken by at most one of its two intervals. So two neighbours
    on the list are almost never drawn together.

    >>> ordered_pivotal(population=10, draws=3, seed=1, purpose="doc").shape
    (3,)
    """
    if not 0 <= draws <= population:
        raise ValueError(f"cannot draw {draws} units of {population}: draws must lie between 0 and the population")
    if draws in (0, population):
        return np.arange(draws, dtype=np.int64)
    straddler, inside = _layout(population, draws)
    step = np.arange(draws, dtype=np.uint64)
    u = hashed_uniform(seed, purpose + "/place", step)
    jump = straddler + 1 + np.floor(u * (population - inside) / draws).astype(np.int64)
    last = ((np.arange(1, draws + 1, dtype=np.int64) * population) - 1) // draws
    jump = np.minimum(jump, last)  # u just below 1 may round up to the end of the interval
    # The straddler's part in the interval before is draws − inside; free of that, it is taken with this probability.
    stay = hashed_uniform(seed, purpose + "/stay", step) < inside / (population - (draws - inside))
    return _outcome(straddler, jump, stay)


def ordered_pivotal_pps(probabilities: ArrayLike, *, seed: int, purpose: str) -> NDArray[np.int64]:
    """Positions drawn along a list with unequal probabilities, ascending; their number is the sum, always.

    The same systematic form (Deville & Tillé 1998, Chauvet 2012): units are laid out with their probabilities as
    lengths and the line is cut at the whole numbers. Units of probability 1 are drawn and leave the line first.
    Lengths are whole multiples of 2⁻⁶⁴, so cuts are exact; a probability is kept to the rounding of one float.

    Parameters
    ----------
    probabilities : π in the order of the list, shape (n,), above 0 and at most 1, with a whole sum
    seed, purpose : of the random numbers, which belong to the intervals

    Raises
    ------
    ValueError
        When a probability is not in 0 to 1, or the sum is not a whole number within 10⁻⁹ per unit.

    >>> ordered_pivotal_pps([0.5, 1.0, 0.25, 0.25], seed=1, purpose="doc").size
    2
    """
    shares = whole_shares(probabilities)
    if not shares.draws:
        return shares.certain
    drawn = shares.open[_along(shares, seed, purpose)]
    return np.sort(np.concatenate([shares.certain, drawn])) if shares.certain.size else drawn


def _along(shares: WholeShares, seed: int, purpose: str) -> NDArray[np.int64]:
    """Places among the open units that the intervals take, shape (draws,)."""
    end = np.cumsum(shares.words, dtype=np.uint64)  # modulo 1: the place of a unit's end within its interval
    last = np.flatnonzero(end < shares.words)  # these units reach or cross the end of an interval
    assert last.size == shares.draws
    straddler = np.concatenate([[0], (last + (end[last] == 0))[:-1]])
    inside = end[straddler]
    before = shares.words[straddler] - inside
    step = np.arange(last.size, dtype=np.uint64)
    stay = hashed_uniform(seed, purpose + "/stay", step) < inside / (float(ONE) - before.astype(np.float64))
    rest = -inside  # 2⁶⁴ − inside
    u = hashed_uniform(seed, purpose + "/place", step)
    place = inside + np.minimum((u * rest).astype(np.uint64), rest - np.uint64(1))
    return _outcome(straddler, _first_beyond(end, place, straddler + 1, last), stay)


def _first_beyond(
    end: NDArray[np.uint64], place: NDArray[np.uint64], low: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The first unit from `low` on that ends beyond `place`, at most `last`: bisection in every interval at once."""
    low, high = low.copy(), last.copy()
    for _ in range(int((high - low).max()).bit_length()):
        middle = (low + high) // 2
        beyond = (middle == last) | (end[middle] > place)
        high = np.where(beyond, middle, high)
        low = np.where(beyond, low, middle + 1)
    return high


def _outcome(straddler: NDArray[np.int64], jump: NDArray[np.int64], stay: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What each interval takes: its straddler if that is free and the lot says stay, the unit of its jump if not."""
    return np.where(_taken_before(straddler, jump, stay) | ~stay, jump, straddler)


def _layout(population: int, draws: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The unit at the left end of each interval and the length of it that lies inside, in whole numbers."""
    start = np.arange(draws, dtype=np.int64) * population
    straddler = start // draws
    return straddler, (straddler + 1) * draws - start


def _taken_before(straddler: NDArray[np.int64], jump: NDArray[np.int64], stay: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether the interval before took the straddler; without a loop.

    An interval that stays takes the next straddler only if it was pushed off its own, so its outcome either is
    settled or repeats the outcome before it: the last settled one counts.
    """
    takes_next = np.zeros(jump.size, dtype=np.bool_)
    takes_next[:-1] = jump[:-1] == straddler[1:]
    settled = ~stay | ~takes_next
    outcome = takes_next & ~stay
    last = np.maximum.accumulate(np.where(settled, np.arange(jump.size), -1))
    after = np.where(last >= 0, outcome[last], False)
    return np.concatenate([[False], after[:-1]])


def balanced_order(size: int, *, seed: int, purpose: str) -> NDArray[np.int64]:
    """A permutation of 0 … size − 1 whose every prefix is spread evenly; position by rank, shape (size,).

    Rank r walks down a tree of halves: the bits of r, lowest first, say which half, and a hash per node which of
    the two halves comes first (bit reversal for any size; Stevens & Olsen 2004, reverse hierarchical order). A
    cyclic shift by a uniform number then makes each position's rank exactly uniform, so a prefix of k holds each
    position with probability k / size.

    >>> sorted(balanced_order(5, seed=1, purpose="doc").tolist())
    [0, 1, 2, 3, 4]
    """
    rank = np.arange(size, dtype=np.int64)
    low, width = np.zeros(size, dtype=np.int64), np.full(size, size, dtype=np.int64)
    for level in range(max(size - 1, 0).bit_length()):
        node = low.astype(np.uint64) | np.uint64(level << 48)
        right_first = (hashed_words(seed, purpose + "/halves", node) & np.uint64(1)).astype(np.bool_)
        second = width // 2
        first = width - second
        to_second = (rank & 1).astype(np.bool_)
        low += np.where(to_second, np.where(right_first, 0, first), np.where(right_first, second, 0))
        width = np.where(to_second, second, first)
        rank >>= 1
    shift = int(hashed_uniform(seed, purpose + "/shift", np.zeros(1, dtype=np.uint64))[0] * size)
    return (low + shift) % max(size, 1)
