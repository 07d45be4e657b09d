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
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch

from geofm_model.files import Bytes
from geofm_model.loading.batch import Batch
from geofm_model.loading.members import Members, Split, Weighting, gather
from geofm_model.loading.order import Ids, Stream
from geofm_model.loading.placing import placing_on
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
    """Batches of the samples of one or several datasets, without an end.

    Parameters
    ----------
    places : a dataset folder or store, by path or address, or several
    batch_size : samples per step, of all ranks together; each rank gets its part of it
    split : `train`, `heldout` or `test`
    seed : of the order and of all that is random about samples
    shares : what part of the stream each dataset makes, relative; None by their numbers of samples
    weighting : `design` draws samples by their design weights, so that an epoch looks like the region
    rank, world_size : this process among those that train together
    epochs : passes; None goes on for ever, 1 with `shuffle=False` reads everything once, in order of the stores. The
        last batch of a finite stream may be smaller
    shuffle : False keeps the order of the stores
    threads : that read and decode; by default one per core, more for stores behind an address
    prefetch : batches that are read ahead
    device : where batches go
    borrow : hand out the same memory again and again: a batch is valid only until the next one is asked for

    Raises
    ------
    StoreError
        When a dataset cannot be read or differs from its contract.
    ValueError
        When an argument cannot be right.
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
        named = [places] if isinstance(places, str | Path) else list(places)
        self.members = gather(named, split=split, shares=shares, weighting=weighting)
        self.batch_size, self.seed, self.epochs = batch_size, seed, epochs
        self._rank, self._world, self._shuffle = rank, world_size, shuffle
        self.threads = threads or _usual_threads(self.members)
        self.prefetch, self.device, self.borrow = prefetch, torch.device(device), borrow
        self._stream = Stream(len(self.members), seed=seed, weights=self.members.weights)
        self._columns = {name: self.members.column(name) for name in ("date", "lon", "lat", "stratum")}
        self.consumed = 0

    def __iter__(self) -> Iterator[Batch]:
        """Batches from where the last iterator, or a loaded state, stopped."""
        return _Pass(self)

    def __len__(self) -> int:
        """Batches that a finite stream still has."""
        if self.epochs is None:
            raise TypeError("a loader without `epochs` has no length: it goes on for ever")
        return -(-max(0, self.epochs * len(self.members) - self.consumed) // self.batch_size)

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
        """Go on from a state; a running iterator is not changed, the next one begins there.

        Raises
        ------
        ValueError
            When the state is of other samples, another seed or batch size, which would make it another stream.
        """
        mine = self.state_dict()
        for name in ("schema", "digest", "shuffle", "seed", "batch_size"):
            if state[name] != mine[name]:
                raise ValueError(
                    f"the state has {name} {state[name]!r}, this loader has {mine[name]!r}: it is another stream; give "
                    "the same datasets, split, shares, weighting, seed and batch size, or start anew"
                )
        self.consumed = int(state["consumed"])

    def ids(self, position: int, count: int) -> tuple[Ids, Ids, Ids]:
        """Samples, epochs, and turns within them, [count] each, from a position of the stream on."""
        if self._shuffle:
            return self._stream.take(position, count)
        places = np.arange(position, position + count)
        return places % len(self.members), places // len(self.members), np.zeros_like(places)

    def parts(self, position: int) -> Iterator[Part]:
        """What each batch of this rank holds, from a position on."""
        end = None if self.epochs is None else self.epochs * len(self.members)
        while end is None or position < end:
            count = self.batch_size if end is None else min(self.batch_size, end - position)
            first, stop = (part * count // self._world for part in (self._rank, self._rank + 1))
            ids, epochs, turns = self.ids(position + first, stop - first)
            position += count
            yield Part(ids=ids, epochs=epochs, turns=turns, after=position)

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of image and fmask in a batch of this rank."""
        header = self.members.stores[0].header
        rows, size = -(-self.batch_size // self._world), (header.height, header.width)
        return (rows, header.timesteps, len(header.bands), *size), (rows, header.timesteps, *size)

    def fill(self, slab: Slab, row: int, sample: int) -> None:
        """Read a sample into a row of a slab."""
        store = self.members.stores[self.members.store[sample]]
        index = int(self.members.row[sample])
        for chunks, out in ((store.image, slab.image[row]), (store.fmask, slab.fmask[row])):
            chunks.load(index, out, _scratch)

    def batch(self, image: torch.Tensor, fmask: torch.Tensor, part: Part) -> Batch:
        """Pixels that are on the device, with what belongs to them."""
        columns = {name: torch.from_numpy(values[part.ids]).to(self.device) for name, values in self._columns.items()}
        return Batch(
            image=image,
            fmask=fmask,
            **columns,
            sample=torch.from_numpy(part.ids),
            epoch=torch.from_numpy(part.epochs),
            turn=torch.from_numpy(part.turns),
            rule=self.members.stores[0].rule,
        )


class _Pass(Iterator[Batch]):
    """A run through the stream with threads of its own, which end when it is closed or forgotten."""

    def __init__(self, loader: Loader) -> None:
        self._loader, self._process = loader, os.getpid()
        self._failed: Exception | None = None
        self._placing = placing_on(loader.device, borrow=loader.borrow)
        make = partial(self._placing.slab, *loader.shapes())
        self._ring = Ring(make, ahead=loader.prefetch, work=loader.parts(loader.consumed), fill=loader.fill)
        self._ring.start(loader.threads)

    def __next__(self) -> Batch:
        if self._process != os.getpid():
            raise RuntimeError(
                "this iterator was made before a fork, and its threads stayed behind: make it in the process that uses "
                "it, or start processes by spawn"
            )
        self._placing.before_next(self._ring)
        slab = self._take()
        if slab is None:
            raise StopIteration
        part = slab.part
        image, fmask = self._placing.place(slab, self._ring)
        batch = self._loader.batch(image, fmask, part)
        self._loader.consumed = part.after
        return batch

    def _take(self) -> Slab | None:
        """The next slab; what went wrong once is raised again, since an end would look like the end of the data."""
        try:
            if self._failed is None:
                return self._ring.take()
        except Exception as error:
            self._failed = error
            self._ring.stop()
        raise self._failed

    def close(self) -> None:
        """End the threads; batches that were handed out stay valid."""
        self._ring.stop()

    def __del__(self) -> None:
        if hasattr(self, "_ring"):
            self.close()


def _usual_threads(members: Members) -> int:
    """One per core that this process may use; as many as should be under way for stores behind an address."""
    return max(len(os.sched_getaffinity(0)), *(store.files.at_once for store in members.stores))


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


_here = threading.local()


def _scratch(size: int) -> Bytes:
    """This thread's own memory of `size` bytes, used again and again."""
    found: Bytes | None = getattr(_here, "scratch", None)
    if found is None or found.size < size:
        found = _here.scratch = np.empty(size + size // 4, dtype=np.uint8)
    return found[:size]
