"""The response: who is in, with which dates and probabilities, settled in rank order.

Phase 1 looks (:mod:`geofm_sampling.phase_one`), phase 2 draws among the observable units with sizes that say how
much new they bring (:mod:`geofm_sampling.phase_two`), and each drawn unit gets its dates
(:mod:`geofm_sampling.settling`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.design import Design
from geofm_sampling.looking import STATE_NAMES
from geofm_sampling.phase_one import Look, Looked, Progress, look_for_all
from geofm_sampling.phase_two import Inform, second_phase
from geofm_sampling.plan import PlanRecord, plan_record
from geofm_sampling.settling import response_table
from geofm_sampling.tables import FRAME, PLAN

LOOKED = b"geofm_looked"
"""Key of the response's schema metadata: JSON of `ranks` looked at in each group, looks ahead included, and how many
of them were `observable`."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What screening settled."""

    table: pa.Table
    """RESPONSE rows of phase 1, the first k ranks of each group; `shard` and `row` are −1, the caller assigns them."""
    strata: pa.Table
    """One row per group: stratum, split, name, frame, master, start, first_look, target, looked (k), looked_ahead
    (ranks looked at beyond k), observable, wanted, drawn, spread (S_h), and one column per reason in tables.STATES
    from no_scene."""
    said: tuple[str, ...]
    """What the user should know beyond the plan's notes, one sentence each."""

    def strata_rows(self) -> list[dict[str, int | str]]:
        """The rows of `strata` that have units, for a report."""
        return [row for row in self.strata.to_pylist() if row["frame"]]


def respond(
    plan: pa.Table,
    frame: pa.Table,
    design: Design,
    look: Look,
    *,
    inform: Inform | None = None,
    existing: NDArray[np.float32] | None = None,
    progress: Progress | None = None,
) -> Response:
    """Settle who is in, with which dates and probabilities.

    An archive that gives nothing yields a response without drawn units, not an error.

    Parameters
    ----------
    plan, frame : PLAN and the FRAME that it was drawn from
    look : screens units for clear dates
    inform : reads one spectral overview per observable unit; needed where the design asks for information
    existing : descriptors of existing data (earlier waves, other datasets), shape (k, D); None where there is none

    Raises
    ------
    ValueError
        When plan, frame and design do not belong together, a look breaks its contract, or the design needs
        information and `inform` is missing.
    """
    plan, frame, record = PLAN.check(plan), FRAME.check(frame), plan_record(plan)
    if record.design != design:
        raise ValueError("the plan was drawn for another design; draw it again or use the design it holds")
    if design.information and inform is None:
        raise ValueError("the design asks for information on units, but nothing was given that reads it: give `inform`")
    looked = Looked(plan, frame, record)
    wanted = look_for_all(looked, look, progress)
    settled = looked.settled(frame, wanted)
    second = second_phase(settled, record, wanted, inform if design.information else None, existing)
    table = response_table(settled, second, record)
    ranks = {"ranks": looked.count.tolist(), "observable": looked.observable.tolist()}
    table = table.replace_schema_metadata({**plan.schema.metadata, LOOKED: json.dumps(ranks)})
    strata = _strata_table(looked, table, wanted).append_column("spread", pa.array(second.spread))
    return Response(table=table, strata=strata, said=(*_said(record, strata), *second.said))


def _strata_table(looked: Looked, table: pa.Table, wanted: NDArray[np.int64]) -> pa.Table:
    """Counts per group, from the frame to the drawn, with the reasons of those that are not observable."""
    record = looked.record
    state = table["state"].combine_chunks().dictionary_encode()
    number = np.array([STATE_NAMES.index(name) for name in state.dictionary.to_pylist()], dtype=np.int64)
    key = record.group(table) * len(STATE_NAMES) + number[state.indices.to_numpy(zero_copy_only=False)]
    counts = np.bincount(key, minlength=record.frame_units.size * len(STATE_NAMES)).reshape(-1, len(STATE_NAMES))
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
    held = record.design.heldout_samples if record.splits > 1 else 0
    if drawn.sum() < record.target.sum():
        said.append(
            f"{record.design.samples + held} samples were asked for, {of['observable'].sum()} of the "
            f"{of['looked'].sum()} units looked at are observable: {drawn.sum()} drawn."
        )
    short = np.flatnonzero(drawn < record.target)
    if short.size:
        names = ", ".join(record.group_names[h] for h in short[:5]) + (", …" if short.size > 5 else "")
        others = "; other strata took over what they could" if np.any(drawn > record.target) else ""
        said.append(f"Strata with fewer observable units than samples wanted: {short.size} ({names}){others}.")
    if np.any((drawn < record.target) & (record.start + record.master_units < record.frame_units)):
        said.append(
            "A master draw ended before its stratum of the frame did; a longer one (master_least) may find more."
        )
    if of["unreadable"].any():
        said.append(f"{of['unreadable'].sum()} units could not be judged: no granule of their season could be read.")
    return tuple(said)
