"""Which --scale and --offset values ask for: hints in the messages about values that a store cannot hold.

A *count* is reflectance × 10⁴ in int16, so what a user has to say is which value is a reflectance of 1. Pure numpy; a
hint is a guess from a few values, never used to convert any.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LEAST, MOST = np.iinfo(np.int16).min, np.iinfo(np.int16).max
ONE = 10_000
"""Count of a reflectance of 1."""
FEW_COUNTS = 10
"""Counts up to which nothing is left of an image: a reflectance of 0.001, less than any sensor's noise."""
BYTE_COUNTS = 255
"""Largest count that makes whole numbers suspect: bytes of a picture, or classes."""
_NEVER = 1e6
"""No unit of reflectance reaches such values: they mark what is missing."""
_MARKED = -999
"""Values up to this one mark what is missing, too: reflectance is above 0 but for noise."""
_SEEN = (3.2, f"--scale {ONE} where 1 is a reflectance of 1"), (320.0, "--scale 100 where they are percent")


def scale_for(values: NDArray[np.generic]) -> str:
    """`from 0 to 1: …` with a hint for decimal values of which nothing is known; '' where none is there."""
    numbers = np.asarray(values, dtype=np.float64)
    numbers = numbers[np.isfinite(numbers) & (np.abs(numbers) < _NEVER) & (numbers > _MARKED)]
    if not numbers.size:
        return ""
    low, high = float(numbers.min()), float(numbers.max())
    largest = max(abs(low), abs(high))
    hint = next((text for most, text in _SEEN if largest <= most), f"--scale {largest_scale(largest):g} would fit")
    if 320 < largest <= MOST:
        hint = f"--scale 1 where they are reflectance × {ONE:,} already"
    return f"from {low:.4g} to {high:.4g}: say how they become reflectance × {ONE:,}, e.g. {hint}"


def largest_scale(value: float) -> float:
    """The largest power of ten by which a value, not 0, stays within a count."""
    return 10.0 ** math.floor(math.log10(MOST / abs(value)))


def remedy(value: np.generic, scale: float | None, offset: float) -> str:
    """What to do about a value that does not fit: options with a value that would work."""
    number, factor = float(value.item()), 1.0 if scale is None else scale
    if _is_mark(value):
        return f"it looks like a mark for what is missing: --nodata={value!s}"
    if offset and LEAST <= number * factor <= MOST:
        return (
            f"--offset {offset:g} takes it out of that range, since it is added in counts, after the factor: leave it "
            "out, or give -1000 for Sentinel-2 since 2022, -2000 for Landsat Collection 2"
        )
    fits = largest_scale(number)
    found = [f"--scale {fits:g} where it is a reflectance of {number * fits / ONE:.2g}"]
    if value.dtype.kind in "iu" and MOST < number < 2**16:
        found.insert(0, "--scale 0.275 --offset -2000 for Landsat Collection 2")
    return f"give {', '.join(found)}, or --nodata={value!s} where it means that nothing is there"


def too_few_counts(lowest: int, highest: int, scale: float | None, offset: float) -> str | None:
    """Why conversion by --scale leaves nothing of values, and a scale that would; None where enough is left."""
    scaled = max(abs(lowest - offset), abs(highest - offset))
    if scale is None or scaled > FEW_COUNTS or not scaled:  # where all is 0, no scale helps
        return None
    better = f"{largest_scale(scaled / scale):g} would keep them"
    return (
        f"--scale {scale:g} makes counts from {lowest} to {highest} of all values, so hardly anything is left of them: "
        f"a store holds whole counts, reflectance × {ONE:,}; --scale {better}"
    )


def dark_counts(lowest: int, highest: int, scale: float | None, offset: float) -> str | None:
    """A sentence on whole numbers, taken as they are, that are hardly reflectance × 10,000; else None."""
    if scale is not None or offset or highest > BYTE_COUNTS:
        return None
    one = BYTE_COUNTS if highest > BYTE_COUNTS // 2 else highest
    hint = f", e.g. --scale {ONE / one:.6g} where {one} is a reflectance of 1" if one > 0 else ""
    return (
        f"the values reach from {lowest} to {highest} and are taken as reflectance × {ONE:,}, so up to "
        f"{highest / ONE:g}; if they are not, --scale says how they become that{hint}"
    )


def _is_mark(value: np.generic) -> bool:
    number = float(value.item())
    if value.dtype.kind in "iu" and value.dtype.itemsize > 1 and value.item() == np.iinfo(value.dtype.name).max:
        return True
    return abs(number) >= _NEVER or number <= _MARKED
