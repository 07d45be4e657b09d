"""Trimming and raking of weights, both with stated bounds and totals that stay.

Trimming caps the largest weights of a group and gives the excess back to the whole group, so that the group's estimated
size is kept. Raking finds ratios g = clip(exp(Σ u), low, high), one u per label of each margin, such that the weights
w · g add up to known totals: the truncated raking of Deville & Särndal (1992, case 7), solved one label at a time
(iterative proportional fitting, Deming & Stephan 1940, whose step is exact here in spite of the bounds).

**Which totals.** `weight_design` describes the observable population, whose size no map knows: rake it to the phase-1
estimates, Σ λ/π₁ over the observable units looked at (:func:`expanded_totals`; two-phase calibration, Särndal,
Swensson & Wretman 1992, §9.7). Counts or areas of the frame belong to `weight_full` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, kw_only=True)
class Trimmed:
    """Weights after trimming."""

    weights: NDArray[np.float64]
    """Shape (n,); 0 stays 0."""
    trimmed: int
    """Weights that were capped."""
    moved: float
    """Share of the total weight that was taken from the capped and given back to their groups."""


@dataclass(frozen=True, kw_only=True)
class Margin:
    """One known distribution to rake to."""

    name: str
    """What it is called in errors, such as `land_cover`."""
    labels: NDArray[np.str_]
    """Label of each sample, shape (n,)."""
    totals: Mapping[str, float]
    """Known total of each label, positive, in the unit of the weights (units of the frame)."""


@dataclass(frozen=True, kw_only=True)
class Raked:
    """Weights after raking."""

    weights: NDArray[np.float64]
    """Shape (n,); 0 stays 0."""
    ratio: tuple[float, float]
    """Smallest and largest ratio of a weight to what it was."""
    bounded: int
    """Weights whose ratio lies on a bound."""
    empty: tuple[str, ...]
    """`margin: label` of each known total without a sample; what was raked to is the population without the label, and
    totals of margins that lose less were scaled down by a common factor."""
    iterations: int
    """Rounds over all margins."""


def trim(weights: NDArray[np.float64], *, group: NDArray[np.int64], most: float = 10.0) -> Trimmed:
    """Cap each weight at `most` times the (upper) median of its group, keeping every group's sum.

    The capped weights of a group are scaled by one factor back to the sum they had. Since cap and median scale alike,
    no weight then exceeds `most` medians, and the order of the weights stays. Trimming trades bias for variance: totals
    of the group's size are kept, those of anything else are not unbiased any more (Potter 1990).

    Parameters
    ----------
    weights, group : shape (n,); weights ≥ 0, of which the zeros take no part; group numbers ≥ 0
    most : largest ratio to the median, at least 1

    Raises
    ------
    ValueError
        When a weight is negative or not finite, or `most` is below 1.
    """
    _check_weights(weights)
    if not most >= 1.0:
        raise ValueError(f"trimming at {most} medians is impossible: weights must be allowed to reach the median, 1")
    used = np.flatnonzero(weights > 0)
    _, of = np.unique(group[used], return_inverse=True)
    value = weights[used]
    capped = np.minimum(value, most * _medians(value, of)[of])
    # Up to rounding, a weight of exactly `most` medians is not over the cap.
    over = capped < value * (1 - 1e-12)
    if not over.any():
        return Trimmed(weights=weights.copy(), trimmed=0, moved=0.0)
    sums, kept = np.bincount(of, weights=value), np.bincount(of, weights=capped)
    result = np.zeros_like(weights)
    result[used] = capped * (sums / kept)[of]
    return Trimmed(weights=result, trimmed=int(over.sum()), moved=float((value - capped).sum() / value.sum()))


def _medians(values: NDArray[np.float64], of: NDArray[np.int64]) -> NDArray[np.float64]:
    """Median of each group 0 … G − 1, none empty, shape (G,): the upper one of two, which no cap above it changes."""
    counts = np.bincount(of)
    first = np.cumsum(counts) - counts
    median: NDArray[np.float64] = values[np.lexsort((values, of))][first + counts // 2]
    return median


def expanded_totals(labels: ArrayLike, weights: NDArray[np.float64]) -> dict[str, float]:
    """Σ weights of each label: the totals of a :class:`Margin`.

    For the observable population give the labels of the observable phase-1 units and λ/π₁; for the frame give all
    its units and ones, or their areas.
    """
    names, of = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)
    sums = np.bincount(of, weights=weights, minlength=names.size)
    return {str(name): float(total) for name, total in zip(names, sums, strict=True)}


def rake(
    weights: NDArray[np.float64],
    margins: Sequence[Margin],
    *,
    bounds: tuple[float, float] = (0.3, 3.0),
    tolerance: float = 1e-6,
    iterations: int = 500,
) -> Raked:
    """Weights that add up to the totals of every margin, each within `bounds` times what it was.

    Parameters
    ----------
    weights : shape (n,), ≥ 0; zeros (tombstones) take no part
    margins : the known totals; a label without a sample is reported, one without a total is an error
    bounds : least (≥ 0) and largest ratio, around 1
    tolerance : largest relative difference of a total
    iterations : rounds over all margins before giving up

    Raises
    ------
    ValueError
        When labels have no total, margins have different sums, or the totals cannot be reached within the bounds;
        it names the margin and the worst label.
    """
    _check_weights(weights)
    if not 0.0 <= bounds[0] < 1.0 < bounds[1]:
        raise ValueError(f"bounds {bounds} of the ratios must lie around 1, such as (0.3, 3.0)")
    used = weights > 0
    value = weights[used]
    fits = _same_population([_Fit.of(margin, used) for margin in margins], tolerance)
    log_ratio = np.zeros(value.size)
    for done in range(1, iterations + 1):
        for fit in fits:
            log_ratio += fit.step(value, log_ratio, bounds)
        ratio = _clipped(log_ratio, bounds)
        if all(fit.error(value * ratio)[0] <= tolerance for fit in fits):
            return _raked(weights, used, ratio, bounds, fits, done)
    raise ValueError(_unreached(fits, value * _clipped(log_ratio, bounds), bounds, iterations))


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """A margin with labels as numbers; `rows` holds the samples of each label."""

    name: str
    labels: tuple[str, ...]
    totals: NDArray[np.float64]
    whole: float
    """Sum of all totals, labels without a sample included."""
    rows: tuple[NDArray[np.int64], ...]
    empty: tuple[str, ...]

    @staticmethod
    def of(margin: Margin, used: NDArray[np.bool_]) -> _Fit:
        labels = np.asarray(margin.labels, dtype=np.str_)
        if labels.shape != used.shape:
            raise ValueError(f"margin {margin.name} has {labels.size} labels for {used.size} weights")
        names, of = np.unique(labels[used], return_inverse=True)
        unknown = [str(name) for name in names if not margin.totals.get(str(name), 0.0) > 0]
        if unknown:
            raise ValueError(
                f"margin {margin.name} has no positive total for {', '.join(unknown[:5])}: samples cannot be raked "
                "to nothing; give the total or merge the label with another"
            )
        order, counts = np.argsort(of, kind="stable"), np.bincount(of, minlength=names.size)
        return _Fit(
            name=margin.name,
            labels=tuple(str(name) for name in names),
            totals=np.array([margin.totals[str(name)] for name in names], dtype=np.float64),
            whole=float(sum(margin.totals.values())),
            rows=tuple(np.split(order, np.cumsum(counts)[:-1])) if names.size else (),
            empty=tuple(f"{margin.name}: {label}" for label in margin.totals if label not in set(names.tolist())),
        )

    def step(
        self, weights: NDArray[np.float64], log_ratio: NDArray[np.float64], bounds: tuple[float, float]
    ) -> NDArray[np.float64]:
        """What to add to every log ratio so that this margin's totals hold, shape (n,)."""
        added = np.zeros(log_ratio.size)
        for label, total, rows in zip(self.labels, self.totals, self.rows, strict=True):
            added[rows] = _log_factor(weights[rows], log_ratio[rows], float(total), bounds, f"{self.name}: {label}")
        return added

    def error(self, weights: NDArray[np.float64]) -> tuple[float, str]:
        """Largest relative difference from a total, and its label."""
        sums = np.array([weights[rows].sum() for rows in self.rows])
        off = np.abs(sums - self.totals) / self.totals
        worst = int(np.argmax(off)) if off.size else 0
        return (float(off[worst]), self.labels[worst]) if off.size else (0.0, "")


