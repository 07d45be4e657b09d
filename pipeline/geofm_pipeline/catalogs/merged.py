"""Several streams read at once by threads, in bounded memory."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
_PATIENCE_S = 0.1
"""How long a thread waits for room before it looks whether anybody still listens."""

_FAREWELL_S = 2.0
"""How long threads may take to end when the rest is not wanted any more: one may wait for a server that stumbles."""


class _Done:
    """A thread has no more to give, or met an error."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def merged(streams: Sequence[Callable[[], Iterator[T]]], *, at_once: int) -> Iterator[T]:
    """What all streams yield, as it comes: in order within a stream, in any order between them.

    At most `at_once` streams are open at a time, and no more than as many values wait to be taken. The first error of a
    stream is raised and ends the others.
    """
    waiting: queue.SimpleQueue[Callable[[], Iterator[T]]] = queue.SimpleQueue()
    for stream in streams:
        waiting.put(stream)
    ready: queue.Queue[T | _Done] = queue.Queue(maxsize=at_once)
    stop = threading.Event()
    workers = min(at_once, len(streams))
    threads = [
        threading.Thread(target=_work, args=(waiting, ready, stop), name=f"catalogue-{number}", daemon=True)
        for number in range(workers)
    ]
    for thread in threads:
        thread.start()
    try:
        while workers:
            value = ready.get()
            if not isinstance(value, _Done):
                yield value
            elif value.error is not None:
                raise value.error
            else:
                workers -= 1
    finally:
        stop.set()
        until = time.monotonic() + _FAREWELL_S
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def _work(
    waiting: queue.SimpleQueue[Callable[[], Iterator[T]]], ready: queue.Queue[T | _Done], stop: threading.Event
) -> None:
    error: BaseException | None = None
    try:
        while not stop.is_set():
            for value in waiting.get_nowait()():
                if not _put(ready, value, stop):
                    return
    except queue.Empty:
        pass
    except BaseException as raised:
        error = raised
    _put(ready, _Done(error), stop)


def _put(ready: queue.Queue[T | _Done], value: T | _Done, stop: threading.Event) -> bool:
    """Put a value as soon as there is room; False when nobody listens any more."""
    while not stop.is_set():
        try:
            ready.put(value, timeout=_PATIENCE_S)
        except queue.Full:
            continue
        return True
    return False
