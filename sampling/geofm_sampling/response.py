"""Phase 2: look at units in order of rank, find the observable ones, draw among them, give them dates.

Whether a unit is in depends on its rank and on what the looks say, never on the order in which looks come back or
on how they are batched. A stratum is looked at in *rank blocks*: the planned first phase, then a quarter of what was
looked at so far, until more than enough units are observable or its master draw is used up. What such a stratum
cannot give is allocated to the others, which may look further.

**Where phase 1 ends.** Stopping as soon as enough units are observable would favour lucky looks: 1/π* would
overstate the observable ground (by 4 % with 15 samples a stratum, by much more with two). So phase 1 is the planned
look, or, if that does not hold more than n_h observable units, all ranks before the (n_h + 1)-th observable one. Seen
from the last rank backwards that is a stopping time, the share of observable units is a martingale in that direction
(for units in random order), and a total estimated with k_h, the number of ranks in phase 1, is unbiased: inverse
sampling (Haldane 1945) with a least look. Ranks looked at beyond k_h take no part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.allocation import allocate
from geofm_sampling.design import Design
from geofm_sampling.looking import STATE_NAMES, Asked, Found, examine
from geofm_sampling.master import PlanRecord, plan_record
from geofm_sampling.settling import Settled, response_table
from geofm_sampling.tables import FRAME, PLAN

Look = Callable[[NDArray[np.uint64]], pa.Table]
"""Given ascending unit ids, returns their LOOK rows: one per granule of the owner tile within reach, with covered =
clear = 0 where it misses the cell and NaN where its Fmask cannot be read. Must depend on the ids only."""

Progress = Callable[[int, int, int], None]
"""Called after each batch with the units looked at, those observable, and the samples wanted."""

LOOK_BATCH = 100_000
"""Units per call of a look; bounds its memory, changes no result."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What screening settled."""

    table: pa.Table
    """RESPONSE rows of phase 1, the first k_h ranks; `shard` and `row` are −1, the caller assigns them."""
    strata: pa.Table
    """One row per stratum: stratum, name, frame, master, first_look, target, looked (k_h), looked_ahead (ranks that
    were looked at beyond k_h), observable, wanted, drawn, and one column per reason in tables.STATES from no_scene."""
    said: tuple[str, ...]
    """What the user should know beyond the plan's notes, one sentence each."""

    def strata_rows(self) -> list[dict[str, int | str]]:
        """The rows of `strata` that have units, for a report."""
        return [row for row in self.strata.to_pylist() if row["frame"]]


