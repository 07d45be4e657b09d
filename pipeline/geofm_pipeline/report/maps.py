"""The maps: ground by land cover, first-phase probability, what became of the units looked at, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from markupsafe import Markup
from numpy.typing import NDArray

from geofm_pipeline.report import svg, words
from geofm_pipeline.report.folder import Folder
from geofm_pipeline.report.geography import Sheet, png
from geofm_sampling.hashing import hashed_uniform
from geofm_sampling.unit import unpack_units

RAMP = ("#fde9b0", "#f9c97c", "#f0a05f", "#dd7358", "#b84c63", "#86356c", "#52265f")
"""Low to high; every step differs in lightness, for print and for colour-blind eyes."""
GROUND = "#9aa3ab"
"""Ground behind points, half transparent on the page."""
_SHADES = 49
MOST_DOTS = 2500
"""Points of a map drawn one by one; of more, large layers become pixels of a raster."""
FEW_DOTS = 600
"""Points of a layer that are drawn one by one on any map: a few chips must not drown among many looks."""
_Layer: TypeAlias = "tuple[NDArray[np.uint64], str, str]"

OUTCOMES = (
    ("written", "written", "#1a7f5a"),
    ("drawn", "drawn, not written yet", "#2f6fb5"),
    ("observable", "clear enough, not drawn", "#7fb8e6"),
    ("out", "looked at, not observable", "#8a8f98"),
    ("failed", "drawn, but its pixels could not be read", "#d1352b"),
)
"""(key, words, colour), in the order of the legend."""
REASONS = (
    ("cloud", "#5b7fa6"),
    ("gap_rule", "#c98a2b"),
    ("partial", "#7b5ea7"),
    ("no_coverage", "#a9a9a9"),
    ("no_scene", "#4a4a4a"),
    ("unreadable", "#d1352b"),
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of a legend."""

    label: str
    """What the colour means."""
    colour: str
    """Colour of the swatch, #rrggbb."""
    figure: str = ""
    """How much there is of it, in words."""


@dataclass(frozen=True, kw_only=True)
class Map:
    """A map with its title, legend and the sentence on how to read it."""

    title: str
    """What the map shows."""
    reading: str
    """How to read it."""
    picture: Markup
    """The map as inline SVG."""
    legend: Sequence[Entry]
    """Colours; empty where `ramp` is the legend."""
    ramp: tuple[str, str] | None = None
    """Words for both ends of RAMP where the legend is one."""


def maps(folder: Folder, sheet: Sheet | None) -> list[Map]:
    """All maps that the folder has data for, but that of the split."""
    if sheet is None:
        return []
    drawn = [_land_cover(folder, sheet), _chance(folder, sheet), _outcomes(folder, sheet), _reasons(folder, sheet)]
    return [found for found in drawn if found is not None]


def sheet_of(folder: Folder) -> Sheet | None:
    """The sheet that all maps of a folder share; None without cells."""
    cells = folder.cells
    if cells is None or not cells.ground.size:
        return None
    return Sheet.of(cells, tuple(np.unique(unpack_units(cells.ground << np.uint64(10)).tile).tolist()))


def _land_cover(folder: Folder, sheet: Sheet) -> Map:
    cells = folder.cells
    assert cells is not None, "a sheet is made of cells"
    colours = [words.group_colour(name) for name in cells.groups]
    area = np.bincount(cells.land_cover, weights=cells.area_km2, minlength=len(cells.groups))
    order = np.argsort(-area)
    codes = np.minimum(cells.land_cover + 1, 255).astype(np.uint8)
    return Map(
        title="The frame: which ground can be drawn, by land cover",
        reading="Each square is one place; its colour is the land cover of at least half of it. Blank ground was not "
        "in the region, in no tile of the catalogue, or declared out of the frame.",
        picture=sheet.page("Map of the frame by land-cover group", [sheet.raster(codes, colours)]),
        legend=[
            Entry(
                label=words.group_words(cells.groups[i]),
                colour=colours[i],
                figure=words.share(float(area[i]), float(area.sum())),
            )
            for i in order.tolist()
            if area[i] > 0
        ],
    )


