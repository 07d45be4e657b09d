"""Seals a store: metadata arrays, manifest, exact statistics, and `complete`, last.

Every file is a function of the spec, the rows and the parts, written by rename; a kill at any point is repaired by
calling again, and a sealed store is never written to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.chips import ReadStats
from geofm_pipeline.errors import OutputConflictError
from geofm_pipeline.store.codec import ChunkEncoder, prepare
from geofm_pipeline.store.files import write_file
from geofm_pipeline.store.layout import (
    KEY,
    MANIFEST,
    ROOT,
    ArrayLayout,
    Json,
    JsonObject,
    dumps,
    group_document,
    manifest_layouts,
    root_attributes,
    row_layouts,
    sealed,
    store_layouts,
)
from geofm_pipeline.store.parts import GroupResult, Tombstone, read_part
from geofm_pipeline.store.skeleton import check_store
from geofm_pipeline.store.spec import SPLITS, StoreSpec
from geofm_pipeline.store.sums import BandSums
from geofm_pipeline.store.writer import temporary_folder
from geofm_sampling.contract import Column, TableContract

ROWS = TableContract(
    name="store rows",
    columns={
        "index": Column(type=pa.int64(), meaning="global sample index, shard × K + row; each of 0…n−1 once"),
        "unit": Column(type=pa.uint64(), meaning="packed unit id"),
        "lon": Column(type=pa.float64(), meaning="longitude of the chip's centre, degrees east"),
        "lat": Column(type=pa.float64(), meaning="latitude of the chip's centre, degrees north"),
        "date": Column(type=pa.list_(pa.int32()), meaning="T sensing days (UTC), days since 1970-01-01"),
        "sensor": Column(type=pa.list_(pa.int8()), meaning="T sensors, 0 L30, 1 S30"),
        "stratum": Column(type=pa.int32(), meaning="stratum number"),
        "split": Column(type=pa.int8(), meaning="0 train, 1 held-out, 2 test; tombstones are marked by the seal"),
    },
)
"""What the caller knows of each row, in any order."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoreSummary:
    """A sealed store in figures, for the card and samples.parquet."""

    samples: int
    """N, tombstones included."""
    tombstones: tuple[Tombstone, ...]
    sums: dict[int, BandSums]
    """Exact sums per split."""
    splits: NDArray[np.int8]
    """[N] as stored, −1 for tombstones."""
    valid_share: NDArray[np.float32]
    """[N, T] share of valid pixels of each chip and date."""
    bytes: int
    """Bytes of all shards."""
    stats: ReadStats
    """What reading cost, over all groups."""
    digest: str
    """SHA-256 of the sealed root document, which holds that of the manifest, which holds those of all others."""


def finalise(path: Path, spec: StoreSpec, parts_dir: Path, rows: pa.Table) -> StoreSummary:
    """Seal the store, or, if it is sealed already, check that it is this one; gives the same summary either way.

    Parameters
    ----------
    rows : table of contract ROWS

    Raises
    ------
    OutputConflictError
        When groups are missing, or the sealed store was made of other rows or parts.
    ResourceError
        When the disk is full; call again.
    """
    attributes = check_store(path, spec)
    parts = _parts(path, spec, parts_dir)
    columns = _columns(spec, rows, parts)
    temp_dir = temporary_folder(parts_dir)
    prepare()
    sums = _merged_sums(parts)
    write = None if attributes.get("complete") else temp_dir
    root = _seal(path, spec, {**columns, **_manifest(parts)}, sums, write)
    if write is None and (path / ROOT).read_bytes() != root:
        raise OutputConflictError(
            f"{path} is sealed and was made of other rows or pixels than these: verify it, or choose another --out"
        )
    return _summary(spec, parts, columns["split"], sums, root)


def _parts(path: Path, spec: StoreSpec, parts_dir: Path) -> list[GroupResult]:
    parts = [read_part(parts_dir, group, spec_digest=spec.digest) for group in range(spec.groups)]
    missing = [group for group, part in enumerate(parts) if part is None]
    if missing:
        raise OutputConflictError(
            f"{path} cannot be sealed: groups {missing[:8]} of {spec.groups} are not written; run the command again"
        )
    return [part for part in parts if part is not None]


def _columns(spec: StoreSpec, rows: pa.Table, parts: Sequence[GroupResult]) -> dict[str, NDArray[np.generic]]:
    """The metadata arrays by name, checked against what was really read."""
    table = ROWS.check(rows.combine_chunks()).sort_by("index")
    assert table.num_rows == spec.n, f"{table.num_rows} rows for a store of {spec.n}"
    shape = {layout.path: layout.shape for layout in row_layouts(spec)}
    columns = {name: _values(table.column(name)).reshape(shape.get(name, (spec.n,))) for name in table.column_names}
    assert np.array_equal(columns.pop("index"), np.arange(spec.n)), "each index of 0…n−1 occurs once"
    read = {"unit": "units", "date": "dates", "sensor": "sensors"}
    for name, field in read.items():
        written = np.concatenate([getattr(part, field) for part in parts])
        assert np.array_equal(columns[name], written), f"column {name} differs from the chips that were read"
    splits = np.concatenate([part.splits for part in parts])
    assert np.array_equal(columns["split"][splits >= 0], splits[splits >= 0]), "split differs from the write requests"
    return {**columns, "split": splits}


