"""What a unit's pixels say about its worth: spectral entropy, a descriptor, and the sizes of phase 2.

*Information* is relative: it makes a unit likelier within its group (split and stratum), never certain or impossible.
Everything is in absolute units (bits, reflectance), so that units, waves and other data sets compare.

What entropy measures: how many kinds of brightness a chip holds, band by band. What it does not: where they lie
(shuffled pixels have the same entropy), whether bands vary together, whether the chip resembles another one (that is
:mod:`geofm_sampling.similarity`, whose two functions are at hand here), or whether a model learns from it. Kaur et al.
(2026, arXiv 2604.21104) found the spectral entropy *of whole pre-training sets* correlated with downstream skill over
ten sets. The entropy of a set is the mean entropy of its chips plus what differs between chips; the first part is
measured here, the second is the business of strata and near-duplicates, and weighs more (docs/evidence/coverage.md).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geofm_sampling.similarity import near_duplicates, novelty

__all__ = [
    "descriptor",
    "descriptors",
    "near_duplicates",
    "novelty",
    "sizes",
    "spectral_entropies",
    "spectral_entropy",
    "spread",
]

FILL = -9999
"""Missing value of HLS reflectances; such pixels are never valid."""
BINS = 64
"""Bins of √reflectance from 0 to 1. The root makes bins finer where surfaces are dark (0.003 wide at a reflectance
of 0.01, 0.017 at 0.3), as differences between dark surfaces are smaller."""
LEAST_PIXELS = 32
"""Clear pixels below which nothing is concluded: the correction for few pixels would be a third of a bit and more."""
CAP = 8.0
"""A unit's size is at most so many times its group's median and at least the median over it."""
PRIOR_UNITS = 8
"""A group's own spread counts as much as the pooled one when it has one unit more than this."""
_COUNTS = 10_000  # reflectance 1


def spectral_entropy(image: NDArray[np.int16], valid: NDArray[np.bool_]) -> float:
    """Spectral entropy in bits of one image [B, H, W] on valid pixels [H, W]; see :func:`spectral_entropies`."""
    return float(spectral_entropies(image[None], valid[None])[0])