def _chance(folder: Folder, sheet: Sheet) -> Map | None:
    cells = folder.cells
    assert cells is not None, "a sheet is made of cells"
    known = np.isfinite(cells.chance) & (cells.chance > 0)
    if not known.any():
        return None
    low, high = float(cells.chance[known].min()), float(cells.chance[known].max())
    picture = sheet.raster(_chance_codes(cells.chance, known, low, high), _palette(_SHADES))
    alike = high <= low * 1.001
    return Map(
        title="The first draw: the chance of being looked at (π₁)",
        reading="Darker squares were more likely to be looked at; rare kinds of ground get a higher chance than common "
        "ones, and the chance is known for every unit. (As planned; mean over the seasons of a place.)"
        + (" Blank ground lies in the buffer around held-out blocks." if folder.has_heldout else ""),
        picture=sheet.page("Map of the first-phase inclusion probability", [picture]),
        legend=[Entry(label=f"{words.probability(low)} everywhere", colour=RAMP[-1])] if alike else [],
        ramp=None if alike else (words.probability(low), words.probability(high)),
    )


def _chance_codes(chance: NDArray[np.float64], known: NDArray[np.bool_], low: float, high: float) -> NDArray[np.uint8]:
    """Palette index of each cell on a logarithmic scale, 0 where the chance is not known or nothing."""
    place = np.ones(chance.shape)
    if high > low * 1.001:
        place[known] = np.log(chance[known] / low) / np.log(high / low)
    return np.where(known, 1 + np.round(np.clip(place, 0, 1) * (_SHADES - 1)), 0).astype(np.uint8)


def _outcomes(folder: Folder, sheet: Sheet) -> Map | None:
    if folder.response is None:
        return None
    units, kinds = folder.response["unit"].to_numpy(), _fates(folder, folder.response)
    colours = {key: colour for key, _, colour in OUTCOMES}
    order = ("out", "observable", "drawn", "written", "failed")
    layers = [(units[kinds == key], colours[key], "dot-" + key) for key in order]
    return Map(
        title="The sample: what became of every unit that was looked at",
        reading="Each dot is one place in one season, moved a little so that the seasons of a place stand apart; dark "
        "green dots are chips in the store.",
        picture=sheet.page("Map of looked-at, observable, drawn and failed units", _dots(folder, sheet, layers)),
        legend=[
            Entry(label=label, colour=colour, figure=words.number(int((kinds == key).sum())))
            for key, label, colour in OUTCOMES
            if (kinds == key).any()
        ],
    )


def _fates(folder: Folder, response: pa.Table) -> NDArray[np.str_]:
    """Key in OUTCOMES of each unit of the response."""
    seen = response["observable"].to_numpy(zero_copy_only=False)
    fates = np.where(response["shard"].to_numpy() >= 0, "drawn", np.where(seen, "observable", "out")).astype("U10")
    if folder.samples is not None:
        units = response["unit"].to_numpy()
        states = np.array(folder.samples["state"].to_pylist(), dtype=object)
        published = folder.samples["unit"].to_numpy()
        fates[np.isin(units, published[states == "written"])] = "written"
        fates[np.isin(units, published[states != "written"])] = "failed"
    return fates


