"""The bytes of a store, on a disk or behind an address: whole small files, sizes, and ranges into given memory."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from geofm_model.addresses import shown
from geofm_model.errors import ForbiddenError, StoreError
from geofm_model.faults import cause_of, check_address

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

Bytes = NDArray[np.uint8]
_ONE_SLASH = re.compile(r"(https?|s3|gs|az):/[^/]")
_HASTE: RetryConfig = {"max_retries": 10}
_PATIENCE: RetryConfig = {
    "max_retries": 1000,
    "retry_timeout": timedelta(minutes=5),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=15), "base": 3},
}


class Files(Protocol):
    """Read by name, from any thread and, after a fork, in any process."""

    @property
    def where(self) -> str:
        """Path or address, for messages."""
        ...

    @property
    def at_once(self) -> int:
        """Reads that should be under way at a time, beyond the processor's cores."""
        ...

    def read(self, name: str) -> bytes:
        """A whole file; FileNotFoundError where there is none."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file, 0 where there is none, None where asking costs too much."""
        ...

    def length(self, name: str) -> int:
        """Bytes of a file, by a request where need be; FileNotFoundError where there is none."""
        ...

    def part(self, name: str, offset: int, length: int, scratch: Callable[[int], Bytes]) -> Bytes:
        """`length` bytes from `offset`, fewer at the end of the file; FileNotFoundError where there is no file.

        `scratch(n)` gives n bytes of the calling thread's own memory, for those who need memory to read into.
        """
        ...


class LocalFiles:
    """A folder; implements Files. Nothing stays open: opening costs 10 µs, a hundredth of decoding a sample."""

    at_once = 0

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def where(self) -> str:
        """See :class:`Files`."""
        return str(self.folder)

    def read(self, name: str) -> bytes:
        """See :class:`Files`."""
        return (self.folder / name).read_bytes()

    def size(self, name: str) -> int:
        """See :class:`Files`."""
        try:
            return (self.folder / name).stat().st_size
        except FileNotFoundError:
            return 0

    def length(self, name: str) -> int:
        """See :class:`Files`."""
        return (self.folder / name).stat().st_size

    def part(self, name: str, offset: int, length: int, scratch: Callable[[int], Bytes]) -> Bytes:
        """See :class:`Files`."""
        with open(f"{self.folder}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - Path takes 20 µs for its name
            file.seek(offset)
            out, done = scratch(length), 0
            while done < length and (got := file.readinto(out[done:].data)):
                done += got
            return out[:done]


class ObjectFiles:
    """A prefix of an object store or a web server; implements Files.

    s3, gs and az take credentials from the environment as obstore documents (AWS_…, GOOGLE_…, AZURE_…); https is asked
    as it stands, whoever's the server is, so that public buckets need none. Transient faults are tried again: for some
    seconds until the place has answered once, so that a wrong address is soon told, and for five minutes after that.
    """

    at_once = 24  # of samples of 2 MB; more hold memory and, at 30 ms, gain nothing

    def __init__(self, address: str) -> None:
        self.address = address if address.endswith("://") else address.rstrip("/")
        self._answered = False
        self._known: tuple[bool, ObjectStore] | None = None

    @property
    def where(self) -> str:
        """The address without user, password and query, which may be secret."""
        return shown(self.address)

    def read(self, name: str) -> bytes:
        """See :class:`Files`."""
        with self._errors(name):
            return bytes(self._store().get(name).bytes())

    def size(self, name: str) -> None:
        """See :class:`Files`: a HEAD for each shard of a large store would take longer than its first batches."""

    def length(self, name: str) -> int:
        """See :class:`Files`; by a GET of one byte, since signed addresses may allow nothing else."""
        with self._errors(name):
            return self._store().get(name, options={"range": (0, 1)}).meta["size"]

    def part(self, name: str, offset: int, length: int, scratch: Callable[[int], Bytes]) -> Bytes:
        """See :class:`Files`; in the memory that the answer came in."""
        with self._errors(name):
            body = self._store().get_range(name, start=offset, length=length)
        return np.frombuffer(memoryview(body), dtype=np.uint8)

    def _store(self) -> ObjectStore:
        """That of this process, as patient as is due."""
        _forbid_fork(self.where)
        if self._known is None or self._known[0] != self._answered:
            self._known = self._answered, self._opened(_PATIENCE if self._answered else _HASTE)
        return self._known[1]

    def _opened(self, retries: RetryConfig) -> ObjectStore:
        check_address(self.address)
        from obstore.store import HTTPStore, from_url

        if self.address.startswith(("http://", "https://")):
            plain: ClientConfig = {"allow_http": True} if self.address.startswith("http://") else {}
            return HTTPStore.from_url(self.address, client_options=plain, retry_config=retries)
        return from_url(self.address, retry_config=retries)

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        from obstore.exceptions import BaseError, PermissionDeniedError

        try:
            yield
            self._answered = True
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.where}/{name} is not there") from None  # obstore's has the whole address
        except StoreError:
            raise
        except (BaseError, ValueError) as error:  # the latter of an address that cannot be
            kind = ForbiddenError if isinstance(error, PermissionDeniedError) else StoreError
            raise kind(f"{self.where}/{name} cannot be read: {cause_of(error, self.address)}") from None

    def __reduce__(self) -> tuple[object, ...]:
        return ObjectFiles, (self.address,)


