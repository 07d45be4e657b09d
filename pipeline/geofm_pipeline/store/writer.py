"""Writes the shards of a store, group by group; the only code that does.

*Group*: a run of whole shards written by one call of :func:`write_group`, the unit of work, of resuming and of a
Dask task. Chips are read cluster by cluster, encoded on threads and appended, in the order of reading, to the shards
of the group, which all grow at once under temporary names; so memory holds a few chips and never a group, and each
byte is written once. When all are complete and synced they are renamed into the store; then the group's part is
written, and that commits the group. Writing a group again gives the same bytes, so a second or late worker changes
nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from math import prod
from pathlib import Path

import numpy as np

from geofm_pipeline.chips import ChipReader, ReadStats
from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.hls.bands import SENSOR_CODE
from geofm_pipeline.store.checks import ShardJob
from geofm_pipeline.store.codec import keep_memory, prepare
from geofm_pipeline.store.files import disk_errors
from geofm_pipeline.store.layout import fmask_layout, image_layout
from geofm_pipeline.store.order import reading_order
from geofm_pipeline.store.parts import GroupResult, ShardRecord, read_part, write_part
from geofm_pipeline.store.shards import GroupShards
from geofm_pipeline.store.skeleton import check_store
from geofm_pipeline.store.spec import SPLITS, StoreSpec
from geofm_pipeline.store.sums import BandSums
from geofm_pipeline.store.workbench import Account, Finished, RowRequest, Workbench


def write_group(
    path: Path,
    spec: StoreSpec,
    parts_dir: Path,
    group: int,
    requests: Sequence[RowRequest],
    reader: ChipReader,
    *,
    threads: int = 1,
) -> GroupResult:
    """Read, encode and commit one group; a group that is committed already is returned as it stands.

    Parameters
    ----------
    path : the store, made by `create`
    parts_dir : folder beside the store, on the same file system, for parts and temporary files
    requests : exactly the rows of the group, in any order; they are read and stored in that of `reading_order`
    threads : encoding threads, beside the calling one, which reads and writes; memory is about 2 · threads + 2 chips

    Raises
    ------
    ArchiveError
        A transient fault of the reader: nothing of the group is committed, try again. A permanent one is a
        tombstone instead: all-fill pixels, split −1, its cause in the result.
    ResourceError
        The disk is full; committed groups are kept.
    OutputConflictError
        `path` is another store, or it is sealed and this group's part is gone.
    """
    done = _committed(path, spec, parts_dir, group, deep=False)
    if done is not None:
        return done
    _refuse_sealed(path, spec)
    _check_requests(spec, group, requests)
    temp_dir = temporary_folder(parts_dir)
    prepare()
    keep_memory(2 * prod(spec.image_shape))
    before = replace(reader.stats)
    with GroupShards(path, temp_dir, spec, group) as shards:
        accounts = _encode_group(spec, _in_reading_order(requests), reader, shards, threads)
        shards.complete(max(2, threads))
        # A worker that was given up as lost may get here late: then the group is another's, and stays as it is.
        done = _committed(path, spec, parts_dir, group, deep=False)
        if done is not None:
            return done
        _refuse_sealed(path, spec)
        records = shards.place()
    result = _result(spec, accounts, shards, records, _since(before, reader.stats))
    write_part(parts_dir, temp_dir, result)
    return result


def pending_groups(path: Path, spec: StoreSpec, parts_dir: Path, *, deep: bool = True, threads: int = 2) -> list[int]:
    """Groups that are not committed, ascending: no part, or a shard whose size or (if `deep`) CRC-32C is not its own.

    Raises
    ------
    OutputConflictError
        When `path` is not the store of `spec`.
    """
    check_store(path, spec)
    with ThreadPoolExecutor(threads) as pool:
        done = pool.map(lambda group: _committed(path, spec, parts_dir, group, deep=deep), range(spec.groups))
        return [group for group, result in enumerate(done) if result is None]


def temporary_folder(parts_dir: Path) -> Path:
    """Where files wait for their rename; outside the store, on its file system."""
    folder = parts_dir / "tmp"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def remove_leftovers(parts_dir: Path) -> None:
    """Remove temporary files that killed writers left; call when a run starts, while no group is being written."""
    for file in (parts_dir / "tmp").glob("*.tmp"):
        file.unlink(missing_ok=True)


def _committed(path: Path, spec: StoreSpec, parts_dir: Path, group: int, *, deep: bool) -> GroupResult | None:
    part = read_part(parts_dir, group, spec_digest=spec.digest)
    if part is None:
        return None
    layouts = {"image": image_layout(spec), "fmask": fmask_layout(spec)}
    start = spec.group_rows(group).start
    for record in part.shards:
        rows = spec.shard_rows(record.shard)
        mine = slice(rows.start - start, rows.stop - start)
        wanted = ShardJob(
            name=layouts[record.array].key(record.shard),
            rows=rows,
            shard_size=spec.shard_size,
            size=record.bytes,
            crc=record.crc32c,
            places=part.index_of(record.array)[mine],
            crcs=part.crc32c_of(record.array)[mine],
        )
        if wanted.check(path, deep=deep) is not None:
            return None
    return part


def _refuse_sealed(path: Path, spec: StoreSpec) -> None:
    if check_store(path, spec).get("complete"):
        raise OutputConflictError(
            f"{path} is sealed: its pixels never change; verify it with `geofm-sample verify`, extend it by a "
            "new wave, or choose another --out"
        )


def _check_requests(spec: StoreSpec, group: int, requests: Sequence[RowRequest]) -> None:
    """Our own callers' mistakes: wrong rows, wrong shapes."""
    rows = spec.group_rows(group)
    assert sorted(request.index for request in requests) == list(rows), f"group {group} holds exactly rows {rows}"
    for request in requests:
        assert len(request.chip.scenes) == spec.timesteps, f"row {request.index} needs {spec.timesteps} dates"
        assert request.split in SPLITS.values(), f"row {request.index} has split {request.split}"


