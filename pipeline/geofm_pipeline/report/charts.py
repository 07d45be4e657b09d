"""Small line charts: axes with round marks, curves, points and bands, as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike

from geofm_pipeline.report import svg, words

_LEFT, _TOP, _BOTTOM, _RIGHT = 62.0, 14.0, 46.0, 16.0
_SPACE = 70.0
"""Map units that the words of a mark take."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart of values in `x` and `y`, both linear."""

    x: tuple[float, float]
    """Smallest and largest value across."""
    y: tuple[float, float]
    """Smallest and largest value upwards."""
    x_title: str
    y_title: str
    width: float = 440.0
    height: float = 220.0
    percent: bool = False
    """Whether y is a share."""

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Place of a value in the picture; what lies outside is moved to the edge."""
        across = (x - self.x[0]) / max(self.x[1] - self.x[0], 1e-300)
        up = (y - self.y[0]) / max(self.y[1] - self.y[0], 1e-300)
        return _LEFT + min(max(across, 0.0), 1.0) * self.width, _TOP + (1 - min(max(up, 0.0), 1.0)) * self.height

    def curve(self, x: ArrayLike, y: ArrayLike, class_: str, title: str) -> Markup:
        """A line through values."""
        points = " ".join(
            "{:.1f},{:.1f}".format(*self.at(a, b)) for a, b in zip(np.asarray(x), np.asarray(y), strict=True)
        )
        return svg.element("polyline", svg.element("title", title), points=points, class_=f"curve {class_}")

    def steps(self, x: ArrayLike, y: ArrayLike, class_: str, title: str) -> Markup:
        """A distribution function: it keeps its value until the next one."""
        across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        return self.curve(
            np.concatenate([[self.x[0]], np.repeat(across, 2), [self.x[1]]]),
            np.concatenate([[0.0, 0.0], np.repeat(up, 2)]),
            class_,
            title,
        )

    def dot(self, x: float, y: float, class_: str, title: str, radius: float = 5.0) -> Markup:
        """A point with words under the pointer."""
        across, up = self.at(x, y)
        return svg.element("circle", svg.element("title", title), cx=across, cy=up, r=radius, class_=class_)

    def upright(self, x: float, class_: str) -> Markup:
        """A line from bottom to top."""
        across, _ = self.at(x, 0.0)
        return svg.line(across, _TOP, across, _TOP + self.height, class_)

    def words(self, x: float, y: float, said: str, *, anchor: str = "start", class_: str = "label") -> Markup:
        """Words at a value."""
        across, up = self.at(x, y)
        return svg.text(across, up, said, anchor=anchor, class_=class_)

    def page(self, title: str, children: Iterable[Markup]) -> Markup:
        """The finished chart."""
        frame = svg.bar(_LEFT, _TOP, self.width, self.height, "plot")
        below = _TOP + self.height
        titles = [svg.text(_LEFT + self.width / 2, below + 38, self.x_title, anchor="middle")]
        turned = svg.text(0, 0, self.y_title, anchor="middle")
        titles.append(svg.group([turned], transform=f"translate(14 {_TOP + self.height / 2:g}) rotate(-90)"))
        drawn = [frame, *self._marks(), *children, *titles]
        return svg.picture(_LEFT + self.width + _RIGHT, below + _BOTTOM, title, drawn, class_="figure chart")

    def _marks(self) -> list[Markup]:
        drawn = []
        for value in marks(*self.x, most=max(2, int(self.width / _SPACE))):
            across, _ = self.at(value, self.y[0])
            drawn += [svg.line(across, _TOP, across, _TOP + self.height, "grid")]
            drawn += [svg.text(across, _TOP + self.height + 17, number(value), anchor="middle")]
        for value in marks(*self.y, most=5):
            _, up = self.at(self.x[0], value)
            said = words.percent(value) if self.percent else number(value)
            drawn += [svg.line(_LEFT, up, _LEFT + self.width, up, "grid")]
            drawn += [svg.text(_LEFT - 6, up + 4, said, anchor="end")]
        return drawn


def marks(low: float, high: float, *, most: int) -> list[float]:
    """Round numbers from `low` to `high`, some `most` of them.

    >>> marks(0.0, 1.0, most=4)
    [0.0, 0.5, 1.0]
    """
    if not high > low:
        return [low]
    rough = (high - low) / most
    size = 10.0 ** np.floor(np.log10(rough))
    step = float(next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999))
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [round(step * i, 12) for i in range(first, last + 1)]


def number(value: float) -> str:
    """A mark in as few digits as it needs."""
    return words.number(value) if value == round(value) else f"{value:g}".replace("-", "\u2212")


def histogram(values: Sequence[float] | np.ndarray, low: float, high: float, bins: int = 24) -> list[tuple[float, int]]:
    """(left edge, count) of equal bins between two values."""
    counts, edges = np.histogram(np.asarray(values), bins=bins, range=(low, high))
    return list(zip(edges[:-1].tolist(), counts.tolist(), strict=True))
