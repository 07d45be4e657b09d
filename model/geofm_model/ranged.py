"""A file of a store's folder as Python's own kind of file, read by ranges: a few columns of a large table, say."""

from __future__ import annotations

import io

import numpy as np

from geofm_model.files import Files


class RangedFile(io.RawIOBase):
    """A file to seek and read in, on a disk or behind an address.

    Raises
    ------
    FileNotFoundError
        When there is none.
    """

    def __init__(self, files: Files, name: str) -> None:
        super().__init__()
        self._files, self._name = files, name
        self._size, self._at = files.length(name), 0

    def readable(self) -> bool:
        """See io.IOBase."""
        return True

    def seekable(self) -> bool:
        """See io.IOBase."""
        return True

    def tell(self) -> int:
        """See io.IOBase."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """See io.IOBase."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """See io.RawIOBase."""
        rest = max(0, self._size - self._at)
        wanted = rest if size < 0 else min(size, rest)
        if not wanted:
            return b""
        found = self._files.part(self._name, self._at, wanted, lambda n: np.empty(n, dtype=np.uint8))
        self._at += found.size
        return found.tobytes()
