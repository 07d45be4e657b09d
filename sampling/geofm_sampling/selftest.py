"""The self-test: do the design weights give back totals that are known?

Phase 1: covariates of the looked-at units, weighted N_h / k_h, against the totals of the whole frame, which are known.
Phase 2: covariates of the drawn units, weighted 1 / (π₁ π₂), against the estimates from all observable units of
phase 1. The weights are the unraked ones, and the variables neither raked nor constant within the strata, or the test
would pass by construction.

All variables are area totals, the first one the area itself. Of the others the deviations from their known average are
tested, Σ a (x − x̄): totals that are known to be 0, so that a sample with too much area does not miss all of them at
once.

Errors are design-based and use what is known of the population instead of the sample: for phase 1 the formula of
stratified simple random sampling, V₁ = Σ N_h² (1 − k_h/N_h) S_h² / k_h, with S_h² of the frame (Cochran 1977, ch. 5),
which is too large for spatially balanced draws of smooth variables; for phase 2 Hájek's (1964) approximation for draws
of fixed size with unequal probabilities, V₂ = Σ_h o/(o − 1) Σ π(1 − π)(y/π − A)², A = Σ y(1 − π) / Σ π(1 − π), over the
observable units of each stratum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Z_95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""
_ROOM = 1e-5
"""Relative error below which a variable hardly varies within the strata, such as the areas of equal cells."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One variable: what is known, what the weights say, and how large an error is usual."""

    name: str
    known: float
    """The area, or the average of the variable over it, to be recovered."""
    estimate: float
    """What the weighted sample gives: for an average, the known one plus the estimated deviation from it."""
    error: float
    """Standard error of the estimate under the design."""

    @property
    def z(self) -> float:
        """(estimate − known) / error; NaN where the design leaves no room for error."""
        return (self.estimate - self.known) / self.error if self.error > 0 else float("nan")

    @property
    def misses(self) -> bool:
        """Whether a 95 % interval around the estimate leaves out the known total."""
        return bool(abs(self.z) > Z_95)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """Known sums over the units of each group of a frame."""

    units: NDArray[np.int64]
    """N_h, shape (G,)."""
    total: NDArray[np.float64]
    """Σ y, shape (G, V)."""
    squares: NDArray[np.float64]
    """Σ y², shape (G, V)."""
    products: NDArray[np.float64]
    """Σ y₀ y with the first variable, shape (G, V)."""

    @classmethod
    def none(cls, groups: int, variables: int) -> Sums:
        """Sums over no unit, to add to."""
        shape = (groups, variables)
        units = np.zeros(groups, dtype=np.int64)
        return cls(units=units, total=np.zeros(shape), squares=np.zeros(shape), products=np.zeros(shape))

    def add(self, group: NDArray[np.int64], values: NDArray[np.float64]) -> Sums:
        """With the values (n, V) of further units; one that is unknown counts as 0 of its variable."""
        known = np.where(np.isfinite(values), values, 0.0)
        groups = self.units.size

        def summed(columns: NDArray[np.float64]) -> NDArray[np.float64]:
            return _group_sums(columns, group, groups)

        return Sums(
            units=self.units + np.bincount(group, minlength=groups),
            total=self.total + summed(known),
            squares=self.squares + summed(known**2),
            products=self.products + summed(known[:, :1] * known),
        )

    def take(self, groups: NDArray[np.int64]) -> Sums:
        """The sums of some groups; a group may be taken more than once."""
        return Sums(**{name: values[groups] for name, values in vars(self).items()})

    def around(self, means: NDArray[np.float64]) -> Sums:
        """The sums of y − mean · y₀, means of shape (V,)."""
        first = self.squares[:, :1]
        return Sums(
            units=self.units,
            total=self.total - means * self.total[:, :1],
            squares=np.maximum(self.squares - 2 * means * self.products + means**2 * first, 0.0),
            products=self.products - means * first,
        )

    @property
    def variance(self) -> NDArray[np.float64]:
        """S_h², the variance with divisor N_h − 1, shape (G, V); 0 for a single unit."""
        n = self.units[:, None]
        around = self.squares - self.total**2 / np.maximum(n, 1)
        # What rounding leaves of a variable that is constant is no variance.
        around = np.where(around > 1e-12 * self.squares, around, 0.0)
        return around / np.maximum(n - 1, 1)


