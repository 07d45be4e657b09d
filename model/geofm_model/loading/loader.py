"""Streams stores into batches: whole permutations, exact resume, and memory that is used again and again.

    for batch in Loader("OUT", batch_size=256, device="cuda"):
        ...

Threads read, check and decode each sample straight into its row of a batch (geofm_model.loading.slabs), reading and
decoding without the GIL. The order is a pure function of seed and position (geofm_model.loading.order), so the state is
a few numbers, whatever the threads, the ranks and how far was read ahead. Memory: `prefetch` batches, those that the
caller holds, and one compressed sample per thread. A damaged, missing or changed sample is an error, never other data.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import TypedDict

import numpy as np
import torch

from geofm_model.chunks import Turn
from geofm_model.loading.batch import Batch
from geofm_model.loading.lanes import Lane, check_gpu, cuda_lane
from geofm_model.loading.members import Members, Split, Weighting, gather
from geofm_model.loading.order import Ids, Stream
from geofm_model.loading.passes import Pass
from geofm_model.loading.placing import Borrowed, Copied, Owned, Placing
from geofm_model.loading.slabs import Part, Ring, Slab

SCHEMA = 1


class LoaderState(TypedDict):
    """All that a resumed loader needs; plain numbers and words, for any checkpoint."""

    schema: int
    digest: str
    """Of the members."""
    shuffle: bool
    seed: int
    consumed: int
    """Samples that all ranks together have been given."""
    batch_size: int
    """Of all ranks together."""


class Loader:
    """Batches of the samples of one or several datasets, without an end or in passes of `epochs`.

    A `for` loop goes on where the last one stopped, to the end of the pass; the one after that makes the next pass,
    with the orders of the epochs that follow. Several passes that resume exactly:

        for _ in range(loader.passes_done, 3):
            for batch in loader:
                ...

    There is one iterator at a time: a newer one, or a loaded state, takes over, and the one before raises.

    Parameters
    ----------
    places : a dataset folder or store, by path or address, or several
    batch_size : samples per step, of all ranks together; each rank gets its part of it
    split : `train`, `heldout` or `test`
    seed : of the order and of all that is random about samples
    shares : what part of the stream each dataset makes, relative; None by their numbers of samples
    weighting : `design` draws samples by their design weights, so that an epoch looks like the region
    rank, world_size : this process among those that train together
    epochs : how many make a pass, after which a loop ends; None goes on for ever, 1 with `shuffle=False` reads
        everything once, in order of the stores. The last batch of a pass may be smaller
    shuffle : False keeps the order of the stores
    threads : that read and decode; by default one per core, more for stores behind an address
    prefetch : batches that are read ahead
    device : where batches go
    borrow : hand out the same memory again and again: a batch is valid only until the next one is asked for (on the
        CPU; a GPU's batches are always yours)

    Raises
    ------
    StoreError
        When a dataset cannot be read or differs from its contract.
    ValueError
        When an argument cannot be right, or there is no such device.
    """

    def __init__(
        self,
        places: str | Path | Sequence[str | Path],
        *,
        batch_size: int,
        split: Split = "train",
        seed: int = 0,
        shares: Sequence[float] | None = None,
        weighting: Weighting = "none",
        rank: int = 0,
        world_size: int = 1,
        epochs: int | None = None,
        shuffle: bool = True,
        threads: int | None = None,
        prefetch: int = 2,
        device: torch.device | str = "cpu",
        borrow: bool = False,
    ) -> None:
        _check(batch_size, rank, world_size, epochs, threads, prefetch)
        where = _device(device)
        named = [places] if isinstance(places, str | Path) else list(places)
        self.members = gather(named, split=split, shares=shares, weighting=weighting)
        self.batch_size, self.seed, self.epochs = batch_size, seed, epochs
        self._rank, self._world, self._shuffle = rank, world_size, shuffle
        self.threads = threads or _usual_threads(self.members)
        self.prefetch, self.device, self.borrow = prefetch, where, borrow
        self._stream = Stream(len(self.members), seed=seed, weights=self.members.weights)
        self._columns = self.members.metadata()
        self.consumed = 0
        self._lane: Lane | None = None
        self._running: weakref.ref[Pass] | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Batches from where the last iterator, or a loaded state, stopped, to the end of the pass."""
        self._take_over()
        placing = self._placing()
        ring = Ring(
            partial(placing.slab, *self.shapes()),
            ahead=self.prefetch,
            work=self.parts(self.consumed, None if self.epochs is None else self._end()),
            fill=partial(self.fill, _turns(self.threads)),
        )
        new = Pass(ring, placing, rule=self.members.stores[0].rule, moved=self._moved)
        self._running = weakref.ref(new)
        ring.start(self.threads)
        return new

    def __len__(self) -> int:
        """Batches of the next `for` loop: of a whole pass, or what is left of one; TypeError without `epochs`."""
        return self._batches(self._end() - self.consumed)

    @property
    def passes_done(self) -> int:
        """Passes that came to their end; TypeError without `epochs`."""
        return self.consumed // self._span

    @property
    def batches_per_pass(self) -> int:
        """Batches of a whole pass; TypeError without `epochs`."""
        return self._batches(self._span)

    def __getstate__(self) -> Mapping[str, object]:
        """Everything but what runs here: a loader may be sent to another process, and goes on there."""
        return {**self.__dict__, "_running": None, "_lane": None}

    def restart(self) -> None:
        """Go back to the very first sample; a running iterator is over."""
        self._take_over()
        self.consumed = 0

    def state_dict(self) -> LoaderState:
        """Where the stream is, after the batch that was handed out last."""
        return LoaderState(
            schema=SCHEMA,
            digest=self.members.digest,
            shuffle=self._shuffle,
            seed=self.seed,
            consumed=self.consumed,
            batch_size=self.batch_size,
        )

    def load_state_dict(self, state: LoaderState) -> None:
        """Go on from a state: the next iterator begins there, and one that is running raises.

        Raises
        ------
        ValueError
            When the state is of other samples, another seed or batch size, which would make it another stream.
        """
        mine = self.state_dict()
        for name in ("schema", "digest", "shuffle", "seed", "batch_size"):
            if state.get(name) != mine[name]:
                raise ValueError(
                    f"the state has {name} {state.get(name)!r}, this loader has {mine[name]!r}: it is another stream; "
                    "give the same datasets, split, shares, weighting, seed and batch size, or start anew"
                )
        self._take_over()
        self.consumed = int(state["consumed"])

    def ids(self, position: int, count: int) -> tuple[Ids, Ids, Ids]:
        """Samples, epochs, and turns within them, [count] each, from a position of the stream on."""
        if self._shuffle:
            return self._stream.take(position, count)
        places = np.arange(position, position + count)
        return places % len(self.members), places // len(self.members), np.zeros_like(places)

    def parts(self, position: int, end: int | None) -> Iterator[Part]:
        """What each batch of this rank holds, from a position on."""
        while end is None or position < end:
            count = self.batch_size if end is None else min(self.batch_size, end - position)
            first, stop = (part * count // self._world for part in (self._rank, self._rank + 1))
            ids, epochs, turns = self.ids(position + first, stop - first)
            columns = {name: values[ids] for name, values in self._columns.items()}
            position += count
            yield Part(ids=ids, epochs=epochs, turns=turns, columns=columns, after=position)

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of image and fmask in a batch of this rank."""
        header = self.members.stores[0].header
        rows, size = -(-self.batch_size // self._world), (header.height, header.width)
        return (rows, header.timesteps, len(header.bands), *size), (rows, header.timesteps, *size)

    def fill(self, turn: Turn, slab: Slab, row: int, sample: int) -> None:
        """Read a sample into a row of a slab; decode when it is this thread's turn."""
        self.members.load(sample, slab.image[row], slab.fmask[row], turn)

    @property
    def _span(self) -> int:
        """Samples of a pass."""
        if self.epochs is None:
            raise TypeError("a loader without `epochs` makes no passes and has no length: it goes on for ever")
        return self.epochs * len(self.members)

    def _end(self) -> int:
        """Position where the present pass ends, or the next one where it is over."""
        return (self.consumed // self._span + 1) * self._span

    def _batches(self, samples: int) -> int:
        return -(-samples // self.batch_size)

    def _moved(self, position: int) -> None:
        self.consumed = position

    def _placing(self) -> Placing:
        if self.device.type == "cuda":
            self._lane = self._lane or cuda_lane(self.device)
            return Copied(self._lane)
        return Borrowed() if self.borrow else Owned()

    def _take_over(self) -> None:
        """Nobody but who comes next moves the stream on."""
        running = None if self._running is None else self._running()
        if running is not None:
            running.close()
        self._running = None


def _device(wanted: torch.device | str) -> torch.device:
    """Where batches go; ValueError where they cannot, before anything is opened or started."""
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda or cuda:NUMBER, got {wanted!r}") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"batches go to cpu or cuda, not to {device}: move them on with Batch.to")
    if device.type == "cuda":
        check_gpu(device)
    return device


def _usual_threads(members: Members) -> int:
    """One per core that this process may use; as many as should be under way for stores behind an address."""
    return max(_cores(), *(store.files.at_once for store in members.stores))


def _turns(threads: int) -> Turn:
    """Two at a time per core, where threads are many for the sake of a network: if they all decoded at once, whoever
    takes batches would wait long for a core."""
    most = 2 * _cores()
    return BoundedSemaphore(most) if threads > most else nullcontext()


def _cores() -> int:
    """Cores that this process may use, where the system can say so, else all."""
    count: Callable[[], int | None] = getattr(os, "process_cpu_count", os.cpu_count)  # since Python 3.13
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return count() or 1


def _check(batch_size: int, rank: int, world_size: int, epochs: int | None, threads: int | None, prefetch: int) -> None:
    for name, value in (("batch_size", batch_size), ("world_size", world_size), ("prefetch", prefetch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must be 0 to {world_size - 1} of {world_size} processes, got {rank}")
    if batch_size % world_size:
        raise ValueError(
            f"batch_size {batch_size} is of all ranks together and must be a multiple of their number {world_size}"
        )
    if (epochs is not None and epochs < 1) or (threads is not None and threads < 1):
        raise ValueError(f"epochs and threads must be at least 1 or None, got {epochs} and {threads}")