def _log_factor(
    weights: NDArray[np.float64], log_ratio: NDArray[np.float64], total: float, bounds: tuple[float, float], name: str
) -> float:
    """ln f with Σ weights · clip(exp(log_ratio) · f, bounds) = total; exact, from the breakpoints of the clipping."""
    low, high = bounds
    reach = weights.sum() * low, weights.sum() * high
    if not reach[0] * (1 - 1e-12) <= total <= reach[1] * (1 + 1e-12):
        raise ValueError(
            f"the total {total:.6g} of {name} cannot be reached: its weights may change by {low} to {high} and so add "
            f"up to {reach[0]:.6g} to {reach[1]:.6g}; widen the bounds, merge the label or check the total"
        )
    ratio = np.exp(log_ratio - log_ratio.max())
    breaks = np.unique(np.concatenate([low / ratio, high / ratio]))
    below, above = 0, breaks.size - 1
    while above - below > 1:
        middle = (below + above) // 2
        if (weights * np.clip(ratio * breaks[middle], low, high)).sum() <= total:
            below = middle
        else:
            above = middle
    moving = (ratio * (breaks[below] + breaks[above]) / 2 > low) & (ratio * (breaks[below] + breaks[above]) / 2 < high)
    fixed = (weights * np.clip(ratio * (breaks[below] + breaks[above]) / 2, low, high))[~moving].sum()
    free = (weights * ratio)[moving].sum()
    factor = (total - fixed) / free if free > 0 else breaks[below]
    return float(np.log(max(factor, breaks[0])) - log_ratio.max())