class KeptFiles:
    """Whole files of another place, read when first asked for and kept; implements Files.

    For small files with many parts: the masks of a shard are a hundredth of its pixels, and one request instead of 64.
    """

    def __init__(self, files: Files) -> None:
        self._files, self._guard = files, threading.Lock()
        self._locks: dict[str, threading.Lock] = {}
        self._kept: dict[str, Bytes] = {}

    @property
    def where(self) -> str:
        """See :class:`Files`."""
        return self._files.where

    @property
    def at_once(self) -> int:
        """See :class:`Files`."""
        return self._files.at_once

    def read(self, name: str) -> bytes:
        """See :class:`Files`."""
        return self._files.read(name)

    def size(self, name: str) -> int | None:
        """See :class:`Files`."""
        return self._files.size(name)

    def length(self, name: str) -> int:
        """See :class:`Files`."""
        return self._files.length(name)

    def part(self, name: str, offset: int, length: int, scratch: Callable[[int], Bytes]) -> Bytes:
        """See :class:`Files`."""
        with self._guard:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            if name not in self._kept:
                self._kept[name] = np.frombuffer(self._files.read(name), dtype=np.uint8)
        return self._kept[name][offset : offset + length]

    def __reduce__(self) -> tuple[object, ...]:
        return KeptFiles, (self._files,)


_network: list[int] = []
"""The first process, of this and those it was forked from, that read from an address."""


def _forbid_fork(where: str) -> None:
    """obstore's threads stay behind in a fork, where it would wait for them for ever."""
    if not _network:
        _network.append(os.getpid())
    elif _network[0] != os.getpid():
        raise StoreError(
            f"{where} cannot be read here: this process was forked from one that had read from an address; start "
            "processes by spawn or forkserver (DataLoader(..., multiprocessing_context='spawn'))"
        )


def below(place: str | Path, name: str) -> str:
    """Path or address of something in a folder; the query of an address stays.

    >>> below("https://host/out?sig=x", "store.zarr")
    'https://host/out/store.zarr?sig=x'
    """
    path, question, query = str(place).partition("?") if "://" in str(place) else (str(place), "", "")
    return f"{path.rstrip('/')}/{name}{question}{query}"


def files_at(place: str | Path) -> Files:
    """The files of a path or an address (https, s3, gs, az; http for servers in the house).

    Raises
    ------
    StoreError
        For an address that has lost a slash, as by `pathlib.Path`.
    """
    text = str(place)
    if found := _ONE_SLASH.match(text):
        raise StoreError(f"{text} is a path: write an address as text, with two slashes, {found[1]}://…")
    if text.startswith("file://"):
        return LocalFiles(Path(unquote(urlsplit(text).path)))
    return ObjectFiles(text) if "://" in text else LocalFiles(Path(text).expanduser())
