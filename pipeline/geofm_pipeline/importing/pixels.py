"""From a file's values to what a store holds: int16 counts and the Fmask byte. Pure numpy.

A *count* is reflectance × 10⁴; −9999 is missing and nothing else. The mask byte is 64 where a pixel is there (clear,
low aerosol), 255 where it is missing in any band, and has a bit of its own for what a cloud mask says
(geofm_pipeline.hls.fmask names them). A value that does not fit is an error, never clipped.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import FILL
from geofm_pipeline.hls.fmask import BITS
from geofm_pipeline.hls.fmask import FILL as FMASK_FILL
from geofm_pipeline.importing.scaling import LEAST, MOST, remedy

CLEAR = 1 << BITS["aerosol_low"]
"""64: the byte of a clear land pixel in HLS with the least aerosol; 0 is not used, since v2.0 does not write it."""
_UNKNOWN = -1
WORDS: dict[str, int] = {
    "clear": CLEAR,
    "missing": FMASK_FILL,
    **{name: CLEAR | 1 << bit for name, bit in BITS.items() if not name.startswith("aerosol")},
}
"""What a value of a mask may mean, and its byte."""
PRESETS: dict[str, str] = {
    "cfmask": "0=clear,1=water,2=shadow,3=snow,4=cloud,255=missing",
    "scl": "0=missing,1=missing,2=clear,3=shadow,4=clear,5=clear,6=water,7=clear,8=cloud,9=cloud,10=cloud,11=snow",
}
"""Masks by name: Landsat's CFMask (USGS, surface reflectance product guide), Sentinel-2's scene classification (ESA,
level-2A; thin cirrus counts as cloud, dark areas as clear)."""
RAW = "fmask"
"""The values are HLS's own bytes and stay as they are."""


class UnfitValueError(ValueError):
    """A value that cannot become a count."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """count = value × scale + offset, rounded to the nearest whole number, ties to even."""

    scale: float | None = None
    """None takes whole numbers as the counts they are, and refuses others."""
    offset: float = 0.0
    """In counts."""
    nodata: float | None = None
    """A value that means missing, besides those that the file says."""

    @property
    def plain(self) -> bool:
        """Values are counts already."""
        return self.scale in (None, 1.0) and self.offset == 0

    def check_type(self, dtype: str) -> None:
        """Raise UnfitValueError for values that are no numbers, or no whole ones where no scale was given."""
        kind = np.dtype(dtype).kind
        if kind not in "iuf":
            raise UnfitValueError(f"has values of type {dtype}: images have whole or decimal numbers")
        if kind == "f" and self.scale is None:
            raise UnfitValueError(
                f"has values of type {dtype}: say how they become reflectance × 10,000, e.g. --scale 10000 where they "
                "are reflectance from 0 to 1, --scale 1 where they are counts already"
            )

    def counts(self, values: NDArray[np.generic], present: NDArray[np.bool_]) -> NDArray[np.int16]:
        """int16 counts, −9999 where nothing is there; shape kept.

        A count that comes out as −9999 counts as missing, too, since a store has no other word for it.

        Raises
        ------
        UnfitValueError
            When a value that is there does not fit int16 after conversion.
        """
        there = present & np.isfinite(values) if values.dtype.kind == "f" else present
        if self.nodata is not None:
            there = there & (values != self.nodata)
        numbers = values if self.plain and values.dtype.kind != "f" else self._converted(values, there)
        # As decimal numbers: what overflows when it is scaled is infinite, and no whole number.
        lowest = float(numbers.min(where=there, initial=0)) if there.any() else 0.0
        highest = float(numbers.max(where=there, initial=0)) if there.any() else 0.0
        if lowest < LEAST or highest > MOST:
            raise UnfitValueError(self._too_large(values, numbers, there, lowest, highest))
        counts = np.full(values.shape, FILL, dtype=np.int16)
        np.copyto(counts, numbers, where=there, casting="unsafe")
        return counts

    def _converted(self, values: NDArray[np.generic], there: NDArray[np.bool_]) -> NDArray[np.float64]:
        safe = np.where(there, values, 0).astype(np.float64)
        with np.errstate(over="ignore"):
            return np.rint(safe * (1.0 if self.scale is None else self.scale) + self.offset)

    def _too_large(
        self,
        values: NDArray[np.generic],
        numbers: NDArray[np.generic],
        there: NDArray[np.bool_],
        lowest: float,
        highest: float,
    ) -> str:
        wrong = values[there & (numbers == (highest if highest > MOST else lowest))].flat[0]
        became = "" if self.plain else f", which becomes {highest if highest > MOST else lowest:.6g}"
        return (
            f"has the value {wrong!s}{became}: a store holds reflectance × 10,000 from {LEAST} to {MOST}; "
            f"{remedy(wrong, self.scale, self.offset)}"
        )


@dataclass(frozen=True, kw_only=True)
class MaskValues:
    """What the values of a mask file mean."""

    text: str
    """As it was given."""
    table: tuple[int, ...]
    """Fmask byte of each value 0 to 255; −1 where it was not said."""

    @classmethod
    def parse(cls, text: str) -> MaskValues:
        """Of cfmask, scl, fmask or `0=clear,1=cloud`; raises InputError for other words."""
        if text == RAW:
            return cls(text=text, table=tuple(range(256)))
        table = [_UNKNOWN] * 256
        for part in PRESETS.get(text, text).split(","):
            value, _, word = part.strip().partition("=")
            if not value.isdecimal() or int(value) > 255 or word not in WORDS or table[int(value)] != _UNKNOWN:
                raise InputError(
                    f"--mask-values {text}: {part.strip()!r} is not VALUE=WORD with a new value from 0 to 255 and one "
                    f"of {', '.join(WORDS)}; or name a known mask: {', '.join([*PRESETS, RAW])}"
                )
            table[int(value)] = WORDS[word]
        return cls(text=text, table=tuple(table))

    def bytes(self, values: NDArray[np.integer], present: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Fmask bytes of a mask's values, shape kept; a value that was not said is missing where nothing is present.

        Raises
        ------
        UnfitValueError
            For other values that were not said.
        """
        table = np.array(self.table, dtype=np.int16)
        inside = (values >= 0) & (values <= 255)
        found = table[np.where(inside, values, 0).astype(np.uint8)]
        unknown = ~inside | (found == _UNKNOWN)
        if np.any(unknown & present):
            some = ", ".join(map(str, np.unique(values[unknown & present])[:8]))
            raise UnfitValueError(
                f"has the values {some}, of which --mask-values {self.text} does not say what they mean: add them, "
                "e.g. 7=cloud"
            )
        return np.where(unknown, FMASK_FILL, found).astype(np.uint8)


def fmask_of(image: NDArray[np.int16], marks: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Fmask [H, W] of counts [B, H, W]: the byte of the cloud mask, else 64; 255 where a band is missing."""
    fmask = np.full(image.shape[1:], CLEAR, dtype=np.uint8) if marks is None else marks.copy()
    fmask[(image == FILL).any(axis=0)] = FMASK_FILL
    return fmask
