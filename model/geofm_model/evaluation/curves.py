"""Pictures of how losses fell: training, held-out with its interval, and what the mean of each band would give."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from geofm_model.evaluation.drawing import GREY, INK, PALE, PAPER, Colour, said, text_width, ticks, write

Floats = NDArray[np.float64]
Points = list[tuple[float, float]]

RUNS: tuple[Colour, ...] = ((0, 90, 160), (205, 85, 0), (0, 130, 95), (170, 60, 130), (110, 110, 20), (60, 60, 60))
"""One colour per run, told apart by most people with a colour-vision deficiency (after Okabe & Ito 2008)."""
_FINE = 3
"""Lines are drawn this many times larger and averaged, so that they are smooth."""
_LINES = 150
"""Points of the drawn training curve, each the mean of as many records."""
_DOTS = 60
"""Held-out losses up to which each one gets a dot."""
_ROW = 22
"""Height of a row of the legend."""
_LONG = 36
"""Letters of a run's name that are shown."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LossCurves:
    """The losses of one run; steps ascend."""

    name: str
    """For the legend."""
    training: Floats
    """[n, 2] step and loss."""
    validation: Floats
    """[m, 4] step, held-out loss, lower and upper end of its interval; NaN where there is none."""
    baseline: float | None
    """Held-out loss of predicting each band's mean."""

    @classmethod
    def of(cls, name: str, records: Iterable[Mapping[str, object]]) -> LossCurves:
        """From log records: events `train` (step, loss) and `validation` (step, loss, low, high, baseline).

        Others are passed over, and so are losses that are null or not finite: steps without one leave no point.
        """
        known = list(records)
        training = _table(known, "train", ("loss",))
        validation = _table(known, "validation", ("loss", "low", "high", "baseline"))
        last = validation[-1, 4] if len(validation) else math.nan
        return cls(
            name=name,
            training=training,
            validation=validation[:, :4],
            baseline=float(last) if math.isfinite(last) else None,
        )


def curves_picture(
    logs: Mapping[str, Sequence[Mapping[str, object]]], *, width: int = 960, height: int = 540
) -> Image.Image:
    """Losses against steps, of one or more runs over each other.

    Parameters
    ----------
    logs : records of each run by the name that the legend shows, as :meth:`LossCurves.of` reads them
    width, height : pixels of the picture, at least 480 × 320

    Raises
    ------
    ValueError
        When there is no run, or none of them has a loss yet; or too many runs to tell apart.
    """
    curves = [LossCurves.of(name, records) for name, records in logs.items()]
    if not 1 <= len(curves) <= len(RUNS):
        raise ValueError(f"{len(curves)} runs cannot be drawn over each other: choose 1 to {len(RUNS)}")
    if width < 480 or height < 320:
        raise ValueError(f"a picture of {width} × {height} px is too small for axes: choose 480 × 320 at least")
    axes = _Axes.around(curves, width, height)
    plot = axes.grid()
    for one, colour in zip(curves, RUNS, strict=False):
        plot = _veiled(plot, axes, one, colour)
    for one, colour in zip(curves, RUNS, strict=False):
        _draw(ImageDraw.Draw(plot), axes, one, colour)
    whole = Image.new("RGB", (width, height), PAPER)
    whole.paste(plot.reduce(_FINE), (axes.left, axes.top))
    axes.write_on(whole)
    indent = axes.left + max(text_width(_short(one.name), 14) for one in curves) + 24
    for row, (one, colour) in enumerate(zip(curves, RUNS, strict=False)):
        write(whole, (axes.left, 14 + _ROW * row), _short(one.name), size=14, colour=colour)
        _write_keys(whole, (indent, 14 + _ROW * row), one, colour)
    return whole


