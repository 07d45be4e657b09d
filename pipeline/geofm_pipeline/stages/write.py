"""Stage 4, write: the drawn chips, one Dask task per write group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from geofm_pipeline.chips import ChipRequest
from geofm_pipeline.cluster import Runner
from geofm_pipeline.cog.reader import BlockChipReader
from geofm_pipeline.progress import Progress
from geofm_pipeline.scenes import scene_refs
from geofm_pipeline.store import GroupResult, RowRequest, StoreSpec, pending_groups, write_group
from geofm_pipeline.store.order import clusters
from geofm_sampling.unit import unpack_units

READ_THREADS = 2
"""Per worker: one decodes while another waits for the disk or the network."""


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """One write group; everything a worker needs to write it, from anywhere."""

    store: Path
    spec: StoreSpec
    parts: Path
    scratch: Path
    group: int
    requests: Sequence[RowRequest]
    """Every sample of the group, in the order in which to read them."""


def write_task(task: WriteTask) -> GroupResult:
    """Read, encode and commit one group; running it twice writes the same bytes."""
    return write_group(
        task.store,
        task.spec,
        task.parts,
        task.scratch,
        task.group,
        task.requests,
        BlockChipReader(threads=READ_THREADS),
    )


def write(
    store: Path,
    spec: StoreSpec,
    work: Path,
    requests: Sequence[ChipRequest],
    runner: Runner,
    progress: Progress,
) -> None:
    """Write every group that is not written yet; `requests` are in order of the global index."""
    parts, scratch = work / "parts", work / "scratch"
    tasks = [
        WriteTask(
            store=store,
            spec=spec,
            parts=parts,
            scratch=scratch,
            group=group,
            requests=_in_reading_order([(index, requests[index]) for index in spec.group_rows(group)]),
        )
        for group in pending_groups(store, spec, parts)
    ]
    missing = sum(len(task.requests) for task in tasks)
    if missing < len(requests):
        progress.say(f"write: {len(requests) - missing:,} of {len(requests):,} chips are written already")
    results = runner.run(write_task, tasks)
    counted = progress.count(
        results, total=missing, label="write", unit="chips", size=lambda done: len(tasks[done[0]].requests)
    )
    for _ in counted:
        pass


def _in_reading_order(rows: Sequence[tuple[int, ChipRequest]]) -> list[RowRequest]:
    """Chips of one (tile, season) cluster together, so that the files they share are opened once."""
    units = np.array([request.unit for _, request in rows], dtype=np.uint64)
    order = np.lexsort((units, clusters(units)))
    return [RowRequest(index=rows[place][0], chip=rows[place][1]) for place in order]


def chip_requests(drawn: pa.Table, scenes: pa.Table) -> list[ChipRequest]:
    """Requests of drawn RESPONSE rows, which are in order of (shard, row).

    Chips share the SceneRef of a granule, so that a group of them pickles small.
    """
    used = {granule for granules in drawn["granules"].to_pylist() for granule in granules}
    wanted = scenes.filter(pa.array([granule in used for granule in scenes["granule_id"].to_pylist()], pa.bool_()))
    known = {ref.granule_id: ref for ref in scene_refs(wanted)}
    units = drawn["unit"].to_numpy()
    fields = unpack_units(units)
    return [
        ChipRequest(
            unit=int(unit),
            tile=str(tile),
            row_off=int(row * size),
            col_off=int(col * size),
            size=int(size),
            scenes=tuple(known[granule] for granule in granules),
        )
        for unit, tile, size, row, col, granules in zip(
            units,
            fields.tile,
            fields.chip_size,
            fields.cell_row,
            fields.cell_col,
            drawn["granules"].to_pylist(),
            strict=True,
        )
    ]
