"""Progress that reads well on a terminal and in a log: what is being done, how far, how fast, how long still.

On a terminal one line is rewritten; when piped a whole line is printed at most every few seconds. Everything goes
to the stream given (stderr), never to stdout.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO, TypeVar

from geofm_pipeline.addresses import shown_in

T = TypeVar("T")
Clock = Callable[[], float]


class Progress:
    """Prints messages and counters of one run.

    Parameters
    ----------
    stream : where to print; a terminal gets a line that is rewritten
    clock : seconds, monotonic; an argument so that tests need no waiting
    interval : seconds between two lines of one counter when piped
    """

    def __init__(self, stream: TextIO, *, clock: Clock = time.monotonic, interval: float = 5.0) -> None:
        self._stream, self._clock = stream, clock
        self.heard: Callable[[str], None] | None = None
        """Called with every whole message besides printing it: the run's log."""
        self._live = stream.isatty()
        self._interval = 0.2 if self._live else interval
        self._open_line, self._lock = False, threading.RLock()

    def say(self, message: str) -> None:
        """Print one whole line, from any thread."""
        message = shown_in(message)
        with self._lock:
            self._end_line()
            print(message, file=self._stream, flush=True)
            if self.heard is not None:
                self.heard(message)

    def count(
        self, items: Iterable[T], *, total: int, label: str, unit: str, size: Callable[[T], int] | None = None
    ) -> Iterator[T]:
        """Pass `items` through, printing how many of `total` are done; `size(item)` counts an item as several."""
        start = last = self._clock()
        done = 0
        for item in items:
            done += 1 if size is None else size(item)
            now = self._clock()
            if now - last >= self._interval and done < total:
                last = now
                self._show(_line(label, done, total, unit, now - start))
            yield item
        self._show(_line(label, done, total, unit, self._clock() - start))
        self._end_line()

    def _show(self, line: str) -> None:
        with self._lock:
            if self._live:
                print(f"\r\x1b[2K{line}", end="", file=self._stream, flush=True)
                self._open_line = True
            else:
                print(line, file=self._stream, flush=True)

    def _end_line(self) -> None:
        with self._lock:
            if self._open_line:
                print(file=self._stream)
                self._open_line = False


def _line(label: str, done: int, total: int, unit: str, seconds: float) -> str:
    rate = done / seconds if seconds > 0 else 0.0
    share = f"{100 * done / total:.0f} %" if total else "100 %"
    end = f"took {duration(seconds)}" if done >= total or not rate else f"{duration((total - done) / rate)} left"
    return f"{label}: {done:,} of {total:,} {unit} ({share}), {rate:,.1f} {unit}/s, {end}"


def duration(seconds: float) -> str:
    """Seconds as `48 s`, `3 min 05 s` or `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def human_bytes(count: float) -> str:
    """Bytes as `3.2 GB` (decimal units)."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