def _clipped(log_ratio: NDArray[np.float64], bounds: tuple[float, float]) -> NDArray[np.float64]:
    # Beyond ±50 the clipping decides, and the exponential must not overflow.
    result: NDArray[np.float64] = np.clip(np.exp(np.clip(log_ratio, -50.0, 50.0)), *bounds)
    return result


def _raked(
    weights: NDArray[np.float64],
    used: NDArray[np.bool_],
    ratio: NDArray[np.float64],
    bounds: tuple[float, float],
    fits: Sequence[_Fit],
    done: int,
) -> Raked:
    result = np.zeros_like(weights)
    result[used] = weights[used] * ratio
    return Raked(
        weights=result,
        ratio=(float(ratio.min()), float(ratio.max())) if ratio.size else (1.0, 1.0),
        bounded=int(np.sum((ratio <= bounds[0]) | (ratio >= bounds[1]))),
        empty=tuple(label for fit in fits for label in fit.empty),
        iterations=done,
    )


def _check_weights(weights: NDArray[np.float64]) -> None:
    if not np.all(np.isfinite(weights)) or np.any(weights < 0):
        raise ValueError(f"weights must be finite and not negative, got {weights.min()} to {weights.max()}")


def _same_population(fits: Sequence[_Fit], tolerance: float) -> list[_Fit]:
    """The fits with one common sum: that of the margin that loses most to labels without a sample."""
    for fit in fits[1:]:
        if abs(fits[0].whole - fit.whole) > tolerance * max(fits[0].whole, fit.whole):
            raise ValueError(
                f"the totals of margin {fit.name} add up to {fit.whole:.10g}, those of margin {fits[0].name} to "
                f"{fits[0].whole:.10g}: both cannot hold; give margins of one population"
            )
    common = min((float(fit.totals.sum()) for fit in fits), default=0.0)
    return [replace(fit, totals=fit.totals * (common / fit.totals.sum())) for fit in fits]


def _unreached(fits: Sequence[_Fit], weights: NDArray[np.float64], bounds: tuple[float, float], iterations: int) -> str:
    (error, label), name = max((fit.error(weights), fit.name) for fit in fits)
    return (
        f"raking did not reach margin {name} in {iterations} rounds: the total of {label} is off by {error:.2g} of "
        f"itself with ratios within {bounds[0]} to {bounds[1]}; widen the bounds, merge labels or use fewer margins"
    )
