"""Memory of batches that is used again and again, filled by threads, row by row, and handed out in order.

Fresh memory for a batch costs more than decoding into it: the system has to find, clear and map every page. So a
*slab*, the pixels of one batch, is filled, handed out (geofm_model.loading.placing says to whom it then belongs), given
back and filled again. Slabs that are handed out do not count as read ahead: whoever keeps them gets new ones made. A
`for` loop has the last batch in hand until it has the next one, so the slab that is needed then comes back in a moment:
it is waited for, but not for long.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geofm_model.loading.order import Ids


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """What one batch of one rank is to hold."""

    ids: Ids
    """[k] samples."""
    epochs: Ids
    """[k]."""
    turns: Ids
    """[k] how often each sample came before in its epoch."""
    columns: Mapping[str, NDArray[np.generic]]
    """Metadata of the samples by name, [k] or [k, T], in memory of their own."""
    after: int
    """Position in the stream when all ranks have been given this batch."""


_PATIENCE_S = 0.05
"""How long a slab that was handed out is waited for, before a new one is made, which costs as much."""

_NO_IDS: Ids = np.empty(0, dtype=np.int64)
_NOTHING = Part(ids=_NO_IDS, epochs=_NO_IDS, turns=_NO_IDS, columns={}, after=0)


@dataclass(kw_only=True, eq=False)
class Slab:
    """Pixels of one batch."""

    image: NDArray[np.int16]
    """[b, T, B, H, W]."""
    fmask: NDArray[np.uint8]
    """[b, T, H, W]."""
    part: Part = _NOTHING
    """What its first k ≤ b rows are to hold."""
    begun: int = 0
    """Rows that a thread has taken on."""
    done: int = 0
    error: BaseException | None = None
    """The first that a row met."""


class Ring:
    """Slabs on their way: being filled, waiting to be taken, free again.

    Parameters
    ----------
    make : makes a slab
    ahead : slabs that are filled or wait at a time
    work : the batches to come, in order
    fill : writes sample `id` into a row of a slab; called by any thread
    """

    def __init__(
        self,
        make: Callable[[], Slab],
        *,
        ahead: int,
        work: Iterator[Part],
        fill: Callable[[Slab, int, int], None],
    ) -> None:
        self._make, self._ahead, self._work, self._fill = make, ahead, work, fill
        # Re-entrant, since a slab may come back by a garbage collection inside these very methods.
        lock = threading.RLock()
        self._filled, self._room = threading.Condition(lock), threading.Condition(lock)
        """For whoever takes slabs, and for the threads that fill them."""
        self._free: deque[Slab] = deque()
        self._coming: deque[Slab] = deque()
        """Slabs in order, the first is the next to be taken."""
        self._made = 0
        self._taken = -np.inf
        """When the last slab was taken."""
        self._over = self._stopped = False
        self._failed: BaseException | None = None
        self._process = os.getpid()

    def start(self, threads: int) -> list[threading.Thread]:
        """Fill from now on with so many threads, which end with :meth:`stop` or when the work does."""
        found = [threading.Thread(target=self._run, name=f"geofm-loader-{i}", daemon=True) for i in range(threads)]
        for thread in found:
            thread.start()
        return found

    def stop(self) -> None:
        """Take no more rows on."""
        if self._process != os.getpid():
            return
        with self._room:
            self._stopped = True
            self._wake_all()

    def ready(self) -> bool:
        """Whether a slab can be taken without waiting."""
        with self._filled:
            return not self._stopped and self._first_is_full()

    def take(self) -> Slab | None:
        """The next slab with all its rows, None after the last; raises what a row of it met."""
        with self._filled:
            while not self._stopped:
                if self._first_is_full():
                    slab = self._coming.popleft()
                    self._taken = time.monotonic()
                    self._room.notify()  # one opens the next and wakes the others
                    if slab.error is not None:
                        raise slab.error
                    return slab
                if self._over and not self._coming:
                    return None
                self._filled.wait()
            if self._failed is not None:
                raise self._failed
            return None

    def give_back(self, slab: Slab) -> None:
        """A slab that nobody uses any more; from any thread, also out of a garbage collection."""
        if self._process != os.getpid():  # a fork may have copied the lock while somebody held it
            return
        with self._room:
            if len(self._free) < self._ahead:
                self._free.append(slab)
            self._room.notify()

    def _first_is_full(self) -> bool:
        return bool(self._coming) and self._coming[0].done == self._coming[0].part.ids.size

    def _wake_all(self) -> None:
        self._filled.notify_all()
        self._room.notify_all()

    def _run(self) -> None:
        while (found := self._next_row()) is not None:
            slab, row = found
            error: BaseException | None = None
            try:
                self._fill(slab, row, int(slab.part.ids[row]))
            except BaseException as raised:
                error = raised
            with self._filled:
                slab.done += 1
                slab.error = slab.error or error
                if slab.done == slab.part.ids.size:
                    self._filled.notify_all()

    def _next_row(self) -> tuple[Slab, int] | None:
        with self._room:
            while not self._stopped:
                patience = self._patience()
                try:
                    slab = self._opened() or (None if patience > 0 else self._open())
                except BaseException as error:  # of the order, or for lack of memory: there is no batch to blame
                    self._failed, self._stopped = error, True
                    self._wake_all()
                    return None
                if slab is not None and slab.begun < slab.part.ids.size:
                    slab.begun += 1
                    return slab, slab.begun - 1
                if slab is None and self._over:
                    return None
                if slab is None:  # else it is a last batch that has nothing for this rank
                    self._room.wait(patience if patience > 0 else None)
            return None

    def _patience(self) -> float:
        """Seconds that a slab may still be waited for to come back; 0 where one is free or few were made."""
        if self._free or self._made <= self._ahead:
            return 0.0
        return max(0.0, self._taken + _PATIENCE_S - time.monotonic())

    def _opened(self) -> Slab | None:
        """The slab with rows that nobody has taken on."""
        last = self._coming[-1] if self._coming else None
        return last if last is not None and last.begun < last.part.ids.size else None

    def _open(self) -> Slab | None:
        """The next slab, where there is room and work."""
        if self._over or len(self._coming) >= self._ahead:
            return None
        part = next(self._work, None)
        if part is None:
            self._over = True
            self._wake_all()
            return None
        slab = self._free.popleft() if self._free else self._new()
        slab.part = part
        slab.begun = slab.done = 0
        slab.error = None
        self._coming.append(slab)
        self._wake_all()  # it has rows for the other threads, or it is empty and can be taken
        return slab

    def _new(self) -> Slab:
        self._made += 1
        return self._make()