class _Looked:
    """Units looked at so far, in plan rows, and what was found; grows by whole rank blocks."""

    def __init__(self, plan: pa.Table, frame: pa.Table, record: PlanRecord) -> None:
        self.unit = plan["unit"].to_numpy()
        self.record = record
        self.first_row = np.cumsum(record.master_units) - record.master_units
        self.count = np.zeros(len(record.names), dtype=np.int64)
        self.observable = np.zeros(len(record.names), dtype=np.int64)
        self.is_observable = np.zeros(self.unit.size, dtype=np.bool_)
        self.rows: list[NDArray[np.int64]] = []
        self.found: list[Found] = []
        self._frame = frame.select(["unit", "season_start", "season_end"]).combine_chunks()

    def look_until(self, wanted: NDArray[np.int64], look: Look, progress: Progress | None) -> None:
        """Look at whole rank blocks until every stratum has more than `wanted` observable units, or no rank left."""
        while (blocks := self._next_blocks(wanted)).any():
            rows = _ranges(self.first_row + self.count, blocks)
            rows = rows[np.argsort(self.unit[rows])]
            for start in range(0, rows.size, LOOK_BATCH):
                self._add(rows[start : start + LOOK_BATCH], look)
                if progress is not None:
                    progress(sum(r.size for r in self.rows), int(self.observable.sum()), int(wanted.sum()))
            self.count += blocks

    def _next_blocks(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Size of each stratum's next rank block, 0 where it needs none."""
        first = np.maximum(self.record.first_look, wanted)
        size = np.where(self.count == 0, first, np.maximum(self.count // 4, 1))
        needed = (wanted > 0) & (self.observable <= wanted)
        return np.where(needed, np.minimum(size, self.record.master_units - self.count), 0)

    def phase_1(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """k_h: the planned look, or all ranks before the (wanted + 1)-th observable unit if those are more."""
        result = self.count.copy()
        for h in np.flatnonzero((self.observable > wanted) & (wanted > 0)).tolist():
            start = self.first_row[h]
            ranks = np.flatnonzero(self.is_observable[start : start + self.count[h]])
            result[h] = max(int(self.record.first_look[h]), int(ranks[wanted[h]]))
        return result

    def _add(self, rows: NDArray[np.int64], look: Look) -> None:
        unit = self.unit[rows]
        start, end = anchor_days(self._frame, unit)
        asked = Asked(unit=unit, season_start=start, season_end=end)
        found = examine(asked, look(unit), self.record.design)
        stratum = np.searchsorted(self.first_row, rows, side="right") - 1
        seen = found.state == STATE_NAMES.index("observable")
        self.observable += np.bincount(stratum[seen], minlength=self.observable.size)
        self.is_observable[rows[seen]] = True
        self.rows.append(rows)
        self.found.append(found)


def anchor_days(frame: pa.Table, units: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last anchor day of some units of a FRAME, both shape (n,), days since 1970-01-01.

    Raises
    ------
    ValueError
        When a unit is not in the frame, or the frame is not sorted by unit.
    """
    known = frame["unit"].to_numpy()
    place = np.minimum(np.searchsorted(known, units), max(known.size - 1, 0))
    if not np.array_equal(known[place], units):
        raise ValueError("the plan holds units that the frame does not: give the frame that the plan was drawn from")
    days = (frame["season_start"].to_numpy()[place], frame["season_end"].to_numpy()[place])
    return days[0].astype(np.int64), days[1].astype(np.int64)


def respond(
    plan: pa.Table, frame: pa.Table, design: Design, look: Look, *, progress: Progress | None = None
) -> Response:
    """Settle who is in, with which dates and probabilities.

    An archive that gives nothing yields a response without drawn units, not an error.

    Raises
    ------
    ValueError
        When plan, frame and design do not belong together, or the look breaks its contract.
    """
    plan, frame, record = PLAN.check(plan), FRAME.check(frame), plan_record(plan)
    if record.design != design:
        raise ValueError("the plan was drawn for another design; draw it again or use the design it holds")
    looked = _Looked(plan, frame, record)
    wanted = _look_for_all(looked, look, progress)
    settled = _settled(looked, plan, frame, looked.phase_1(wanted))
    table = response_table(settled, record, wanted).replace_schema_metadata(plan.schema.metadata)
    strata = _strata_table(looked, table, wanted)
    return Response(table=table, strata=strata, said=_said(record, strata))


def _look_for_all(looked: _Looked, look: Look, progress: Progress | None) -> NDArray[np.int64]:
    """Look until the total is reached or every stratum is exhausted; the final samples per stratum, Σ ≤ N.

    Each round either ends or caps one more stratum at what it can give, so there are at most H rounds.
    """
    record, design = looked.record, looked.record.design
    total, wanted, caps = int(record.target.sum()), record.target, record.master_units.copy()
    while True:
        looked.look_until(wanted, look, progress)
        short = looked.observable < wanted
        if not short.any():
            return wanted
        caps[short] = looked.observable[short]
        total = min(total, int(caps.sum()))
        # Nobody gives back what was allocated before: the deficit only goes to strata that can still grow.
        wanted = allocate(record.frame_units, total, power=design.power, floor=np.minimum(wanted, caps), caps=caps)


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """starts[0], starts[0] + 1, …, starts[0] + lengths[0] − 1, starts[1], …"""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(int(lengths.sum()))


def _settled(looked: _Looked, plan: pa.Table, frame: pa.Table, phase_1: NDArray[np.int64]) -> Settled:
    """The units of phase 1 in the order of the plan, joined with what the frame knows of them."""
    rows = np.concatenate(looked.rows)
    order = np.argsort(rows)
    inside = plan["rank"].to_numpy()[rows[order]] < phase_1[plan["stratum"].to_numpy()[rows[order]]]
    order = order[inside]
    rows = rows[order]
    unit = looked.unit[rows]
    place = np.searchsorted(frame["unit"].to_numpy(), unit)
    return Settled(
        unit=unit,
        stratum=plan["stratum"].to_numpy()[rows],
        rank=plan["rank"].to_numpy()[rows],
        eligible=frame["p_eligible"].to_numpy()[place],
        lon=frame["lon"].to_numpy()[place],
        lat=frame["lat"].to_numpy()[place],
        found=looked.found,
        place=order,
    )


def _strata_table(looked: _Looked, table: pa.Table, wanted: NDArray[np.int64]) -> pa.Table:
    """Counts per stratum, from the frame to the drawn, with the reasons of those that are not observable."""
    record = looked.record
    state = table["state"].combine_chunks().dictionary_encode()
    number = np.array([STATE_NAMES.index(name) for name in state.dictionary.to_pylist()], dtype=np.int64)
    key = table["stratum"].to_numpy() * len(STATE_NAMES) + number[state.indices.to_numpy(zero_copy_only=False)]
    counts = np.bincount(key, minlength=len(record.names) * len(STATE_NAMES)).reshape(-1, len(STATE_NAMES))
    of = dict(zip(STATE_NAMES, counts.T, strict=True))
    drawn, spare = of.pop("drawn"), of.pop("observable")
    columns = {
        "looked": counts.sum(axis=1),
        "looked_ahead": looked.count - counts.sum(axis=1),
        "observable": drawn + spare,
        "wanted": wanted,
        "drawn": drawn,
    }
    result = record.table()
    for name, values in {**columns, **of}.items():
        result = result.append_column(name, pa.array(values.astype(np.int64)))
    return result


def _said(record: PlanRecord, strata: pa.Table) -> tuple[str, ...]:
    of = {name: strata[name].to_numpy() for name in strata.column_names if name != "name"}
    drawn, said = of["drawn"], list[str]()
    if drawn.sum() < record.target.sum():
        said.append(
            f"{record.design.samples} samples were asked for, {of['observable'].sum()} of the {of['looked'].sum()} "
            f"units looked at are observable: {drawn.sum()} drawn."
        )
    short = np.flatnonzero(drawn < record.target)
    if short.size:
        names = ", ".join(record.names[h] for h in short[:5]) + (", …" if short.size > 5 else "")
        others = "; other strata took over what they could" if np.any(drawn > record.target) else ""
        said.append(f"Strata with fewer observable units than samples wanted: {short.size} ({names}){others}.")
    if np.any((drawn < record.target) & (record.master_units < record.frame_units)):
        said.append(
            "A master draw ended before its stratum of the frame did; a longer one (master_least) may find more."
        )
    if of["unreadable"].any():
        said.append(f"{of['unreadable'].sum()} units could not be judged: no granule of their season could be read.")
    return tuple(said)
