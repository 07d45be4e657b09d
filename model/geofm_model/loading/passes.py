"""One run through a loader's stream: takes filled slabs, has them placed, and hands batches out in order.

What goes wrong once is raised again and again, since an end would look like the end of the data.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator

import torch

from geofm_model.loading.batch import Batch
from geofm_model.loading.placing import Placed, Placing, Tensors
from geofm_model.loading.slabs import Part, Ring
from geofm_model.sample import PixelRule


class Pass(Iterator[Batch]):
    """The iterator of a loader; its ring's threads end when it is closed or forgotten.

    Parameters
    ----------
    moved : is told the position in the stream after each batch that is handed out
    """

    def __init__(self, ring: Ring, placing: Placing, *, rule: PixelRule, moved: Callable[[int], None]) -> None:
        self._ring, self._placing, self._rule, self._moved = ring, placing, rule, moved
        self._process = os.getpid()
        self._placed: deque[tuple[Part, Placed]] = deque()
        self._failed: Exception | None = None
        self._closed = self._over = False

    def __next__(self) -> Batch:
        if self._over:
            raise StopIteration
        self._check()
        self._placing.before_next(self._ring)
        if not self._placed:
            self._place()
        while self._placed and len(self._placed) <= self._placing.ahead and self._ring.ready():
            self._place()
        if self._placed:
            part, placed = self._placed.popleft()
            self._moved(part.after)
            return self._batch(part, placed.take())
        if self._failed is not None:
            raise self._failed
        self._over = True
        raise StopIteration

    def close(self) -> None:
        """End the threads and give nothing more; batches that were handed out stay valid."""
        self._closed = True
        self._ring.stop()

    def __del__(self) -> None:
        self._ring.stop()

    def _place(self) -> None:
        """Wait for the next slab and send it on its way; what goes wrong is kept for its turn."""
        if self._failed is None:
            try:
                slab = self._ring.take()
                if slab is not None:
                    self._placed.append((slab.part, self._placing.place(slab, self._ring)))
            except Exception as error:
                self._failed = error
                self._ring.stop()

    def _batch(self, part: Part, tensors: Tensors) -> Batch:
        return Batch(
            **tensors,
            sample=torch.from_numpy(part.ids),
            epoch=torch.from_numpy(part.epochs),
            turn=torch.from_numpy(part.turns),
            rule=self._rule,
        )

    def _check(self) -> None:
        if self._process != os.getpid():
            raise RuntimeError(
                "this iterator was made before a fork, and its threads stayed behind: make it in the process that uses "
                "it, or start processes by spawn"
            )
        if self._closed:
            raise RuntimeError(
                "this iterator was closed, or a newer iterator of its loader or a loaded state took over: go on with "
                "iter(loader)"
            )
