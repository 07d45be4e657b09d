"""The self-test as a reader sees it: what is known, what the weights give back, and how many misses are usual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from geofm_pipeline.report import svg, words
from geofm_pipeline.report.diagnosis import Diagnosis, SelfTest
from geofm_sampling.diagnostics import binomial_limits
from geofm_sampling.selftest import Z_95, Check

_WIDEST = 4.0
"""Standard errors at the edge of the picture; what lies further is drawn there."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One variable of one phase."""

    name: str
    unit: str
    known: str
    """Known value in words."""
    estimate: str
    """What the weights give."""
    error: str
    """Standard error."""
    z: float
    """Standard errors between the two."""
    misses: bool


@dataclass(frozen=True, kw_only=True)
class Phase:
    """The test of one phase."""

    title: str
    reading: str
    """What is compared with what."""
    lines: Sequence[Line]
    verdict: str
    """Misses and what is usual, in a sentence."""
    usual: bool
    """Whether the misses are within the binomial limits."""
    picture: Markup


@dataclass(frozen=True, kw_only=True)
class SelfTestPanel:
    """What the section shows."""

    phases: Sequence[Phase]
    share: float
    """Share of the frame that takes part."""


def selftest_panel(found: Diagnosis) -> SelfTestPanel | None:
    """The panel; None before anything was looked at, or where nothing varies."""
    test = found.selftest
    if test is None:
        return None
    phases = [
        _phase(title, reading, checks, test)
        for title, reading, checks in (
            (
                "The look: do the units looked at stand for the frame?",
                "Known are the area of all training ground of the strata looked at, and averages over it from maps; "
                "estimates come from the units looked at, each weighted with the number of units it stands for.",
                test.looked,
            ),
            (
                "The draw: do the drawn units stand for all observable ones?",
                "Here the observable units of the look are what is known, and the drawn ones must give their area and "
                "averages back with their weights.",
                test.drawn,
            ),
        )
        if checks
    ]
    return SelfTestPanel(phases=phases, share=test.share) if phases else None


def misses_within(checks: Sequence[Check]) -> bool:
    """Whether no more checks miss than binomial limits allow."""
    return sum(check.misses for check in checks) <= binomial_limits(len(checks))[1]


def _phase(title: str, reading: str, checks: Sequence[Check], test: SelfTest) -> Phase:
    missed, (_, most) = sum(check.misses for check in checks), binomial_limits(len(checks))
    all_cover = words.percent(0.95 ** len(checks))
    verdict = (
        f"{missed} of {words.count_of(len(checks), 'interval')} {'misses' if missed == 1 else 'miss'}; up to {most} "
        f"would be usual. {len(checks)} independent 95\u202f% intervals all cover only {all_cover} of the time, so a "
        "miss or two is no alarm; months hang together, so misses come in company."
    )
    return Phase(
        title=title,
        reading=reading,
        lines=[_line(check, test) for check in checks],
        verdict=verdict,
        usual=misses_within(checks),
        picture=_picture(title, checks),
    )


def _line(check: Check, test: SelfTest) -> Line:
    unit = dict(zip(test.labels, test.units, strict=True))[check.name]
    return Line(
        name=check.name,
        unit="share of ground" if unit == "share" else unit,
        known=_value(check.known, unit),
        estimate=_value(check.estimate, unit),
        error=_value(check.error, unit),
        z=check.z,
        misses=check.misses,
    )


def _value(value: float, unit: str) -> str:
    if unit == "share":
        return words.percent(value)
    digits = {"km²": 0, "mm": 1, "°C": 2}.get(unit, 3)
    return words.number(value, digits)


def _picture(title: str, checks: Sequence[Check]) -> Markup:
    """One dot per variable on an axis of standard errors; the band holds 19 of 20."""
    left, width, step = 168.0, 300.0, 21.0
    height = step * len(checks)

    def across(z: float) -> float:
        return left + width * (min(max(z, -_WIDEST), _WIDEST) + _WIDEST) / (2 * _WIDEST)

    band = svg.bar(across(-Z_95), 6, across(Z_95) - across(-Z_95), height, "covered")
    drawn = [band, svg.line(across(0), 6, across(0), 6 + height, "diagonal")]
    for i, check in enumerate(checks):
        y = 6 + step * (i + 0.5)
        said = svg.element("title", f"{check.name}: {check.z:+.2f} standard errors")
        class_ = "miss" if check.misses else "mean"
        drawn += [svg.text(left - 8, y + 4, check.name, anchor="end"), svg.line(left, y, left + width, y, "grid")]
        drawn.append(svg.element("circle", said, cx=across(check.z), cy=y, r=5.0, class_=class_))
    for z in range(-4, 5, 2):
        drawn.append(svg.text(across(z), height + 22, f"{z:+d}".replace("-", "\u2212") if z else "0", anchor="middle"))
    drawn.append(svg.text(left + width / 2, height + 40, "standard errors from the known value", anchor="middle"))
    return svg.picture(left + width + 14, height + 48, title, drawn)
