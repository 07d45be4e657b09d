"""From a slab to tensors: whom its memory belongs to, and when it is filled again.

On the CPU tensors *are* the slab's memory, without a copy, and belong to the caller: the slab comes back when the last
tensor, view or NumPy array of it is gone. With `borrow` it comes back as soon as the next batch is asked for. On a GPU
slabs are page-locked and copied to fresh memory there (geofm_model.loading.lanes); they come back after the copy.
"""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geofm_model.loading.lanes import Lane, Sent
from geofm_model.loading.slabs import Ring, Slab

Tensors = dict[str, Tensor]
"""image, fmask and the metadata columns of a batch, by name."""


class Placed(Protocol):
    """A slab's content on its way to the caller."""

    def take(self) -> Tensors:
        """The tensors, for use in what the caller does next; called once."""
        ...


class Placing(Protocol):
    """Hands slabs out; called by the thread that takes batches only."""

    ahead: int
    """Slabs to place before they are asked for, so that the copy runs beside the caller's work."""

    def slab(self, image: tuple[int, ...], fmask: tuple[int, ...]) -> Slab:
        """Memory of a batch of these shapes; called by any thread."""
        ...

    def before_next(self, ring: Ring) -> None:
        """Give back what is given back when another batch is asked for."""
        ...

    def place(self, slab: Slab, ring: Ring) -> Placed:
        """Begin to bring the filled rows of a slab, and what belongs to them, to the device."""
        ...


@dataclass(frozen=True)
class Here:
    """Tensors that need no way; implements Placed."""

    tensors: Tensors

    def take(self) -> Tensors:
        """See :class:`Placed`."""
        return self.tensors


class Owned:
    """Tensors belong to the caller; implements Placing."""

    ahead = 0

    def slab(self, image: tuple[int, ...], fmask: tuple[int, ...]) -> Slab:
        """See :class:`Placing`."""
        return Slab(image=np.empty(image, dtype=np.int16), fmask=np.empty(fmask, dtype=np.uint8))

    def before_next(self, ring: Ring) -> None:
        """See :class:`Placing`."""

    def place(self, slab: Slab, ring: Ring) -> Placed:
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

        return Here({"image": lent(slab.image), "fmask": lent(slab.fmask), **_columns(slab)})


class Borrowed(Owned):
    """Tensors are valid until the next batch is asked for; implements Placing."""

    def __init__(self) -> None:
        self._lent: Slab | None = None

    def before_next(self, ring: Ring) -> None:
        """See :class:`Placing`."""
        if self._lent is not None:
            ring.give_back(self._lent)
            self._lent = None

    def place(self, slab: Slab, ring: Ring) -> Placed:
        """See :class:`Placing`."""
        self._lent = slab
        rows = slab.part.ids.size
        pixels = {"image": torch.from_numpy(slab.image[:rows]), "fmask": torch.from_numpy(slab.fmask[:rows])}
        return Here(pixels | _columns(slab))


@dataclass(kw_only=True, eq=False)
class LockedSlab(Slab):
    """A slab whose arrays are the memory of page-locked tensors.

    The tensors themselves are sent: torch keeps the memory of page-locked tensors of its own until copies of them are
    over, also when an iterator is dropped amid one.
    """

    pixels: Tensor
    quality: Tensor


class Copied:
    """Fresh memory on a device, filled from page-locked slabs; implements Placing."""

    ahead = 1

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._copying: deque[tuple[Sent, Slab]] = deque()

    def slab(self, image: tuple[int, ...], fmask: tuple[int, ...]) -> Slab:
        """See :class:`Placing`."""
        pixels, quality = self._lane.locked(image, torch.int16), self._lane.locked(fmask, torch.uint8)
        return LockedSlab(image=pixels.numpy(), fmask=quality.numpy(), pixels=pixels, quality=quality)

    def before_next(self, ring: Ring) -> None:
        """See :class:`Placing`; waits for a copy only where another one has been begun after it."""
        while self._copying and (len(self._copying) > 1 or self._copying[0][0].is_over()):
            sent, slab = self._copying.popleft()
            sent.wait()
            ring.give_back(slab)

    def place(self, slab: Slab, ring: Ring) -> Placed:
        """See :class:`Placing`."""
        assert isinstance(slab, LockedSlab)
        rows = slab.part.ids.size
        columns = {name: self._lane.lock(tensor) for name, tensor in _columns(slab).items()}
        sent = self._lane.send({"image": slab.pixels[:rows], "fmask": slab.quality[:rows], **columns})
        self._copying.append((sent, slab))
        return sent


def _columns(slab: Slab) -> Tensors:
    """Metadata of the rows; fresh memory of each part, so the caller's."""
    return {name: torch.from_numpy(values) for name, values in slab.part.columns.items()}