def _reasons(folder: Folder, sheet: Sheet) -> Map | None:
    if folder.response is None:
        return None
    states = np.array(folder.response["state"].to_pylist(), dtype=object)
    units = folder.response["unit"].to_numpy()
    present = [(key, colour) for key, colour in REASONS if (states == key).any()]
    if not present:
        return None
    layers = [(units[states == key], colour, "dot-out") for key, colour in present]
    return Map(
        title="What was missed: why units were not observable",
        reading="Each dot is a unit that was looked at and could not be used, coloured by the first reason that "
        "applies; where dots of one colour crowd, the sample says little about that ground and season.",
        picture=sheet.page("Map of units that were not observable, by reason", _dots(folder, sheet, layers)),
        legend=[
            Entry(label=words.STATE_WORDS[key], colour=colour, figure=words.number(int((states == key).sum())))
            for key, colour in present
        ],
    )


def _palette(steps: int) -> list[str]:
    """RAMP in finer steps."""
    stops = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in RAMP], dtype=np.float64)
    at = np.linspace(0, len(RAMP) - 1, steps)
    channels = [np.interp(at, np.arange(len(RAMP)), stops[:, band]).round().astype(int) for band in range(3)]
    return ["#{:02x}{:02x}{:02x}".format(*rgb) for rgb in zip(*channels, strict=True)]


def _dots(folder: Folder, sheet: Sheet, layers: Sequence[_Layer]) -> list[Markup]:
    """Ground, then one layer of points per (units, colour, class), the last on top."""
    cells = folder.cells
    assert cells is not None, "a sheet is made of cells"
    ground = svg.group([sheet.raster(np.ones(cells.ground.size, dtype=np.uint8), [GROUND])], class_="ground")
    few = [layer for layer in layers if layer[0].size <= FEW_DOTS]
    many = [layer for layer in layers if layer[0].size > FEW_DOTS]
    if sum(units.size for units, _, _ in layers) <= MOST_DOTS:
        return [ground, *(_circles(folder, sheet, layer) for layer in layers)]
    return [ground, _dot_raster(folder, sheet, many), *(_circles(folder, sheet, layer) for layer in few)]


def _circles(folder: Folder, sheet: Sheet, layer: _Layer) -> Markup:
    """One circle per unit."""
    units, colour, kind = layer
    radius = float(np.clip(sheet.cell_edge * 0.16, 1.8, 5.0))
    circles = [
        svg.element("circle", cx=round(float(x), 1), cy=round(float(y), 1), r=radius)
        for x, y in zip(*_positions(folder, sheet, units), strict=True)
    ]
    return svg.group(circles, fill=colour, class_=f"dots {kind}")


def _dot_raster(folder: Folder, sheet: Sheet, layers: Sequence[_Layer]) -> Markup:
    """Points of two by two pixels; where two meet, the later layer wins."""
    rows, columns = sheet.cell_of_pixel.shape
    indices = np.zeros((rows + 1, columns + 1), dtype=np.uint8)
    for number, (units, _, _) in enumerate(layers, start=1):
        x, y = _positions(folder, sheet, units)
        column = np.clip((x / sheet.width * columns).astype(np.int64), 0, columns - 1)
        row = np.clip((y / sheet.height * rows).astype(np.int64), 0, rows - 1)
        for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
            indices[row + down, column + right] = number
    image = png(np.ascontiguousarray(indices[:rows, :columns]), [colour for _, colour, _ in layers])
    return svg.element(
        "image", href=image, x=0.0, y=0.0, width=sheet.width, height=sheet.height, preserveAspectRatio="none"
    )


def _positions(
    folder: Folder, sheet: Sheet, units: NDArray[np.uint64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Map position of each unit: a hashed place in its cell, so that the seasons of a cell do not hide each other."""
    cells = folder.cells
    assert cells is not None, "a sheet is made of cells"
    at = cells.place(units)
    units, at = units[at >= 0], at[at >= 0]
    spread = 0.64 * sheet.cell_edge if sheet.cell_edge > 6 else 0.0
    aside = (hashed_uniform(0, "report/x", units) - 0.5) * spread
    below = (hashed_uniform(0, "report/y", units) - 0.5) * spread
    return sheet.x(sheet.lon[at]) + aside, sheet.y(sheet.lat[at]) + below
