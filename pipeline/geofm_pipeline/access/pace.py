"""A limit of requests per second and host for everybody together, so that no archive bans the cluster.

The *ledger* hands out slots: one for the whole cluster, on the scheduler, or one of this process without a cluster. A
process takes slots in small leases, one call to the ledger for as many requests as fit a quarter of a second. A 429 or
503 that one process hears quiets everybody: the host is left alone for as long as it asked, then asked at half the
rate, which recovers by a twentieth of the full rate per second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

BURST_S = 0.25
"""A lease holds the requests of so much time, shared out among the processes that ask."""
VALID_S = 2.0
"""Slots that a process has not used after so long are lost."""
_RECENT_S = 10.0  # a process that has asked within this time counts as one that shares
_SLOWEST = 64  # the rate is never cut to less than this part
_RECOVERY = 0.05  # of the full rate per second


@dataclass(frozen=True, kw_only=True)
class Lease:
    """Slots for requests to one host."""

    count: int
    delay_s: float
    """From now until they may be used."""


class Book(Protocol):
    """Where leases come from; called from any thread."""

    def reserve(self, host: str, client: str, wanted: int) -> Lease:
        """At least one slot, at most `wanted`."""
        ...

    def slow_down(self, host: str, seconds: float) -> None:
        """A server asked for fewer requests, and for none in the next `seconds`."""
        ...


@dataclass
class _Host:
    rate: float
    free_at: float = 0.0
    """When the next slot is free."""
    heard: float = 0.0
    """When its rate was last changed."""
    clients: dict[str, float] = field(default_factory=dict)


class Ledger:
    """The book of requests to all hosts; implements Book.

    Parameters
    ----------
    rate : requests per second to each host
    clock : seconds, monotonic
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        if rate <= 0:
            raise ValueError(f"rate must be above 0 requests per second, got {rate}")
        self._rate, self._clock, self._lock = rate, clock, threading.Lock()
        self._hosts: dict[str, _Host] = {}

    def reserve(self, host: str, client: str, wanted: int) -> Lease:
        """See :class:`Book`. Over any time t at most rate × (t + BURST_S) + 1 slots become usable."""
        with self._lock:
            now, state = self._clock(), self._state(host)
            state.clients[client] = now
            state.clients = {name: at for name, at in state.clients.items() if now - at < _RECENT_S}
            fair = max(1, int(state.rate * BURST_S / len(state.clients)))
            count = max(1, min(wanted, fair))
            start = max(state.free_at, now - BURST_S)
            state.free_at = start + count / state.rate
            return Lease(count=count, delay_s=max(0.0, state.free_at - 1 / state.rate - now))

    def slow_down(self, host: str, seconds: float) -> None:
        """See :class:`Book`; several calls within a second count once."""
        with self._lock:
            now, state = self._clock(), self._state(host)
            if now - state.heard >= 1.0 or state.heard == 0.0:
                state.rate, state.heard = max(state.rate / 2, self._rate / _SLOWEST), now
            state.free_at = max(state.free_at, now + seconds)

    def rate(self, host: str) -> float:
        """Requests per second at the moment."""
        with self._lock:
            return self._state(host).rate

    def _state(self, host: str) -> _Host:
        state = self._hosts.setdefault(host, _Host(rate=self._rate))
        now = self._clock()
        if state.rate < self._rate and now - state.heard > 1.0:
            state.rate = min(self._rate, state.rate + _RECOVERY * self._rate * (now - state.heard))
            state.heard = now
        return state


_NEVER = threading.Event()


class Pace:
    """Makes the threads of one process wait for their turn.

    Parameters
    ----------
    book : the ledger, or a way to it
    client : name of this process
    """

    def __init__(self, book: Book, client: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._book, self._client, self._clock = book, client, clock
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}

    def wait(self, host: str, stop: threading.Event | None = None) -> float:
        """Wait until a request may be sent to the host, or until `stop` is set; seconds that it should have been."""
        with self._lock:
            queue = self._queues.setdefault(host, _Queue())
            queue.waiting += 1
        try:
            with queue.lock:
                start = self._slot(host, queue)
        finally:
            with self._lock:
                queue.waiting -= 1
        delay = start - self._clock()
        if delay > 0:
            (stop or _NEVER).wait(delay)
        return max(0.0, delay)

    def slow_down(self, host: str, seconds: float) -> None:
        """Tell everybody what this process heard; leases in hand are given up."""
        self._book.slow_down(host, seconds)
        with self._lock:
            queue = self._queues.setdefault(host, _Queue())
        with queue.lock:
            queue.left = 0

    def _slot(self, host: str, queue: _Queue) -> float:
        """When the next slot may be used, on this process's clock."""
        if queue.left == 0 or self._clock() > queue.start + VALID_S:
            lease = self._book.reserve(host, self._client, max(1, queue.waiting))
            queue.left, queue.start = lease.count, self._clock() + lease.delay_s
        queue.left -= 1
        return queue.start


@dataclass
class _Queue:
    """Slots in hand for one host."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    waiting: int = 0
    left: int = 0
    start: float = 0.0


_book: Book | None = None
_client = ""
_own: dict[float, Ledger] = {}
_guard = threading.Lock()


def share(book: Book | None, client: str = "") -> None:
    """From now on this process takes its slots from a book that others use, too; None ends that."""
    global _book, _client
    _book, _client = book, client


class _ThisProcess:
    """The shared book if there is one, else a ledger of this process."""

    def __init__(self, rate: float) -> None:
        with _guard:
            self._own = _own.setdefault(rate, Ledger(rate))

    def reserve(self, host: str, client: str, wanted: int) -> Lease:
        return (_book or self._own).reserve(host, _client or client, wanted)

    def slow_down(self, host: str, seconds: float) -> None:
        (_book or self._own).slow_down(host, seconds)


def of_this_process(rate: float) -> Pace:
    """The pace of this process; `rate` counts where no book is shared."""
    return Pace(_ThisProcess(rate), "this process")
