"""Design-weighted estimates with 95 % intervals: a held-out loss as a statement about the region, not the store.

Of samples i with design weights w the ratio R = Σ w T / Σ w V is estimated, for example T = squared errors of a
sample's valid hidden pixels and V = their number. A mean has V = 1; a skill has V = the baseline's squared errors; a
share of right answers has T = 1 for each right one.

The interval is R ± t · s, by linearisation (Särndal, Swensson & Wretman 1992, §5.6), with z = w (T − R V):

    s² = Σ_h n/(n − 1) Σ (z − z̄_h)² / (Σ w V)²       over strata h with n samples each
    s² = B/(B − 1) Σ_b u_b² / (Σ w V)²               where B split blocks were drawn, u_b = Σ z of block b

**Held-out samples need `block`.** Their blocks were drawn, and samples of one block are alike: by strata alone the
interval speaks of just these blocks. Without a finite-population term both forms are a little too wide rather than too
narrow, except where phase 2 favoured what T − R V follows: they take the draw as one phase. To publish a figure, write
one T and V per sample and use `geofm_sampling.estimation.estimate`, which knows both phases; of one phase, an endless
frame and `local=False` it gives the same figures as this module (tests compare them).

**Degrees of freedom** of Student's t, by strata: Satterthwaite's (Σ V_h)² / Σ V_h²/f_h with
f_h = (Σ w²)² / Σ w⁴ − 1, at least 1: n − H where all are alike, fewer where few samples carry weight or variance. By
blocks: B − 1. Intervals of fewer than about 10 are rough.

**A stratum with one sample** shows no variance; it is joined, for the variance only, with the next stratum in order of
number, the last one with the former (collapsed strata, Wolter 2007, §2.5): too wide rather than too narrow. **One
sample, or one block, in all** has no interval: `standard_error`, `low` and `high` are None, never NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An estimated ratio with its 95 % interval."""

    value: float
    low: float | None
    """Lower end; None where a single sample or block shows no variance."""
    high: float | None
    standard_error: float | None
    samples: int
    """Samples that say something: a weight above 0, and T or V not 0."""

    def __str__(self) -> str:
        """For people, e.g. `0.312 (0.29 to 0.334, 95 % interval, 40 samples)`."""
        if self.low is None or self.high is None:
            return f"{self.value:.4g} (no interval, {self.samples} samples)"
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g}, 95 % interval, {self.samples} samples)"


@dataclass(frozen=True, kw_only=True)
class RatioEstimates:
    """A ratio in the whole and by stratum."""

    overall: Estimate
    by_stratum: Mapping[int, Estimate]
    """Ascending; of strata in which there is something to count."""
    empty: tuple[int, ...]
    """Strata whose samples have Σ w V = 0: nothing can be said of them."""
    joined: int
    """Strata with one sample that were joined with others for the variance of `overall`."""


