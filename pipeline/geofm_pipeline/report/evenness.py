"""Is the sample spread evenly, and does it look like the region? Voronoi balance and energy distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from geofm_pipeline.report import svg
from geofm_pipeline.report.charts import Chart, histogram
from geofm_pipeline.report.diagnosis import Diagnosis, Likeness
from geofm_sampling.balance import Balance

LEAST_SAMPLES = 10
"""Sampled units below which a figure on their spread says nothing."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """One line of the table on spatial balance."""

    name: str
    """Which units."""
    units: int
    """Units that were measured."""
    strata: str
    """Strata that could be measured, of those with units."""
    ratio: float
    """Unevenness over that of random redraws."""
    rank: str
    """How many random redraws are at least as even."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """One line of the table on covariates."""

    name: str
    frame: float
    """Distance to the frame."""
    target: float
    """Distance to the declared target."""


@dataclass(frozen=True, kw_only=True)
class EvennessPanel:
    """What the section shows."""

    spreads: Sequence[Spread]
    picture: Markup | None
    """Unevenness of the units looked at among the redraws."""
    redraws: int
    subsampled: bool
    """Whether balance was measured with a part of the frame."""
    distances: Sequence[Distance]
    random: int
    """Simple random samples that the distances are compared with."""
    covariates: int
    cut: bool
    """Whether distances were computed with a part of the units."""
    bars: Markup | None
    """The distances as bars."""


def evenness_panel(found: Diagnosis) -> EvennessPanel | None:
    """The panel; None before anything was looked at."""
    measured = [
        (name, balance)
        for name, balance in (("looked at", found.looked_balance), ("written chips", found.chip_balance))
        if balance is not None and balance.samples >= LEAST_SAMPLES
    ]
    if not measured and found.likeness is None:
        return None
    return EvennessPanel(
        spreads=[_spread(name, balance) for name, balance in measured],
        picture=_redraws(*measured[0]) if measured else None,
        redraws=measured[0][1].redraws.size if measured else 0,
        subsampled=any(balance.subsampled for _, balance in measured),
        distances=_distances(found.likeness) if found.likeness is not None else [],
        random=found.likeness.random_frame.size if found.likeness is not None else 0,
        covariates=found.likeness.covariates if found.likeness is not None else 0,
        cut=found.likeness is not None and found.likeness.cut,
        bars=_bars(found.likeness) if found.likeness is not None else None,
    )


def _spread(name: str, balance: Balance) -> Spread:
    as_even = round(balance.rank * balance.redraws.size)
    return Spread(
        name=name,
        units=balance.samples,
        strata=f"{balance.groups} of {balance.groups + balance.skipped}",
        ratio=balance.ratio,
        rank=f"{as_even} of {balance.redraws.size}",
    )


def _redraws(name: str, balance: Balance) -> Markup:
    """Histogram of the redraws with the sample marked."""
    top = 1.05 * max(float(balance.redraws.max()), balance.observed)
    low = 0.9 * min(float(balance.redraws.min()), balance.observed)
    bars = histogram(balance.redraws, low, top)
    chart = Chart(
        x=(low, top),
        y=(0.0, 1.15 * max(count for _, count in bars)),
        x_title="unevenness: 0 would be perfectly even",
        y_title="random redraws",
        height=150.0,
    )
    drawn = []
    for edge, count in bars:
        left, up = chart.at(edge, count)
        right, base = chart.at(edge + (top - low) / len(bars), 0.0)
        drawn.append(svg.bar(left + 0.5, up, right - left - 1, base - up, "bar", f"{count} redraws"))
    drawn.append(chart.upright(balance.observed, "ours"))
    right_half = balance.observed > (low + top) / 2
    across, _ = chart.at(balance.observed, 0.0)
    drawn.append(
        svg.text(across + (-6 if right_half else 6), 28, "this sample", anchor="end" if right_half else "start",
                 class_="strong")
    )  # fmt: skip
    return chart.page(f"Unevenness of the units {name} among {balance.redraws.size} random redraws", drawn)


def _distances(likeness: Likeness) -> list[Distance]:
    ours = [Distance(name=name, frame=frame, target=target) for name, frame, target in likeness.lines]
    random = Distance(
        name="simple random, as many",
        frame=float(likeness.random_frame.mean()),
        target=float(likeness.random_target.mean()),
    )
    return [*ours, random]


def _bars(likeness: Likeness) -> Markup:
    """Distances to the frame and to the target, in pairs; whiskers hold 95 % of the random redraws."""
    rows = _distances(likeness)
    left, width, step = 200.0, 250.0, 46.0
    ends = [float(values[int(0.975 * (values.size - 1))]) for values in (likeness.random_frame, likeness.random_target)]
    top = max([*(max(row.frame, row.target) for row in rows), *ends]) or 1.0
    drawn = []
    for i, row in enumerate(rows):
        y = 8 + i * step
        drawn.append(svg.text(left - 10, y + 18, row.name, anchor="end"))
        for value, class_, down, to in (
            (row.frame, "bar", 0, "the frame"),
            (row.target, "bar target", 15, "the target"),
        ):
            said = f"{row.name}: {value:.4f} from {to}"
            drawn.append(svg.bar(left, y + down, max(1.0, width * value / top), 12, class_, said))
            drawn.append(svg.text(left + width + 10, y + down + 10, f"{value:.3f}"))
    for down, values in ((6, likeness.random_frame), (21, likeness.random_target)):
        y = 8 + (len(rows) - 1) * step + down
        low, high = (left + width * float(values[int(q * (values.size - 1))]) / top for q in (0.025, 0.975))
        drawn.append(svg.line(low, y, high, y, "whisker"))
    title = "Energy distances of covariates to the frame and to the declared target"
    return svg.picture(left + width + 50, 12 + len(rows) * step, title, drawn)
