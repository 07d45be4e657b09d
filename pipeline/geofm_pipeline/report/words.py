"""Numbers, days, strata and states in words that a reader who is no statistician understands."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping
from datetime import date, timedelta

import numpy as np

from geofm_pipeline.progress import human_bytes
from geofm_sampling.climate import Climate
from geofm_sampling.seasons import MONTHS, month_names
from geofm_sampling.strata import OTHER, Strata
from geofm_sampling.unit import SEASONS

STATE_WORDS: Mapping[str, str] = {
    "no_scene": "no image was taken in the season",
    "no_coverage": "images exist, none shows the place",
    "unreadable": "the quality masks could not be read",
    "partial": "only the edge of a swath, too little of the place",
    "cloud": "never clear enough: clouds, shadows and their surroundings",
    "gap_rule": "a clear date, but not enough clear ones at the right intervals",
}
"""geofm_sampling.tables.STATES below `observable`, as a reader says them."""

STATE_LABELS: Mapping[str, str] = {
    "no_scene": "no image",
    "no_coverage": "not shown",
    "unreadable": "unreadable",
    "partial": "swath edge",
    "cloud": "clouds",
    "gap_rule": "intervals",
}
"""The same in one or two words, for tables and legends."""

GROUP_COLOURS: Mapping[str, str] = {
    "tree": "#3d8b4f",
    "shrub": "#b48a4a",
    "grass": "#a3c75c",
    "crop": "#e9c54d",
    "built": "#c8473f",
    "bare": "#cbb795",
    "snow_ice": "#a8d3ea",
    "water": "#3f7dbd",
    "wetland": "#4cb3a6",
    "moss": "#b7a3d6",
    "mixed": "#8f8799",
    "unknown": "#a0a0a0",
    "any": "#7c9cb5",
}
"""Land-cover group → colour that can be told from the others on white and on near-black."""
_TURN = 0.381966
"""Share of the colour circle between the classes n and n + 1 of a foreign legend: the golden angle keeps them apart."""

GLOSSARY = (
    ("Unit", "One square of ground, the size of a chip, in one season of one year: what is drawn or not drawn."),
    ("Chip", "The pixels of a drawn unit: several dates, six spectral bands and the quality mask of each date."),
    (
        "Stratum",
        "A group of similar units: same land cover, same climate, same season. Each stratum has its own draw. The "
        "tables name it like tree/c3/s2: trees, climate 3, season 2 (the warmest quarter, or the wettest where it is "
        "always warm).",
    ),
    ("Frame", "The list of all units that could be drawn."),
    ("Observable", "A unit with enough clear dates at the right intervals. A fixed rule, not an opinion."),
    ("π₁", "First-phase inclusion probability: the chance, known beforehand, that a unit is looked at."),
    ("π₂", "Second-phase probability: the chance that an observable unit is drawn, given what the look found."),
    (
        "π*",
        "π₁ × π₂. Because π₂ depends on the look, π* is not the marginal inclusion probability; 1/π* is the "
        "double-expansion weight.",
    ),
    (
        "Effective strata",
        "How many equally filled strata would be as varied as the strata written: exp(−Σ p ln p) over their shares.",
    ),
    (
        "Held-out block",
        "A square of ground that training never sees, kept for evaluation, with a buffer around it that nobody uses.",
    ),
    (
        "Voronoi balance",
        "Give every unit to its nearest sampled one: the more equal these shares are, the more evenly the sample is "
        "spread. 1 is as uneven as simple random sampling, 0 perfectly even.",
    ),
    (
        "Energy distance",
        "How far apart two clouds of points are, all variables together: 0 means that both have the same distribution.",
    ),
    (
        "Design effect",
        "The variance of an average under this design, divided by that of as many simple random samples.",
    ),
    ("q", "Exponent of the allocation: a stratum of N units gets samples in proportion to N to the power of q."),
    (
        "Spectral entropy",
        "How varied the colours of a place are, in bits: low over open water or bare sand, high over mixed ground.",
    ),
    ("Granule", "One HLS image: one tile (110 km square) on one day, from Landsat (L30) or Sentinel-2 (S30)."),
    ("Fmask", "The quality mask of a granule: cloud, shadow and what lies beside them, snow, water, no data."),
    (
        "Tombstone",
        "A drawn unit whose pixels could not be read; its place in the store stays empty, nothing replaces it.",
    ),
)
"""Term → one or two sentences."""

SEASON_NAMES = ("low season", "rising season", "peak season", "falling season")
"""Local seasons: 2 is the warmest quarter of the year, the wettest where it is always warm."""


def number(value: float | None, digits: int = 0) -> str:
    """A number with thousands separated by commas, `–` for None."""
    if value is None:
        return "–"
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "\u2212")


def finite(value: float | None, digits: int = 0) -> str:
    """Like :func:`number`, `–` for what is no number."""
    return number(value if value is not None and np.isfinite(value) else None, digits)


def share(part: float | None, whole: float | None) -> str:
    """`12 %`, `0.4 %`, or `–` where the whole is nothing."""
    return percent(part / whole) if part is not None and whole else "–"


def percent(value: float | None) -> str:
    """A share of 1 as `12 %` or `0.4 %`; small shares keep a digit, almost all is not all, a trace not nothing."""
    if value is None or not np.isfinite(value):
        return "–"
    if 0 < value < 0.0005:
        return "<\u202f0.1\u202f%"
    if 0.99 < value < 1:
        return f"{np.floor(value * 1000) / 10:.1f}\u202f%"
    return f"{100 * value:.1f}\u202f%" if 0 < value < 0.0995 else f"{100 * value:.0f}\u202f%"


def probability(value: float | None) -> str:
    """A probability with three significant digits."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.3g}"


