"""Byte sources: the bytes of an href, whatever it names, or an error that says whether asking again may help.

:class:`ArchiveSource` serves plain paths, file://, http(s)://, s3:// and gs://. It tries transient faults again itself,
with jittered waits that double, or as long as the server's Retry-After asks, and counts what it did.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar
from weakref import WeakSet

from geofm_pipeline.access.faults import Fault, FetchError
from geofm_pipeline.access.http import Response
from geofm_pipeline.access.local import LocalFiles, is_local
from geofm_pipeline.access.notices import NOTICES, QUIET_S
from geofm_pipeline.access.routes import host_key
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.access.transport import Ask, Span, Transport, file_size, transport
from geofm_pipeline.interrupts import beside
from geofm_pipeline.progress import duration

T = TypeVar("T")


class ByteSource(Protocol):
    """Reads bytes by href, from any thread.

    Obligations: returns fewer bytes than asked for only at the end of the file; raises FetchError for everything else;
    retries transient faults before it raises them; is picklable without any secret, so that it can travel to workers.
    """

    @property
    def tally(self) -> Tally:
        """What this source has cost so far."""
        ...

    def read(self, href: str, start: int, length: int) -> bytes:
        """`length` bytes from byte `start`."""
        ...

    def read_all(self, href: str) -> bytes:
        """The whole file by one request."""
        ...

    def size(self, href: str) -> int:
        """Bytes of the file, by at most one request."""
        ...

    def twin(self) -> ByteSource:
        """A source like this one that counts from zero; each piece of work has one of its own."""
        ...

    def stop(self) -> None:
        """Reads that are under way, in whatever thread, give up instead of waiting to be tried again."""
        ...

    def at_once(self, href: str, *, local: int) -> int:
        """How many reads should be under way at once for files like this one: `local` of local ones, more behind a
        network, where latency counts."""
        ...


FIRST_ATTEMPTS = 4
"""Tries of a host that has never answered: a wrong address or a machine without a network is told in seconds."""


_ALIVE: WeakSet[ArchiveSource] = WeakSet()


def stop_all() -> None:
    """End what any source of this process waits for: the process is going to end, and its threads with it."""
    for source in list(_ALIVE):
        source.stop()


class ArchiveSource:
    """Whatever an archive's hrefs name; implements ByteSource. Sources of a process share all but the tally."""

    def __init__(self, access: Access | None = None) -> None:
        self.access, self.tally = access or Access(), Tally()
        # Of this source alone: a descriptor that outlived its work would read a file that was replaced meanwhile.
        self._files = LocalFiles()
        self._known: tuple[int, Transport] | None = None
        self._stopped = threading.Event()
        _ALIVE.add(self)

    def read(self, href: str, start: int, length: int) -> bytes:
        """See :class:`ByteSource`."""
        if is_local(href):
            return self._counted(lambda: self._files.read(href, start, length))
        if length <= 0:
            return b""
        response = self._patiently(href, partial(self._once, href, (start, start + length)))
        return b"" if response.status == 416 else response.body

    def read_all(self, href: str) -> bytes:
        """See :class:`ByteSource`."""
        if is_local(href):
            return self._counted(lambda: self._files.read_all(href))
        return self._patiently(href, partial(self._once, href, None)).body

    def size(self, href: str) -> int:
        """See :class:`ByteSource`; FetchError where the server does not say."""
        if is_local(href):
            return self._counted(lambda: self._files.size(href))
        size = file_size(self._patiently(href, partial(self._once, href, (0, 1))))
        if size is None:
            raise FetchError(Fault.NO_RANGES, "the server does not say how large the file is")
        return size

    def get(self, href: str, *, headers: Mapping[str, str] | None = None) -> Response:
        """A service's document: status 200, headers, and the body, whose compression on the way is undone."""
        return self._patiently(href, partial(self._once, href, None, headers or {}, document=True))

    def twin(self) -> ArchiveSource:
        """See :class:`ByteSource`."""
        return ArchiveSource(self.access)

    def stop(self) -> None:
        """See :class:`ByteSource`."""
        self._stopped.set()

    def at_once(self, href: str, *, local: int) -> int:
        """See :class:`ByteSource`."""
        return local if is_local(href) else self.access.in_flight

    def _once(
        self, href: str, span: Span | None, headers: Mapping[str, str] | None = None, *, document: bool = False
    ) -> Response:
        ask = Ask(span=span, tally=self.tally, stop=self._stopped, headers=headers or {}, document=document)
        return self._transport().fetch(href, ask)

    def _transport(self) -> Transport:
        """That of this process; looked up once, and again in a process that was forked off."""
        if self._known is None or self._known[0] != os.getpid():
            self._known = (os.getpid(), transport(self.access))
        return self._known[1]

    def _counted(self, read: Callable[[], T]) -> T:
        try:
            return read()
        except FetchError as error:
            self.tally.failed(error.fault)
            raise

    def _patiently(self, href: str, fetch: Callable[[], Response]) -> Response:
        if threading.current_thread() is not threading.main_thread():
            return self._repeated(href, fetch)
        # Signals reach the main thread only between two steps of Python: it must not sit in libcurl.
        try:
            return beside(lambda: self._repeated(href, fetch))
        except (KeyboardInterrupt, SystemExit):
            self.stop()
            raise

    def _repeated(self, href: str, fetch: Callable[[], Response]) -> Response:
        access, began = self.access, time.monotonic()
        wait = access.first_wait_s
        for attempt in range(access.attempts):
            try:
                return fetch()
            except FetchError as error:
                most = min(access.attempts, FIRST_ATTEMPTS) if error.unreached else access.attempts
                if not error.transient or attempt + 1 >= most or self._stopped.is_set():
                    self.tally.failed(error.fault)
                    raise
                self.tally.retried(error.fault)
                pause = max(wait * random.uniform(0.5, 1.5), error.retry_after_s or 0.0)
                pause = min(pause, access.longest_wait_s)
                if time.monotonic() - began + pause >= QUIET_S:
                    tried = f"{attempt + 1} of {most} tries made, the next one in {duration(pause)}"
                    NOTICES.tell(host_key(href), f"{error.cause}; {tried}")
            self._stopped.wait(pause)
            wait = min(2 * wait, access.longest_wait_s)
        raise AssertionError("unreachable: the last attempt raises")

    def __reduce__(self) -> tuple[object, ...]:
        return (ArchiveSource, (self.access,))


@contextmanager
def reading_threads(source: ByteSource, count: int, name: str) -> Iterator[ThreadPoolExecutor]:
    """A pool whose threads read from a source; when work ends early, by Ctrl-C or an error, they stop trying."""
    pool = ThreadPoolExecutor(count, thread_name_prefix=f"geofm-{name}")
    try:
        yield pool
    except BaseException:
        source.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
