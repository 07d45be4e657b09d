"""Pictures of reconstructions: what a network was shown, what it made of the rest, and where it was wrong.

One row per date, five panels side by side: `input` · `seen by the network` · `predicted` · `predicted + seen` ·
`error`. Colours of a sample have one stretch in all its panels and dates, so that they can be compared; errors have one
scale in the whole picture, which depends on the samples and not on the prediction: pictures of the same samples at
other steps of a training have the same. Small chips are enlarged, each pixel as a square. Nothing is smoothed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from geofm_model.evaluation.curves import curves_picture
from geofm_model.evaluation.drawing import (
    GREY,
    INK,
    PAPER,
    Colour,
    Pixels,
    enlarged,
    framed,
    heat,
    rounded,
    said,
    save_png,
    stacked,
    text_width,
    write,
)

__all__ = ["HIDDEN", "INVALID", "NEUTRAL", "Reconstruction", "curves_picture", "reconstruction_picture", "save_png"]

HIDDEN: Colour = (150, 150, 150)
"""Pixels the network was not shown, with stripes of _STRIPE."""
_STRIPE: Colour = (112, 112, 112)
INVALID: Colour = (112, 72, 176)
"""Pixels that may not be used: no ground is violet."""
NEUTRAL: Colour = (200, 214, 234)
"""Pixels a panel says nothing of."""
TRUE_COLOUR = (("B04", "B03", "B02"), ("red", "green", "blue"))
"""Bands that are shown as red, green and blue where they are there: HLS's names, or those of a store."""
_DARKEST = 0.2
"""Brightness that the median of a sample's darkest date should have at least."""
_READABLE = 192
"""Edge in pixels that small panels are enlarged to, about: by a whole factor."""
_GAP = 8
_LABEL = 92
"""Width of the dates, left of the panels."""
_COLUMNS = ("input", "seen by the network", "predicted", "predicted + seen", "error")

Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """How counts become brightness, the same for all bands, so that hues are true."""

    low: float
    """Counts that are black."""
    high: float
    """Counts that are white."""
    gamma: float
    """Brightness is share^(1/gamma): 1, but more where a date is dark beside others with snow, to stay readable."""

    def colours(self, counts: NDArray[np.generic]) -> Pixels:
        """Counts [t, 3, h, w] → uint8 [t, h, w, 3]."""
        share = np.clip((counts.astype(np.float64) - self.low) / (self.high - self.low), 0.0, 1.0)
        return np.round(255.0 * share ** (1.0 / self.gamma)).astype(np.uint8).transpose(0, 2, 3, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reconstruction:
    """A sample of t dates, c bands and h × w pixels, and what a network made of it; checked when made."""

    image: NDArray[np.int16] | NDArray[np.float32]
    """[t, c, h, w] counts (reflectance × 10⁴) as they were before normalisation, clouds and all."""
    predicted: NDArray[np.float32]
    """[t, c, h, w] counts; read where `seen` is False, and finite there."""
    seen: Flags
    """[t, h, w], or [t, c, h, w] where bands were withheld: True where the network was shown the pixel's token."""
    valid: Flags
    """[t, h, w], True where a pixel may be used."""
    bands: tuple[str, ...]
    """c names, such as B04."""
    dates: tuple[str, ...]
    """t dates as ISO text."""
    place: str
    """Where it is, such as 41.100° N, 12.500° E."""
    loss: float
    """Of this sample, in the unit of training; NaN where nothing valid was hidden."""
    baseline: float
    """Loss of predicting each band's mean, the same."""
    fill: int = -9999
    """Count of a missing pixel."""

    def __post_init__(self) -> None:
        t, c, h, w = shape = self.image.shape
        wanted = {"predicted": [shape], "seen": [(t, h, w), shape], "valid": [(t, h, w)]}
        for name, shapes in wanted.items():
            if (found := getattr(self, name).shape) not in shapes:
                raise ValueError(f"{name} has shape {found}, an image of {shape} needs {' or '.join(map(str, shapes))}")
        if (len(self.dates), len(self.bands)) != (t, c):
            raise ValueError(f"{len(self.dates)} dates and {len(self.bands)} bands named, the image has {t} and {c}")
        if bad := int((~np.isfinite(self.predicted) & ~self.shown).sum()):
            raise ValueError(f"{bad} predicted values are not finite: a network that diverged has no reconstruction")

    @property
    def shown(self) -> Flags:
        """`seen` by band, [t, c, h, w]."""
        return np.broadcast_to(self.seen if self.seen.ndim == 4 else self.seen[:, None], self.image.shape)

    @property
    def colours(self) -> tuple[int, ...]:
        """Numbers of the bands that are shown as red, green and blue: true colour, else the first three, or one."""
        for names in TRUE_COLOUR:
            if all(name in self.bands for name in names):
                return tuple(map(self.bands.index, names))
        return (0, 1, 2) if len(self.bands) >= 3 else (0, 0, 0)

    def stretch(self) -> Stretch:
        """From 2 % to 98 % of the valid pixels' values in the bands that are shown."""
        by_date = self.image[:, sorted(set(self.colours))].transpose(0, 2, 3, 1)
        values = by_date[self.valid]
        low, high = np.percentile(values, (2, 98)).tolist() if values.size else (0.0, 3000.0)
        high = max(high, low + 1.0)
        dates = zip(by_date, self.valid, strict=True)
        darkest = min((float(np.median(part[valid])) for part, valid in dates if valid.any()), default=high)
        share = min(max((darkest - low) / (high - low), 1e-6), 1.0)
        return Stretch(low=low, high=high, gamma=min(max(math.log(share) / math.log(_DARKEST), 1.0), 2.5))

    def spread(self) -> float:
        """Root mean square over the bands of the valid pixels' standard deviation, reflectance; 0 of none."""
        values = self.image.transpose(0, 2, 3, 1)[self.valid]
        return float(np.sqrt(values.var(axis=0, dtype=np.float64).mean())) / 1e4 if len(values) else 0.0

    def errors(self) -> NDArray[np.float64]:
        """Root mean square error of the bands that were not shown, reflectance, [t, h, w]; NaN where none may count."""
        hidden = ~self.shown
        off = np.where(hidden, self.predicted.astype(np.float64) - self.image, 0.0)
        count = hidden.sum(axis=1)
        mean = (off**2).sum(axis=1) / np.maximum(count, 1)
        return np.where(self.valid & (count > 0), np.sqrt(mean) / 1e4, np.nan)


@dataclass(frozen=True, kw_only=True, eq=False)
class Panels:
    """Colours of a sample's pixels, one array per column of the picture, uint8 [t, h, w, 3]."""

    input: Pixels
    """As observed; INVALID where it is missing."""
    seen: Pixels
    """HIDDEN where a band was not shown, else INVALID where it may not be used, else as observed."""
    predicted: Pixels
    """Where a band was not shown; NEUTRAL elsewhere."""
    pasted: Pixels
    """`predicted` where there is something, `seen` elsewhere."""
    error: Pixels
    """By scale; INVALID where it cannot be told, NEUTRAL where nothing was predicted."""
    hidden: Flags
    """[t, h, w], where `seen` is HIDDEN."""

    @classmethod
    def of(cls, sample: Reconstruction, *, most: float) -> Panels:
        """The panels of a sample; `most` is the error, reflectance, at the end of the scale."""
        bands, shown, stretch = list(sample.colours), sample.shown, sample.stretch()
        observed = stretch.colours(sample.image[:, bands])
        # Bands that were shown stay as observed: only a band that was not is the network's.
        guessed = stretch.colours(np.where(shown, sample.image, sample.predicted)[:, bands])
        hidden, asked = (np.asarray(~part.all(axis=1)) for part in (shown[:, bands], shown))
        seen = _choose(hidden, HIDDEN, _choose(~sample.valid, INVALID, observed))
        errors = sample.errors()
        return cls(
            input=_choose(np.asarray((sample.image == sample.fill).any(axis=1)), INVALID, observed),
            seen=seen,
            predicted=_choose(~hidden, NEUTRAL, guessed),
            pasted=np.where(hidden[..., None], guessed, seen),
            error=_choose(~asked, NEUTRAL, _choose(np.isnan(errors), INVALID, heat(np.nan_to_num(errors) / most))),
            hidden=hidden,
        )


def reconstruction_picture(samples: Sequence[Reconstruction]) -> Image.Image:
    """A picture of one or more samples of the same bands, with headings, scales and a legend.

    Panels of 64 px are drawn with 192 px, those of 224 px as they are: 1,100 to 1,300 px wide, about 200 px for a date.

    Raises
    ------
    ValueError
        When there is no sample, or samples have different bands.
    """
    if not samples:
        raise ValueError("a picture needs one reconstruction at least")
    if len(bands := {sample.bands for sample in samples}) > 1:
        raise ValueError(f"samples of one picture need the same bands, got {' and '.join(map(str, sorted(bands)))}")
    # An error as large as the spread of a usual sample is what the mean of each band gives.
    most = rounded(max(float(np.median([sample.spread() for sample in samples])), 1e-3))
    blocks = [_block(sample, Panels.of(sample, most=most)) for sample in samples]
    return framed(stacked([*blocks, _legend(samples[0], most)], gap=18), 14)


def _choose(where: Flags, colour: Colour, otherwise: NDArray[np.generic]) -> Pixels:
    return np.where(where[..., None], np.array(colour, dtype=np.uint8), otherwise).astype(np.uint8)


def _block(sample: Reconstruction, panels: Panels) -> Image.Image:
    """A sample: its place and loss, headings, and a row for each date."""
    factor = max(1, round(_READABLE / max(sample.valid.shape[1:])))
    cell = max(sample.valid.shape[2] * factor, max(text_width(name, 13) for name in _COLUMNS))
    rows = [_row(sample, panels, date, factor, cell) for date in range(len(sample.dates))]
    head = Image.new("RGB", (rows[0].width, 44), PAPER)
    write(head, (0, 0), sample.place, size=16)
    write(head, (text_width(sample.place, 16) + 16, 3), _losses(sample), colour=GREY)
    for column, name in enumerate(_COLUMNS):
        write(head, (_LABEL + column * (cell + _GAP), 28), name)
    return stacked([head, *rows], gap=_GAP)


def _losses(sample: Reconstruction) -> str:
    if math.isnan(sample.loss):
        return "no valid pixel was hidden: no loss"
    beside = f"loss {sample.loss:.3f}, mean of each band {sample.baseline:.3f}"
    return f"{beside} ({100 * sample.loss / sample.baseline:.0f} % of it)" if sample.baseline > 0 else beside


def _row(sample: Reconstruction, panels: Panels, date: int, factor: int, cell: int) -> Image.Image:
    """One date: its label and five panels, each in a cell of its own."""
    height = sample.valid.shape[1] * factor
    row = Image.new("RGB", (_LABEL + len(_COLUMNS) * (cell + _GAP) - _GAP, max(height, 56)), PAPER)
    write(row, (0, 0), sample.dates[date])
    write(row, (0, 18), f"valid {100 * sample.valid[date].mean():.0f} %", colour=GREY)
    write(row, (0, 34), f"hidden {100 * panels.hidden[date].mean():.0f} %", colour=GREY)
    for column, part in enumerate((panels.input, panels.seen, panels.predicted, panels.pasted, panels.error)):
        large = enlarged(part[date], factor)
        if part is panels.seen:
            large = _striped(large, enlarged(panels.hidden[date], factor))
        row.paste(Image.fromarray(large), (_LABEL + column * (cell + _GAP), 0))
    return row


def _striped(pixels: NDArray[np.generic], where: NDArray[np.generic]) -> NDArray[np.generic]:
    """Diagonal stripes, 2 of every 8 px, over [h, w, 3] where [h, w] is True."""
    down, across = np.indices(where.shape)
    stripe = where.astype(np.bool_) & ((down + across) % 8 < 2)
    return np.where(stripe[..., None], np.array(_STRIPE, dtype=np.uint8), pixels)


def _legend(sample: Reconstruction, most: float) -> Image.Image:
    """What the colours mean."""
    stripes = _striped(np.full((16, 26, 3), HIDDEN, dtype=np.uint8), np.ones((16, 26), dtype=np.bool_))
    swatches = [
        (stripes, "hidden from the network" + (", or one of the colour's bands is" if sample.seen.ndim == 4 else "")),
        (np.full((16, 26, 3), INVALID, dtype=np.uint8), "not valid (cloud, shadow, missing): not shown, not scored"),
        (np.full((16, 26, 3), NEUTRAL, dtype=np.uint8), "nothing predicted here"),
    ]
    keys = stacked([_key(pixels, text) for pixels, text in swatches], gap=22, across=True)
    names = tuple(sample.bands[at] for at in dict.fromkeys(sample.colours))
    kind = "True colour:" if names in TRUE_COLOUR else "Red, green, blue:" if len(names) == 3 else "Grey:"
    text = f"{kind} {', '.join(names)}; each sample from 2 to 98 % of its valid pixels, alike in all its panels."
    note = Image.new("RGB", (text_width(text, 13), 18), PAPER)
    write(note, (0, 0), text, colour=GREY)
    return stacked([keys, _scale(most), note], gap=8)


def _key(pixels: NDArray[np.generic], text: str) -> Image.Image:
    key = Image.new("RGB", (34 + text_width(text, 13), 18), PAPER)
    key.paste(Image.fromarray(pixels), (0, 1))
    write(key, (34, 1), text)
    return key


def _scale(most: float) -> Image.Image:
    """The colours of errors with round numbers below them."""
    title, left, width = "error: root mean square over the hidden bands, reflectance", 18, 260
    scale = Image.new("RGB", (left + width + 40 + text_width(title, 13), 34), PAPER)
    bar = heat(np.broadcast_to(np.linspace(0.0, 1.0, width), (14, width)))
    scale.paste(Image.fromarray(bar), (left, 0))
    marks = [0.0, most / 2, most]
    for mark, text in zip(marks, said(marks), strict=True):
        at = left + round((width - 1) * mark / most)
        ImageDraw.Draw(scale).line([(at, 14), (at, 17)], fill=INK)
        write(scale, (at, 18), text + (" and more" if mark == most else ""), size=12, anchor="ma")
    write(scale, (left + width + 36, 0), title)
    return scale
