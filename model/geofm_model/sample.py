"""One sample of a store, and the rule that says which of its pixels may be used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class PixelRule:
    """The valid-pixel rule a store records: image ≠ fill in all bands, fmask ≠ fmask_fill, fmask & byte == 0."""

    fill: int
    """Missing reflectance, −9999; values ≤ 0 are data."""
    fmask_fill: int
    """Missing quality byte, 255; tested before any bit, for it sets them all."""
    byte: int
    """Fmask bits that make a pixel unusable; 14 = cloud, adjacent, shadow."""

    def valid(self, image: NDArray[np.int16], fmask: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """True where a pixel may be used, [T, H, W], of image [T, B, H, W] (int16, before any cast) and fmask."""
        complete = (image != self.fill).all(axis=1)
        return np.asarray(complete & (fmask != self.fmask_fill) & ((fmask & self.byte) == 0))


@dataclass(frozen=True, kw_only=True)
class BandStatistics:
    """Exact sums over the valid pixels of one band in one split, in raw counts (reflectance × 10⁴)."""

    count: int
    """Valid pixels."""
    sum: int
    sum_of_squares: int

    @property
    def mean(self) -> float:
        """Mean count, NaN without a valid pixel."""
        return self.sum / self.count if self.count else float("nan")

    @property
    def std(self) -> float:
        """Population standard deviation, NaN without a valid pixel."""
        n = self.count
        return float((n * self.sum_of_squares - self.sum**2) / n**2) ** 0.5 if n else float("nan")


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """A chip at T dates; its arrays belong to the caller."""

    index: int
    """Global index in the store."""
    image: NDArray[np.int16]
    """[T, B, H, W], reflectance × 10⁴, −9999 where missing."""
    fmask: NDArray[np.uint8]
    """[T, H, W], the raw HLS quality byte, 255 where missing."""
    lon: float
    """Longitude of the centre, degrees east."""
    lat: float
    """Latitude of the centre, degrees north."""
    date: NDArray[np.int32]
    """[T], days since 1970-01-01 (UTC), ascending."""
    sensor: NDArray[np.int8]
    """[T], 0 L30, 1 S30."""
    stratum: int
    split: int
    """0 train, 1 held-out, 2 test."""
    unit: int
    """Packed id of the sampling unit."""
    rule: PixelRule
    """The rule the store records."""

    def valid(self, rule: PixelRule | None = None) -> NDArray[np.bool_]:
        """True where a pixel may be used, [T, H, W], by the store's rule or another one."""
        return (rule or self.rule).valid(self.image, self.fmask)
