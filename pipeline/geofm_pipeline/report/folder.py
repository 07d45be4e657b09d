"""The dataset folder as the report reads it: whatever is there, and a sentence for whatever cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from geofm_pipeline.report.facts import Facts
from geofm_pipeline.report.ground import TRAINING, Cells, Group, groups_of, read_ground, split_of
from geofm_pipeline.report.stores import StoreFacts, store_facts
from geofm_pipeline.workspace import Workspace
from geofm_sampling.frame import METADATA
from geofm_sampling.strata import Strata

__all__ = ["Cells", "Folder", "Group", "Wave", "read_folder", "with_state"]

T = TypeVar("T")
_PLAN = ("stratum", "split", "pi1", "p_split", "first_look")
_SCREENING = ("granule_id", "state", "bytes", "cloud_cover", "spatial_coverage")
_SCENES = ("granule_id", "cloud_cover")


@dataclass(frozen=True, kw_only=True)
class Wave:
    """One wave: a first draw, or an extension."""

    number: int
    """From 1."""
    part: int
    """Wave that brought the part of the frame it draws from."""
    asked: int | None
    """Training samples asked for; None before its plan."""
    years: str
    """Years asked for, as they were given; empty where they were not noted."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Folder:
    """What a dataset folder holds; None or empty where a stage has not run."""

    root: Path
    card: Facts
    waves: tuple[Wave, ...]
    """At least one."""
    strata: Strata | None
    cells: Cells | None
    groups: Mapping[Group, int]
    """(part, split, stratum) → units in the frame; split −1 is buffer ground, which no draw knows."""
    chances: dict[int, tuple[float, float]]
    """Stratum number → smallest and largest planned first-phase probability of training ground."""
    first_look: int | None
    """Units in the planned first phases."""
    records: Mapping[int, Facts]
    """Wave → the record in the metadata of its plan: design, names, frame_units, target, …"""
    response: pa.Table | None
    """All waves, with the columns `wave` and `part`."""
    answered: tuple[int, ...]
    """Waves that have a response, be it one that drew nothing."""
    samples: pa.Table | None
    screening: pa.Table | None
    """Columns granule_id, state, bytes, cloud_cover, spatial_coverage."""
    scenes: pa.Table | None
    """Columns granule_id, cloud_cover."""
    stores: Mapping[int, zarr.Group]
    """Wave → its store; a wave that drew nothing has none."""
    facts: Mapping[int, StoreFacts]
    """Wave → what its store says of itself."""
    commits: dict[str, str]
    """Committed file → sha256."""
    troubles: tuple[str, ...]
    """What is there and could not be read, one sentence each."""

    def stratum_name(self, stratum: int) -> str:
        """Name of a stratum from the frozen strata, else from the card, else its number."""
        if self.strata is not None and stratum < len(self.strata.names):
            return self.strata.names[stratum]
        rows = self.card.part("plan").rows("strata")
        noted = (row.text("name") for row in rows if row.count("stratum") == stratum)
        return next(noted, None) or f"stratum {stratum}"

    @property
    def places(self) -> pa.Table | None:
        """The drawn units: samples.parquet, or the drawn rows of the response while there is none yet."""
        if self.samples is not None or self.response is None:
            return self.samples
        drawn = self.response["shard"].to_numpy() >= 0
        return self.response.filter(pa.array(drawn)) if drawn.any() else None

    @cached_property
    def frame_units(self) -> dict[int, int]:
        """Stratum number → training units in the frame."""
        return self.units_of(TRAINING)

    def units_of(self, split: int) -> dict[int, int]:
        """Stratum number → units of a split in the frame, all parts together."""
        found: dict[int, int] = {}
        for (_, group_split, stratum), units in self.groups.items():
            if group_split == split:
                found[stratum] = found.get(stratum, 0) + units
        return found

    @property
    def has_heldout(self) -> bool:
        """Whether any ground was held out, or set aside as a buffer."""
        return any(split != TRAINING for _, split, _ in self.groups)

    @cached_property
    def training_response(self) -> pa.Table | None:
        """Looked-at units of training ground."""
        return None if self.response is None else of_split(self.response, TRAINING)

    @cached_property
    def training_samples(self) -> pa.Table | None:
        """Attempted samples of training ground, unreadable ones included."""
        return None if self.samples is None else self.samples_of(TRAINING)

    def samples_of(self, split: int) -> pa.Table:
        """Attempted samples of a split; a tombstone belongs to the split of its ground."""
        assert self.samples is not None, "no samples were published"
        found = split_of(self.samples)
        if self.cells is not None:
            at = self.cells.place(self.samples["unit"].to_numpy())
            found = np.where((found < 0) & (at >= 0), self.cells.split[at], found)
        return self.samples.filter(pa.array(found == split))


