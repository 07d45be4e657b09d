"""What an extension finds in the folder: earlier waves, their frames, the ranks they looked at, the ground they own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.footprints import footprints
from geofm_pipeline.region import Region
from geofm_pipeline.workspace import Workspace, committed, existing_waves
from geofm_sampling.response import LOOKED
from geofm_sampling.tables import CELLS, COVARIATE_PREFIXES, LAND_COVER_PREFIX
from geofm_sampling.unit import cell_ids, ground_cells


def first_part(space: Workspace) -> Workspace:
    """The first wave, whose strata and split blocks hold for all."""
    return Workspace(root=space.root)


def strata_path(space: Workspace) -> Path:
    """The frozen strata of the frame."""
    return space.frame / "strata.json"


def earlier_waves(space: Workspace) -> list[Workspace]:
    """The waves before this one, in order."""
    return [wave for wave in existing_waves(space.root) if wave.wave < space.wave]


def last_of_part(space: Workspace) -> Workspace:
    """The wave before this one that drew from the same part of the frame."""
    return [wave for wave in earlier_waves(space) if wave.part == space.part][-1]


@dataclass(frozen=True, kw_only=True)
class LookedRanks:
    """How far a wave looked, looks ahead of phase 1 included; shape (G,) each."""

    ranks: NDArray[np.int64]
    observable: NDArray[np.int64]


def looked_ranks(space: Workspace) -> LookedRanks:
    """How far a wave looked in each group.

    Raises
    ------
    OutputConflictError
        When its response is missing.
    """
    if committed(space, space.response) is None:
        raise OutputConflictError(f"{space.response} is missing: wave {space.wave} was not finished; run it to its end")
    metadata: dict[bytes, bytes] = pq.read_schema(space.response).metadata or {}
    found = json.loads(metadata[LOOKED])
    return LookedRanks(
        ranks=np.array(found["ranks"], dtype=np.int64), observable=np.array(found["observable"], dtype=np.int64)
    )


def with_old_ground(space: Workspace, cells: pa.Table, region: Region, chip_size: int) -> pa.Table:
    """Cells of the earlier parts that lie in the region, as they were, and those whose centre no earlier cell covers.

    More tiles may give ground at the rim another owner; ground keeps the owner, and the class, that it had first.
    """
    old = _known_cells(space, cells)
    names = _cell_ids(cells, chip_size)
    known = _cell_ids(old, chip_size)
    tree = shapely.STRtree(footprints(known))
    covered = np.isin(names, known)
    lon, lat = cells["lon"].to_numpy(), cells["lat"].to_numpy()
    for turn in (-360.0, 0.0, 360.0):  # footprints across the antimeridian go beyond ±180
        covered[tree.query(shapely.points(lon + turn, lat), predicate="within")[0]] = True
    inside = shapely.contains_xy(region.geometry, old["lon"].to_numpy(), old["lat"].to_numpy())
    inside |= np.isin(known, names)
    both = [old.filter(pa.array(inside)), cells.filter(pa.array(~covered))]
    return _filled(pa.concat_tables(both, promote_options="default")).replace_schema_metadata(cells.schema.metadata)


def _cell_ids(cells: pa.Table, chip_size: int) -> NDArray[np.uint64]:
    return cell_ids(cells["tile"], chip_size=chip_size, cell_row=cells["cell_row"], cell_col=cells["cell_col"])


def _known_cells(space: Workspace, cells: pa.Table) -> pa.Table:
    """CELLS of the earlier parts, each once, with the covariates they were labelled by; columns typed as in `cells`."""
    parts = {wave.part: wave for wave in earlier_waves(space)}
    tables = [pq.read_table([str(part) for part in wave.frame_parts()]) for wave in parts.values()]
    names = [*CELLS.columns, *(name for name in tables[0].column_names if name.startswith(COVARIATE_PREFIXES))]
    frame = pa.concat_tables([table.select([n for n in names if n in table.column_names]) for table in tables])
    units = np.concatenate([table["unit"].to_numpy() for table in tables])
    found = frame.take(pa.array(np.unique(ground_cells(units), return_index=True)[1]))
    kinds = [(name, cells.schema.field(name).type if name in cells.column_names else None) for name in names]
    for at, (name, kind) in enumerate(kinds):
        if kind is not None and found.schema.field(name).type != kind:
            found = found.set_column(at, name, found[name].cast(kind))
    return found.replace_schema_metadata(None)


def _filled(cells: pa.Table) -> pa.Table:
    """Columns that one side lacks: no share of a class there, unknown weather."""
    for at, name in enumerate(cells.column_names):
        column = cells[name]
        if column.null_count and pa.types.is_floating(column.type):
            empty = 0.0 if name.startswith(LAND_COVER_PREFIX) else float("nan")
            cells = cells.set_column(at, name, column.fill_null(empty))
    return cells


def _units(space: Workspace) -> NDArray[np.uint64]:
    files = [str(part) for part in space.frame_parts()]
    return np.asarray(pq.read_table(files, columns=["unit"])["unit"].to_numpy())


def only_new_units(space: Workspace, frame: pa.Table) -> tuple[pa.Table, list[str]]:
    """The frame's units that no earlier part has, and what had to be said.

    Raises
    ------
    OutputConflictError
        When region and years bring nothing new.
    """
    parts = {wave.part: wave for wave in earlier_waves(space)}
    known = np.concatenate([_units(wave) for wave in parts.values()])
    new = ~np.isin(frame["unit"].to_numpy(), known)
    if not new.any():
        raise OutputConflictError(
            f"--extend brings nothing new to {space.root}: its frame holds every unit of this region and these years; "
            "name more ground or years, or keep both and raise --samples"
        )
    missing = int(known.size - (~new).sum())
    notes = []
    if missing:
        notes.append(
            f"{missing:,} units of the earlier frame lie outside the region and years of this wave; they stay as they "
            "are."
        )
    metadata = frame.schema.metadata
    return frame.filter(pa.array(new)).replace_schema_metadata(metadata), notes