def _in_reading_order(requests: Sequence[RowRequest]) -> list[RowRequest]:
    """The one order in which a group is read and stored; here and not the caller's, as it decides bytes."""
    units = np.array([request.chip.unit for request in requests], dtype=np.uint64)
    return [requests[place] for place in reading_order(units)]


def _encode_group(
    spec: StoreSpec, requests: Sequence[RowRequest], reader: ChipReader, shards: GroupShards, threads: int
) -> list[Account]:
    """Read, encode and append all chips, holding a few at a time; accounts in the order of the rows."""
    accounts: list[Account] = []

    def append(work: Future[Finished]) -> None:
        finished = work.result()
        for array, chunk in finished.chunks.items():
            shards.append(array, finished.account.request.index, chunk)
        accounts.append(finished.account)

    with Workbench(spec, shards.layouts, threads) as bench:
        in_work: deque[Future[Finished]] = deque()
        for request, answer in zip(requests, reader.read([request.chip for request in requests]), strict=True):
            in_work.append(bench.submit(request, answer))
            if len(in_work) > 2 * threads:
                append(in_work.popleft())
        for work in in_work:
            append(work)
    return sorted(accounts, key=lambda account: account.request.index)


def _result(
    spec: StoreSpec,
    accounts: Sequence[Account],
    shards: GroupShards,
    records: tuple[ShardRecord, ...],
    stats: ReadStats,
) -> GroupResult:
    scenes = [account.request.chip.scenes for account in accounts]
    return GroupResult(
        group=shards.group,
        spec_digest=spec.digest,
        units=np.array([account.request.chip.unit for account in accounts], dtype=np.uint64),
        splits=np.array([account.split for account in accounts], dtype=np.int8),
        dates=np.array([[scene.date for scene in row] for row in scenes], dtype=np.int32),
        sensors=np.array([[SENSOR_CODE[scene.sensor] for scene in row] for row in scenes], dtype=np.int8),
        valid_pixels=np.array([account.valid_pixels for account in accounts], dtype=np.int32),
        image_index=shards.places["image"],
        fmask_index=shards.places["fmask"],
        image_crc32c=shards.crcs["image"],
        fmask_crc32c=shards.crcs["fmask"],
        shards=records,
        sums=_sums_by_split(spec, accounts),
        tombstones=tuple(account.tombstone for account in accounts if account.tombstone is not None),
        stats=stats,
    )


def _sums_by_split(spec: StoreSpec, accounts: Sequence[Account]) -> dict[int, BandSums]:
    sums: dict[int, BandSums] = {}
    for account in accounts:
        if account.sums is not None:
            split = account.request.split
            sums[split] = sums.get(split, BandSums.zero(len(spec.bands))) + account.sums
    return sums


def _since(before: ReadStats, after: ReadStats) -> ReadStats:
    """What a reader that may serve several groups cost for this one."""
    return ReadStats(**{f.name: getattr(after, f.name) - getattr(before, f.name) for f in fields(ReadStats)})
