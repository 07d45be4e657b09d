"""What a long run says while it runs: a line that is rewritten on a terminal, whole lines when piped."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO


class Progress:
    """Messages and a status line of one run.

    Parameters
    ----------
    stream : where to print; None is silent
    clock : seconds, monotonic
    interval : seconds between two status lines when piped
    """

    def __init__(
        self, stream: TextIO | None, *, clock: Callable[[], float] = time.monotonic, interval: float = 10.0
    ) -> None:
        self._stream, self.clock = stream, clock
        self.live = stream is not None and stream.isatty()
        self._interval = 0.2 if self.live else interval
        self._last, self._open = float("-inf"), False

    def say(self, message: str) -> None:
        """Print one whole line."""
        self._end_line()
        self._print(message, end="\n")

    def status(self, line: str, *, always: bool = False) -> None:
        """Show where the run is, unless that was said a moment ago."""
        now = self.clock()
        if not always and now - self._last < self._interval:
            return
        self._last = now
        if self.live:
            self._print(f"\r\x1b[2K{line}", end="")
            self._open = True
        else:
            self._print(line, end="\n")

    def _end_line(self) -> None:
        if self._open:
            self._print("", end="\n")
            self._open = False

    def _print(self, text: str, end: str) -> None:
        if self._stream is not None:
            print(text, file=self._stream, end=end, flush=True)


def duration(seconds: float) -> str:
    """Seconds as `48 s`, `3 min 05 s` or `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
