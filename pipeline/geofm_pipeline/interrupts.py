"""Ctrl-C and SIGTERM around code of others that they must not break off in the middle.

Python raises KeyboardInterrupt between any two steps of the main thread. Where these steps are Dask's, a lock may stay
locked for ever that its event loop takes next, and then the cluster cannot be closed. So the main thread calls Dask in
one of two ways: what takes a moment, with signals held back; what may take long, on a thread of its own.
"""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from multiprocessing import resource_tracker
from types import FrameType
from typing import TypeVar

R = TypeVar("R")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_AGAIN_SECONDS = 0.05
_DEAF_SECONDS = 0.2


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Note signals meanwhile and deliver the first one at the end; who sends a second one is heard at once.

    Outside the main thread, where Python delivers none, it changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        handler = handlers[signal.Signals(number)]
        if noted and callable(handler):
            handler(number, frame)
        noted.append(number)

    def deliver() -> None:
        if noted:
            signal.raise_signal(noted[0])

    with contextlib.ExitStack() as after:  # each step is taken, whatever the one before it raised
        after.callback(deliver)
        for number, handler in handlers.items():
            if handler not in (None, signal.SIG_IGN):  # None: not Python's; ignored: not to be delivered later, either
                after.callback(signal.signal, number, handler)
                signal.signal(number, note)
        yield


def beside(call: Callable[[], R], *, seconds: float | None = None) -> R:
    """Call on a thread of its own and wait; a signal ends the waiting at once and leaves the call to itself.

    A kernel may give a signal to any thread of a process. Python runs its handler in the main thread, which does not
    wake up for that from a wait without end: it waits a moment at a time.

    Raises
    ------
    TimeoutError
        When it takes longer than `seconds`.
    """
    found: futures.Future[R] = futures.Future()

    def work() -> None:
        try:
            found.set_result(call())
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=work, daemon=True, name="geofm-beside").start()
    until = math.inf if seconds is None else time.monotonic() + seconds
    while True:
        left = max(0.0, until - time.monotonic())
        if futures.wait([found], timeout=min(left, _DEAF_SECONDS)).done or not left:
            return found.result(0)


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Threads and processes started meanwhile leave Ctrl-C to this thread; a terminal sends it to all processes.

    They inherit that the signal is blocked, and so does what they start later, such as a worker in a dead one's place.
    """
    resource_tracker.ensure_running()  # of multiprocessing: where it starts first, it lets the signal through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def heard_again() -> Iterator[None]:
    """Raise a KeyboardInterrupt anew that struck inside a `__del__` or a callback of the garbage collector.

    Python prints such an error and drops it, and the run would go on as if nobody had asked it to end.
    """
    before = sys.unraisablehook

    def hear(lost: sys.UnraisableHookArgs) -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt):
            main = threading.main_thread().ident or 0
            threading.Timer(_AGAIN_SECONDS, signal.pthread_kill, [main, signal.SIGINT]).start()  # not in here
        else:
            before(lost)

    sys.unraisablehook = hear
    try:
        yield
    finally:
        sys.unraisablehook = before
