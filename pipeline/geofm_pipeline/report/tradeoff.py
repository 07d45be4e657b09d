"""Coverage against precision: the q-frontier, rarefaction and how often the same ground was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from geofm_pipeline.report import svg, words
from geofm_pipeline.report.charts import Chart
from geofm_pipeline.report.diagnosis import Diagnosis, Tradeoff
from geofm_sampling.frontier import ENOUGH, Point

_SHOWN = (0.0, 0.25, 0.5, 0.75, 1.0)
_LINES = (
    ("effective", "effective strata, share of all", "curve-a"),
    ("enough", f"strata with {ENOUGH} samples or more", "curve-b"),
    ("inflation", "error of an area average, × proportional", "curve-c"),
)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One exponent in the table."""

    power: str
    chosen: bool
    effective: float
    enough: float
    smallest: int
    empty: int
    inflation: float


@dataclass(frozen=True, kw_only=True)
class TradeoffPanel:
    """What the section shows; parts are None or empty where their stage has not run."""

    choices: Sequence[Choice]
    strata: int
    samples: int
    waves: int
    """Waves that asked for the samples."""
    allocation: str
    picture: Markup | None
    legend: Sequence[tuple[str, str]]
    """(class of the curve, what it shows)."""
    curve: Markup | None
    """Rarefaction."""
    half: tuple[int, float, float] | None
    """Half the chips, the strata they would show, and those of all."""
    repeats: Sequence[tuple[int, int]]
    """(chips on a place, places)."""


def tradeoff_panel(found: Diagnosis) -> TradeoffPanel | None:
    """The panel; None before the plan."""
    trade = found.tradeoff
    if trade is None and found.curve is None:
        return None
    return TradeoffPanel(
        choices=_choices(trade) if trade is not None else [],
        strata=found.strata,
        samples=trade.samples if trade is not None else 0,
        waves=trade.waves if trade is not None else 0,
        allocation=trade.allocation if trade is not None else "",
        picture=_frontier(trade, found.strata) if trade is not None else None,
        legend=[(class_, said) for _, said, class_ in _LINES],
        curve=_rarefaction(found) if found.curve is not None else None,
        half=_half(found),
        repeats=list(found.repeats.items()),
    )


def _choices(trade: Tradeoff) -> list[Choice]:
    wanted = sorted({*_SHOWN, nearest(trade).power})
    return [_choice(point, trade) for point in trade.points if point.power in wanted]


def nearest(trade: Tradeoff) -> Point:
    """The point of the dataset's exponent."""
    return min(trade.points, key=lambda point: abs(point.power - trade.power))


def _choice(point: Point, trade: Tradeoff) -> Choice:
    return Choice(
        power=f"{point.power:g}",
        chosen=point is nearest(trade),
        effective=point.effective,
        enough=point.enough,
        smallest=point.smallest,
        empty=point.empty,
        inflation=point.inflation,
    )


def _frontier(trade: Tradeoff, strata: int) -> Markup:
    """Three curves over q; the chosen q is marked."""
    powers = [point.power for point in trade.points]
    values = {
        "effective": [point.effective / max(strata, 1) for point in trade.points],
        "enough": [point.enough for point in trade.points],
        "inflation": [point.inflation for point in trade.points],
    }
    top = max(1.0, *values["inflation"])
    chart = Chart(x=(0.0, 1.0), y=(0.0, 1.05 * top), x_title="q: 0 equal, 1 proportional", y_title="share, or factor")
    drawn = [chart.upright(trade.power, "ours")]
    for name, said, class_ in _LINES:
        drawn.append(chart.curve(powers, values[name], class_, said))
        drawn.append(chart.dot(trade.power, float(np.interp(trade.power, powers, values[name])), class_, said))
    return chart.page("What each exponent of the allocation gives", drawn)


def _rarefaction(found: Diagnosis) -> Markup:
    assert found.curve is not None, "asked for only where there is a curve"
    sizes, expected = found.curve
    chart = Chart(
        x=(0.0, float(sizes[-1])),
        y=(0.0, max(1.0, 1.1 * found.strata)),
        x_title="chips, picked at random among the written ones",
        y_title="strata seen",
    )
    all_of = svg.group([chart.curve([0, sizes[-1]], [found.strata, found.strata], "limit", "all strata of the frame")])
    label = chart.words(0.02 * sizes[-1], found.strata * 1.03, f"all {words.number(found.strata)} strata of the frame")
    return chart.page(
        "Strata seen by a smaller sample", [all_of, label, chart.curve(sizes, expected, "curve-a", "seen")]
    )


def _half(found: Diagnosis) -> tuple[int, float, float] | None:
    if found.curve is None:
        return None
    sizes, expected = found.curve
    middle = sizes[-1] // 2
    return middle, float(np.interp(middle, sizes, expected)), float(expected[-1])
