"""Strata in figures: from the frame to the written chips, the toll of clouds, and how evenly strata are filled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from geofm_pipeline.report import words
from geofm_pipeline.report.folder import Folder, ranges, with_state
from geofm_sampling.diagnostics import effective_strata
from geofm_sampling.unit import SEASONS

COLLAPSE = 60
"""Strata above which the table shows land-cover groups first and folds the strata away."""
MOST_LINES = 20
"""Classes above which the two matrices show land-cover groups instead."""
MOST_ROWS = 600
"""Rows of the folded table; the tables of the folder hold all."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a strata table; a stage that has not run leaves None."""

    name: str
    """The class in words, e.g. `tree · climate 3`."""
    season: str
    """Months in words."""
    colour: str
    """Colour of its land-cover group."""
    frame: int
    master: int | None
    """Units that have a rank in the master draw."""
    looked: int | None
    observable: int | None
    drawn: int | None
    written: int | None
    failed: int | None
    chance: str
    """Range of π₁ in words."""
    reasons: Sequence[tuple[str, int]]
    """Why looked-at units were not observable: label and number, most frequent first."""

    @property
    def toll(self) -> float | None:
        """Share of the looked-at units that were observable."""
        return self.observable / self.looked if self.looked and self.observable is not None else None


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One kind of ground in one season, in the two matrices."""

    frame: int
    chips: int | None
    """Written chips, or drawn ones while samples.parquet is not there; None before the draw."""
    looked: int
    share: float | None
    """Observable share of the units looked at."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One kind of ground in all seasons."""

    name: str
    colour: str
    cells: Sequence[Cell]


@dataclass(frozen=True, kw_only=True)
class StrataPanel:
    """What the strata section shows."""

    rows: Sequence[Row]
    """One per stratum in the frame; at most MOST_ROWS."""
    left_out: int
    """Strata that `rows` leaves out."""
    groups: Sequence[Row]
    """Land-cover group × season, when there are more than COLLAPSE strata."""
    total: Row
    tops: Mapping[str, int]
    """Column → largest value in `rows`, for shading."""
    group_tops: Mapping[str, int]
    seasons: Sequence[str]
    """Heads of the matrices."""
    lines: Sequence[Line]
    """Lines of the matrices: classes, or land-cover groups where there are many classes."""
    top_chips: int
    """Largest number of chips in `lines`, for shading."""
    answered: bool
    """Whether units were looked at."""
    split: bool
    """Whether held-out ground exists, which these figures leave out."""
    climates: Sequence[tuple[str, str]]
    """(climate, what it is like)."""
    count: int
    """Strata of the frame, H."""
    effective: float | None
    """Effective strata of the written chips."""
    empty: Sequence[str]
    """Strata of the frame of which no chip was drawn."""


def strata_panel(folder: Folder) -> StrataPanel | None:
    """The panel, None before the plan."""
    if not folder.frame_units:
        return None
    names = {h: folder.stratum_name(h) for h in folder.frame_units}
    tally = _Tally(folder)
    south = folder.cells is not None and bool(np.median(folder.cells.lat) < 0)
    order = sorted(folder.frame_units, key=lambda h: (words.stratum_parts(names[h], h)[0] == "other", h))
    rows = [_row(folder, tally, names[h], [h], south) for h in order]
    groups = _grouped(folder, tally, names, order, south) if len(rows) > COLLAPSE else []
    shown, lines = rows[:MOST_ROWS], _lines(folder, tally, names, order)
    return StrataPanel(
        rows=shown,
        left_out=len(rows) - len(shown),
        groups=groups,
        total=_row(folder, tally, "all strata", order, south),
        tops=_tops(shown),
        group_tops=_tops(groups),
        seasons=_season_heads(folder, (words.stratum_parts(names[h], h)[0] for h in order), south),
        lines=lines,
        top_chips=max((cell.chips or 0 for line in lines for cell in line.cells), default=0),
        answered=folder.response is not None,
        split=folder.has_heldout,
        climates=_climates(folder, names.values()),
        count=len(rows),
        effective=effective_strata(list(tally.written.values())) if tally.written.total() else None,
        empty=[f"{row.name}, {row.season}" for row in rows if not row.written],
    )


class _Tally:
    """Counts per stratum number of every stage that has run."""

    def __init__(self, folder: Folder) -> None:
        response, samples = folder.training_response, folder.training_samples
        self.answered, self.published = response is not None, samples is not None
        self.states: dict[int, Counter[str]] = {}
        self.drawn, self.written, self.failed = Counter[int](), Counter[int](), Counter[int]()
        self.chances, self.master = dict(folder.chances), _master(folder)
        if response is not None:
            for stratum, state, count in _pairs(response, "state"):
                self.states.setdefault(stratum, Counter())[state] += count
            # π₁ at the realised look replaces the planned one.
            self.chances |= ranges(response, "pi1")
        if samples is not None:
            self.written.update(with_state(samples, "written")["stratum"].to_pylist())
            self.failed.update(with_state(samples, "written", but=True)["stratum"].to_pylist())

    def states_of(self, strata: Sequence[int]) -> Counter[str]:
        return sum((self.states.get(h, Counter()) for h in strata), Counter[str]())


