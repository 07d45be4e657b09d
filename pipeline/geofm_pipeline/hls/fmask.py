"""Fmask: named bits and the one rule of a clear pixel.

Polarity: :func:`clear` is True where a pixel may be used. 255 is fill and sets every bit, so it is tested first;
clear land is 64, 128 or 192 by its aerosol level, so `fmask == 0` is never the test.
Source: HLS v2.0 user guide, table of the quality layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FILL = 255
BITS = {"cirrus": 0, "cloud": 1, "adjacent": 2, "shadow": 3, "snow": 4, "water": 5, "aerosol_low": 6, "aerosol_high": 7}


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """Which bits make a pixel unusable; recorded in every store."""

    bits: tuple[str, ...] = ("cloud", "adjacent", "shadow")
    """Names from BITS."""

    @property
    def byte(self) -> int:
        """The bits as one mask byte; 14 for the default."""
        return sum(1 << BITS[name] for name in self.bits)


DEFAULT_RULE = MaskRule()


def clear(fmask: NDArray[np.uint8], rule: MaskRule = DEFAULT_RULE) -> NDArray[np.bool_]:
    """True where a pixel has data and none of the rule's bits is set, shape kept."""
    return _clear_table(rule)[fmask]


def code_counts(fmask: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How many pixels have each of the 256 codes, shape (256,)."""
    return np.bincount(fmask.ravel(), minlength=256)


def cloud_cover(fmask: NDArray[np.uint8]) -> int | None:
    """NASA's `cloud_coverage` tag: round(100 × (cloud or shadow) / valid), adjacency not counted; None without data."""
    return cloud_cover_of(code_counts(fmask))


def spatial_coverage(fmask: NDArray[np.uint8]) -> int:
    """NASA's `spatial_coverage` tag: percent of the tile that has data."""
    return spatial_coverage_of(code_counts(fmask))


def impossible_share(fmask: NDArray[np.uint8]) -> float:
    """Share of data pixels whose code v2.0 never writes (cirrus bit set): the mark of an interpolated Fmask."""
    return impossible_share_of(code_counts(fmask))


def cloud_cover_of(counts: NDArray[np.int64]) -> int | None:
    """:func:`cloud_cover` of code counts (256,)."""
    valid = int(counts[:FILL].sum())
    cloudy = int(counts[_with_bit("cloud") | _with_bit("shadow")].sum())
    return round(100 * cloudy / valid) if valid else None


def spatial_coverage_of(counts: NDArray[np.int64]) -> int:
    """:func:`spatial_coverage` of code counts (256,)."""
    return round(100 * float(counts[:FILL].sum() / counts.sum()))


def impossible_share_of(counts: NDArray[np.int64]) -> float:
    """:func:`impossible_share` of code counts (256,)."""
    valid = int(counts[:FILL].sum())
    return float(counts[_with_bit("cirrus")].sum()) / valid if valid else 0.0


def flag_counts(counts: NDArray[np.int64], rule: MaskRule = DEFAULT_RULE) -> dict[str, NDArray[np.int64]]:
    """Pixels with data, clear ones, and those with the snow and the water bit, from code counts (…, 256)."""
    flags = {
        "data": np.arange(256) != FILL,
        "clear": _clear_table(rule),
        "snow": _with_bit("snow"),
        "water": _with_bit("water"),
    }
    return {name: counts[..., codes].sum(axis=-1) for name, codes in flags.items()}


def _with_bit(name: str) -> NDArray[np.bool_]:
    """Which data codes have the bit, shape (256,)."""
    codes = np.arange(256)
    return np.asarray((codes != FILL) & (codes & (1 << BITS[name]) != 0))


def _clear_table(rule: MaskRule) -> NDArray[np.bool_]:
    codes = np.arange(256)
    return np.asarray((codes != FILL) & (codes & rule.byte == 0))
