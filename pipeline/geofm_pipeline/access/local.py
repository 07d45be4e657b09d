"""Local files by path or file:// URL, by positioned reads on few descriptors."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from geofm_pipeline.access.faults import Fault, FetchError

T = TypeVar("T")


class LocalFiles:
    """Reads local files from any thread, on at most `open_files` descriptors."""

    def __init__(self, *, open_files: int = 256) -> None:
        self._limit, self._lock = open_files, threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()

    def read(self, href: str, start: int, length: int) -> bytes:
        """`length` bytes from byte `start`, fewer at the end of the file."""
        return self._call(href, lambda file: _pread(file.descriptor, length, start))

    def read_all(self, href: str) -> bytes:
        """The whole file."""
        return self._call(href, lambda file: _pread(file.descriptor, os.fstat(file.descriptor).st_size, 0))

    def size(self, href: str) -> int:
        """Bytes of the file."""
        return self._call(href, lambda file: os.fstat(file.descriptor).st_size)

    def _call(self, href: str, read: Callable[[_File], T]) -> T:
        try:
            return read(self._file(href))
        except FileNotFoundError:
            raise FetchError(Fault.MISSING, "the file does not exist") from None
        except OSError as error:
            raise FetchError(Fault.LOCAL, f"the file cannot be read: {error.strerror}") from None

    def _file(self, href: str) -> _File:
        with self._lock:
            file = self._files.pop(href, None) or _File(local_path(href))
            self._files[href] = file
            if len(self._files) > self._limit:
                self._files.popitem(last=False)  # closes when the last reading thread lets go of it
            return file


class _File:
    """An open descriptor, closed with the last reference."""

    def __init__(self, path: Path) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


def _pread(descriptor: int, length: int, start: int) -> bytes:
    """Like os.pread, which may stop short: Linux after 2 GiB, network file systems whenever they like."""
    data = os.pread(descriptor, length, start)
    if len(data) == length or not data:
        return data
    pieces, found = [data], len(data)
    while found < length and (data := os.pread(descriptor, length - found, start + found)):
        pieces.append(data)
        found += len(data)
    return b"".join(pieces)


def local_path(href: str) -> Path:
    """Path of a plain path or file:// URL."""
    return Path(unquote(urlsplit(href).path)) if href.startswith("file://") else Path(href)


def is_local(href: str) -> bool:
    """Whether an href is a plain path or a file:// URL."""
    return "://" not in href or href[:7].lower() == "file://"
