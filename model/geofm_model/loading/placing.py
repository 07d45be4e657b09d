"""From a slab to tensors: whom its memory belongs to, and when it is filled again.

On the CPU tensors *are* the slab's memory, without a copy, and belong to the caller: the slab comes back when the last
tensor, view or NumPy array of it is gone. With `borrow` it comes back as soon as the next batch is asked for. On a GPU
slabs are page-locked; they are copied on a stream of their own and come back when the copy is done.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geofm_model.loading.slabs import Ring, Slab

Pixels = tuple[Tensor, Tensor]
"""image and fmask."""


class Placing(Protocol):
    """Hands slabs out; called by the thread that takes batches only."""

    def slab(self, image: tuple[int, ...], fmask: tuple[int, ...]) -> Slab:
        """Memory of a batch of these shapes; called by any thread."""
        ...

    def before_next(self, ring: Ring) -> None:
        """Give back what is given back when another batch is asked for."""
        ...

    def place(self, slab: Slab, ring: Ring) -> Pixels:
        """The filled rows of a slab on the device."""
        ...


def placing_on(device: torch.device, *, borrow: bool) -> Placing:
    """The way slabs are handed out on a device."""
    if device.type == "cuda":
        return Copied(device)
    if device.type != "cpu":
        raise ValueError(f"batches go to cpu or cuda, not to {device}: move them on with Batch.to")
    return Borrowed() if borrow else Owned()


class Owned:
    """Tensors belong to the caller; implements Placing."""

    def slab(self, image: tuple[int, ...], fmask: tuple[int, ...]) -> Slab:
        """See :class:`Placing`."""
        return Slab(image=np.empty(image, dtype=np.int16), fmask=np.empty(fmask, dtype=np.uint8))

    def before_next(self, ring: Ring) -> None:
        """See :class:`Placing`."""

    def place(self, slab: Slab, ring: Ring) -> Pixels:
        """See :class:`Placing`."""
        left = [True, False]  # whether it is the last; taken by pop, which two threads cannot do at once

        def gone() -> None:
            if left.pop():
                ring.give_back(slab)

        def lent(array: NDArray[np.generic]) -> Tensor:
            # A tensor's storage keeps this very array, and its views and NumPy arrays keep the storage.
            view = array[: slab.part.ids.size]
            weakref.finalize(view, gone).atexit = False
            return torch.from_numpy(view)

        return lent(slab.image), lent(slab.fmask)


class Borrowed(Owned):
    """Tensors are valid until the next batch is asked for; implements Placing."""

    def __init__(self) -> None:
        self._lent: Slab | None = None

    def before_next(self, ring: Ring) -> None:
        """See :class:`Placing`."""
        if self._lent is not None:
            ring.give_back(self._lent)
            self._lent = None

    def place(self, slab: Slab, ring: Ring) -> Pixels:
        """See :class:`Placing`."""
        self._lent = slab
        rows = slab.part.ids.size
        return torch.from_numpy(slab.image[:rows]), torch.from_numpy(slab.fmask[:rows])


class Copied:
    """Fresh memory on a GPU, filled from page-locked slabs; implements Placing."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._copying: deque[tuple[torch.cuda.Event, Slab]] = deque()

    def slab(self, image: tuple[int, ...], fmask: tuple[int, ...]) -> Slab:
        """See :class:`Placing`."""
        pixels = torch.empty(image, dtype=torch.int16, pin_memory=True)
        quality = torch.empty(fmask, dtype=torch.uint8, pin_memory=True)
        return Slab(image=pixels.numpy(), fmask=quality.numpy())  # the arrays keep the tensors alive

    def before_next(self, ring: Ring) -> None:
        """See :class:`Placing`."""
        while self._copying and (len(self._copying) > 1 or _is_over(self._copying[0][0])):
            event, slab = self._copying.popleft()
            event.synchronize()
            ring.give_back(slab)

    def place(self, slab: Slab, ring: Ring) -> Pixels:
        """See :class:`Placing`."""
        rows, using = slab.part.ids.size, torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            image, fmask = (
                torch.from_numpy(array[:rows]).to(self._device, non_blocking=True) for array in (slab.image, slab.fmask)
            )
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        using.wait_event(event)
        for tensor in (image, fmask):
            tensor.record_stream(using)
        self._copying.append((event, slab))
        return image, fmask


def _is_over(event: torch.cuda.Event) -> bool:
    return bool(event.query())  # type: ignore[no-untyped-call]