def spectral_entropies(images: NDArray[np.int16], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Spectral entropy in bits of each image, shape (n,); NaN with fewer than LEAST_PIXELS valid pixels.

    The mean over bands of Shannon's entropy of the band's histogram on BINS fixed bins of √reflectance, with the
    correction of Miller (1955) for few pixels, (occupied bins − 1) / 2N nats; 0 (one bin) to 6 bits. Reflectances
    outside 0-1 count in the outer bins.

    Parameters
    ----------
    images : [n, B, H, W], reflectance × 10⁴
    valid : [n, H, W], True where a pixel may be used
    """
    count = _check(images, valid)
    n, B = images.shape[:2]
    pixel, y, x = np.nonzero(valid)
    code = _bins()[np.clip(images[pixel, :, y, x], 0, _COUNTS)]
    place = (pixel[:, None] * B + np.arange(B)) * BINS + code
    histogram = np.bincount(place.ravel(), minlength=n * B * BINS).reshape(n, B, BINS)
    total = np.maximum(count, 1)[:, None]
    nats = np.log(total) - _xlogx(histogram).sum(axis=2) / total
    nats += (np.count_nonzero(histogram, axis=2) - 1) / (2 * total)
    bits = np.minimum(nats / np.log(2), np.log2(BINS)).mean(axis=1)
    return np.asarray(np.where(count >= LEAST_PIXELS, bits, np.nan), dtype=np.float32)


def descriptor(image: NDArray[np.int16], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Descriptor (2B,) of one image [B, H, W] on valid pixels [H, W]; see :func:`descriptors`."""
    both: NDArray[np.float32] = descriptors(image[None], valid[None])[0]
    return both


def descriptors(images: NDArray[np.int16], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean and standard deviation of each band over valid pixels, in reflectance, shape (n, 2B): means, then spreads.

    NaN with fewer than LEAST_PIXELS valid pixels. On real pixels texture, roots or quantiles told the same place at
    another date from other places hardly better (docs/evidence/coverage.md).

    Parameters
    ----------
    images : [n, B, H, W], reflectance × 10⁴
    valid : [n, H, W], True where a pixel may be used
    """
    count = _check(images, valid)
    total = np.maximum(count, 1)[:, None]
    # Whole numbers are exact in float64 far beyond 10⁵ pixels, so the order of summing does not matter.
    pixels = np.where(valid[:, None], images, 0).astype(np.float64)
    mean = pixels.sum(axis=(2, 3)) / total
    square = (pixels**2).sum(axis=(2, 3)) / total
    both = np.concatenate([mean, np.sqrt(np.maximum(square - mean**2, 0.0))], axis=1) / _COUNTS
    return np.asarray(np.where(count[:, None] >= LEAST_PIXELS, both, np.nan), dtype=np.float32)


def sizes(
    entropy: ArrayLike, duplicates: ArrayLike, fresh: ArrayLike, gamma: float, group: ArrayLike
) -> NDArray[np.float64]:
    """Relative chance of each unit in phase 2, shape (n,): above 0 everywhere, 1 on average in each group.

    clip(entropy · duplicates^−½ · fresh^γ, med / CAP, CAP · med) with med the group's median of the positive
    products. A look-alike among m has 1/√m the chance, so m look-alikes together have √m times that of a single one:
    thinned, as strata are. A unit with a NaN has the median; a group without a positive product has equal sizes.

    Parameters
    ----------
    entropy : bits, ≥ 0, or NaN without information
    duplicates : estimated frame units that look alike, > 0, or NaN (geofm_sampling.similarity.near_duplicates)
    fresh : novelty, 0 to 1, or NaN (geofm_sampling.similarity.novelty)
    gamma : exponent of novelty, ≥ 0
    group : number of the group (split and stratum) of each unit

    Raises
    ------
    ValueError
        When a value lies outside its range.
    """
    values = np.broadcast_arrays(*(np.asarray(a, dtype=np.float64) for a in (entropy, duplicates, fresh)))
    for name, array, good in zip(
        ("entropy", "duplicates", "novelty"),
        values,
        (values[0] >= 0, values[1] > 0, (values[2] >= 0) & (values[2] <= 1)),
        strict=True,
    ):
        bad = ~(good | np.isnan(array)) | np.isinf(array)
        if bad.any():
            raise ValueError(f"{name} of a unit is {array[bad][0]}: must be finite and not negative, or NaN if unknown")
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}, must be at least 0: redundancy never makes a unit likelier")
    _, inverse = np.unique(np.asarray(group), return_inverse=True)
    product = values[0] / np.sqrt(values[1]) * values[2] ** gamma
    middle = _medians(product, inverse)[inverse]
    clipped = np.clip(np.where(np.isnan(product), middle, product), middle / CAP, middle * CAP)
    mean = np.bincount(inverse, weights=clipped) / np.maximum(np.bincount(inverse), 1)
    return np.asarray(clipped / mean[inverse])


def spread(score: ArrayLike, group: ArrayLike, groups: int) -> NDArray[np.float64]:
    """Standard deviation S_h of an information score in each group, shape (groups,), above 0 everywhere.

    Variances are shrunk towards the pooled one within groups, S² = (PRIOR_UNITS · S²_pooled + (n_h − 1) · S²_h) /
    (PRIOR_UNITS + n_h − 1), the form of Smyth (2004): few units decide little, and an allocation by S_h starves no
    group. A group without scores has the pooled value; all have 1 where nothing varies.

    Parameters
    ----------
    score : (n,) one value per unit, or (n, D) descriptors, whose variances are summed; NaN without information
    group : (n,) group of each unit, 0 … groups − 1
    groups : number of groups
    """
    where = np.asarray(group, dtype=np.int64)
    values = np.asarray(score, dtype=np.float64).reshape(where.size, -1 if where.size else 1)
    known = ~np.isnan(values).any(axis=1)
    values, where = values[known], where[known]
    free = np.maximum(np.bincount(where, minlength=groups) - 1, 0)
    squares = np.zeros(groups)
    for column in values.T:
        mean = np.bincount(where, weights=column, minlength=groups) / (free + 1)
        squares += np.bincount(where, weights=(column - mean[where]) ** 2, minlength=groups)
    pooled = squares.sum() / max(int(free.sum()), 1)
    if not pooled > 0:
        return np.ones(groups)
    return np.asarray(np.sqrt((PRIOR_UNITS * pooled + squares) / (PRIOR_UNITS + free)))


def _check(images: NDArray[np.int16], valid: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Valid pixels of each image, shape (n,); ValueError where shapes disagree or a valid pixel holds fill."""
    if images.ndim != 4 or valid.shape != (images.shape[0], *images.shape[2:]):
        raise ValueError(
            f"images {images.shape} with valid pixels {valid.shape}: shapes must be (n, B, H, W) and (n, H, W)"
        )
    if np.any((images == FILL) & valid[:, None]):
        raise ValueError(f"a valid pixel holds the fill value {FILL}: mark pixels without data as not valid")
    return np.asarray(valid.sum(axis=(1, 2)), dtype=np.int64)


@cache
def _bins() -> NDArray[np.int64]:
    """Bin of each reflectance × 10⁴ from 0 to 10⁴, shape (10001,); the upper end falls into the last bin."""
    code = np.floor(BINS * np.sqrt(np.arange(_COUNTS + 1) / _COUNTS)).astype(np.int64)
    return np.asarray(np.minimum(code, BINS - 1))


def _xlogx(count: NDArray[np.int64]) -> NDArray[np.float64]:
    """x · ln x with 0 at 0, shape kept."""
    return np.asarray(count * np.log(np.maximum(count, 1)), dtype=np.float64)


def _medians(product: NDArray[np.float64], inverse: NDArray[np.intp]) -> NDArray[np.float64]:
    """Median of the positive products of each group, 1 where there is none, shape (groups,)."""
    result = np.ones(int(inverse.max()) + 1 if inverse.size else 0)
    good = np.flatnonzero(product > 0)
    order = good[np.lexsort((product[good], inverse[good]))]
    owner, first, count = np.unique(inverse[order], return_index=True, return_counts=True)
    low, high = order[first + (count - 1) // 2], order[first + count // 2]
    result[owner] = (product[low] + product[high]) / 2
    return result
