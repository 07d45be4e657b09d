"""Small figures about a sample: how evenly strata are filled, what weights cost, what a smaller sample would have seen.

Pure functions of counts and arrays; none of them judges. The larger diagnostics have files of their own: spatial
balance (:mod:`~geofm_sampling.balance`), energy distance (:mod:`~geofm_sampling.energy`), the self-test
(:mod:`~geofm_sampling.selftest`) and the choice of q (:mod:`~geofm_sampling.frontier`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree
from scipy.special import gammaln


def effective_strata(counts: ArrayLike) -> float:
    """exp(−Σ p ln p) of the counts n_h of written units, p_h = n_h / Σ n: 1 to H, 0 where nothing was written.

    The exponential of Shannon's entropy, Hill's number of order 1 (Hill 1973): as varied as that many strata of
    equal size. Unweighted on purpose: it describes what training sees.

    >>> effective_strata([5, 5, 5, 0])
    3.0
    """
    n = np.asarray(counts, dtype=np.float64)
    if np.any(n < 0) or not np.all(np.isfinite(n)):
        raise ValueError(f"counts of strata must be finite and not negative, got {n}")
    p = n[n > 0] / max(n.sum(), 1.0)
    return round(float(np.exp(-(p * np.log(p)).sum())), 9) if p.size else 0.0


def deff_weights(weights: ArrayLike) -> float:
    """Kish's factor n · Σ w² / (Σ w)² of the positive weights, at least 1; NaN without any.

    By that factor unequal weights multiply the variance of a mean of a variable that has nothing to do with them
    (Kish 1965, 1992). It is no design effect of a variable, which may be below 1.

    >>> deff_weights([2.0, 2.0, 0.0])
    1.0
    """
    w = np.asarray(weights, dtype=np.float64)
    if np.any(w < 0) or not np.all(np.isfinite(w)):
        raise ValueError("weights must be finite and not negative; a unit that does not count has weight 0")
    w = w[w > 0]
    return float(w.size * (w**2).sum() / w.sum() ** 2) if w.size else float("nan")


def rarefaction(counts: ArrayLike, sizes: Sequence[int]) -> NDArray[np.float64]:
    """Expected number of strata met by a simple random subset of the written units, one per subset size.

    Σ_h 1 − C(N − n_h, m) / C(N, m) for subsets of m of N units (hypergeometric; Hurlbert 1971). A curve that is
    still rising at its end says that more units would meet further strata.

    >>> rarefaction([1, 1], [1, 2]).tolist()
    [1.0, 2.0]
    """
    n = np.asarray(counts, dtype=np.int64)
    n, total = n[n > 0], int(n.sum())
    if any(not 0 <= size <= total for size in sizes):
        raise ValueError(f"subsets of {list(sizes)} units: must lie between 0 and the {total} that were counted")
    m = np.asarray(sizes, dtype=np.int64)[:, None]
    rest = total - n[None]
    inside = rest >= m
    log_none = _log_choose(np.where(inside, rest, m), m) - _log_choose(np.full_like(m, total), m)
    seen = np.where(inside, -np.expm1(np.minimum(log_none, 0.0)), 1.0)
    return np.asarray(np.round(seen.sum(axis=1), 9), dtype=np.float64)


def _log_choose(n: NDArray[np.int64], m: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(gammaln(n + 1.0) - gammaln(m + 1.0) - gammaln(n - m + 1.0))


def weighted_ecdf(
    values: ArrayLike, weights: ArrayLike | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(values ascending, share of the weight at or below each), both shape (m,); NaN values are left out."""
    x = np.asarray(values, dtype=np.float64)
    w = np.ones(x.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    known = np.isfinite(x) & (w > 0)
    order = np.argsort(x[known], kind="stable")
    x, w = x[known][order], w[known][order]
    return x, np.cumsum(w) / w.sum() if w.size else w


def near_duplicate_share(
    descriptors: NDArray[np.float64], group: NDArray[np.int64], radius: float
) -> tuple[float, int] | None:
    """(share of units with another one of their group within `radius`, units judged); None where none can be.

    Parameters
    ----------
    descriptors : shape (n, d), Euclidean; a row with a NaN is not judged
    group : shape (n,), such as stratum numbers: units of two groups are never duplicates
    radius : distance up to which two units look alike, in the units of the descriptors
    """
    known = np.isfinite(descriptors).all(axis=1)
    if not known.any() or descriptors.shape[1] == 0:
        return None
    _, number = np.unique(group[known], return_inverse=True)
    # A further axis keeps groups apart by more than the radius, so that one tree serves all of them.
    apart = np.column_stack([descriptors[known], number * (2.0 * radius + 1.0)])
    if len(apart) == 1:
        return 0.0, 1
    nearest = np.asarray(cKDTree(apart).query(apart, k=2)[0])[:, 1]
    return float(np.mean(nearest <= radius)), len(apart)


def repeats(places: NDArray[np.uint64]) -> dict[int, int]:
    """Times that a place occurs → number of such places, ascending; `places` such as ids of ground cells.

    >>> repeats(np.array([7, 7, 9], dtype=np.uint64))
    {1: 1, 2: 1}
    """
    _, times = np.unique(places, return_counts=True)
    found, number = np.unique(times, return_counts=True)
    return dict(zip(found.tolist(), number.tolist(), strict=True))


def binomial_limits(trials: int, chance: float = 0.05, coverage: float = 0.95) -> tuple[int, int]:
    """Fewest and most successes that are not unusual: each tail beyond them holds at most (1 − coverage) / 2.

    Of eleven independent 95 % intervals all cover the truth in only 0.95¹¹ = 57 % of cases; up to two misses are
    within the limits.

    >>> binomial_limits(11)
    (0, 2)
    """
    if trials < 0 or not 0 < chance < 1 or not 0 < coverage < 1:
        raise ValueError(f"{trials} trials of chance {chance} at coverage {coverage}: chances must lie between 0 and 1")
    k = np.arange(trials + 1)
    log_p = _log_choose(np.full_like(k, trials), k) + k * np.log(chance) + (trials - k) * np.log1p(-chance)
    at_most = np.cumsum(np.exp(log_p))
    tail = (1 - coverage) / 2
    low = int(np.argmax(at_most > tail))
    high = int(np.argmax(at_most >= 1 - tail - 1e-12))
    return low, high
