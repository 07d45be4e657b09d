"""Phase 1 of a response: look at units in order of rank until enough of every group are observable.

Whether a unit is in depends on its rank and on what the looks say, never on the order in which looks come back or
on how they are batched. A group is looked at in *rank blocks*: the planned first phase, then a quarter of what was
looked at so far, until more than enough units are observable or its master draw is used up. What such a group
cannot give is allocated to the others of its split, which may look further.

**Where phase 1 ends.** Stopping as soon as enough units are observable would favour lucky looks: 1/π* would
overstate the observable ground (by 4 % with 15 samples a stratum, by much more with two). So phase 1 is the planned
look, or, if that does not hold more than n observable units, all ranks before the (n + 1)-th observable one. Seen
from the last rank backwards that is a stopping time, the share of observable units is a martingale in that direction
(for units in random order), and a total estimated with k, the number of ranks in phase 1, is unbiased: inverse
sampling (Haldane 1945) with a least look. Ranks looked at beyond k take no part.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.allocation import allocate
from geofm_sampling.looking import STATE_NAMES, Asked, Found, examine
from geofm_sampling.plan import PlanRecord
from geofm_sampling.settling import Settled
from geofm_sampling.sizes import heldout_power, plan_power

Look = Callable[[NDArray[np.uint64]], pa.Table]
"""Given ascending unit ids, returns their LOOK rows: one per granule of the owner tile within reach, with covered =
clear = 0 where it misses the cell and NaN where its Fmask cannot be read. Must depend on the ids only."""

Progress = Callable[[int, int, int], None]
"""Called after each batch with the units looked at, those observable, and the samples wanted."""

LOOK_BATCH = 100_000
"""Units per call of a look; bounds its memory, changes no result."""


class Looked:
    """Units looked at so far, in plan rows, and what was found; grows by whole rank blocks."""

    def __init__(self, plan: pa.Table, frame: pa.Table, record: PlanRecord) -> None:
        self.unit = plan["unit"].to_numpy()
        self.record = record
        self.plan = plan
        self.first_row = np.cumsum(record.master_units) - record.master_units
        self.count = np.zeros(record.frame_units.size, dtype=np.int64)
        self.observable = np.zeros(record.frame_units.size, dtype=np.int64)
        self.is_observable = np.zeros(self.unit.size, dtype=np.bool_)
        self.rows: list[NDArray[np.int64]] = []
        self.found: list[Found] = []
        self._frame = frame.select(["unit", "season_start", "season_end"]).combine_chunks()

    def look_until(self, wanted: NDArray[np.int64], look: Look, progress: Progress | None) -> None:
        """Look at whole rank blocks until every group has more than `wanted` observable units, or no rank left."""
        while (blocks := self._next_blocks(wanted)).any():
            rows = _ranges(self.first_row + self.count, blocks)
            rows = rows[np.argsort(self.unit[rows])]
            for start in range(0, rows.size, LOOK_BATCH):
                self._add(rows[start : start + LOOK_BATCH], look)
                if progress is not None:
                    progress(sum(r.size for r in self.rows), int(self.observable.sum()), int(wanted.sum()))
            self.count += blocks

    def _next_blocks(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """Size of each group's next rank block, 0 where it needs none."""
        first = np.maximum(self.record.first_look, wanted)
        size = np.where(self.count == 0, first, np.maximum(self.count // 4, 1))
        needed = (wanted > 0) & (self.observable <= wanted)
        return np.where(needed, np.minimum(size, self.record.master_units - self.count), 0)

    def phase_1(self, wanted: NDArray[np.int64]) -> NDArray[np.int64]:
        """k, ranks of phase 1: the planned look, or all before the (wanted + 1)-th observable unit if more."""
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
        group = np.searchsorted(self.first_row, rows, side="right") - 1
        seen = found.state == STATE_NAMES.index("observable")
        self.observable += np.bincount(group[seen], minlength=self.observable.size)
        self.is_observable[rows[seen]] = True
        self.rows.append(rows)
        self.found.append(found)

    def settled(self, frame: pa.Table, wanted: NDArray[np.int64]) -> Settled:
        """The units of phase 1 in the order of the plan, joined with what the frame knows of them."""
        rows = np.concatenate(self.rows)
        order = np.argsort(rows)
        group = np.searchsorted(self.first_row, rows[order], side="right") - 1
        order = order[rows[order] - self.first_row[group] < self.phase_1(wanted)[group]]
        rows = rows[order]
        place = np.searchsorted(frame["unit"].to_numpy(), self.unit[rows])
        return Settled(
            unit=self.unit[rows],
            stratum=self.plan["stratum"].to_numpy()[rows],
            split=self.plan["split"].to_numpy()[rows],
            group=self.record.group(self.plan)[rows],
            rank=self.plan["rank"].to_numpy()[rows],
            chance=self.plan["p_split"].to_numpy()[rows],
            lon=frame["lon"].to_numpy()[place],
            lat=frame["lat"].to_numpy()[place],
            found=self.found,
            place=order,
        )


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


def look_for_all(looked: Looked, look: Look, progress: Progress | None) -> NDArray[np.int64]:
    """Look until the totals are reached or every group is exhausted; the final samples per group, shape (G,).

    Each round either ends or caps one more group at what it can give, so there are at most G rounds.
    """
    wanted, caps = looked.record.target, looked.record.master_units.copy()
    while True:
        looked.look_until(wanted, look, progress)
        short = looked.observable < wanted
        if not short.any():
            return wanted
        caps[short] = looked.observable[short]
        wanted = _reallocated(looked.record, wanted, caps)


def _reallocated(record: PlanRecord, wanted: NDArray[np.int64], caps: NDArray[np.int64]) -> NDArray[np.int64]:
    """The planned totals of each split within the caps.

    Nobody gives back what was allocated before: the deficit only goes to groups that can still grow.
    """
    result = np.zeros_like(wanted)
    for split in range(record.splits):
        here = record.split == split
        total = min(int(record.target[here].sum()), int(caps[here].sum()))
        power = heldout_power(caps[here], total) if split else plan_power(record.design)
        floor = np.minimum(wanted, caps)[here]
        result[here] = allocate(record.frame_units[here], total, power=power, floor=floor, caps=caps[here])
    return result


def _ranges(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """starts[0], starts[0] + 1, …, starts[0] + lengths[0] − 1, starts[1], …"""
    ends = np.cumsum(lengths)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(int(lengths.sum()))