def span(low: float, high: float) -> str:
    """A range of probabilities, one number where both ends read the same."""
    ends = probability(low), probability(high)
    return ends[0] if ends[0] == ends[1] else f"{ends[0]} – {ends[1]}"


def size(count: float | None) -> str:
    """Bytes as `3.2 MB`, `–` for None."""
    return "–" if count is None else human_bytes(count)


def count_of(value: int, one: str, many: str | None = None) -> str:
    """`1 chip`, `7 chips`."""
    return f"{number(value)} {one if value == 1 else many or one + 's'}"


def day(value: int) -> str:
    """Days since 1970-01-01 as `5 Jun 2022`."""
    try:
        found = date(1970, 1, 1) + timedelta(value)
    except OverflowError:
        return "–"
    return f"{found.day} {MONTHS[found.month - 1]} {found.year}"


def degrees(value: float, axis: str) -> str:
    """`12.5° W`: `axis` is `lon` or `lat`."""
    if axis == "lon":
        value = (value + 180.0) % 360.0 - 180.0
    letter = ("E" if value > 0 else "W") if axis == "lon" else ("N" if value > 0 else "S")
    return f"{abs(value):g}°" if value in (0.0, -180.0) else f"{abs(value):g}° {letter}"


def place(lon: float, lat: float) -> str:
    """`38.21° N, 122.40° W`."""
    return f"{degrees(round(lat, 2), 'lat')}, {degrees(round(lon, 2), 'lon')}"


def group_colour(name: str) -> str:
    """Colour of a land-cover group, the same in every report."""
    if name in GROUP_COLOURS:
        return GROUP_COLOURS[name]
    digits = "".join(filter(str.isdigit, name))
    number = int(digits) if digits else sum(name.encode())
    red, green, blue = colorsys.hls_to_rgb(number * _TURN % 1.0, (0.45, 0.58, 0.68)[number % 3], 0.5)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def group_words(name: str) -> str:
    """`snow and ice` for `snow_ice`; `all land cover` without a map."""
    return {"snow_ice": "snow and ice", "any": "all land cover", "all": "all ground"}.get(name, name.replace("_", " "))


def class_words(name: str) -> str:
    """`tree/c3` → `tree · climate 3`."""
    parts = [_part_words(part) for part in name.split("/")]
    return " · ".join(parts)


def _part_words(part: str) -> str:
    if part == OTHER:
        return "other, all rare classes"
    if part == "rest":
        return "rare climates"
    if part.startswith("c") and part[1:].isdigit():
        return f"climate {part[1:]}"
    return "climate unknown" if part == "c?" else group_words(part)


def season_words(strata: Strata | None, name: str, season: int, south: bool) -> str:
    """Months of a stratum's season where its class has one calendar, else what the season means."""
    if strata is None:
        return f"season {season}"
    starts = {strata.climate.season_starts[climate][int(south)] for climate in strata.climates_of(name)}
    if len(starts) != 1:
        return SEASON_NAMES[season]
    return month_names(starts.pop(), season).replace("-", "–")


def climate_words(climate: Climate, index: int) -> str:
    """What a climate cluster is like, from its centroid, e.g. `11 °C on average, 640 mm of rain a year`."""
    values = {
        name: mean + scale * centre
        for name, mean, scale, centre in zip(
            climate.statistics, climate.means, climate.scales, climate.centroids[index], strict=True
        )
    }
    parts = []
    if "t_mean" in values:
        parts.append(f"{number(values['t_mean'])} °C on average, {number(values['t_min'])} °C in the coldest month")
    if "p_log" in values:
        parts.append(f"{number(float(np.expm1(values['p_log'])))} mm of rain and snow a year")
    return "; ".join(parts)


def stratum_parts(name: str, stratum: int) -> tuple[str, int]:
    """Class name and season of a stratum name such as `tree/c3/s2`."""
    head, _, tail = name.rpartition("/")
    if head and tail.startswith("s") and tail[1:].isdigit():
        return head, int(tail[1:]) % SEASONS
    return name, stratum % SEASONS
