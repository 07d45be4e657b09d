"""The shards of one group while they grow: chunks appended as they come, the index last, then one rename each."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from geofm_pipeline.store.codec import Chunk, crc32c, encode_index, no_places
from geofm_pipeline.store.files import PendingFile, allow_open_files, sync_folder
from geofm_pipeline.store.layout import NO_CRC, ArrayLayout, fmask_layout, image_layout
from geofm_pipeline.store.parts import ShardRecord
from geofm_pipeline.store.spec import StoreSpec

ARRAYS = ("image", "fmask")


class GrowingShard:
    """One shard under a temporary name."""

    def __init__(self, target: Path, temp_dir: Path, shard_size: int) -> None:
        self.file = PendingFile(target, temp_dir)
        self.places = no_places(shard_size)
        """Offset and length of each row's chunk, [K, 2]."""
        self.size = 0
        self.crc = 0
        """CRC-32C of all bytes so far."""

    def append(self, row: int, chunk: Chunk) -> None:
        """Store the chunk of a row of this shard."""
        self.places[row] = (self.size, len(chunk))
        for piece in chunk.pieces:
            self._write(piece)

    def complete(self) -> None:
        """Write the index and make all durable."""
        self._write(encode_index(self.places))
        self.file.sync()

    def _write(self, data: bytes) -> None:
        self.file.append(data)
        self.size, self.crc = self.size + len(data), crc32c(data, self.crc)


class GroupShards:
    """All shards of one group: nothing is in the store before `place`, nothing is left beside it after the block.

    Chunks lie in a shard in the order of the calls of `append`, so its bytes are a function of that order.
    """

    def __init__(self, path: Path, temp_dir: Path, spec: StoreSpec, group: int) -> None:
        self.group = group
        self.rows = spec.group_rows(group)
        self.layouts: Mapping[str, ArrayLayout] = {"image": image_layout(spec), "fmask": fmask_layout(spec)}
        self.places = {name: no_places(len(self.rows)) for name in ARRAYS}
        """Offset and length of each row's chunk in its shard, [m, 2]."""
        self.crcs = {name: np.full(len(self.rows), NO_CRC, dtype=np.uint32) for name in ARRAYS}
        """CRC-32C of each row's encoded bytes, [m]."""
        self._path, self._temp_dir, self._spec = path, temp_dir, spec
        self._open: dict[tuple[str, int], GrowingShard] = {}
        allow_open_files()

    def __enter__(self) -> GroupShards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for shard in self._open.values():
            shard.file.close()

    def append(self, array: str, index: int, chunk: Chunk | None) -> None:
        """Store the chunk of global sample `index`; None is an all-fill chunk, of which nothing is stored."""
        if chunk is None:
            return
        number, row = divmod(index, self._spec.shard_size)
        shard = self._shard(array, number)
        shard.append(row, chunk)
        self.places[array][index - self.rows.start] = shard.places[row]
        self.crcs[array][index - self.rows.start] = chunk.crc32c

    def complete(self, threads: int) -> None:
        """Write every index and wait for the disk; several files at a time, as disks do that in less time."""
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(GrowingShard.complete, self._open.values()))

    def place(self) -> tuple[ShardRecord, ...]:
        """Rename every shard into the store, after `complete`; a shard without a chunk is no file."""
        numbers = self._spec.group_shard_range(self.group)
        records = tuple(self._place(array, number) for number in numbers for array in ARRAYS)
        for array in ARRAYS:
            sync_folder(self._path / array)
        return records

    def _place(self, array: str, number: int) -> ShardRecord:
        samples = len(self._spec.shard_rows(number))
        shard = self._open.get((array, number))
        if shard is None:
            self._target(array, number).unlink(missing_ok=True)
            return ShardRecord(array=array, shard=number, bytes=0, crc32c=0, samples=samples)
        shard.file.place()
        return ShardRecord(array=array, shard=number, bytes=shard.size, crc32c=shard.crc, samples=samples)

    def _shard(self, array: str, number: int) -> GrowingShard:
        """The shard, opened at its first chunk."""
        shard = self._open.get((array, number))
        if shard is None:
            shard = GrowingShard(self._target(array, number), self._temp_dir, self._spec.shard_size)
            self._open[array, number] = shard
        return shard

    def _target(self, array: str, number: int) -> Path:
        return self._path / self.layouts[array].key(number)
