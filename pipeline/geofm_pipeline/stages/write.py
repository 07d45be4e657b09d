"""Stage 4, write: the drawn chips, one Dask task per write group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.chips import ChipRequest
from geofm_pipeline.cluster import Runner
from geofm_pipeline.cog.reader import BlockChipReader
from geofm_pipeline.errors import ArchiveError
from geofm_pipeline.progress import Progress
from geofm_pipeline.scenes import scene_refs
from geofm_pipeline.store import GroupResult, RowRequest, StoreSpec, pending_groups, write_group
from geofm_pipeline.store.parts import part_path, read_part
from geofm_sampling.unit import unpack_units

READ_THREADS = 2
"""Per worker, for local files: one decodes while another waits for the disk."""


MOST_TOMBSTONES = 0.5
"""Share of unreadable chips above which a run stops instead of sealing."""


@dataclass(frozen=True, kw_only=True)
class WriteTask:
    """One write group; everything a worker needs to write it, from anywhere."""

    store: Path
    spec: StoreSpec
    parts: Path
    group: int
    requests: Sequence[RowRequest]
    """Every sample of the group."""
    access: Access


def write_task(task: WriteTask) -> GroupResult:
    """Read, encode and commit one group; running it twice writes the same bytes."""
    return write_group(
        task.store,
        task.spec,
        task.parts,
        task.group,
        task.requests,
        BlockChipReader(threads=READ_THREADS, source=ArchiveSource(task.access)),
    )


def write(
    store: Path,
    spec: StoreSpec,
    parts: Path,
    requests: Sequence[RowRequest],
    access: Access,
    runner: Runner,
    progress: Progress,
) -> None:
    """Write every group that is not written yet; `requests` are in order of their index."""
    tasks = [
        WriteTask(
            store=store,
            spec=spec,
            parts=parts,
            group=group,
            requests=[requests[index] for index in spec.group_rows(group)],
            access=access,
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
    _refuse_a_lost_archive(spec, parts)


def _refuse_a_lost_archive(spec: StoreSpec, parts: Path) -> None:
    """Stop before sealing when most chips cannot be read: that is an archive that went away, not so many bad files.

    The groups with failures are forgotten, so that the same command reads them again.
    """
    results = [read_part(parts, group, spec_digest=spec.digest) for group in range(spec.groups)]
    hit = [result for result in results if result is not None and result.tombstones]
    stones = [stone for result in hit for stone in result.tombstones]
    if len(stones) <= MOST_TOMBSTONES * spec.n:
        return
    for result in hit:
        part_path(parts, result.group).unlink()
    first = stones[0]
    raise ArchiveError(
        f"{len(stones):,} of {spec.n:,} chips cannot be read (first: {first.granule} {first.band}: {first.cause}); so "
        "many are no accident: is the archive of this catalogue there and readable? Nothing was sealed; the same "
        "command reads them again"
    )


def row_requests(drawn: pa.Table, scenes: pa.Table) -> list[RowRequest]:
    """Requests of drawn RESPONSE rows with their row and split, in order of (shard, row)."""
    pairs = zip(chip_requests(drawn, scenes), drawn["split"].to_pylist(), strict=True)
    return [RowRequest(index=index, chip=chip, split=split) for index, (chip, split) in enumerate(pairs)]


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
