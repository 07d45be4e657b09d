"""Whether an integer raster is a map of classes or a continuous quantity (percent, metres) stored in integers.

A file that lists its classes is believed. Otherwise a look at nine windows of 128 × 128 pixels at full resolution
decides: classes form patches, so most neighbouring pixels are equal; of percentages and metres nearly all differ.
Measured share of unequal neighbours: land cover 0.01-0.21, climate zones 0.09; tree cover 0.92-0.96, elevation 0.97.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.covariates.class_bands import OPTION, ClassBand

MANY_CLASSES = 64
"""More distinct values in a map that lists no classes mean that it is not a map of classes."""
FEW_VALUES = 12
"""With fewer distinct values even a noisy map can be one of classes."""
UNEQUAL = 0.75
"""Share of neighbouring pixels that differ above which values are no classes: half-way in the gap between both kinds,
with room for land cover of 37 km pixels (0.69 in the most mixed 60 × 60 pixels)."""
_WINDOWS, _WINDOW = 3, 128  # windows along an edge, and their edge in pixels
_CLASS_UNITS = {"", "1", "class", "classes", "code", "codes", "category", "categories", "none", "unitless"}


def why_continuous(band: ClassBand) -> str:
    """What speaks against classes, '' where nothing does; reads at most 147,456 pixels, none where classes are listed.

    `band` must be opened at full resolution: overviews mix patches.
    """
    if band.unit.strip().lower() not in _CLASS_UNITS:
        return f"its unit is {band.unit!r}"
    if band.listed or band.names:
        return ""
    values: set[int] = set()
    unequal = pairs = 0
    for pixels in _windows(band):
        known = (pixels != 0) if band.nodata is None else (pixels != 0) & (pixels != band.nodata)
        values.update(np.unique(pixels[known]).tolist())
        for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
            both = known[one] & known[other]
            pairs += int(both.sum())
            unequal += int((both & (pixels[one] != pixels[other])).sum())
    if len(values) > MANY_CLASSES:
        return f"nine samples of it hold {len(values)} distinct values from {min(values)} to {max(values)}"
    if len(values) >= FEW_VALUES and unequal > UNEQUAL * pairs:
        return (
            f"{unequal / pairs:.0%} of its neighbouring pixels differ (classes form patches) and it has values "
            f"from {min(values)} to {max(values)}"
        )
    return ""


def continuous_message(source: str, why: str) -> str:
    """The refusal of a map, for an InputError."""
    return (
        f"{OPTION} {source} is a continuous quantity (percent, metres), no map of classes: {why}, and it lists no "
        "classes; give a map of classes, or write a colour table (GeoTIFF) or flag_values (NetCDF) into it if it is one"
    )


def _windows(band: ClassBand) -> Iterator[NDArray[np.generic]]:
    """Windows on a lattice; fewer where the map is smaller than they are."""
    rows, cols = _starts(band.height), _starts(band.width)
    for row in rows:
        for col in cols:
            yield band.read(row, col, min(_WINDOW, band.height - row), min(_WINDOW, band.width - col))


def _starts(size: int) -> list[int]:
    if size <= _WINDOWS * _WINDOW:
        return list(range(0, size, _WINDOW))
    return [round((i + 0.5) * size / _WINDOWS - _WINDOW / 2) for i in range(_WINDOWS)]