def of_split(table: pa.Table, split: int) -> pa.Table:
    """Rows of a split; all rows are training where the table knows no split."""
    return table.filter(pa.array(split_of(table) == split))


def with_state(table: pa.Table, state: str, *, but: bool = False) -> pa.Table:
    """Rows of a table in a state, or all but those."""
    found = np.array(table["state"].to_pylist(), dtype=object) == state
    return table.filter(pa.array(~found if but else found, type=pa.bool_()))


def read_folder(root: Path) -> Folder:
    """Read what there is; never raises for a part that is absent or damaged."""
    space, read = Workspace(root=root), _Attempt()
    noted = read(space.commits, Facts.load) or Facts(values={})
    waves = _waves(noted)
    spaces = [Workspace(root=root, wave=wave.number, part=wave.part) for wave in waves]
    plans = {wave: plan for wave, at in zip(waves, spaces, strict=True) if (plan := read(at.plan, _plan)) is not None}
    responses = [read(at.response, pq.read_table) for at in spaces]
    # An extension without a response has decided nothing: its plan and ground count nowhere.
    decided = {wave for wave, found in zip(waves, responses, strict=True) if wave.number == 1 or found is not None}
    drawn_from = {wave: plan for wave, plan in plans.items() if wave in decided}
    parts = {at.part: at.frame for wave, at in zip(waves, spaces, strict=True) if wave in decided}
    ground = read(space.frame, lambda _: _ground(parts, drawn_from))
    return Folder(
        root=root,
        card=read(space.card, Facts.load) or Facts(values={}),
        waves=waves,
        strata=read(space.frame / "strata.json", lambda path: Strata.from_json(path.read_text(encoding="utf-8"))),
        cells=ground[0] if ground else None,
        groups=ground[1] if ground else {},
        chances=_chance_ranges(drawn_from.values()),
        first_look=_first_looks(drawn_from.values()),
        records={wave.number: _record(plan) for wave, plan in plans.items()},
        response=_responses(waves, responses),
        answered=tuple(_of_waves(waves, responses)),
        samples=read(space.samples, pq.read_table),
        screening=read(space.screening, lambda path: _tables(path.rglob("*.parquet"), _SCREENING)),
        scenes=_joined([read(at.scenes, lambda path: pq.read_table(path, columns=list(_SCENES))) for at in spaces]),
        stores=_of_waves(waves, [read(at.store, lambda path: zarr.open_group(str(path), mode="r")) for at in spaces]),
        facts=_of_waves(waves, [read(at.store, store_facts) for at in spaces]),
        commits=_commits(noted),
        troubles=tuple(dict.fromkeys(read.troubles)),
    )


class _Attempt:
    """Reads a part if it is there; a part that cannot be read is noted instead of raised."""

    def __init__(self) -> None:
        self.troubles: list[str] = []

    def __call__(self, path: Path, reader: Callable[[Path], T]) -> T | None:
        if not path.exists():
            return None
        try:
            return reader(path)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, json.JSONDecodeError) as error:
            self.troubles.append(f"{path.name} is there but could not be read: {error}")
            return None


def _waves(noted: Facts) -> tuple[Wave, ...]:
    found = [
        Wave(
            number=row.count("wave") or 1,
            part=row.count("part") or 1,
            asked=row.count("asked") or None,
            years=row.part("design").text("years") or "",
        )
        for row in noted.rows("waves")
    ]
    return tuple(found) or (Wave(number=1, part=1, asked=None, years=""),)


def _commits(noted: Facts) -> dict[str, str]:
    files = noted.part("files")
    return {name: files.text(name) or "?" for name in files.values}