def _table(records: Iterable[Mapping[str, object]], event: str, names: tuple[str, ...]) -> Floats:
    """[n, 1 + names], by step; rows with a finite first number, NaN for others that are missing."""
    rows = [
        [_number(record.get("step")), *(_number(record.get(name)) for name in names)]
        for record in records
        if record.get("event") == event
    ]
    table = np.array(rows, dtype=np.float64).reshape(-1, 1 + len(names))
    table = table[np.isfinite(table[:, :2]).all(axis=1)]
    return table[np.argsort(table[:, 0], kind="stable")]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _smoothed(training: Floats) -> Floats:
    """Means of as many neighbours as make about _LINES points, [k, 2]."""
    if not len(training):
        return training
    together = max(1, len(training) // _LINES)
    cuts = range(together, len(training), together)
    return np.array([part.mean(axis=0) for part in np.split(training, cuts)]).reshape(-1, 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Axes:
    """Where steps and losses lie in a picture; the axis of steps begins with 0."""

    left: int
    """Of the plot in the picture, pixels, and likewise below."""
    top: int
    width: int
    height: int
    last: float
    """Step at the right end, a little behind the last one."""
    losses: list[float]
    """Marks; the first and the last one are the ends of the axis."""

    @classmethod
    def around(cls, curves: Sequence[LossCurves], width: int, height: int) -> _Axes:
        """Axes that hold the smoothed curves, the baselines, and intervals that are not too wide for that."""
        smooth = [_smoothed(one.training) for one in curves]
        steps = np.concatenate([part[:, 0] for part in (*smooth, *(one.validation for one in curves))])
        if not steps.size:
            raise ValueError("none of the runs has a loss yet: there is nothing to draw")
        marks = ticks(*_range(curves, smooth), 9)
        left = 34 + max(text_width(text, 13) for text in said(marks))
        top = 14 + _ROW * len(curves) + 38
        size = {"left": left, "top": top, "width": width - left - 30, "height": height - top - 56}
        return cls(**size, last=1.01 * max(float(steps.max()), 1.0), losses=marks)

    def at(self, points: Iterable[tuple[float, float]]) -> Points:
        """(step, loss) as (column, row) of the enlarged plot."""
        low, high = self.losses[0], self.losses[-1]
        across, down = (self.width - 1) * _FINE / self.last, (self.height - 1) * _FINE / (high - low)
        return [(step * across, (high - loss) * down) for step, loss in points]

    def grid(self) -> Image.Image:
        """The enlarged plot with a line at each mark."""
        plot = Image.new("RGB", (self.width * _FINE, self.height * _FINE), PAPER)
        for loss in self.losses:
            ImageDraw.Draw(plot).line(self.at([(0.0, loss), (self.last, loss)]), fill=PALE, width=_FINE)
        return plot

    def write_on(self, whole: Image.Image) -> None:
        """Axes with marks, numbers and names, around the plot."""
        pen, below = ImageDraw.Draw(whole), self.top + self.height
        pen.line([(self.left, self.top), (self.left, below), (self.left + self.width, below)], fill=INK)
        for loss, text in zip(self.losses, said(self.losses), strict=True):
            row = self.top + round(self.at([(0.0, loss)])[0][1] / _FINE)
            pen.line([(self.left - 4, row), (self.left, row)], fill=INK)
            write(whole, (self.left - 8, row), text, anchor="rm")
        steps = [step for step in ticks(0.0, self.last, 9) if step <= self.last]
        for step, text in zip(steps, said(steps), strict=True):
            column = self.left + round(self.at([(step, 0.0)])[0][0] / _FINE)
            pen.line([(column, below), (column, below + 4)], fill=INK)
            write(whole, (column, below + 8), text, anchor="ma")
        write(whole, (self.left + self.width // 2, below + 30), "step", anchor="ma")
        write(whole, (self.left, self.top - 14), "loss", anchor="rs")


def _range(curves: Sequence[LossCurves], smooth: Sequence[Floats]) -> tuple[float, float]:
    """Lowest and highest loss that the axes should hold."""
    levels = np.array([one.baseline for one in curves if one.baseline is not None], dtype=np.float64)
    losses = np.concatenate([levels, *(part[:, 1] for part in (*smooth, *(one.validation for one in curves)))])
    low, high = float(losses.min()), float(losses.max())
    # Intervals of few blocks may be much wider than all that a reader looks for: cut at half the range beyond it.
    room = 0.5 * (high - low) if high > low else abs(high)
    ends = np.concatenate([one.validation[:, 2:].ravel() for one in curves])
    ends = np.clip(ends[np.isfinite(ends)], low - room, high + room)
    reach = float(min(low, ends.min(initial=low))), float(max(high, ends.max(initial=high)))
    # Losses are not negative: an axis that begins near 0, or below, had better begin with it.
    return (0.0, reach[1]) if low >= 0.0 and reach[0] < 0.5 * reach[1] else reach


def _veiled(plot: Image.Image, axes: _Axes, curves: LossCurves, colour: Colour) -> Image.Image:
    """The plot with the interval of a run's held-out losses."""
    band = curves.validation[np.isfinite(curves.validation).all(axis=1)]
    if not len(band):
        return plot
    edge = axes.at([*band[:, [0, 2]].tolist(), *band[::-1, [0, 3]].tolist()])
    veil = Image.new("L", plot.size, 0)
    pen = ImageDraw.Draw(veil)
    pen.polygon(edge, fill=60)
    if len(band) == 1:
        pen.line(edge, fill=255, width=2 * _FINE)
    return Image.composite(Image.new("RGB", plot.size, colour), plot, veil)


def _draw(pen: ImageDraw.ImageDraw, axes: _Axes, curves: LossCurves, colour: Colour) -> None:
    """A run's training losses faintly, their means, its held-out losses and its baseline."""
    smooth = _smoothed(curves.training)
    if len(smooth) < len(curves.training):
        pen.line(axes.at(curves.training.tolist()), fill=_paler(_paler(colour)), width=_FINE)
    line = axes.at(smooth.tolist())
    _line(pen, line, _paler(colour))
    if len(line) == 1:
        pen.circle(line[0], 2.5 * _FINE, fill=_paler(colour))
    if curves.baseline is not None:
        start, end = axes.at([(0.0, curves.baseline), (axes.last, curves.baseline)])
        _dashes(pen, start, end, colour)
    points = axes.at(curves.validation[:, :2].tolist())
    _line(pen, points, colour)
    for point in points if len(points) <= _DOTS else points[-1:]:
        pen.circle(point, 3.5 * _FINE, fill=colour)


def _line(pen: ImageDraw.ImageDraw, points: Points, colour: Colour) -> None:
    if len(points) > 1:
        pen.line(points, fill=colour, width=2 * _FINE, joint="curve")


def _dashes(pen: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], colour: Colour) -> None:
    """A level line of dashes, in a plot that is enlarged."""
    for column in range(int(start[0]), int(end[0]), 12 * _FINE):
        pen.line([(column, start[1]), (min(column + 7 * _FINE, end[0]), start[1])], fill=colour, width=2 * _FINE)


def _paler(colour: Colour) -> Colour:
    """Half way to paper."""
    red, green, blue = ((part + over) // 2 for part, over in zip(colour, PAPER, strict=True))
    return red, green, blue


def _short(name: str) -> str:
    return name if len(name) <= _LONG else name[: _LONG - 3] + "..."


def _write_keys(whole: Image.Image, at: tuple[int, int], curves: LossCurves, colour: Colour) -> None:
    """A key for each of a run's curves, side by side from (column, row)."""
    column, row = at
    keys = (
        ("training", len(curves.training) > 0),
        ("held-out, 95 % interval", len(curves.validation) > 0),
        ("mean of each band", curves.baseline is not None),
    )
    for text in (text for text, there in keys if there):
        whole.paste(_key(text, colour), (column, row + 1))
        write(whole, (column + 38, row), text, colour=GREY)
        column += 38 + text_width(text, 13) + 22


def _key(text: str, colour: Colour) -> Image.Image:
    """How the curve of that name is drawn, 32 × 14 px."""
    key = Image.new("RGB", (32 * _FINE, 14 * _FINE), PAPER)
    pen, start, end = ImageDraw.Draw(key), (0.0, 7.0 * _FINE), (32.0 * _FINE, 7.0 * _FINE)
    if text == "mean of each band":
        _dashes(pen, start, end, colour)
    elif text == "training":
        pen.line([start, end], fill=_paler(colour), width=2 * _FINE)
    else:
        pen.rectangle([(0, 2 * _FINE), (key.width, 12 * _FINE)], fill=_paler(_paler(colour)))
        pen.line([start, end], fill=colour, width=2 * _FINE)
        pen.circle((key.width / 2, 7.0 * _FINE), 3.5 * _FINE, fill=colour)
    return key.reduce(_FINE)
