"""A read-only Zarr store (versions 2 and 3) over a byte source: the same login, pace, retries and counts as all reads.

Object stores behind http list nothing, so a group is opened by its consolidated metadata. A chunk without an object is
fill, as Zarr has it, and is counted; one that cannot be had (403, 5xx, a time-out) raises and never becomes fill. One
request per chunk; chunks of one selection are asked for together, by up to THREADS threads (zarr's own limit is ten).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.source import ByteSource
from geofm_pipeline.addresses import shown

THREADS = 16
"""Requests at once for the chunks of one selection; the pace of the host limits them besides."""
ABSENT_CHUNKS = "Zarr chunks without an object (fill)"
ABSENT_DOCUMENTS = "Zarr documents of another version"
_MARKERS = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")
"""Documents at the root that tell the version; a store that may not be listed answers 403 for those it lacks."""
_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata", ".zarray")


class ArchiveStore(Store):
    """The Zarr below an address, through a byte source.

    Parameters
    ----------
    source : where bytes come from
    root : address of the group, without a key
    """

    def __init__(self, source: ByteSource, root: str) -> None:
        super().__init__(read_only=True)
        self._bytes, self._root = source, root.rstrip("/")
        self._documents: dict[str, bytes | None] = {}
        self.refused: FetchError | None = None
        """What kept a root document from being read, where its absence was only assumed."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ArchiveStore) and other._root == self._root

    def __hash__(self) -> int:
        return hash(self._root)

    def __str__(self) -> str:
        return shown(self._root)

    def __repr__(self) -> str:
        return f"ArchiveStore({shown(self._root)!r})"

    @property
    def supports_writes(self) -> bool:
        return False

    @property
    def supports_deletes(self) -> bool:
        return False

    @property
    def supports_listing(self) -> bool:
        return False

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The object of a key or a range of it, None where there is none; raises FetchError when it cannot be had."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(_threads(os.getpid()), self._fetched, key, byte_range)
        return None if found is None else prototype.buffer.from_bytes(found)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several ranges at once, in order."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is an object of a key, by one small request."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(_threads(os.getpid()), self._fetched, key, RangeByteRequest(0, 1))
        return found is not None

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError("this store is read-only")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("this store is read-only")

    def list(self) -> AsyncIterator[str]:
        raise NotImplementedError("this store cannot be listed")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError("this store cannot be listed")

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError("this store cannot be listed")

    def _fetched(self, key: str, part: ByteRequest | None) -> bytes | None:
        if key.rpartition("/")[2] in _METADATA and part is None:
            if key not in self._documents:  # xarray and zarr each ask for them
                self._documents[key] = self._read(key, None)
            return self._documents[key]
        return self._read(key, part)

    def _read(self, key: str, part: ByteRequest | None) -> bytes | None:
        href = f"{self._root}/{key}"
        try:
            if part is None:
                return self._bytes.read_all(href)
            start, stop = self._span(href, part)
            return self._bytes.read(href, start, stop - start)
        except FetchError as error:
            if error.fault == Fault.MISSING:
                of_chunk = key.rpartition("/")[2] not in _METADATA
                self._bytes.tally.expected(error.fault, ABSENT_CHUNKS if of_chunk else ABSENT_DOCUMENTS)
                return None
            if error.fault == Fault.LOGIN and key in _MARKERS:
                self._bytes.tally.expected(error.fault, ABSENT_DOCUMENTS)
                self.refused = error
                return None
            raise

    def _span(self, href: str, part: ByteRequest) -> tuple[int, int]:
        if isinstance(part, RangeByteRequest):
            return part.start, part.end
        size = self._bytes.size(href)
        if isinstance(part, OffsetByteRequest):
            return part.offset, size
        assert isinstance(part, SuffixByteRequest)
        return max(0, size - part.suffix), size


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    """Threads of this process; those of a parent process do not come along."""
    return ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="zarr-chunk")
