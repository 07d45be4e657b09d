"""One door to every design: draw units with given probabilities.

A number that belongs to a unit is a hash of (seed, purpose, unit id), so a draw depends on neither the order of the
rows nor the machine. The two designs along a list depend on the order of the list: that is their purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofm_sampling.hashing import hashed_uniform, hashed_words
from geofm_sampling.local_pivotal import local_pivotal
from geofm_sampling.pivotal import ordered_pivotal_pps
from geofm_sampling.probabilities import WholeShares, checked_probabilities, whole_shares

METHODS = ("random", "systematic", "poisson", "pareto", "pivotal", "local")

EXACT: Mapping[str, str] = MappingProxyType(
    {
        "random": "exact: simple random, every set of n units is equally probable",
        "systematic": "exact for units; many pairs can never be drawn together, so no variance estimate is unbiased",
        "poisson": "exact and independent from unit to unit; the number of units drawn is random",
        "pareto": "approximate: true inclusion probabilities differ a little from the stated ones",
        "pivotal": "exact for units; neighbours along the list are almost never drawn together",
        "local": "exact for units; neighbours in space are seldom drawn together",
    }
)
"""How the probabilities of each method are met, in words for a report; "for units" means first order."""


def draw(
    probabilities: ArrayLike,
    *,
    method: str,
    seed: int,
    purpose: str,
    ids: ArrayLike,
    coordinates: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Positions of the drawn units, ascending.

    Parameters
    ----------
    probabilities : inclusion probabilities π, shape (n,), above 0 and at most 1 (or all 0: nothing is drawn). But for
        "poisson" their sum must be a whole number, which is the number drawn, always
    method : one of METHODS

        - random: simple random sampling; all probabilities must be equal
        - systematic: along the list with one random start (Madow 1949)
        - poisson: every unit for itself; the number drawn is random
        - pareto: the n smallest of u(1 − π) / (π(1 − u)) (Rosén 1997). **Approximate**: the true probabilities
          differ from π by less than 0.15 / Σπ(1 − π) of themselves in all trials: 28 % when one of sizes 1, 1, 1, 9
          is drawn, 0.5 % when 5 of 20 log-normal ones, 0.005 % when 50 of 200
        - pivotal: ordered pivotal along the list (:func:`~geofm_sampling.pivotal.ordered_pivotal_pps`)
        - local: local pivotal in space (:func:`~geofm_sampling.local_pivotal.local_pivotal`)
    seed, purpose : of the random numbers
    ids : unit ids, whole numbers ≥ 0, each once, shape (n,)
    coordinates : places in which distance is meaningful, shape (n, d); "local" only

    Raises
    ------
    ValueError
        When the method is unknown, a probability or their sum is impossible, ids repeat or are of another
        number, or coordinates are missing.
    """
    if method not in METHODS:
        raise ValueError(f"draw method {method!r} is unknown: use one of {', '.join(METHODS)}")
    pi = checked_probabilities(probabilities)
    unit = checked_ids(ids, pi.size)
    if method == "poisson":
        return np.flatnonzero(hashed_uniform(seed, purpose, unit) < pi)
    if method == "pivotal":
        return ordered_pivotal_pps(pi, seed=seed, purpose=purpose)
    if method == "local":
        if coordinates is None:
            raise ValueError("the local pivotal method needs coordinates, one row per unit")
        return local_pivotal(pi, coordinates, ids=unit, seed=seed, purpose=purpose)
    shares = whole_shares(pi)
    if method == "systematic":
        drawn = _systematic(shares, seed, purpose)
    elif method == "pareto":
        drawn = _pareto(shares, pi, hashed_uniform(seed, purpose, unit))
    else:
        _check_equal(pi)
        drawn = np.argsort(hashed_words(seed, purpose, unit[shares.open]))[: shares.draws]
    return np.sort(np.concatenate([shares.certain, shares.open[drawn]]))


def ranks_random(ids: ArrayLike, *, seed: int, purpose: str) -> NDArray[np.int64]:
    """A random permutation by hash: positions by rank, shape (n,); every prefix is a simple random sample.

    Whether a unit comes before another depends on the two alone, so units can be added or removed without changing the
    order of the rest (permanent random numbers, Ohlsson 1995).

    >>> sorted(ranks_random([7, 8, 9], seed=1, purpose="doc").tolist())
    [0, 1, 2]
    """
    unit = checked_ids(ids, np.size(ids))
    return np.argsort(hashed_words(seed, purpose, unit))  # the hash of 64 bits is one to one, so there are no ties


def checked_ids(ids: ArrayLike, size: int) -> NDArray[np.uint64]:
    """Unit ids as uint64; ValueError when they are not `size` whole numbers ≥ 0, each once."""
    given = np.asarray(ids)
    if given.shape != (size,) or (size and (given.dtype.kind not in "iu" or given.min() < 0)):
        raise ValueError(
            f"ids must be {size} whole numbers ≥ 0, one per unit, not {given.dtype} of shape {given.shape}"
        )
    unit = given.astype(np.uint64)
    if np.any(unit[1:] <= unit[:-1]) and np.unique(unit).size < size:
        raise ValueError("ids must hold each unit once: units of equal id would share their random numbers")
    return unit


def _check_equal(pi: NDArray[np.float64]) -> None:
    if pi.size and pi.max() - pi.min() > 1e-12 * pi.max():
        raise ValueError(
            f"simple random sampling needs equal probabilities, got {pi.min()} to {pi.max()}: draw with 'pivotal', "
            f"'local' or another method"
        )


def _systematic(shares: WholeShares, seed: int, purpose: str) -> NDArray[np.int64]:
    """Places among the open units whose stretch of the line holds a point of start + whole numbers."""
    start = hashed_words(seed, purpose + "/start", np.zeros(1, dtype=np.uint64))
    return np.flatnonzero(np.cumsum(shares.words, dtype=np.uint64) + start < shares.words)


def _pareto(shares: WholeShares, pi: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places among the open units with the smallest ranking numbers."""
    p, u = pi[shares.open], u[shares.open]
    return np.argsort(u * (1 - p) / (p * (1 - u)))[: shares.draws]