def ratio_estimates(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    weight: ArrayLike | None = None,
    stratum: ArrayLike | None = None,
    block: ArrayLike | None = None,
) -> RatioEstimates:
    """Estimate Σ w T / Σ w V over the population that the samples stand for, and in each stratum.

    Parameters
    ----------
    numerator, denominator : T and V ≥ 0 of each sample, shape (n,)
    weight : design weights w ≥ 0, shape (n,); samples of weight 0 count as not drawn. None takes all as equal
    stratum : whole numbers, shape (n,); None takes one stratum
    block : number of the split block of each sample, shape (n,), where whole blocks were drawn; None where not

    Raises
    ------
    ValueError
        When shapes differ, a number is not finite, V or w is negative, or there is nothing to count.
    """
    sample = _samples(numerator, denominator, weight, stratum, block)
    if not sample.below > 0:
        raise ValueError(
            f"none of {sample.w.size} samples has a weight and something to count (w · V > 0): there is nothing to "
            "estimate; a validation set needs samples with valid hidden pixels"
        )
    groups = [(int(h), sample.take(sample.stratum == h)) for h in np.unique(sample.stratum)]
    return RatioEstimates(
        overall=_estimate(sample),
        by_stratum={h: _estimate(part) for h, part in groups if part.below > 0},
        empty=tuple(h for h, part in groups if not part.below > 0),
        joined=0 if block is not None else _joined(sample.stratum[sample.w > 0]),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Samples:
    """Checked numbers of n samples, shape (n,) each."""

    t: Floats
    v: Floats
    w: Floats
    stratum: Ints
    block: Ints | None

    @property
    def below(self) -> float:
        """Σ w V."""
        return float((self.w * self.v).sum())

    @property
    def telling(self) -> NDArray[np.bool_]:
        """Samples that say something, shape (n,): of the others z is 0 whatever R is."""
        return np.asarray((self.w > 0) & ((self.v > 0) | (self.t != 0)))

    def take(self, kept: NDArray[np.bool_]) -> _Samples:
        return _Samples(
            t=self.t[kept],
            v=self.v[kept],
            w=self.w[kept],
            stratum=self.stratum[kept],
            block=None if self.block is None else self.block[kept],
        )


def _samples(
    numerator: ArrayLike,
    denominator: ArrayLike,
    weight: ArrayLike | None,
    stratum: ArrayLike | None,
    block: ArrayLike | None,
) -> _Samples:
    t = _numbers(numerator, "numerator", None)
    v = _numbers(denominator, "denominator", t.size)
    w = np.ones(t.size) if weight is None else _numbers(weight, "weight", t.size)
    for name, values in (("denominator", v), ("weight", w)):
        if (values < 0).any():
            raise ValueError(f"the {name} of sample {int(np.argmin(values))} is {values.min()}, must be 0 or more")
    return _Samples(
        t=t,
        v=v,
        w=w,
        stratum=np.zeros(t.size, np.int64) if stratum is None else _labels(stratum, "stratum", t.size),
        block=None if block is None else _labels(block, "block", t.size),
    )


def _numbers(values: ArrayLike, name: str, size: int | None) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    _check_shape(array.shape, name, size)
    if bad := int((~np.isfinite(array)).sum()):
        first = int(np.argmin(np.isfinite(array)))
        raise ValueError(
            f"the {name} of {bad} samples is not finite, first {array[first]} at sample {first}: a model that diverged "
            "has no loss; leave out samples on purpose by weight 0 and value 0"
        )
    return array


def _labels(values: ArrayLike, name: str, size: int) -> Ints:
    array = np.asarray(values)
    _check_shape(array.shape, name, size)
    if array.dtype.kind not in "iu":
        raise ValueError(f"the {name} of samples must be whole numbers, got {array.dtype}")
    return array.astype(np.int64)


def _check_shape(shape: tuple[int, ...], name: str, size: int | None) -> None:
    if len(shape) != 1 or (size is not None and shape != (size,)):
        wanted = "(n,)" if size is None else f"({size},), one for each sample"
        raise ValueError(f"{name} has shape {shape}, must have {wanted}")


def _estimate(sample: _Samples) -> Estimate:
    drawn = sample.take(sample.w > 0)
    value, samples = float((drawn.w * drawn.t).sum()) / drawn.below, int(drawn.telling.sum())
    z = drawn.w * (drawn.t - value * drawn.v)
    # Of a single telling sample z is 0, which is no certainty; zeros beside it do not change that.
    found = None if samples < 2 else _within(z, drawn) if drawn.block is None else _between(z, drawn)
    if found is None:
        return Estimate(value=value, low=None, high=None, standard_error=None, samples=samples)
    error = math.sqrt(found.variance) / drawn.below
    reach = t_quantile(found.freedom) * error
    return Estimate(value=value, low=value - reach, high=value + reach, standard_error=error, samples=samples)


@dataclass(frozen=True, kw_only=True)
class _Spread:
    """Variance of Σ z and its degrees of freedom."""

    variance: float
    freedom: float


def _between(z: Floats, sample: _Samples) -> _Spread | None:
    """Between the B blocks that say something, None of one block; Σ z is 0, and so the mean of the blocks' sums."""
    assert sample.block is not None
    _, number = np.unique(sample.block[sample.telling], return_inverse=True)
    sums = np.bincount(number, weights=z[sample.telling])
    if sums.size < 2:
        return None
    return _Spread(variance=float((sums**2).sum()) * sums.size / (sums.size - 1), freedom=sums.size - 1.0)


def _within(z: Floats, sample: _Samples) -> _Spread:
    """Within strata of two samples or more; those that say nothing count as zeros."""
    at = _collapsed(sample.stratum)
    n = np.bincount(at)
    centred = z - (np.bincount(at, weights=z) / n)[at]
    each = n / (n - 1.0) * np.bincount(at, weights=centred**2)
    squared = np.where(sample.telling, sample.w, 0.0) ** 2
    second, fourth = np.bincount(at, weights=squared), np.bincount(at, weights=squared**2)
    freedom = np.maximum(second**2 / np.where(fourth > 0, fourth, 1.0) - 1.0, 1.0)
    total, spread = float(each.sum()), float((each**2 / freedom).sum())
    return _Spread(variance=total, freedom=max(total**2 / spread, 1.0) if spread > 0 else 1.0)


def _collapsed(stratum: Ints) -> Ints:
    """Numbers 0, 1, … of variance strata, shape (n,), n ≥ 2: of two samples or more each."""
    names, number = np.unique(stratum, return_inverse=True)
    count = np.bincount(number)
    leader, held = np.zeros(names.size, dtype=np.int64), 2
    for h in range(names.size):
        # A stratum starts a group of its own where the group before holds two samples.
        fresh = held >= 2
        leader[h] = (leader[h - 1] + 1 if h else 0) if fresh else leader[h - 1]
        held = int(count[h]) + (0 if fresh else held)
    if held < 2:
        leader[leader == leader[-1]] -= 1
    return leader[number]


def _joined(stratum: Ints) -> int:
    _, count = np.unique(stratum, return_counts=True)
    return int((count == 1).sum()) if count.sum() > 1 else 0


_NORMAL = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def t_quantile(freedom: float) -> float:
    """97.5 % quantile of Student's t: half the width of a 95 % interval in standard errors; freedom ≥ 1.

    With t = √f tan θ the density is proportional to cos^(f − 1) θ: integrated by Gauss–Legendre, its end found by
    Newton's rule from the normal quantile, to 6 digits.
    """
    if not freedom >= 1.0:
        raise ValueError(f"degrees of freedom {freedom} must be 1 or more")
    freedom = min(freedom, 1e6)  # beyond, the factorials lose more digits than the quantile still changes
    root = math.sqrt(freedom)
    whole = 0.5 * math.sqrt(math.pi) * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))
    end, step = math.atan(_NORMAL / root), 1.0
    while abs(step) > 1e-10 * end:
        angles = 0.5 * end * (_NODES + 1.0)
        share = 0.5 * end * float((_WEIGHTS * np.cos(angles) ** (freedom - 1.0)).sum()) / whole
        # The integral is concave: from below the root no step goes beyond it, but for rounding.
        step = (0.95 - share) * whole / math.cos(end) ** (freedom - 1.0)
        end += step
    return root * math.tan(end)
