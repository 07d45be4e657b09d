"""The q-frontier: what each exponent of the power allocation gains in coverage and costs in precision.

q = 1 gives every stratum its share of the frame: averages over the area are precise, rare kinds are hardly met.
q = 0 gives every stratum the same. The frontier is computed from the sizes N_h alone, without drawing anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofm_sampling.allocation import allocate
from geofm_sampling.diagnostics import effective_strata

ENOUGH = 10
"""Samples that make a stratum count as covered."""
POWERS = tuple(round(0.05 * i, 2) for i in range(21))


@dataclass(frozen=True, kw_only=True)
class Point:
    """What one exponent gives."""

    power: float
    """q, 0 (equal) to 1 (proportional)."""
    effective: float
    """Effective strata of the allocation, 1 to H."""
    enough: float
    """Share of the strata with at least ENOUGH samples, or with all their units."""
    smallest: int
    """Samples of the stratum that gets the fewest."""
    empty: int
    """Strata that get none; the error leaves them out."""
    inflation: float
    """Standard error of an area mean over that of the proportional allocation, as expected from N_h and S_h."""


def frontier(
    sizes: ArrayLike,
    samples: int,
    *,
    floor: int = 0,
    spread: ArrayLike | None = None,
    powers: Sequence[float] = POWERS,
) -> list[Point]:
    """One point per exponent.

    The error of the stratified mean is √(Σ W_h² S_h² (1/n_h − 1/N_h)), W_h = N_h / N (Cochran 1977, ch. 5); it is
    divided by that of n_h = n · W_h, which need not be whole numbers.

    Parameters
    ----------
    sizes : N_h, units of each stratum
    samples : samples to allocate, at most all units
    floor : least samples of a stratum, lowered to N_h where that is less
    spread : S_h of the variable whose mean is wanted; the same everywhere if None
    powers : the exponents
    """
    size = np.asarray(sizes, dtype=np.float64)
    s = np.ones(size.shape) if spread is None else np.asarray(spread, dtype=np.float64)[size > 0]
    size = size[size > 0]
    if spread is None:
        s = np.ones(size.shape)
    if not size.size:
        raise ValueError("there is no stratum with units to allocate samples to")
    if s.shape != size.shape or not np.all(np.isfinite(s)) or np.any(s < 0):
        raise ValueError("the spread of each stratum must be finite and not negative")
    total = min(int(samples), int(size.sum()))
    least = min(floor, total // size.size)
    proportional = _error(size, s, total * size / size.sum())
    return [_point(power, size, s, allocate(size, total, power=power, floor=least), proportional) for power in powers]


def _point(
    power: float, size: NDArray[np.float64], s: NDArray[np.float64], n: NDArray[np.int64], proportional: float
) -> Point:
    error = _error(size, s, n.astype(np.float64))
    return Point(
        power=power,
        effective=effective_strata(n),
        enough=float(np.mean(n >= np.minimum(ENOUGH, size))),
        smallest=int(n.min()),
        empty=int((n == 0).sum()),
        inflation=error / proportional if proportional > 0 else 1.0,
    )


def _error(size: NDArray[np.float64], s: NDArray[np.float64], n: NDArray[np.float64]) -> float:
    """Standard error of the stratified mean over the strata with samples."""
    met = n > 0
    share = size[met] / size[met].sum()
    return float(np.sqrt((share**2 * s[met] ** 2 * np.maximum(1 / n[met] - 1 / size[met], 0.0)).sum()))
