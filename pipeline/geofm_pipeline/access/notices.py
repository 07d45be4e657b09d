"""What a user should know while nothing moves: which host is waited for, and why.

One line per host and half minute. The driving process hears its workers, too (geofm_pipeline.worker_plugins); a process
that nobody listens to writes to the log `geofm_pipeline.access`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUIET_S = 20.0
"""A request or its repeats that take so long are worth a line."""
EVERY_S = 30.0
"""Between two lines about one host."""
Ear = Callable[[str, str], None]
"""(host, what is waited for)."""


class Notices:
    """Lines on their way to whoever listens; called from any thread.

    Parameters
    ----------
    clock : seconds, monotonic
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._told: dict[str, float] = {}
        self._ear: Ear = _log

    def tell(self, host: str, words: str) -> None:
        """Pass a line on, unless there was one about this host just before."""
        with self._lock:
            now = self._clock()
            if now - self._told.get(host, -EVERY_S) < EVERY_S:
                return
            self._told[host] = now
        self._ear(host, words)

    def listen(self, ear: Ear | None) -> None:
        """Who hears from now on; None is the log."""
        self._ear = ear or _log


def _log(host: str, words: str) -> None:
    logging.getLogger("geofm_pipeline.access").warning(sentence(host, words))


def sentence(host: str, words: str) -> str:
    """The line as users see it."""
    return f"network: {host}: {words}"


NOTICES = Notices()
"""Those of this process."""


@contextmanager
def said_by(say: Callable[[str], None]) -> Iterator[None]:
    """Lines go to a function of one sentence while the block runs."""
    NOTICES.listen(lambda host, words: say(sentence(host, words)))
    try:
        yield
    finally:
        NOTICES.listen(None)
