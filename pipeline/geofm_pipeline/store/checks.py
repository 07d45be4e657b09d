"""Checks of one file of a store against what the manifest says of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.store.codec import RESIDUE, crc32c, decode_index, index_size
from geofm_pipeline.store.files import file_crc32c, file_size
from geofm_pipeline.store.layout import NO_CHUNK, ArrayLayout
from geofm_pipeline.store.spec import StoreSpec


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A wrong file, and the rows of the store that it hits."""

    path: str
    problem: str
    rows: tuple[range | list[int], ...] = ()
    """Global sample indices; none when only the side-car is wrong."""


def small_file_problem(file: Path, facts: Mapping[str, object]) -> str:
    """What is wrong with a small file, '' when nothing."""
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        return "the file is missing"
    if len(data) != facts.get("bytes"):
        return f"the file has {len(data)} bytes instead of {facts.get('bytes')}"
    # Not a CRC-32C: these files end in their own, and the CRC-32C of such a file is a constant.
    return "" if sha256(data).hexdigest() == facts.get("sha256") else "the file was changed"


@dataclass(frozen=True, kw_only=True, eq=False)
class Manifest:
    """The manifest of one sharded array; an entry is None when its own files are damaged."""

    shards: NDArray[np.uint64] | None
    """[S, 3] bytes, CRC-32C and samples."""
    places: NDArray[np.uint64] | None
    """[N, 2] offset and length."""
    crcs: NDArray[np.uint32] | None
    """[N] CRC-32C of the encoded chunks."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardJob:
    """One shard to check."""

    name: str
    rows: range
    shard_size: int
    size: int
    """Bytes it must have; 0 where no file may exist, the actual size where the manifest is lost."""
    crc: int | None
    """CRC-32C it must have, None where the manifest is lost."""
    places: NDArray[np.uint64] | None
    """[k, 2] offsets and lengths of its chunks, None where the manifest is lost."""
    crcs: NDArray[np.uint32] | None
    """[k] CRC-32C of its encoded chunks, None where the manifest is lost."""

    def check(self, path: Path, *, deep: bool) -> Problem | None:
        """What is wrong with the shard, with the samples that are hit."""
        file = path / self.name
        actual = file_size(file)
        if self.size and not actual:
            return self._all("the shard is missing or empty")
        if not self.size:
            return self._all("there must be no shard here") if actual else None
        if actual != self.size:
            return self._all(f"the shard has {actual} bytes instead of {self.size}")
        return self._content(file) if deep else None

    def _content(self, file: Path) -> Problem | None:
        """Read the whole shard once; on a wrong sum, read its chunks one by one to tell which."""
        intact = self.crc is not None and file_crc32c(file) == self.crc
        with file.open("rb", buffering=0) as handle:
            fd = handle.fileno()
            length = index_size(self.shard_size)
            index = decode_index(os.pread(fd, length, max(0, self.size - length)), self.shard_size)
            if index is None or (self.places is not None and not np.array_equal(index[: len(self.rows)], self.places)):
                return self._all("the shard's index was changed")
            places = index[: len(self.rows)].tolist()
            hit = [row for row, place in zip(self.rows, places, strict=True) if self._bad(fd, row, place, intact)]
        if hit:
            return Problem(path=self.name, problem="chunks were changed", rows=(hit,))
        return None if intact or self.crc is None else self._all("the shard was changed")

    def _bad(self, fd: int, row: int, place: list[int], intact: bool) -> bool:
        """Whether a chunk is not the one that was written.

        The file's CRC-32C says that every chunk fits the checksum at its end, and no more: the CRC-32C of bytes that
        end in their own CRC-32C is a constant. So the checksum at the end is compared with the manifest's.
        """
        offset, length = place
        if offset == NO_CHUNK:
            return False
        tail = os.pread(fd, 4, offset + length - 4)
        if self.crcs is not None and int.from_bytes(tail, "little") != self.crcs[row - self.rows.start]:
            return True
        return not intact and crc32c(os.pread(fd, length, offset)) != RESIDUE

    def _all(self, problem: str) -> Problem:
        return Problem(path=self.name, problem=problem, rows=(self.rows,))


def shard_job(
    path: Path,
    spec: StoreSpec,
    layout: ArrayLayout,
    shard: int,
    manifest: Manifest,
) -> ShardJob:
    """The check of one shard against the manifest, or against itself where that is lost."""
    rows, name = spec.shard_rows(shard), layout.key(shard)
    mine = slice(rows.start, rows.stop)
    facts = manifest.shards
    return ShardJob(
        name=name,
        rows=rows,
        shard_size=spec.shard_size,
        size=int(facts[shard, 0]) if facts is not None else file_size(path / name),
        crc=int(facts[shard, 1]) if facts is not None else None,
        places=manifest.places[mine] if manifest.places is not None else None,
        crcs=manifest.crcs[mine] if manifest.crcs is not None else None,
    )