def _master(folder: Folder) -> Counter[int]:
    """Training units with a rank, by stratum; later waves of a part go on with the ranks of its first."""
    found = Counter[int]()
    first = {wave.part: wave.number for wave in reversed(folder.waves)}
    for record in (folder.records[number] for number in first.values() if number in folder.records):
        units = record.items("master_units")[: len(record.items("names"))]
        found.update({h: int(n) for h, n in enumerate(units) if isinstance(n, int)})
    return found


def _pairs(table: pa.Table, column: str) -> list[tuple[int, str, int]]:
    counted = table.select(["stratum", column]).group_by(["stratum", column]).aggregate([([], "count_all")])
    columns = (counted[name].to_pylist() for name in ("stratum", column, "count_all"))
    return [(int(h), str(value), int(n)) for h, value, n in zip(*columns, strict=True)]


def _row(folder: Folder, tally: _Tally, name: str, strata: Sequence[int], south: bool) -> Row:
    """The row of some strata together; `name` is that of the first, or says what they have in common."""
    states, answered, published = tally.states_of(strata), tally.answered, tally.published
    head, season = words.stratum_parts(name, strata[0])
    drawn = states["drawn"]
    chances = [tally.chances[h] for h in strata if h in tally.chances]
    reasons = Counter({key: states[key] for key in words.STATE_LABELS if states[key]})
    return Row(
        name=words.class_words(head),
        season=words.season_words(folder.strata, head, season, south) if len(strata) == 1 else "",
        colour=words.group_colour(head.split("/")[0]),
        frame=sum(folder.frame_units[h] for h in strata),
        master=sum(tally.master[h] for h in strata) if tally.master else None,
        looked=states.total() if answered else None,
        observable=drawn + states["observable"] if answered else None,
        drawn=drawn if answered else None,
        written=sum(tally.written[h] for h in strata) if published else None,
        failed=sum(tally.failed[h] for h in strata) if published else None,
        chance=words.span(min(low for low, _ in chances), max(high for _, high in chances)) if chances else "–",
        reasons=[(words.STATE_LABELS[key], count) for key, count in reasons.most_common()],
    )


def _grouped(
    folder: Folder, tally: _Tally, names: Mapping[int, str], order: Sequence[int], south: bool
) -> Sequence[Row]:
    """One row per land-cover group, over climates and seasons."""
    members: dict[str, list[int]] = {}
    for h in order:
        members.setdefault(words.stratum_parts(names[h], h)[0].split("/")[0], []).append(h)
    return [_row(folder, tally, name, strata, south) for name, strata in members.items()]


def _tops(rows: Sequence[Row]) -> dict[str, int]:
    columns = ("frame", "master", "looked", "observable", "drawn", "written", "failed")
    return {name: max((getattr(row, name) or 0 for row in rows), default=0) for name in columns}


def _season_heads(folder: Folder, classes: Iterable[str], south: bool) -> list[str]:
    """Months of each season where the whole frame has one calendar, else what the season means."""
    known, heads = set(classes), []
    for season in range(SEASONS):
        spans = {words.season_words(folder.strata, name, season, south) for name in known}
        heads.append(spans.pop() if len(spans) == 1 else words.SEASON_NAMES[season])
    return heads


def _lines(folder: Folder, tally: _Tally, names: Mapping[int, str], order: Sequence[int]) -> list[Line]:
    """One line per class, or per land-cover group where there are many classes; at most MOST_LINES."""
    found: dict[str, list[list[int]]] = {}
    fold = len({words.stratum_parts(names[h], h)[0] for h in order}) > MOST_LINES
    for h in order:
        head, season = words.stratum_parts(names[h], h)
        found.setdefault(head.split("/")[0] if fold else head, [[] for _ in range(SEASONS)])[season].append(h)
    return [
        Line(
            name=words.class_words(head),
            colour=words.group_colour(head.split("/")[0]),
            cells=[_cell(folder, tally, strata) for strata in seasons],
        )
        for head, seasons in list(found.items())[:MOST_LINES]
    ]


def _cell(folder: Folder, tally: _Tally, strata: Sequence[int]) -> Cell:
    states = tally.states_of(strata)
    looked = states.total()
    chips = sum(tally.written[h] for h in strata) if tally.published else states["drawn"]
    return Cell(
        frame=sum(folder.frame_units[h] for h in strata),
        chips=chips if tally.answered or tally.published else None,
        looked=looked,
        share=(states["drawn"] + states["observable"]) / looked if looked else None,
    )


def _climates(folder: Folder, names: Iterable[str]) -> list[tuple[str, str]]:
    """The climates that some stratum is named after."""
    if folder.strata is None or not folder.strata.climate.statistics:
        return []
    climate, parts = folder.strata.climate, {part for name in names for part in name.split("/")}
    named = [i for i in range(len(climate.centroids)) if f"c{i}" in parts]
    return [(f"climate {i}", words.climate_words(climate, i)) for i in named]
