"""How many units each stratum gets: power allocation with floors and caps, to an exact total."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def allocate(
    sizes: ArrayLike, total: int, *, power: float = 0.5, floor: ArrayLike = 0, caps: ArrayLike | None = None
) -> NDArray[np.int64]:
    """Whole numbers n_h ∝ sizes_h ** power between floor and caps with Σ n_h = total, shape (H,).

    Power allocation (Bankier 1988): power 1 is proportional, 0 is equal. The real-valued solution
    clip(c · sizes_h ** power, floor_h, caps_h) is rounded to the exact total by largest remainders, so every n_h
    is one of the two whole numbers around it. A larger stratum of equal floor never gets less. Ties go to the
    lower index.

    Parameters
    ----------
    sizes : units of each stratum, ≥ 0; an empty stratum gets none
    total : units to allocate
    power : exponent, 0 to 1
    floor : least number, one or one per stratum; in a stratum with a lower cap, the cap holds
    caps : largest number per stratum; the sizes if None

    Raises
    ------
    ValueError
        When a size is negative or not finite, the power is outside 0-1, or floors and caps leave no room for the
        total.
    """
    size = np.asarray(sizes, dtype=np.float64)
    if size.ndim != 1 or not np.all(np.isfinite(size)) or np.any(size < 0):
        raise ValueError(f"stratum sizes must be a list of finite numbers ≥ 0, got {size}")
    if not 0.0 <= power <= 1.0:
        raise ValueError(f"power {power} must lie between 0 (equal allocation) and 1 (proportional)")
    cap = np.where(size > 0, np.floor(size if caps is None else np.broadcast_to(caps, size.shape)), 0.0)
    low = np.minimum(np.broadcast_to(np.asarray(floor, dtype=np.float64), size.shape), cap)
    _check_room(total, low, cap)
    scale = np.where(size > 0, size**power, 0.0)
    return _round_to(total, _continuous(total, scale, low, cap))


def _check_room(total: int, low: NDArray[np.float64], cap: NDArray[np.float64]) -> None:
    if np.any(low < 0) or np.any(cap < 0):
        raise ValueError("floors and caps of an allocation must not be negative")
    if not low.sum() <= total <= cap.sum():
        raise ValueError(
            f"cannot allocate {total} units: the strata must take at least {low.sum():.0f} (floors) and hold at "
            f"most {cap.sum():.0f} (caps); lower the floor or ask for another number"
        )


def _continuous(
    total: int, scale: NDArray[np.float64], low: NDArray[np.float64], cap: NDArray[np.float64]
) -> NDArray[np.float64]:
    """clip(c · scale, low, cap) with the sum `total`: bisect over the breakpoints, then solve the linear piece."""
    free = scale > 0
    if not free.any():
        return low.copy()
    breaks = np.unique(np.concatenate([[0.0], low[free] / scale[free], cap[free] / scale[free]]))
    below, above = 0, breaks.size - 1
    while above - below > 1:
        middle = (below + above) // 2
        if np.clip(breaks[middle] * scale, low, cap).sum() <= total:
            below = middle
        else:
            above = middle
    centre = (breaks[below] + breaks[above]) / 2
    moving = free & (centre * scale > low) & (centre * scale < cap)
    fixed: NDArray[np.float64] = np.clip(centre * scale, low, cap)
    if not moving.any():
        return fixed
    fixed[moving] = (total - fixed[~moving].sum()) * scale[moving] / scale[moving].sum()
    return fixed


def _round_to(total: int, wanted: NDArray[np.float64]) -> NDArray[np.int64]:
    """Largest remainders; a value within 1e-9 of a whole number is that number."""
    whole = np.floor(wanted + 1e-9)
    remainder = np.round(wanted - whole, 9)
    result = whole.astype(np.int64)
    result[np.argsort(-remainder, kind="stable")[: int(total - result.sum())]] += 1
    return result
