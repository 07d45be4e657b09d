"""A small strict reader of a sealed store: opens, validates, reads sample i.

Opening reads every metadata file and compares the size of every shard, and raises where anything differs from the
contract. Reading a sample is one pread per array at the place the manifest names, a CRC-32C check and one blosc
decode; Zarr is not on that path. It gives the written pixels or an error, never fill for something that is missing.
Safe to share between threads; nothing stays open between reads, so also after a fork.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
import zarr
from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue]  # a compiled module without types
from numpy.typing import NDArray

from geofm_model.errors import StoreError, TombstoneError
from geofm_model.format import (
    NO_CHUNK,
    REMEDY,
    Header,
    array_rules,
    check_array,
    chunk_name,
    read_header,
    read_manifest,
)
from geofm_model.sample import BandStatistics, PixelRule, Sample

_RESIDUE = 0x48674BC7  # CRC-32C of any bytes followed by their own CRC-32C
_HEADER = 16  # bytes of a blosc header: typesize at 3, uncompressed size at 4, compressed size at 12


@dataclass(frozen=True, kw_only=True, eq=False)
class _Chunked:
    """Where the samples of one sharded array lie."""

    name: str
    dtype: np.dtype[np.generic]
    sample: tuple[int, ...]
    """Shape of one sample."""
    fill: int
    index: NDArray[np.uint64]
    """[N, 2] offset and length in the shard."""
    crcs: NDArray[np.uint32]
    """[N] CRC-32C of the encoded bytes."""
    shards: NDArray[np.uint64]
    """[S, 3] bytes, CRC-32C and samples of each shard."""


class Store:
    """A sealed store; make one with :meth:`open`."""

    def __init__(self, path: Path, header: Header, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self.path = path
        self.header = header
        self._arrays = arrays
        self._image = self._chunked("image")
        self._fmask = self._chunked("fmask")

    @classmethod
    def open(cls, path: str | Path) -> Store:
        """Open and validate the store at `path`.

        Raises
        ------
        StoreError
            When it is not a sealed store of this schema, when any metadata differs from the contract or from its
            checksum, or when a shard is missing, short or long.
        """
        folder = Path(path)
        header = read_header(folder)
        read_manifest(folder, header)
        rules = array_rules(header)
        for name, rule in rules.items():
            check_array(folder, name, rule)
        blosc.use_threads = False
        group = zarr.open_group(str(folder), mode="r", zarr_format=3, use_consolidated=False)
        arrays = {name: _read(group, name) for name in rules if name not in ("image", "fmask")}
        store = cls(folder, header, arrays)
        for chunked in (store._image, store._fmask):
            store._check_sizes(chunked)
        return store

    def __len__(self) -> int:
        """Samples N, tombstones included."""
        return self.header.samples

    def __repr__(self) -> str:
        shape = (self.header.timesteps, len(self.header.bands), self.header.height, self.header.width)
        return f"Store({str(self.path)!r}, {len(self)} samples of {shape})"

    @property
    def readable(self) -> NDArray[np.int64]:
        """Indices of all samples but the tombstones, ascending."""
        return np.flatnonzero(self._arrays["split"].astype(np.int8) >= 0)

    @property
    def rule(self) -> PixelRule:
        """The valid-pixel rule the store records."""
        return self.header.rule

    @property
    def statistics(self) -> Mapping[str, Mapping[str, BandStatistics]]:
        """Exact sums over valid pixels, by split name and band."""
        return self.header.statistics

    def column(self, name: str) -> NDArray[np.generic]:
        """A metadata array of all samples: lon, lat, date, sensor, stratum, split or unit; read-only."""
        if name not in self._arrays or "/" in name:
            known = [key for key in self._arrays if "/" not in key]
            raise StoreError(f"{self.path} has no column {name!r}: choose one of {', '.join(known)}")
        return self._arrays[name]

    def sample(self, index: int) -> Sample:
        """Sample `index`, 0 ≤ index < len(self).

        Raises
        ------
        IndexError
            Outside the store.
        TombstoneError
            When its pixels could never be read; see `readable`.
        StoreError
            When its shard is missing or its bytes are not what was written.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of a store with {len(self)}: indices run from 0 to {len(self) - 1}")
        a = self._arrays
        if int(a["split"][index]) < 0:
            raise TombstoneError(
                f"sample {index} (unit {int(a['unit'][index])}) of {self.path} is a tombstone: its pixels could not be "
                "read from the archive; draw indices from Store.readable, causes stand in samples.parquet"
            )
        return Sample(
            index=index,
            image=self._load(self._image, index).view(np.int16),
            fmask=self._load(self._fmask, index).view(np.uint8),
            lon=float(a["lon"][index]),
            lat=float(a["lat"][index]),
            date=a["date"][index].astype(np.int32),
            sensor=a["sensor"][index].astype(np.int8),
            stratum=int(a["stratum"][index]),
            split=int(a["split"][index]),
            unit=int(a["unit"][index]),
            rule=self.header.rule,
        )

    def _chunked(self, name: str) -> _Chunked:
        rule = array_rules(self.header)[name]
        return _Chunked(
            name=name,
            dtype=np.dtype(rule.dtype).newbyteorder("<"),
            sample=rule.shape[1:],
            fill=self.rule.fill if name == "image" else self.rule.fmask_fill,
            index=self._arrays[f"manifest/{name}_index"].astype(np.uint64),
            crcs=self._arrays[f"manifest/{name}_crc32c"].astype(np.uint32),
            shards=self._arrays[f"manifest/{name}_shards"].astype(np.uint64),
        )

    def _file(self, chunked: _Chunked, shard: int) -> Path:
        return self.path / chunk_name(chunked.name, shard, len(chunked.sample) + 1)

    def _check_sizes(self, chunked: _Chunked) -> None:
        for shard, (size, _, samples) in enumerate(chunked.shards.tolist()):
            file = self._file(chunked, shard)
            actual = file.stat().st_size if file.exists() else 0
            if actual != size:
                first = shard * self.header.shard_size
                raise StoreError(
                    f"shard {file} has {actual} bytes instead of {size}{' (it is missing)' if not actual else ''}: "
                    f"samples {first}–{first + samples - 1} are hit; {REMEDY}"
                )

    def _load(self, chunked: _Chunked, index: int) -> NDArray[np.generic]:
        """Decode one sample of one array into fresh memory."""
        out = np.empty(chunked.sample, dtype=chunked.dtype)
        offset, length = (int(value) for value in chunked.index[index])
        if offset == NO_CHUNK:
            out.fill(chunked.fill)
            return out
        data = self._pread(chunked, index, offset, length)
        blosc.decompress(memoryview(data)[:-4], out)
        return out

    def _pread(self, chunked: _Chunked, index: int, offset: int, length: int) -> bytes:
        """The stored chunk, checked: length, CRC-32C, and that blosc will write exactly one sample."""
        file = self._file(chunked, index // self.header.shard_size)
        try:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise StoreError(f"sample {index} cannot be read: shard {file} is missing; {REMEDY}") from None
        try:
            data = os.pread(fd, length, offset)
        finally:
            os.close(fd)
        if len(data) != length:
            raise StoreError(f"sample {index} cannot be read: shard {file} ends early; {REMEDY}")
        # The residue says that the bytes fit the checksum at their end, the manifest that it is this sample's.
        written = int.from_bytes(data[-4:], "little") == chunked.crcs[index]
        if length < _HEADER + 4 or not written or google_crc32c.value(data) != _RESIDUE or not _fits(data, chunked):
            raise StoreError(f"sample {index} of shard {file} is corrupt: its CRC-32C does not match; {REMEDY}")
        return data


def _fits(data: bytes, chunked: _Chunked) -> bool:
    size = int(np.prod(chunked.sample)) * chunked.dtype.itemsize
    typesize, nbytes, cbytes = data[3], int.from_bytes(data[4:8], "little"), int.from_bytes(data[12:16], "little")
    return typesize == chunked.dtype.itemsize and nbytes == size and cbytes == len(data) - 4


def _read(group: zarr.Group, name: str) -> NDArray[np.generic]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    values = np.asarray(array[...])
    values.flags.writeable = False
    return values
