"""Inclusion probabilities from sizes, and in whole numbers so that their sum is exact.

A fixed sample size needs probabilities whose sum is a whole number, and sums of a million floats are not. So draws
work on *words*: π · 2⁶⁴ as unsigned 64-bit integers. Adding words wraps at 2⁶⁴, which is the arithmetic modulo 1
that systematic and pivotal draws need, and nothing is ever rounded on the way. Costs less than 0.1 µs per unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

ONE = 2**64
"""The word of probability 1, one more than the largest uint64."""

SUM_TOLERANCE = 1e-9
"""How far from a whole number the sum of probabilities may be, per unit: rounding, not another design."""

_CERTAIN = 1.0 - 1e-12
"""From here on a probability counts as 1: floats of sizes that should just be capped miss 1 by less."""


def capped_probabilities(size: ArrayLike, draws: int) -> NDArray[np.float64]:
    """Probabilities ∝ size, none above 1, with the sum `draws`; shape (n,).

    A unit whose share would exceed 1 is certain, and the others share what is left in proportion to their sizes, as
    often as needed (Särndal, Swensson & Wretman 1992, 3.6.2). The certain units are the c largest, with the smallest
    c for which the largest of the others stays within 1; a sort finds it without iterating. Does not depend on
    the order of the units beyond the last bit. O(n log n).

    Parameters
    ----------
    size : sizes, shape (n,), above 0 and finite; zero only where nothing is drawn
    draws : units to draw, 0 to n

    Raises
    ------
    ValueError
        When a size is negative, not finite, zero (its unit could never be drawn) or so small beside the others that
        its probability would be zero, or `draws` is negative or larger than n.

    >>> capped_probabilities([1, 1, 2, 16], 2).tolist()
    [0.25, 0.25, 0.5, 1.0]
    """
    given = _checked_sizes(size, draws)
    if draws in (0, given.size):
        return np.full(given.size, float(draws > 0))
    scaled = given / given.max()
    ascending = np.sort(scaled)
    # Of the c largest left out: the sum of the others, the largest of the others, for c = 0 … draws − 1.
    total = np.cumsum(ascending)[::-1][:draws]
    largest = ascending[::-1][:draws]
    left = draws - np.arange(draws)
    certain = int(np.argmax(left * largest <= total * (1 + 1e-15)))  # true at the latest for c = draws − 1
    result = np.minimum(scaled * (left[certain] / total[certain]), 1.0)
    if certain:
        result[scaled >= ascending[-certain]] = 1.0
    if not result.min() > 0:
        raise ValueError(f"sizes from {given.min()} to {given.max()}: the least would never be drawn; clip the sizes")
    return np.asarray(result)


def _checked_sizes(size: ArrayLike, draws: int) -> NDArray[np.float64]:
    given = np.asarray(size, dtype=np.float64)
    if given.ndim != 1 or not np.all(np.isfinite(given)):
        raise ValueError("sizes must be one finite number per unit: replace NaN and infinite sizes by a declared value")
    if not 0 <= draws <= given.size:
        raise ValueError(f"cannot draw {draws} units of {given.size}: draws must lie between 0 and the units")
    wrong = np.flatnonzero((given < 0) | ((given == 0) & (draws > 0)))
    if wrong.size:
        raise ValueError(
            f"{wrong.size} sizes are zero or negative, the first is {given[wrong[0]]} at position {wrong[0]}: such a "
            f"unit could never be drawn; give it a small size, or take it out of the frame and say so"
        )
    return given


def checked_probabilities(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Probabilities as float64, shape (n,): all above 0 and at most 1, or all 0 where nothing is to be drawn.

    Raises
    ------
    ValueError
        When they are not; a unit of probability zero among others is outside the population that a sample speaks of.
    """
    pi = np.asarray(probabilities, dtype=np.float64)
    if pi.ndim != 1 or not np.all((pi >= 0) & (pi <= 1)):
        raise ValueError("inclusion probabilities must be one number from 0 to 1 per unit, none NaN")
    zeros = int(np.count_nonzero(pi == 0))
    if 0 < zeros < pi.size:
        raise ValueError(
            f"{zeros} of {pi.size} units have probability 0: give them a chance, or take them out of the population "
            f"and say so"
        )
    return pi


@dataclass(frozen=True, kw_only=True)
class WholeShares:
    """Probabilities in whole numbers: the certain units, and words of the others that sum to `draws` exactly."""

    certain: NDArray[np.int64]
    """Positions of the units with probability 1, ascending."""
    open: NDArray[np.int64]
    """Positions of the others, ascending, shape (m,); none where `draws` is 0."""
    words: NDArray[np.uint64]
    """Their probabilities times 2⁶⁴, above 0, shape (m,); the sum is draws · 2⁶⁴."""
    draws: int
    """Units to draw among the others, 0 to m − 1."""


def whole_shares(probabilities: ArrayLike) -> WholeShares:
    """Words of probabilities whose sum is a whole number but for rounding.

    The rounding error of the sum is taken out by one common factor, of the probabilities if they sum to too much, of
    their complements if to too little; the words that are still amiss, at most one per unit, go to one of the largest
    units. Floats above 2⁻¹² fit into words without rounding.

    Raises
    ------
    ValueError
        When a probability is not in 0 to 1, or the sum is further from a whole number than 10⁻⁹ per unit.
    """
    pi = checked_probabilities(probabilities)
    certain, rest = np.flatnonzero(pi >= _CERTAIN), np.flatnonzero((pi > 0) & (pi < _CERTAIN))
    values = pi[rest]
    words = _words(values)
    excess, draws = _excess(words)
    if abs(excess) > SUM_TOLERANCE * pi.size * ONE:
        raise ValueError(
            f"probabilities sum to {certain.size + draws + excess / ONE:.9f}: a sample of fixed size needs a whole "
            f"number; scale them (capped_probabilities does), or draw with method 'poisson'"
        )
    if draws in (0, rest.size):
        none = np.zeros(0, dtype=np.int64)
        drawn = certain if draws == 0 else np.flatnonzero(pi > 0)
        return WholeShares(certain=drawn, open=none, words=none.astype(np.uint64), draws=0)
    if excess > 0:
        words -= (values * (excess / (draws + excess / ONE))).astype(np.uint64)
    elif excess < 0:
        words += ((1.0 - values) * (-excess / (rest.size - draws))).astype(np.uint64)
    return WholeShares(certain=certain, open=rest, words=_settled(words), draws=draws)


def _words(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    return np.maximum((values * float(ONE)).astype(np.uint64), np.uint64(1))


def _excess(words: NDArray[np.uint64]) -> tuple[int, int]:
    """Words by which the sum exceeds the nearest multiple of 2⁶⁴ (may be negative), and that multiple."""
    high, low = int((words >> np.uint64(32)).sum()), int((words & np.uint64(2**32 - 1)).sum())
    total = (high << 32) + low
    draws = (total + ONE // 2) // ONE
    return total - draws * ONE, draws


def _settled(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The words with the last few amiss taken from, or given to, the largest unit that has room for them."""
    excess, _ = _excess(words)
    room = words if excess > 0 else ~words
    at = int(np.argmax(np.where(room > np.uint64(abs(excess)), words, np.uint64(0))))
    result = words.copy()
    result[at] = np.uint64(int(words[at]) - excess)
    assert _excess(result)[0] == 0
    return result
