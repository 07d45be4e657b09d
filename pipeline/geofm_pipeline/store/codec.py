"""Deterministic encoding of chunks and of shard indexes, byte for byte what zarr-python writes for the same array.

An inner chunk is blosc(bytes) followed by the CRC-32C of that, little-endian. A shard is its inner chunks, then the
index: K pairs (offset, length) as little-endian uint64 and their CRC-32C. All-fill chunks are not stored. Numcodecs
and google-crc32c release the GIL, so threads encode in parallel.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import google_crc32c
import numpy as np
from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue]  # a compiled module without types
from numpy.typing import NDArray

from geofm_pipeline.store.layout import NO_CHUNK, ArrayLayout

_SHUFFLE = {"shuffle": 1, "bitshuffle": 2}
RESIDUE = 0x48674BC7
"""CRC-32C of any bytes followed by their own little-endian CRC-32C: how a stored chunk is checked in one call."""


def prepare() -> None:
    """Make blosc's output a function of its input alone; call once in every process that encodes.

    Blosc's own threads are switched off (they change nothing but speed and clash with ours), and `BLOSC_*`
    environment variables, which override codec parameters silently, are removed from this process.
    """
    blosc.use_threads = False
    for name in [name for name in os.environ if name.startswith("BLOSC_")]:
        del os.environ[name]


def keep_memory(size: int) -> None:
    """Let blocks of up to `size` bytes be used again instead of being returned to the kernel and cleared anew.

    Glibc maps a large block afresh for every allocation, until the first time that a still larger one is freed
    (mallopt(3), M_MMAP_THRESHOLD, at most 32 MiB); clearing those pages costs a fifth as much as encoding them.
    """
    np.empty(2 * size, dtype=np.uint8)


def crc32c(data: bytes, start: int = 0) -> int:
    """CRC-32C (Castagnoli) of `data`, continued from `start`."""
    return int(google_crc32c.extend(start, data))


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """The stored bytes of one inner chunk, in two pieces so that nobody copies megabytes to append four bytes."""

    payload: bytes
    """What blosc made."""
    crc32c: int
    """CRC-32C of the payload."""

    def __len__(self) -> int:
        return len(self.payload) + 4

    @property
    def pieces(self) -> tuple[bytes, bytes]:
        """What is stored, one after the other: the payload and its little-endian CRC-32C."""
        return self.payload, struct.pack("<I", self.crc32c)


class ChunkEncoder:
    """Encodes arrays of one layout; safe to share between threads."""

    def __init__(self, layout: ArrayLayout) -> None:
        codec = layout.codec
        self._fill = layout.fill
        self._dtype = np.dtype(layout.dtype).newbyteorder("<")
        # The element size of the array given to encode() is blosc's typesize, in every version of numcodecs.
        self._blosc = blosc.Blosc(
            cname=codec.cname, clevel=codec.clevel, shuffle=_SHUFFLE[codec.shuffle], blocksize=codec.blocksize
        )

    def encode(self, values: NDArray[np.generic]) -> Chunk | None:
        """The chunk of these values, None where every value is the fill."""
        if is_fill(values, self._fill):
            return None
        payload: bytes = self._blosc.encode(np.ascontiguousarray(values, dtype=self._dtype))
        return Chunk(payload=payload, crc32c=google_crc32c.value(payload))


def is_fill(values: NDArray[np.generic], fill: int | float) -> bool:
    """Whether every value is the fill; NaN equals NaN here."""
    first = values.reshape(-1)[:1]
    if fill != fill:
        return bool(np.isnan(first).all() and np.isnan(values).all())
    return bool((first == fill).all() and (values == fill).all())


def encode_index(places: NDArray[np.uint64]) -> bytes:
    """The index that ends a shard; `places` is [K, 2] of (offset, length), NO_CHUNK for chunks not stored."""
    body = np.ascontiguousarray(places, dtype="<u8").tobytes()
    return body + struct.pack("<I", google_crc32c.value(body))


def decode_index(data: bytes, shard_size: int) -> NDArray[np.uint64] | None:
    """Inverse of :func:`encode_index`; None when the length or the checksum is wrong."""
    if len(data) != index_size(shard_size) or google_crc32c.value(data) != RESIDUE:
        return None
    return np.frombuffer(data[:-4], dtype="<u8").reshape(shard_size, 2).astype(np.uint64)


def index_size(shard_size: int) -> int:
    """Bytes of a shard's index."""
    return 16 * shard_size + 4


def no_places(n: int) -> NDArray[np.uint64]:
    """An index of n chunks, none stored, [n, 2]."""
    return np.full((n, 2), NO_CHUNK, dtype=np.uint64)
