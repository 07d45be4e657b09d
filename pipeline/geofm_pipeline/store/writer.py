"""Writes the shards of a store, group by group; the only code that does.

*Group*: a run of whole shards written by one call of :func:`write_group`, the unit of work, of resuming and of a
Dask task. Chips arrive in any order, are encoded at once to a nameless scratch file and then laid into their shards
in row order, so memory holds a few chips and never a group. A shard appears by rename; after the last one the
group's part is written, and that commits the group. Writing a group again gives the same bytes, so a second or late
worker changes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.chips import Chip, ChipFailure, ChipReader, ChipRequest, ReadStats
from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.hls.bands import SENSOR_CODE
from geofm_pipeline.store.checks import ShardJob
from geofm_pipeline.store.codec import ChunkEncoder, prepare
from geofm_pipeline.store.files import disk_errors
from geofm_pipeline.store.layout import fmask_layout, image_layout
from geofm_pipeline.store.parts import GroupResult, ShardRecord, Tombstone, read_part, write_part
from geofm_pipeline.store.shards import ARRAYS, Scratch, write_shards
from geofm_pipeline.store.skeleton import check_store
from geofm_pipeline.store.spec import SPLITS, TOMBSTONE, StoreSpec
from geofm_pipeline.store.sums import BandSums, chip_sums, valid_pixels


@dataclass(frozen=True, kw_only=True)
class RowRequest:
    """A chip to read and the row of the store it goes to; small and picklable."""

    index: int
    """Global sample index: shard × K + row."""
    chip: ChipRequest
    split: int = 0
    """0 train, 1 held-out, 2 test."""


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
    threads : encoding threads; memory is about 2 · threads + 2 chips

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
        shards, places = write_shards(path, temp_dir, scratch, threads)
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


@dataclass(frozen=True, kw_only=True)
class _Account:
    """What remains of a chip once its chunks are in the scratch file."""

    request: RowRequest
    valid_pixels: tuple[int, ...]
    sums: BandSums | None
    tombstone: Tombstone | None


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    account: _Account
    chunks: tuple[bytes | None, bytes | None]
    """Image and mask; None where all is fill."""


def _encode_group(
    spec: StoreSpec, requests: Sequence[RowRequest], reader: ChipReader, scratch: Scratch, threads: int
) -> list[_Account]:
    """Read and encode all chips into the scratch file; accounts in the order of the rows."""
    encoders = (ChunkEncoder(scratch.layouts["image"]), ChunkEncoder(scratch.layouts["fmask"]))
    answers = zip(requests, reader.read([request.chip for request in requests]), strict=True)
    accounts = []
    for encoded in _in_order(partial(_encode_chip, spec, encoders), answers, threads):
        index = encoded.account.request.index
        for array, chunk in zip(ARRAYS, encoded.chunks, strict=True):
            scratch.append(array, index, chunk)
        accounts.append(encoded.account)
    return sorted(accounts, key=lambda account: account.request.index)


def _in_order(
    encode: Callable[[tuple[RowRequest, Chip | ChipFailure]], _Encoded],
    answers: Iterator[tuple[RowRequest, Chip | ChipFailure]],
    threads: int,
) -> Iterator[_Encoded]:
    """Encode on `threads` threads while the next chips are read, holding at most 2 · threads + 1 of them."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Encoded]] = deque()
        for answer in answers:
            waiting.append(pool.submit(encode, answer))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _encode_chip(
    spec: StoreSpec, encoders: tuple[ChunkEncoder, ChunkEncoder], answer: tuple[RowRequest, Chip | ChipFailure]
) -> _Encoded:
    request, chip = answer
    assert chip.unit == request.chip.unit, f"the reader answered unit {chip.unit} for {request.chip.unit}"
    if isinstance(chip, ChipFailure):
        return _Encoded(account=_bury(spec, request, chip), chunks=(None, None))
    assert chip.image.shape == spec.image_shape, f"image {chip.image.shape}, store {spec.image_shape}"
    assert chip.fmask.shape == spec.fmask_shape, f"fmask {chip.fmask.shape}, store {spec.fmask_shape}"
    assert chip.image.dtype == np.int16, "image must be int16 counts"
    assert chip.fmask.dtype == np.uint8, "fmask must be the raw byte"
    valid = valid_pixels(chip.image, chip.fmask, spec.mask_rule)
    account = _Account(
        request=request,
        valid_pixels=tuple(int(np.count_nonzero(plane)) for plane in valid),
        sums=chip_sums(chip.image, valid),
        tombstone=None,
    )
    return _Encoded(account=account, chunks=(encoders[0].encode(chip.image), encoders[1].encode(chip.fmask)))


def _bury(spec: StoreSpec, request: RowRequest, failure: ChipFailure) -> _Account:
    """A permanent failure becomes a tombstone; a transient one is raised, for the group to be tried again."""
    error = failure.error
    if error.transient:
        raise error
    stone = Tombstone(
        index=request.index, unit=request.chip.unit, granule=error.granule, band=error.band, cause=error.cause
    )
    return _Account(request=request, valid_pixels=(0,) * spec.timesteps, sums=None, tombstone=stone)


def _result(
    spec: StoreSpec,
    accounts: Sequence[_Account],
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
        splits=np.array([_split(account) for account in accounts], dtype=np.int8),
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


def _split(account: _Account) -> int:
    return TOMBSTONE if account.tombstone is not None else account.request.split


def _sums_by_split(spec: StoreSpec, accounts: Sequence[_Account]) -> dict[int, BandSums]:
    sums: dict[int, BandSums] = {}
    for account in accounts:
        if account.sums is not None:
            split = account.request.split
            sums[split] = sums.get(split, BandSums.zero(len(spec.bands))) + account.sums
    return sums


def _since(before: ReadStats, after: ReadStats) -> ReadStats:
    """What a reader that may serve several groups cost for this one."""
    return ReadStats(**{f.name: getattr(after, f.name) - getattr(before, f.name) for f in fields(ReadStats)})