def _values(column: pa.ChunkedArray) -> NDArray[np.generic]:
    array = column.combine_chunks()
    flat = array.flatten() if pa.types.is_list(array.type) else array
    values: NDArray[np.generic] = flat.to_numpy(zero_copy_only=False)
    return values


def _manifest(parts: Sequence[GroupResult]) -> dict[str, NDArray[np.generic]]:
    """The manifest arrays by path."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for name in ("image", "fmask"):
        records = [record for part in parts for record in part.shards if record.array == name]
        facts = [(record.bytes, record.crc32c, record.samples) for record in records]
        arrays[f"{MANIFEST}/{name}_shards"] = np.array(facts, dtype=np.uint64)
        arrays[f"{MANIFEST}/{name}_index"] = np.concatenate([part.index_of(name) for part in parts])
        arrays[f"{MANIFEST}/{name}_crc32c"] = np.concatenate([part.crc32c_of(name) for part in parts])
    return arrays


def _seal(
    path: Path,
    spec: StoreSpec,
    arrays: dict[str, NDArray[np.generic]],
    sums: dict[int, BandSums],
    temp_dir: Path | None,
) -> bytes:
    """Write (unless `temp_dir` is None) everything but the shards, the root last; returns the root's bytes."""
    files: JsonObject = {}
    for name, data in _small_files(spec, arrays):
        files[name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
        if temp_dir is not None:
            write_file(path / name, data, temp_dir)
    manifest = dumps(group_document({"files": files}))
    guard: JsonObject = {"bytes": len(manifest), "sha256": sha256(manifest).hexdigest()}
    root = sealed({**root_attributes(spec), "statistics": _statistics(spec, sums), "manifest": guard})
    if temp_dir is not None:
        write_file(path / MANIFEST / ROOT, manifest, temp_dir)
        write_file(path / ROOT, root, temp_dir)
    return root


def _small_files(spec: StoreSpec, arrays: dict[str, NDArray[np.generic]]) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of every array document and of every chunk of the metadata and manifest arrays."""
    for layout in (*store_layouts(spec), *manifest_layouts(spec)):
        yield f"{layout.path}/{ROOT}", dumps(layout.document())
        if not layout.shard:
            yield from _chunks(layout, arrays[layout.path])


def _chunks(layout: ArrayLayout, values: NDArray[np.generic]) -> Iterator[tuple[str, bytes]]:
    """Stored chunks of a metadata array; the last one is padded with fill, all-fill ones are left out."""
    encoder, rows = ChunkEncoder(layout), layout.chunk[0]
    for chunk in range(layout.chunks):
        padded = np.full(layout.chunk, layout.fill, dtype=layout.dtype)
        part = values[chunk * rows : (chunk + 1) * rows]
        padded[: len(part)] = part
        data = encoder.encode(padded)
        if data is not None:
            yield layout.key(chunk), b"".join(data.pieces)


def _statistics(spec: StoreSpec, sums: dict[int, BandSums]) -> JsonObject:
    """Exact integers as decimal strings, by split and band."""
    names = {code: name for name, code in SPLITS.items()}
    return {names[split]: _split_statistics(spec, sums[split]) for split in sorted(sums)}


def _split_statistics(spec: StoreSpec, sums: BandSums) -> Json:
    bands: JsonObject = {
        band: {
            "count": str(sums.count[b]),
            "sum": str(sums.total[b]),
            "sum_of_squares": str(sums.squares[b]),
            "nonpositive": str(sums.nonpositive[b]),
        }
        for b, band in enumerate(spec.bands)
    }
    return {"samples": str(sums.samples), "bands": bands}


def _merged_sums(parts: Sequence[GroupResult]) -> dict[int, BandSums]:
    merged: dict[int, BandSums] = {}
    for part in parts:
        for split, sums in part.sums.items():
            merged[split] = merged[split] + sums if split in merged else sums
    return merged


def _summary(
    spec: StoreSpec, parts: Sequence[GroupResult], splits: NDArray[np.generic], sums: dict[int, BandSums], root: bytes
) -> StoreSummary:
    pixels = np.concatenate([part.valid_pixels for part in parts])
    stats = ReadStats()
    for part in parts:
        stats = stats + part.stats
    return StoreSummary(
        samples=spec.n,
        tombstones=tuple(stone for part in parts for stone in part.tombstones),
        sums=sums,
        splits=splits.astype(np.int8),
        valid_share=(pixels / (spec.height * spec.width)).astype(np.float32),
        bytes=sum(part.bytes for part in parts),
        stats=stats,
        digest=str(json.loads(root)["attributes"][KEY]["digest"]),
    )
