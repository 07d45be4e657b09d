"""Chips as pictures: true colour with one stretch per chip, and the mask as hatching that can be switched off."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from geofm_pipeline.hls import fmask as hls_fmask
from geofm_pipeline.hls.bands import BANDS, FILL, SCALE
from geofm_pipeline.hls.fmask import BITS, MaskRule, clear
from geofm_pipeline.report.geography import data_uri

EDGE = 176
"""Edge of a picture in pixels; larger chips are averaged down, smaller ones keep their pixels."""
RGB = tuple(BANDS.index(name) for name in ("red", "green", "blue"))
MIDDLE, GAMMAS = 0.40, (0.42, 0.72)
"""Brightness that the median pixel should have, and the exponents allowed for it: forest and water are dark."""
NO_DATA = (128, 128, 128)
MASKED = (255, 64, 160)
"""A pink that no landscape has."""
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Reflectance that becomes black and white, and the exponent between them."""

    low: float
    high: float
    gamma: float


def chip_stretch(image: NDArray[np.int16], fmask: NDArray[np.uint8], rule: MaskRule) -> Stretch:
    """One stretch for all dates and the three colours of a chip [T, B, H, W], so that dates and hues compare.

    Snow is left out where other ground is seen: next to it everything else would be black.
    """
    good = clear(fmask, rule) & (image != FILL).all(axis=1)
    bare = good & (fmask & (1 << BITS["snow"]) == 0)
    chosen = bare if bare.mean() > 0.02 else good if good.any() else (image != FILL).all(axis=1)
    values = image[:, RGB].transpose(1, 0, 2, 3)[:, chosen] * SCALE
    if not values.size:
        return Stretch(low=0.0, high=0.3, gamma=0.6)
    least, median, most = np.percentile(values, [1.0, 50.0, 98.5])
    low = float(np.clip(least, 0.0, 0.08)) * 0.8
    high = float(np.clip(most, low + 0.10, 0.45))
    level = float(np.clip((median - low) / (high - low), 0.01, 0.99))
    return Stretch(low=low, high=high, gamma=float(np.clip(np.log(MIDDLE) / np.log(level), *GAMMAS)))


def true_colour(image: NDArray[np.int16], stretch: Stretch) -> Image.Image:
    """One date [B, H, W] as a picture, missing pixels grey."""
    missing = (image == FILL).any(axis=0)
    reflectance = image[list(RGB)].astype(np.float64) * SCALE
    level = np.clip((reflectance - stretch.low) / (stretch.high - stretch.low), 0.0, None)
    # Up to 0.75 as it is, beyond that bent towards 1: clouds and snow keep their texture.
    bent = np.where(level <= 0.75, level, 1.0 - 0.25 * np.exp((0.75 - level) / 0.7))
    rgb = np.round(255 * np.clip(bent, 0, 1) ** stretch.gamma).astype(np.uint8).transpose(1, 2, 0)
    rgb[missing] = NO_DATA
    return _shrunk(Image.fromarray(rgb))


def mask_overlay(image: NDArray[np.int16], fmask: NDArray[np.uint8], rule: MaskRule) -> str | None:
    """Data URI of the unusable pixels of one date, hatched and outlined on a transparent ground; None without any.

    image [B, H, W], fmask [H, W]. Missing pixels are grey in the picture already and get no hatching.
    """
    missing = (image == FILL).any(axis=0) | (fmask == hls_fmask.FILL)
    masked = ~clear(fmask, rule) & ~missing
    if not masked.any():
        return None
    grown = np.asarray(Image.fromarray(masked.astype(np.uint8) * 255).resize((EDGE, EDGE), Image.Resampling.BOX)) > 127
    row, column = np.indices(grown.shape)
    hatch = grown & ((row + column) % 7 == 0)
    indices = (hatch | _outline(grown)).astype(np.uint8)
    overlay = Image.frombytes("P", (EDGE, EDGE), indices.tobytes())
    overlay.putpalette([0, 0, 0, *MASKED])
    return data_uri(overlay, "PNG", transparency=0)


def photograph(picture: Image.Image) -> str:
    """Data URI of a picture."""
    return data_uri(picture, "WEBP")


def _shrunk(picture: Image.Image) -> Image.Image:
    return picture.resize((EDGE, EDGE), Image.Resampling.LANCZOS) if picture.width > EDGE else picture


def _outline(masked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Masked pixels with a usable neighbour."""
    inner = np.pad(masked, 1, mode="edge")
    inside = inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    return masked & ~inside
