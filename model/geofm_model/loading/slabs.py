"""Memory of batches that is used again and again, filled by threads, row by row, and handed out in order.

Fresh memory for a batch costs more than decoding into it: the system has to find, clear and map every page. So a
*slab*, the pixels of one batch, is filled, handed out (geofm_model.loading.placing says to whom it then belongs), given
back and filled again. Slabs that are handed out do not count as read ahead: whoever keeps them gets new ones made.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
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
    after: int
    """Position in the stream when all ranks have been given this batch."""


_NO_IDS: Ids = np.empty(0, dtype=np.int64)
_NOTHING = Part(ids=_NO_IDS, epochs=_NO_IDS, turns=_NO_IDS, after=0)


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
        self._changed = threading.Condition(threading.RLock())
        self._free: deque[Slab] = deque()
        self._coming: deque[Slab] = deque()
        """Slabs in order, the first is the next to be taken."""
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
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self) -> Slab | None:
        """The next slab with all its rows, None after the last; raises what a row of it met."""
        with self._changed:
            while not self._stopped:
                if self._coming and self._coming[0].done == self._coming[0].part.ids.size:
                    slab = self._coming.popleft()
                    self._changed.notify_all()
                    if slab.error is not None:
                        raise slab.error
                    return slab
                if self._over and not self._coming:
                    return None
                self._changed.wait()
            if self._failed is not None:
                raise self._failed
            return None

    def give_back(self, slab: Slab) -> None:
        """A slab that nobody uses any more; from any thread, also out of a garbage collection."""
        if self._process != os.getpid():  # a fork may have copied the lock while somebody held it
            return
        with self._changed:
            if len(self._free) < self._ahead:
                self._free.append(slab)
            self._changed.notify_all()

    def _run(self) -> None:
        while (found := self._next_row()) is not None:
            slab, row = found
            error: BaseException | None = None
            try:
                self._fill(slab, row, int(slab.part.ids[row]))
            except BaseException as raised:
                error = raised
            with self._changed:
                slab.done += 1
                slab.error = slab.error or error
                if slab.done == slab.part.ids.size:
                    self._changed.notify_all()

    def _next_row(self) -> tuple[Slab, int] | None:
        with self._changed:
            while not self._stopped:
                try:
                    slab = self._open()
                except BaseException as error:  # of the order, or for lack of memory: there is no batch to blame
                    self._failed, self._stopped = error, True
                    self._changed.notify_all()
                    return None
                if slab is not None and slab.begun < slab.part.ids.size:
                    slab.begun += 1
                    return slab, slab.begun - 1
                if slab is not None:  # a last batch that has nothing for this rank
                    self._changed.notify_all()
                    continue
                if self._over:
                    return None
                self._changed.wait()
            return None

    def _open(self) -> Slab | None:
        """A slab with a row that nobody has taken on, a new one where there is room."""
        if self._coming and self._coming[-1].begun < self._coming[-1].part.ids.size:
            return self._coming[-1]
        if self._over or len(self._coming) >= self._ahead:
            return None
        part = next(self._work, None)
        if part is None:
            self._over = True
            self._changed.notify_all()
            return None
        slab = self._free.popleft() if self._free else self._make()
        slab.part = part
        slab.begun = slab.done = 0
        slab.error = None
        self._coming.append(slab)
        return slab
