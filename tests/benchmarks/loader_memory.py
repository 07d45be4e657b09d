"""Peak memory and CPU time of this process and its children; needs psutil only."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

import psutil

_ME = psutil.Process()


def own_rss() -> float:
    """Resident MB of this process."""
    return float(_ME.memory_info().rss) / 1e6


def own_cpu() -> float:
    """CPU seconds of this process, user and system."""
    times = _ME.cpu_times()
    return float(times.user + times.system)


def tree_rss() -> float:
    """Resident MB of this process and its children; pages that they share count once per process."""
    total = 0
    for process in (_ME, *_ME.children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def tree_cpu() -> float:
    """CPU seconds, user and system, of this process and of its children, those that have ended included."""
    times = _ME.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in _ME.children(recursive=True):
        try:
            spent = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += spent.user + spent.system
    return float(total)


class Peak:
    """Samples memory every 20 ms while the block runs.

    Parameters
    ----------
    rss : whose memory; that of the children too, unless they are a server and no part of what is measured
    """

    mb = 0.0
    """Peak above what stood at the start."""

    def __init__(self, rss: Callable[[], float] = tree_rss) -> None:
        self._rss = rss

    def __enter__(self) -> Peak:
        self._start, self._stop = self._rss(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.mb = max(self.mb, self._rss() - self._start)
            time.sleep(0.02)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
