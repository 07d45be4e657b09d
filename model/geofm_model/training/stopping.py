"""SIGTERM and Ctrl-C ask a run to stop after its step, with a checkpoint.

A handler only notes the wish: torchrun sends SIGTERM to all processes when one of them died, and then a collective of
the others would never end. Whether to stop is agreed on by all processes at the end of a step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StoppedError(Exception):
    """Somebody wanted to stop while something was looked at; all processes raise it at the same place."""


class Stop:
    """Whether somebody asked to stop."""

    def __init__(self, *, says: bool = False) -> None:
        self.signal: int | None = None
        self.says = says
        """Whether the user is told that the wish was heard."""

    @property
    def wanted(self) -> bool:
        return self.signal is not None

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: at once
        self.signal = number
        if self.says:
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once\n")  # print may be under way


@contextmanager
def listening(*, says: bool = False) -> Iterator[Stop]:
    """A Stop that hears SIGTERM and SIGINT until the end; a second SIGINT interrupts at once."""
    stop = Stop(says=says)
    before = {number: signal.signal(number, stop._heard) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