def _plan(path: Path) -> pa.Table:
    present = pq.read_schema(path).names
    return pq.read_table(path, columns=[name for name in _PLAN if name in present])


def _record(plan: pa.Table) -> Facts:
    """What the plan's schema metadata says."""
    found = json.loads((plan.schema.metadata or {}).get(METADATA, b"{}"))
    return Facts(values=found if isinstance(found, dict) else {})


def _first_looks(plans: Collection[pa.Table]) -> int | None:
    """Units in the first phases; None without any plan."""
    return sum(int(np.count_nonzero(plan["first_look"].to_numpy())) for plan in plans) if plans else None


def _chance_ranges(plans: Iterable[pa.Table]) -> dict[int, tuple[float, float]]:
    """Smallest and largest planned π₁ of the training units of each stratum that are to be looked at."""
    found: dict[int, tuple[float, float]] = {}
    for plan in plans:
        for stratum, (low, high) in ranges(of_split(plan, TRAINING), "pi1").items():
            before = found.get(stratum, (low, high))
            found[stratum] = (min(low, before[0]), max(high, before[1]))
    return found


def ranges(table: pa.Table, column: str) -> dict[int, tuple[float, float]]:
    """Stratum number → smallest and largest value of a column."""
    if not table.num_rows:
        return {}
    grouped = table.select(["stratum", column]).group_by("stratum").aggregate([(column, "min"), (column, "max")])
    columns = (grouped[name].to_pylist() for name in ("stratum", f"{column}_min", f"{column}_max"))
    return {stratum: (low, high) for stratum, low, high in zip(*columns, strict=True)}


def _ground(parts: Mapping[int, Path], plans: Mapping[Wave, pa.Table]) -> tuple[Cells, dict[Group, int]] | None:
    files = {part: sorted(path.glob("[0-9]*.parquet")) for part, path in parts.items()}
    shares: dict[Group, float] = {}
    for wave, plan in plans.items():
        chance = plan["pi1"].to_numpy() / (plan["p_split"].to_numpy() if "p_split" in plan.column_names else 1.0)
        groups, number = groups_of(plan, wave.part)
        means = np.bincount(number, weights=chance) / np.maximum(np.bincount(number), 1)
        for group, mean in zip(groups, means.tolist(), strict=True):
            # Waves look at disjoint ranks of one order: their chances add up.
            shares[group] = shares.get(group, 0.0) + mean
    return read_ground(files, shares if plans else None)


def _responses(waves: Sequence[Wave], tables: Sequence[pa.Table | None]) -> pa.Table | None:
    """The responses of all waves, each row with its wave and part."""
    found = []
    for wave, table in zip(waves, tables, strict=True):
        if table is not None:
            columns = {"wave": wave.number, "part": wave.part}
            for name, value in columns.items():
                table = table.append_column(name, pa.array(np.full(table.num_rows, value, dtype=np.int16)))
            found.append(table)
    return _joined(found)


def _of_waves(waves: Sequence[Wave], found: Sequence[T | None]) -> dict[int, T]:
    return {wave.number: part for wave, part in zip(waves, found, strict=True) if part is not None}


def wave_of(table: pa.Table) -> NDArray[np.int64]:
    """Wave of each row, 1 where the table knows none; shape (n,)."""
    if "wave" not in table.column_names:
        return np.ones(table.num_rows, dtype=np.int64)
    return np.asarray(table["wave"].to_numpy(), dtype=np.int64)


def _joined(tables: Sequence[pa.Table | None]) -> pa.Table | None:
    found = [table for table in tables if table is not None]
    return pa.concat_tables(found, promote_options="permissive") if found else None


def _tables(paths: Iterable[Path], columns: Sequence[str]) -> pa.Table | None:
    """Files of one kind as one table, hidden (temporary) ones left out; None where there are none."""
    return _joined([pq.read_table(path, columns=list(columns)) for path in sorted(paths) if path.name[0] != "."])


def column(table: pa.Table, name: str) -> NDArray[np.float64] | None:
    """A column of numbers, None where the table has none of that name or knows no value of it."""
    if name not in table.column_names:
        return None
    values = np.asarray(table[name].to_numpy(zero_copy_only=False), dtype=np.float64)
    return values if np.isfinite(values).any() else None
