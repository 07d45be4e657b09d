"""The valid-pixel rule and exact sums over valid pixels, the store's own account of its reflectance.

*Valid*: image ≠ −9999 in all bands, and Fmask ≠ 255, and no bit of the mask rule set. Tested in int16, before any
cast. Sums are exact integers: one plane of at most 2²² pixels has Σx² ≤ 2⁵², which float64 holds without rounding
in any order of addition; the planes of a chip are added as int64, chips as Python integers, which do not overflow.
About 0.9 ms for a chip of 4 × 6 × 256 × 256.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.hls.bands import FILL
from geofm_pipeline.hls.fmask import FILL as FMASK_FILL
from geofm_pipeline.hls.fmask import MaskRule

_DOT = 2048
"""Elements per BLAS dot product: above 10,000 OpenBLAS starts threads of its own, which fight ours."""
_ONES = np.ones((_DOT, 1))


@dataclass(frozen=True, kw_only=True)
class BandSums:
    """Exact sums over the valid pixels of some samples, one entry per band."""

    samples: int
    """Samples added up; tombstones are not."""
    count: tuple[int, ...]
    """Valid pixels."""
    total: tuple[int, ...]
    """Σ of the raw int16 values."""
    squares: tuple[int, ...]
    """Σ of their squares."""
    nonpositive: tuple[int, ...]
    """Valid pixels with a value ≤ 0 (water and shadow); they are data and are in the sums."""

    @classmethod
    def zero(cls, bands: int) -> BandSums:
        """The sums over no sample."""
        none = (0,) * bands
        return cls(samples=0, count=none, total=none, squares=none, nonpositive=none)

    def __add__(self, other: BandSums) -> BandSums:
        return BandSums(
            samples=self.samples + other.samples,
            count=_add(self.count, other.count),
            total=_add(self.total, other.total),
            squares=_add(self.squares, other.squares),
            nonpositive=_add(self.nonpositive, other.nonpositive),
        )

    def mean(self) -> tuple[float, ...]:
        """Mean raw value of each band, NaN without a valid pixel."""
        return tuple(t / n if n else float("nan") for n, t in zip(self.count, self.total, strict=True))

    def std(self) -> tuple[float, ...]:
        """Population standard deviation of each band in raw units, from n·Σx² − (Σx)² in exact integers."""
        terms = zip(self.count, self.total, self.squares, strict=True)
        return tuple(float((n * q - t * t) / (n * n)) ** 0.5 if n else float("nan") for n, t, q in terms)


def valid_pixels(image: NDArray[np.int16], fmask: NDArray[np.uint8], rule: MaskRule) -> NDArray[np.bool_]:
    """True where a pixel is valid, [T, H, W], of image [T, B, H, W] and fmask [T, H, W]."""
    dates, bands = image.shape[:2]
    planes, masks = image.reshape(dates, bands, -1), fmask.reshape(dates, -1)
    valid = [_valid(planes[t], masks[t], rule, planes[t].min(axis=1)) for t in range(dates)]
    return np.stack(valid).reshape(fmask.shape)


def chip_sums(image: NDArray[np.int16], fmask: NDArray[np.uint8], rule: MaskRule) -> tuple[tuple[int, ...], BandSums]:
    """Valid pixels of each date, and exact sums, of one chip: image [T, B, H, W] and fmask [T, H, W].

    Date by date, so that the planes of one are in a core's cache from the first look at them to the last.
    """
    dates, bands = image.shape[:2]
    planes, masks = image.reshape(dates, bands, -1), fmask.reshape(dates, -1)
    work, pixels = _PlaneSums(dates, bands, planes.shape[2]), []
    for t in range(dates):
        lowest = planes[t].min(axis=1)
        valid = _valid(planes[t], masks[t], rule, lowest)
        pixels.append(int(np.count_nonzero(valid)))
        if pixels[t] == valid.size:
            work.add(t, planes[t], lowest <= 0)
        elif pixels[t]:
            work.add_masked(t, planes[t], lowest <= 0, valid)
    return tuple(pixels), work.result(sum(pixels))


def _valid(
    planes: NDArray[np.int16], fmask: NDArray[np.uint8], rule: MaskRule, lowest: NDArray[np.int16]
) -> NDArray[np.bool_]:
    """True where a pixel of one date is valid, [pixels], of planes [B, pixels] with their lowest values [B]."""
    valid: NDArray[np.bool_] = (fmask != FMASK_FILL) & ((fmask & np.uint8(rule.byte)) == 0)
    for plane, low in zip(planes, lowest, strict=True):
        if low <= FILL:  # else the plane has no fill, and one quick pass has shown it
            valid &= plane != FILL
    return valid


class _PlaneSums:
    """Sums of planes of one chip, each taken to float64 in one piece of memory that stays in the cache of a core."""

    def __init__(self, dates: int, bands: int, size: int) -> None:
        blocks = -(-size // _DOT)
        padded = np.zeros(blocks * _DOT)
        self._values = padded[:size]
        self._rows = padded.reshape(blocks, 1, _DOT)
        self._columns = self._rows.transpose(0, 2, 1)
        self._kept = np.empty(size, dtype=np.int16)
        self._totals, self._squares = np.zeros((2, dates, bands, blocks, 1, 1))
        self._nonpositive = [0] * bands

    def add(self, date: int, planes: NDArray[np.int16], low: NDArray[np.bool_]) -> None:
        """Add planes [B, pixels] of a date; `low` [B] says which of them have values ≤ 0."""
        for band, plane in enumerate(planes):
            self._sum(date, band, plane)
            if low[band]:
                self._nonpositive[band] += int(np.count_nonzero(plane <= 0))

    def add_masked(self, date: int, planes: NDArray[np.int16], low: NDArray[np.bool_], mask: NDArray[np.bool_]) -> None:
        """Likewise, over the pixels where `mask` [pixels] is True; the others become 0, which adds nothing to a sum."""
        weights, dropped = mask.astype(np.int16), mask.size - int(np.count_nonzero(mask))
        for band, plane in enumerate(planes):
            kept = np.multiply(plane, weights, out=self._kept)
            self._sum(date, band, kept)
            if low[band]:
                self._nonpositive[band] += int(np.count_nonzero(kept <= 0)) - dropped

    def result(self, count: int) -> BandSums:
        """Sums over the dates, of `count` pixels; those of single planes are exact in float64, added as integers."""
        totals, squares = (
            tuple(sums.sum(axis=(2, 3, 4)).astype(np.int64).sum(axis=0).tolist())
            for sums in (self._totals, self._squares)
        )
        low = tuple(self._nonpositive)
        return BandSums(samples=1, count=(count,) * len(low), total=totals, squares=squares, nonpositive=low)

    def _sum(self, date: int, band: int, plane: NDArray[np.int16]) -> None:
        self._values[:] = plane
        np.matmul(self._rows, _ONES, out=self._totals[date, band])
        np.matmul(self._rows, self._columns, out=self._squares[date, band])


def _add(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))
