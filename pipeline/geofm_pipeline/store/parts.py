"""What one write group gave: the record that says a group is committed, and everything the seal needs of it.

Parts lie beside the store, one JSON file per group, written after the group's last shard. They may be removed once
the store is sealed and `samples.parquet` is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geofm_pipeline.chips import ReadStats
from geofm_pipeline.store.codec import crc32c
from geofm_pipeline.store.files import write_file
from geofm_pipeline.store.sums import BandSums


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One stored shard."""

    array: str
    """`image` or `fmask`."""
    shard: int
    bytes: int
    """Size of the file; 0 where every chunk is fill and, as Zarr does, no file exists."""
    crc32c: int
    """CRC-32C of the whole file."""
    samples: int
    """Samples of the store in this shard."""


@dataclass(frozen=True, kw_only=True)
class Tombstone:
    """A row whose pixels can never be read."""

    index: int
    """Global sample index."""
    unit: int
    granule: str
    band: str
    """Canonical band or asset that failed."""
    cause: str


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupResult:
    """A committed group of m samples, in the order of their global index."""

    group: int
    spec_digest: str
    """Digest of the store's spec; a part of another store never counts."""
    units: NDArray[np.uint64]
    """[m]"""
    splits: NDArray[np.int8]
    """[m]; −1 for tombstones."""
    dates: NDArray[np.int32]
    """[m, T] days since 1970-01-01, of the granules that were read."""
    sensors: NDArray[np.int8]
    """[m, T]; 0 L30, 1 S30."""
    valid_pixels: NDArray[np.int32]
    """[m, T] valid pixels of each chip and date; 0 for tombstones."""
    image_index: NDArray[np.uint64]
    """[m, 2] offset and length of each image chunk in its shard."""
    fmask_index: NDArray[np.uint64]
    """[m, 2] likewise for the mask."""
    image_crc32c: NDArray[np.uint32]
    """[m] CRC-32C of each encoded image."""
    fmask_crc32c: NDArray[np.uint32]
    """[m] likewise for the mask."""
    shards: tuple[ShardRecord, ...]
    sums: Mapping[int, BandSums]
    """Exact sums per split."""
    tombstones: tuple[Tombstone, ...]
    stats: ReadStats
    """What reading this group cost."""

    @property
    def bytes(self) -> int:
        """Bytes stored for this group."""
        return sum(record.bytes for record in self.shards)

    def index_of(self, array: str) -> NDArray[np.uint64]:
        """`image_index` or `fmask_index`."""
        return self.image_index if array == "image" else self.fmask_index

    def crc32c_of(self, array: str) -> NDArray[np.uint32]:
        """`image_crc32c` or `fmask_crc32c`."""
        return self.image_crc32c if array == "image" else self.fmask_crc32c


_ARRAYS = {
    "units": np.uint64,
    "splits": np.int8,
    "dates": np.int32,
    "sensors": np.int8,
    "valid_pixels": np.int32,
    "image_index": np.uint64,
    "fmask_index": np.uint64,
    "image_crc32c": np.uint32,
    "fmask_crc32c": np.uint32,
}


def part_path(parts_dir: Path, group: int) -> Path:
    """File of a group's part."""
    return parts_dir / f"group-{group:06d}.json"


def write_part(parts_dir: Path, temp_dir: Path, result: GroupResult) -> None:
    """Commit a group: from now on a resumed run does not redo it."""
    body = {field.name: getattr(result, field.name) for field in fields(result)}
    for name in _ARRAYS:
        body[name] = body[name].tolist()
    body["shards"] = [asdict(record) for record in result.shards]
    body["sums"] = {str(split): asdict(sums) for split, sums in sorted(result.sums.items())}
    body["tombstones"] = [asdict(stone) for stone in result.tombstones]
    body["stats"] = result.stats.as_dict()
    text = json.dumps(body)
    data = f'{{"crc32c": {crc32c(text.encode())}, "part": {text}}}\n'
    write_file(part_path(parts_dir, result.group), data.encode(), temp_dir)


def read_part(parts_dir: Path, group: int, *, spec_digest: str) -> GroupResult | None:
    """The group's part; None where there is none, it is damaged, or it belongs to another store."""
    try:
        text = part_path(parts_dir, group).read_text()
        document = json.loads(text)
        body = document["part"]
        intact = crc32c(json.dumps(body).encode()) == document["crc32c"]
    except (FileNotFoundError, UnicodeDecodeError, ValueError, KeyError, TypeError):
        return None
    if not intact or body["spec_digest"] != spec_digest or body["group"] != group:
        return None
    return _from_body(body)


def _from_body(body: dict[str, Any]) -> GroupResult:
    arrays = {name: np.array(body[name], dtype=dtype) for name, dtype in _ARRAYS.items()}
    sums = {int(split): _sums(entry) for split, entry in body["sums"].items()}
    return GroupResult(
        group=body["group"],
        spec_digest=body["spec_digest"],
        **arrays,
        shards=tuple(ShardRecord(**entry) for entry in body["shards"]),
        sums=sums,
        tombstones=tuple(Tombstone(**entry) for entry in body["tombstones"]),
        stats=ReadStats.from_dict(body["stats"]),
    )


def _sums(entry: dict[str, Any]) -> BandSums:
    return BandSums(
        samples=entry["samples"],
        count=tuple(entry["count"]),
        total=tuple(entry["total"]),
        squares=tuple(entry["squares"]),
        nonpositive=tuple(entry["nonpositive"]),
    )
