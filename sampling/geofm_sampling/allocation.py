"""How many units each stratum gets: equal, proportional, Neyman and power allocation, to an exact total."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LEAST_SCALE = 1e-12
"""A stratum's share of the largest N_h^q · S_h / √c_h counts as at least this, so that arithmetic stays finite."""


def allocate(
    sizes: ArrayLike,
    total: int,
    *,
    power: float = 0.5,
    floor: ArrayLike = 0,
    caps: ArrayLike | None = None,
    spread: ArrayLike | None = None,
    cost: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Whole numbers n_h ∝ N_h^power · S_h / √c_h between floor and caps with Σ n_h = total, shape (H,).

    | allocation | power | spread | serves best |
    | --- | --- | --- | --- |
    | equal | 0 | | every stratum alike |
    | proportional | 1 | | any total, when nothing is known |
    | Neyman (1934) | 1 | S_h | the total: Σ N_h² S_h² / n_h is least for its n |
    | power (Bankier 1988) | between | S_h, or none | a compromise: Σ N_h^2q S_h² / n_h is least |
    | with cost | any | any | the same sums at least cost Σ c_h n_h (Cochran 1977, 5.5) |

    The real-valued solution clip(c · N_h^power · S_h / √c_h, floor_h, caps_h) is rounded to the exact total by largest
    remainders, so every n_h is one of the two whole numbers around it. A larger stratum of equal floor, spread and
    cost never gets less, unless the power is 0. Ties go to the lower index.

    **Floor rule.** A tiny spread must not take a stratum's chance away: what varied little in the units seen may vary
    in the others. With `spread` or `cost`, every stratum that has room gets at least one unit, whatever `floor`
    says, if `total` suffices for that. A spread of exactly 0 is refused: give such a stratum a declared least value,
    say a tenth of the median spread. Without spread and cost the floor is what you give.

    Parameters
    ----------
    sizes : units of each stratum, N_h ≥ 0, shape (H,); an empty stratum gets none
    total : units to allocate
    power : exponent of the sizes, 0 to 1
    floor : least number, one or one per stratum; in a stratum with a lower cap, the cap holds
    caps : largest number per stratum; the sizes if None
    spread : standard deviation S_h of what is to be known, above 0, in one unit for all; of empty strata ignored
    cost : cost c_h of one unit, above 0, in one unit for all; of empty strata ignored

    Raises
    ------
    ValueError
        When a size is negative or not finite, a spread or cost is zero, negative or not finite, the power is outside
        0-1, or floors and caps leave no room for the total.
    """
    size = np.asarray(sizes, dtype=np.float64)
    if size.ndim != 1 or not np.all(np.isfinite(size)) or np.any(size < 0):
        raise ValueError(f"stratum sizes must be a list of finite numbers ≥ 0, got {size}")
    if not 0.0 <= power <= 1.0:
        raise ValueError(f"power {power} must lie between 0 (equal allocation) and 1 (proportional)")
    cap = np.where(size > 0, np.floor(size if caps is None else np.broadcast_to(caps, size.shape)), 0.0)
    low = np.minimum(np.broadcast_to(np.asarray(floor, dtype=np.float64), size.shape), cap)
    if spread is not None or cost is not None:
        low = _at_least_one(total, low, cap)
    _check_room(total, low, cap)
    return _round_to(total, _continuous(total, _scale(size, power, spread, cost), low, cap))


def _scale(
    size: NDArray[np.float64], power: float, spread: ArrayLike | None, cost: ArrayLike | None
) -> NDArray[np.float64]:
    """N_h^power · S_h / √c_h over its largest value; 0 in empty strata only."""
    there = size > 0
    product = np.where(there, size, 0.0) ** power * _above_zero(spread, there, "spread")
    product = np.where(there, product / np.sqrt(_above_zero(cost, there, "cost")), 0.0)
    return np.where(there, np.maximum(product / product.max(initial=1e-300), _LEAST_SCALE), 0.0)


def _above_zero(values: ArrayLike | None, there: NDArray[np.bool_], name: str) -> NDArray[np.float64]:
    """The values of non-empty strata over the largest of them, 1 elsewhere."""
    if values is None:
        return np.ones(there.size)
    given = np.asarray(values, dtype=np.float64)
    if given.shape != there.shape:
        raise ValueError(f"{name} must be one number per stratum, {there.size}, got shape {given.shape}")
    wrong = np.flatnonzero(there & ~(np.isfinite(given) & (given > 0)))
    if wrong.size:
        raise ValueError(
            f"the {name} of {wrong.size} strata is not a finite number above 0, the first is {given[wrong[0]]} in "
            f"stratum {wrong[0]}: give such strata a declared least value"
        )
    return np.where(there, given / given[there].max(initial=1e-300), 1.0)


def _at_least_one(total: int, low: NDArray[np.float64], cap: NDArray[np.float64]) -> NDArray[np.float64]:
    """The floors, raised to 1 where there is room, unless those would exceed the total."""
    raised = np.maximum(low, np.minimum(cap, 1.0))
    return raised if raised.sum() <= total else low


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
