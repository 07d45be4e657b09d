"""What pictures are made of: text, colours, scales with round numbers, and a file that is whole or not there.

Pillow's built-in font knows the letters of Latin-1 only. The same input gives the same pixels with one version of
Pillow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from geofm_model.disk import replaced

Colour = tuple[int, int, int]
"""Red, green, blue, 0 to 255."""
Pixels = NDArray[np.uint8]

PAPER: Colour = (255, 255, 255)
INK: Colour = (20, 20, 20)
GREY: Colour = (105, 105, 105)
PALE: Colour = (222, 222, 222)
_HEAT: tuple[Colour, ...] = ((255, 250, 205), (254, 217, 118), (253, 141, 60), (222, 35, 30), (110, 0, 40))
"""From little to much, ever darker (the order of ColorBrewer's YlOrRd)."""


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's built-in font, `size` in pixels."""
    found = ImageFont.load_default(size)
    assert isinstance(found, ImageFont.FreeTypeFont), "Pillow was built without FreeType"
    return found


def text_width(text: str, size: int) -> int:
    """Of one line, in pixels."""
    return math.ceil(font(size).getlength(text))


def write(
    image: Image.Image, at: tuple[int, int], text: str, *, size: int = 13, colour: Colour = INK, anchor: str = "la"
) -> None:
    """Put one line of text at (column, row); `anchor` as Pillow names them, e.g. `la` left top, `mm` the middle."""
    ImageDraw.Draw(image).text(at, text, fill=colour, font=font(size), anchor=anchor)


def heat(shares: NDArray[np.floating]) -> Pixels:
    """Shares of a scale, 0 to 1 and cut there, as colours from pale yellow to dark red: [...] → uint8 [..., 3]."""
    marks = np.linspace(0.0, 1.0, len(_HEAT))
    channels = [np.interp(shares, marks, [colour[at] for colour in _HEAT]) for at in range(3)]
    return np.round(np.stack(channels, axis=-1)).astype(np.uint8)


def enlarged(pixels: NDArray[np.generic], factor: int) -> NDArray[np.generic]:
    """Each pixel as a square of pixels: [h, w, ...] → [h · factor, w · factor, ...]."""
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def stacked(parts: Sequence[Image.Image], *, gap: int, across: bool = False) -> Image.Image:
    """Pictures below each other, or side by side, on paper; their left, or upper, edges in line."""
    lengths = [part.width if across else part.height for part in parts]
    breadth = max(part.height if across else part.width for part in parts)
    length = sum(lengths) + gap * (len(parts) - 1)
    whole = Image.new("RGB", (length, breadth) if across else (breadth, length), PAPER)
    at = 0
    for part, step in zip(parts, lengths, strict=True):
        whole.paste(part, (at, 0) if across else (0, at))
        at += step + gap
    return whole


def framed(image: Image.Image, margin: int) -> Image.Image:
    """With a margin of paper."""
    whole = Image.new("RGB", (image.width + 2 * margin, image.height + 2 * margin), PAPER)
    whole.paste(image, (margin, margin))
    return whole


def rounded(value: float) -> float:
    """The nearest, as a factor, of …, 0.1, 0.2, 0.5, 1, 2, 5, …; of a `value` > 0."""
    power = math.floor(math.log10(value))
    near = [step * 10.0**power for step in (1, 2, 5, 10)]
    return min(near, key=lambda step: abs(math.log(step / value)))


def round_up(value: float) -> float:
    """The next of …, 0.1, 0.2, 0.5, 1, 2, 5, … that is at least `value` > 0."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 5.0, 10.0) if step * power >= value * (1 - 1e-9))


def ticks(low: float, high: float, most: int) -> list[float]:
    """Multiples of a round step, two to `most` (at least 3) of them, from `low` or below to `high` or above."""
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        pad = 0.1 * max(abs(low), abs(high)) or 1.0
        low, high = low - pad, high + pad
    step = round_up((high - low) / (most - 2))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * at for at in range(first, last + 1)]


def said(values: Iterable[float]) -> list[str]:
    """Marks in words, with as many digits as they have, e.g. 0.05 and 0.10, 1,000 and 1,500."""
    known = list(values)
    apart = min((b - a for a, b in pairwise(known)), default=1.0)
    digits = next((d for d in range(12) if all(abs(round(v, d) - v) < 1e-3 * apart for v in known)), 12)
    return [f"{value:,.{digits}f}" for value in known]


def save_png(image: Image.Image, path: Path) -> None:
    """Write a picture: a reader finds the old file or the new one, whole; missing folders are made.

    Raises
    ------
    ValueError
        When the name does not end in .png.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"{path} is to be a PNG picture: give it a name that ends in .png")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as fresh:
        image.save(fresh, format="PNG", optimize=False)
