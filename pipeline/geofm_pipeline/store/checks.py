"""Checks of one file of a store against what the manifest says of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
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
        size = file.stat().st_size
    except FileNotFoundError:
        return "the file is missing"
    if size != facts.get("bytes"):
        return f"the file has {size} bytes instead of {facts.get('bytes')}"
    if f"{file_crc32c(file):08x}" != facts.get("crc32c"):
        return "the file was changed"
    return ""


@dataclass(frozen=True, kw_only=True)
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

    def check(self, path: Path, *, deep: bool) -> Problem | None:
        """What is wrong with the shard, with the samples that are hit."""
        file = path / self.name
        actual = file_size(file)
        if self.size and not actual:
            return Problem(path=self.name, problem="the shard is missing or empty", rows=(self.rows,))
        if not self.size:
            return None  # a file where there must be none is found as foreign
        if actual != self.size:
            problem = f"the shard has {actual} bytes instead of {self.size}"
            return Problem(path=self.name, problem=problem, rows=(self.rows,))
        if not deep or (self.crc is not None and file_crc32c(file) == self.crc):
            return None
        return self._damage(file)

    def _damage(self, file: Path) -> Problem | None:
        with file.open("rb") as handle:
            length = index_size(self.shard_size)
            index = decode_index(os.pread(handle.fileno(), length, max(0, self.size - length)), self.shard_size)
            if index is None or (self.places is not None and not np.array_equal(index[: len(self.rows)], self.places)):
                return Problem(path=self.name, problem="the shard's index was changed", rows=(self.rows,))
            hit = [row for row, place in zip(self.rows, index.tolist(), strict=False) if _bad(handle.fileno(), place)]
        if hit:
            return Problem(path=self.name, problem="chunks were changed", rows=(hit,))
        if self.crc is None:
            return None
        return Problem(path=self.name, problem="another shard than was written", rows=(self.rows,))


def _bad(fd: int, place: list[int]) -> bool:
    offset, length = place
    return offset != NO_CHUNK and crc32c(os.pread(fd, length, offset)) != RESIDUE


def shard_job(
    path: Path,
    spec: StoreSpec,
    layout: ArrayLayout,
    shard: int,
    facts: NDArray[np.uint64] | None,
    places: NDArray[np.uint64] | None,
) -> ShardJob:
    rows, name = spec.shard_rows(shard), layout.key(shard)
    return ShardJob(
        name=name,
        rows=rows,
        shard_size=spec.shard_size,
        size=int(facts[shard, 0]) if facts is not None else file_size(path / name),
        crc=int(facts[shard, 1]) if facts is not None else None,
        places=places[rows.start : rows.stop] if places is not None else None,
    )
