"""A seekable file over a byte source, for libraries that want a file: pyarrow, h5py."""

from __future__ import annotations

import io
import threading

from geofm_pipeline.access.source import ByteSource


class RemoteFile(io.RawIOBase):
    """The file at `href`, read by ranges; each read is at least `least` bytes, so that small ones in a row share it.

    Safe from several threads. Costs one request on opening, for the size.
    """

    def __init__(self, source: ByteSource, href: str, *, least: int = 0) -> None:
        self._source, self._href, self._least = source, href, least
        self._size = source.size(href)
        self._at, self._lock = 0, threading.RLock()
        self._ahead = (0, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        with self._lock:
            self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
            return self._at

    def size(self) -> int:
        """Bytes of the file."""
        return self._size

    def read(self, size: int | None = -1) -> bytes:
        with self._lock:
            left = max(0, self._size - self._at)
            wanted = left if size is None or size < 0 else min(size, left)
            data = self._range(self._at, wanted)
            self._at += len(data)
            return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed has a private buffer type
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _range(self, start: int, length: int) -> bytes:
        if length <= 0:
            return b""
        first, known = self._ahead
        if not (first <= start and start + length <= first + len(known)):
            first, known = start, self._source.read(self._href, start, max(length, self._least))
            self._ahead = (first, known) if len(known) <= max(self._least, 1 << 16) else (0, b"")
        return known[start - first : start - first + length]
