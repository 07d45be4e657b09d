"""Held-out ground: which blocks were kept out of training, how far they lie from it, and what was drawn there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from scipy.spatial import cKDTree

from geofm_pipeline.report import svg, words
from geofm_pipeline.report.folder import Folder, of_split, with_state
from geofm_pipeline.report.geography import Sheet
from geofm_pipeline.report.ground import HELD_OUT, NEITHER, TRAINING
from geofm_pipeline.report.maps import Entry, Map

EARTH_KM = 6371.0
COLOURS = {TRAINING: "#5b9a6f", HELD_OUT: "#8a4fa3", NEITHER: "#d8c9a6"}
_NAMES = {TRAINING: "training", HELD_OUT: "held out", NEITHER: "buffer: neither"}
_MOST_LISTED = 40


@dataclass(frozen=True, kw_only=True)
class HeldOutLine:
    """One stratum on held-out ground."""

    name: str
    frame: int
    """Units of the stratum in held-out blocks."""
    looked: int | None
    observable: int | None
    drawn: int | None
    written: int | None


@dataclass(frozen=True, kw_only=True)
class HeldOutPanel:
    """What the section shows."""

    blocks: int
    """Blocks of the frame."""
    held: int
    """Held-out ones among them."""
    shares: Sequence[tuple[str, str, str, str]]
    """(split, colour, ground in km², share of the ground)."""
    block_km: float | None
    buffer_km: float | None
    chips: int | None
    """Written held-out chips."""
    nearest_km: float | None
    """Least distance between the centres of a training and a held-out chip."""
    lines: Sequence[HeldOutLine]
    left_out: int
    """Strata that `lines` leaves out."""
    missing: Sequence[str]
    """Strata of the training ground without held-out units: nothing can be said about them."""


def heldout_panel(folder: Folder) -> HeldOutPanel | None:
    """The panel; None where no ground was held out."""
    cells = folder.cells
    if cells is None or not folder.has_heldout:
        return None
    design = folder.records[folder.waves[0].number].part("design") if folder.records else folder.card.part("asked")
    area = {split: float(cells.area_km2[cells.split == split].sum()) for split in COLOURS}
    held = folder.units_of(HELD_OUT)
    strata = sorted(held)
    return HeldOutPanel(
        blocks=int(np.unique(cells.block).size),
        held=int(np.unique(cells.block[cells.split == HELD_OUT]).size),
        shares=[
            (_NAMES[s], COLOURS[s], words.number(area[s]), words.share(area[s], sum(area.values()))) for s in COLOURS
        ],
        block_km=design.number("block_km"),
        buffer_km=design.number("buffer_km"),
        chips=None if folder.samples is None else with_state(folder.samples_of(HELD_OUT), "written").num_rows,
        nearest_km=_nearest_km(folder),
        lines=_lines(folder, strata[:_MOST_LISTED]),
        left_out=max(0, len(strata) - _MOST_LISTED),
        missing=[_name(folder, h) for h in sorted(set(folder.frame_units) - set(strata))],
    )


def _name(folder: Folder, stratum: int) -> str:
    head, season = words.stratum_parts(folder.stratum_name(stratum), stratum)
    south = folder.cells is not None and bool(np.median(folder.cells.lat) < 0)
    return f"{words.class_words(head)}, {words.season_words(folder.strata, head, season, south)}"


def _lines(folder: Folder, strata: Sequence[int]) -> list[HeldOutLine]:
    """Counts of every stage on held-out ground."""
    counts: dict[str, dict[int, int] | None] = dict.fromkeys(("looked", "observable", "drawn", "written"))
    if folder.response is not None:
        response = of_split(folder.response, HELD_OUT)
        stratum = response["stratum"].to_numpy()
        seen = response["observable"].to_numpy(zero_copy_only=False)
        drawn = np.array(response["state"].to_pylist(), dtype=object) == "drawn"
        counts |= {"looked": _count(stratum), "observable": _count(stratum[seen]), "drawn": _count(stratum[drawn])}
    if folder.samples is not None:
        written = with_state(folder.samples_of(HELD_OUT), "written")
        counts["written"] = _count(written["stratum"].to_numpy())
    frame = folder.units_of(HELD_OUT)

    def of(name: str, stratum: int) -> int | None:
        found = counts[name]
        return None if found is None else found.get(stratum, 0)

    return [
        HeldOutLine(
            name=_name(folder, h),
            frame=frame[h],
            looked=of("looked", h),
            observable=of("observable", h),
            drawn=of("drawn", h),
            written=of("written", h),
        )
        for h in strata
    ]


def _count(strata: np.ndarray) -> dict[int, int]:
    found, number = np.unique(strata, return_counts=True)
    return dict(zip(found.tolist(), number.tolist(), strict=True))


def _nearest_km(folder: Folder) -> float | None:
    """Least distance between a training and a held-out chip, centre to centre along the ground."""
    if folder.samples is None:
        return None
    training, heldout = (with_state(folder.samples_of(split), "written") for split in (TRAINING, HELD_OUT))
    if not training.num_rows or not heldout.num_rows:
        return None
    points = []
    for table in (training, heldout):
        east, north = (np.radians(table[name].to_numpy()) for name in ("lon", "lat"))
        points.append(np.column_stack([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)]))
    chord = float(np.min(np.asarray(cKDTree(points[0]).query(points[1])[0])))
    return 2 * EARTH_KM * float(np.arcsin(min(chord / 2, 1.0)))


def split_map(folder: Folder, sheet: Sheet) -> Map | None:
    """Training ground, held-out blocks and the buffer between them; None where no ground was held out."""
    cells = folder.cells
    if cells is None or not folder.has_heldout:
        return None
    order = list(COLOURS)
    codes = np.select([cells.split == split for split in order], [i + 1 for i in range(len(order))], 0).astype(np.uint8)
    drawn: list[Markup] = [sheet.raster(codes, list(COLOURS.values()))]
    if folder.samples is not None:
        for split, colour in ((TRAINING, "#12432a"), (HELD_OUT, "#2d0f3a")):
            drawn.append(_dots(sheet, folder, split, colour))
    area = {split: float(cells.area_km2[cells.split == split].sum()) for split in order}
    return Map(
        title="The split: ground for training and ground for evaluation",
        reading="Whole blocks are held out for evaluation; no chip is drawn from the buffer around them, so that "
        "training and evaluation do not show neighbouring ground. Dots are chips.",
        picture=sheet.page("Map of training ground, held-out blocks and buffers", drawn),
        legend=[
            Entry(label=_NAMES[split], colour=COLOURS[split], figure=words.share(area[split], sum(area.values())))
            for split in order
            if area[split] > 0
        ],
    )


def _dots(sheet: Sheet, folder: Folder, split: int, colour: str) -> Markup:
    """Chips of a split, at most some hundreds of them."""
    assert folder.cells is not None, "a sheet is made of cells"
    at = np.unique(folder.cells.place(with_state(folder.samples_of(split), "written")["unit"].to_numpy()))
    at = at[at >= 0][:: max(1, at.size // 600)]
    radius = float(np.clip(sheet.cell_edge * 0.14, 1.4, 4.0))
    places = zip(sheet.x(sheet.lon[at]).tolist(), sheet.y(sheet.lat[at]).tolist(), strict=True)
    return svg.group(
        [svg.element("circle", cx=round(x, 1), cy=round(y, 1), r=radius) for x, y in places],
        fill=colour,
        class_="dots",
    )
