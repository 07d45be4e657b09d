"""Writes the shards of a store, group by group; the only code that does.

*Group*: a run of whole shards written by one call of :func:`write_group`, the unit of work, of resuming and of a
Dask task. Chips arrive in any order, are encoded at once to a nameless scratch file and then laid into their shards
in row order, so memory holds a few chips and never a group. A shard appears by rename; after the last one the
group's part is written, and that commits the group. Writing a group again gives the same bytes, so a second or late
worker changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.chips import ChipReader, ReadStats
from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.hls.bands import SENSOR_CODE
from geofm_pipeline.store.checks import ShardJob
from geofm_pipeline.store.codec import prepare
from geofm_pipeline.store.files import disk_errors
from geofm_pipeline.store.layout import fmask_layout, image_layout
from geofm_pipeline.store.parts import GroupResult, ShardRecord, read_part, write_part
from geofm_pipeline.store.shards import Scratch, write_shards
from geofm_pipeline.store.skeleton import check_store
from geofm_pipeline.store.spec import SPLITS, StoreSpec
from geofm_pipeline.store.sums import BandSums
from geofm_pipeline.store.workbench import Account, InWork, RowRequest, Workbench


def write_group(
    path: Path,
    spec: StoreSpec,
    parts_dir: Path,
    scratch_dir: Path,
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
    scratch_dir : fast local folder; holds up to one encoded group, and nothing after the call, even after a kill
    requests : exactly the rows of the group, in the order in which the reader should read them
    threads : encoding threads; sums and files take other threads; memory is about 2 · threads + 2 chips

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
    before = replace(reader.stats)
    with Scratch(scratch_dir, spec, group) as scratch:
        accounts = _encode_group(spec, requests, reader, scratch, threads)
        # A worker that was given up as lost may get here late: then the group is another's, and stays as it is.
        done = _committed(path, spec, parts_dir, group, deep=False)
        if done is not None:
            return done
        _refuse_sealed(path, spec)
        shards, places = write_shards(path, temp_dir, scratch, max(2, threads))
    result = _result(spec, accounts, scratch, shards, places, _since(before, reader.stats))
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


def _encode_group(
    spec: StoreSpec, requests: Sequence[RowRequest], reader: ChipReader, scratch: Scratch, threads: int
) -> list[Account]:
    """Read and encode all chips into the scratch file, holding a few at a time; accounts in the order of the rows."""
    accounts: list[Account] = []

    def finish(work: InWork) -> None:
        for array, chunk in work.chunks.items():
            scratch.append(array, work.index, chunk.result())
        accounts.append(work.account.result())

    with Workbench(spec, scratch.layouts, threads) as bench:
        in_work: deque[InWork] = deque()
        for request, answer in zip(requests, reader.read([request.chip for request in requests]), strict=True):
            in_work.append(bench.submit(request, answer))
            if len(in_work) > 2 * threads:
                finish(in_work.popleft())
        for work in in_work:
            finish(work)
    return sorted(accounts, key=lambda account: account.request.index)


def _result(
    spec: StoreSpec,
    accounts: Sequence[Account],
    scratch: Scratch,
    shards: tuple[ShardRecord, ...],
    places: dict[str, NDArray[np.uint64]],
    stats: ReadStats,
) -> GroupResult:
    scenes = [account.request.chip.scenes for account in accounts]
    return GroupResult(
        group=scratch.group,
        spec_digest=spec.digest,
        units=np.array([account.request.chip.unit for account in accounts], dtype=np.uint64),
        splits=np.array([account.split for account in accounts], dtype=np.int8),
        dates=np.array([[scene.date for scene in row] for row in scenes], dtype=np.int32),
        sensors=np.array([[SENSOR_CODE[scene.sensor] for scene in row] for row in scenes], dtype=np.int8),
        valid_pixels=np.array([account.valid_pixels for account in accounts], dtype=np.int32),
        image_index=places["image"],
        fmask_index=places["fmask"],
        image_crc32c=scratch.crcs["image"],
        fmask_crc32c=scratch.crcs["fmask"],
        shards=shards,
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
