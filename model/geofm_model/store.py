"""A small strict reader of a sealed store: opens, validates, reads sample i.

Opening reads every metadata file and compares the size of every shard (of a folder), and raises where anything differs
from the contract. Reading a sample is one read per array at the place the manifest names (geofm_model.chunks): it gives
the written pixels or an error, never fill for something that is missing. Safe to share between threads; nothing stays
open between reads, so also after a fork.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer.cpu import Buffer
from zarr.storage import MemoryStore

from geofm_model.chunks import Chunks
from geofm_model.errors import StoreError, TombstoneError
from geofm_model.files import Files, KeptFiles, files_at
from geofm_model.format import Header, array_rules, check_array, read_documents, read_header
from geofm_model.sample import BandStatistics, PixelRule, Sample

KEPT_BYTES = 1 << 30
"""Masks of a store behind an address that are kept, compressed, instead of being asked for one by one: those of about
250,000 samples."""


class Store:
    """A sealed store; make one with :meth:`open`."""

    def __init__(self, files: Files, header: Header, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        self.files = files
        self.header = header
        self._arrays = arrays
        self.image = self._chunks("image")
        self.fmask = self._chunks("fmask")

    @classmethod
    def open(cls, place: str | Path) -> Store:
        """Open and validate the store at `place`, a folder or an address (https, s3, gs, az).

        Raises
        ------
        StoreError
            When it is not a sealed store of this schema, when any metadata differs from the contract or from its
            checksum, when it cannot be read, or when a shard is missing, short or long.
        """
        files = files_at(place)
        header, root = read_header(files)
        documents = read_documents(files, header)
        rules = array_rules(header)
        for name, rule in rules.items():
            check_array(documents, files.where, name, rule)
        store = MemoryStore({name: Buffer.from_bytes(data) for name, data in (documents | {"zarr.json": root}).items()})
        group = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)
        found = cls(files, header, {name: _read(group, name) for name in rules if name not in ("image", "fmask")})
        for chunks in (found.image, found.fmask):
            chunks.check_sizes()
        return found

    def __len__(self) -> int:
        """Samples N, tombstones included."""
        return self.header.samples

    def __repr__(self) -> str:
        shape = (self.header.timesteps, len(self.header.bands), self.header.height, self.header.width)
        return f"Store({self.files.where!r}, {len(self)} samples of {shape})"

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
            raise StoreError(f"{self.files.where} has no column {name!r}: choose one of {', '.join(known)}")
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
                f"sample {index} (unit {int(a['unit'][index])}) of {self.files.where} is a tombstone: its pixels could "
                "not be read from the archive; draw indices from Store.readable, causes stand in samples.parquet"
            )
        return Sample(
            index=index,
            image=_loaded(self.image, index).view(np.int16),
            fmask=_loaded(self.fmask, index).view(np.uint8),
            lon=float(a["lon"][index]),
            lat=float(a["lat"][index]),
            date=a["date"][index].astype(np.int32),
            sensor=a["sensor"][index].astype(np.int8),
            stratum=int(a["stratum"][index]),
            split=int(a["split"][index]),
            unit=int(a["unit"][index]),
            rule=self.header.rule,
        )

    def _chunks(self, name: str) -> Chunks:
        rule = array_rules(self.header)[name]
        shards = self._arrays[f"manifest/{name}_shards"].astype(np.uint64)
        small = name == "fmask" and self.files.at_once > 0 and int(shards[:, 0].sum()) <= KEPT_BYTES
        return Chunks(
            name=name,
            files=KeptFiles(self.files) if small else self.files,
            dtype=np.dtype(rule.dtype).newbyteorder("<"),
            sample=rule.shape[1:],
            fill=self.rule.fill if name == "image" else self.rule.fmask_fill,
            shard_size=self.header.shard_size,
            index=self._arrays[f"manifest/{name}_index"].astype(np.uint64),
            crcs=self._arrays[f"manifest/{name}_crc32c"].astype(np.uint32),
            shards=shards,
        )


def _loaded(chunks: Chunks, index: int) -> NDArray[np.generic]:
    """One sample of one array in fresh memory."""
    out = np.empty(chunks.sample, dtype=chunks.dtype)
    chunks.load(index, out, lambda length: np.empty(length, dtype=np.uint8), nullcontext())
    return out


def _read(group: zarr.Group, name: str) -> NDArray[np.generic]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    values = np.asarray(array[...])
    values.flags.writeable = False
    return values