def _group_sums(columns: NDArray[np.float64], group: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
    """Sum of each column (n, V) over the rows of each group, shape (groups, V)."""
    sums = np.zeros((groups, columns.shape[1]))
    for i in range(columns.shape[1]):
        sums[:, i] = np.bincount(group, weights=columns[:, i], minlength=groups)
    return sums


def phase1_checks(
    names: Sequence[str], values: NDArray[np.float64], group: NDArray[np.int64], frame: Sums
) -> list[Check]:
    """One check per variable that varies within the groups, over the groups that were looked at.

    Parameters
    ----------
    names : of the variables, shape (V,)
    values : of the looked-at units, shape (k, V), area first; unknown ones count as 0, as in `frame`
    group : of the looked-at units, shape (k,)
    frame : known sums over all units of each group
    """
    found = Sums.none(frame.units.size, len(names)).add(group, values)
    looked = np.flatnonzero(found.units)
    found, frame = found.take(looked), frame.take(looked)
    area, means = _means(frame.total.sum(axis=0))
    found, around = found.around(means), frame.around(means)
    k, n = found.units[:, None].astype(np.float64), frame.units[:, None].astype(np.float64)
    off = (n / k * found.total).sum(axis=0) - around.total.sum(axis=0)
    variance = (n**2 * (1 - k / n) / k * around.variance).sum(axis=0)
    return _checks(names, area, means, off, variance, np.sqrt(frame.units[:, None] * frame.squares).sum(axis=0))


def phase2_checks(
    names: Sequence[str],
    values: NDArray[np.float64],
    group: NDArray[np.int64],
    pi1: NDArray[np.float64],
    pi2: NDArray[np.float64],
    drawn: NDArray[np.bool_],
) -> list[Check]:
    """One check per variable that varies, over the groups with drawn units; all arrays hold the observable units.

    Parameters
    ----------
    values : shape (o, V), area first; unknown ones count as 0
    group, pi1, pi2, drawn : shape (o,); π₂ given phase 1, 0 in groups that nothing was drawn from
    """
    covered = pi2 > 0
    if not covered.any():
        return []
    expanded = np.where(np.isfinite(values), values, 0.0)[covered] / pi1[covered, None]
    area, means = _means(expanded.sum(axis=0))
    y, pi = expanded - means * expanded[:, :1], pi2[covered, None]
    _, number = np.unique(group[covered], return_inverse=True)
    size = np.bincount(number)

    def sums(columns: NDArray[np.float64]) -> NDArray[np.float64]:
        return _group_sums(columns, number, size.size)

    room = sums(pi * (1 - pi))
    centre = sums(y * (1 - pi)) / np.where(room > 0, room, 1.0)
    around = sums(pi * (1 - pi) * (y / pi - centre[number]) ** 2)
    variance = ((size / np.maximum(size - 1, 1))[:, None] * around).sum(axis=0)
    off = (y / pi)[drawn[covered]].sum(axis=0) - y.sum(axis=0)
    return _checks(names, area, means, off, variance, np.abs(expanded).sum(axis=0))


def _means(totals: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The area, and the average of each variable over it; 0 for the area itself, which is tested as a total."""
    area = float(totals[0])
    means = totals / area if area else np.zeros_like(totals)
    means[0] = 0.0
    return area, means


def _checks(
    names: Sequence[str],
    area: float,
    means: NDArray[np.float64],
    off: NDArray[np.float64],
    variance: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> list[Check]:
    """Checks of the variables that leave room for error: the others are right by construction and prove nothing."""
    error = np.sqrt(variance)
    checks = []
    for i in np.flatnonzero(error > _ROOM * scale).tolist():
        known, per = (area, 1.0) if i == 0 else (float(means[i]), area or 1.0)
        checks.append(
            Check(name=names[i], known=known, estimate=known + float(off[i]) / per, error=float(error[i]) / per)
        )
    return checks
