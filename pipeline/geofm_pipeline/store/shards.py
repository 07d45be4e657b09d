"""From encoded chips in arrival order to shards in row order, through one nameless scratch file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.errors import ResourceError
from geofm_pipeline.store.codec import RESIDUE, crc32c, encode_index, no_places
from geofm_pipeline.store.files import disk_errors, replacing, sync_folder, write_all
from geofm_pipeline.store.layout import NO_CHUNK, NO_CRC, ArrayLayout, fmask_layout, image_layout
from geofm_pipeline.store.parts import ShardRecord
from geofm_pipeline.store.spec import StoreSpec

ARRAYS = ("image", "fmask")


class Scratch:
    """Encoded chunks of one group, appended in any order; the kernel frees the space when the process ends."""

    def __init__(self, folder: Path, spec: StoreSpec, group: int) -> None:
        self.group = group
        self.rows = spec.group_rows(group)
        self.shards = spec.group_shard_range(group)
        self.layouts: dict[str, ArrayLayout] = {"image": image_layout(spec), "fmask": fmask_layout(spec)}
        self.places = {name: no_places(len(self.rows)) for name in ARRAYS}
        """Offset and length in the scratch file of each row's chunk, [m, 2]."""
        self.crcs = {name: np.full(len(self.rows), NO_CRC, dtype=np.uint32) for name in ARRAYS}
        """CRC-32C of each row's encoded bytes, [m]."""
        self._folder = folder
        self._end = 0
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Scratch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, array: str, index: int, chunk: bytes | None) -> None:
        """Keep the chunk of global sample `index`; None is an all-fill chunk, of which nothing is kept."""
        if chunk is None:
            return
        with disk_errors(self._folder):
            write_all(self._file.fileno(), chunk)
        self.places[array][index - self.rows.start] = (self._end, len(chunk))
        self.crcs[array][index - self.rows.start] = int.from_bytes(chunk[-4:], "little")
        self._end += len(chunk)

    def read(self, array: str, index: int) -> bytes:
        """The chunk of global sample `index`, checked; empty when nothing was kept."""
        offset, length = (int(value) for value in self.places[array][index - self.rows.start])
        if offset == NO_CHUNK:
            return b""
        chunk = os.pread(self._file.fileno(), length, offset)
        if len(chunk) != length or crc32c(chunk) != RESIDUE:
            raise ResourceError(
                f"the scratch disk at {self._folder} returned other bytes than were written: check that disk, or point "
                "the scratch folder elsewhere; nothing of this group was committed"
            )
        return chunk


def write_shards(
    path: Path, temp_dir: Path, scratch: Scratch, threads: int
) -> tuple[tuple[ShardRecord, ...], dict[str, NDArray[np.uint64]]]:
    """Write every shard of the group; returns the shards' records and each array's [m, 2] index."""
    jobs = [(array, shard) for shard in scratch.shards for array in ARRAYS]
    with ThreadPoolExecutor(threads) as pool:
        written = list(pool.map(partial(_write_shard, path, temp_dir, scratch), *zip(*jobs, strict=True)))
    for array in ARRAYS:
        sync_folder(path / array)
    places = {name: np.concatenate([index for record, index in written if record.array == name]) for name in ARRAYS}
    return tuple(record for record, _ in written), places


def _write_shard(
    path: Path, temp_dir: Path, scratch: Scratch, array: str, shard: int
) -> tuple[ShardRecord, NDArray[np.uint64]]:
    layout = scratch.layouts[array]
    rows = range(shard * layout.shard, min(scratch.rows.stop, (shard + 1) * layout.shard))
    target = path / layout.key(shard)
    kept = scratch.places[array][rows.start - scratch.rows.start : rows.stop - scratch.rows.start, 0] != NO_CHUNK
    if not kept.any():
        target.unlink(missing_ok=True)
        return ShardRecord(array=array, shard=shard, bytes=0, crc32c=0, samples=len(rows)), no_places(len(rows))
    with replacing(target, temp_dir) as fd:
        size, crc, index = _fill(fd, (scratch.read(array, row) for row in rows), layout.shard)
    return ShardRecord(array=array, shard=shard, bytes=size, crc32c=crc, samples=len(rows)), index[: len(rows)]


def _fill(fd: int, chunks: Iterable[bytes], shard_size: int) -> tuple[int, int, NDArray[np.uint64]]:
    """Write chunks and index to `fd`; returns size, CRC-32C and the full [K, 2] index."""
    index = no_places(shard_size)
    size = crc = 0
    for row, chunk in enumerate(chunks):
        if chunk:
            write_all(fd, chunk)
            index[row] = (size, len(chunk))
            size, crc = size + len(chunk), crc32c(chunk, crc)
    tail = encode_index(index)
    write_all(fd, tail)
    return size + len(tail), crc32c(tail, crc), index
