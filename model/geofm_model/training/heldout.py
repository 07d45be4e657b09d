"""The held-out samples that a run looks at again and again: always the same ones, with the same views and masks.

They are the first of a permutation of the split by a fixed seed: a simple random choice of what was held out, so that
design weights keep their meaning. Processes share them; what they find is put side by side again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geofm_model.files import files_at
from geofm_model.loading import Batch, Loader, stratum_names
from geofm_model.loading.members import SPLITS, Split
from geofm_model.training.distributed import Ranks
from geofm_model.training.labels import Part, column_of
from geofm_model.training.learner import Learner
from geofm_model.training.stopping import StoppedError

SEED = 20_220_101
"""Of the choice; no setting, so that runs are compared on the same samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Chosen:
    """Some samples of a split."""

    places: tuple[str, ...]
    loader: Loader
    count: int
    """Samples that are looked at."""
    ranks: Ranks
    stopping: Callable[[], bool] = lambda: False
    """Whether to stop in between; asked by all processes at the same places."""

    @cached_property
    def _block_of(self) -> list[Part | None]:
        return [column_of("block", place) for place in self.places]

    @cached_property
    def _names(self) -> list[dict[int, str]]:
        return [stratum_names(place) for place in self.places]

    def batches(self) -> Iterator[tuple[int, Batch]]:
        """This process's parts of them with the place of their first sample among all; raises StoppedError."""
        self.loader.restart()
        size, total = self.loader.batch_size, len(self.loader.members)
        for start, batch in zip(range(0, self.count, size), self.loader, strict=False):
            if self.stopping():
                raise StoppedError
            # The last batch may be smaller.
            place = start + self.ranks.rank * min(size, total - start) // self.ranks.world_size
            wanted = min(len(batch), self.count - place)
            if wanted > 0:
                yield place, first(batch, wanted)

    def each(self, look: Callable[[Batch], Tensor], width: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Numbers [b, width] of all batches of all processes: members [n], ascending, and float64 [n, width]."""
        found = torch.zeros(self.count, width + 1, dtype=torch.float64)
        for place, batch in self.batches():
            rows = slice(place, place + len(batch))
            found[rows, 0] = batch.sample.to(torch.float64)
            found[rows, 1:] = look(batch).to(device="cpu", dtype=torch.float64)
        whole = self.ranks.sum(found.to(self.loader.device)).cpu().numpy()
        whole = whole[whole[:, 0].argsort(kind="stable")]
        return whole[:, 0].astype(np.int64), whole[:, 1:]

    def blocks(self, members: NDArray[np.int64]) -> NDArray[np.int64] | None:
        """Number [n] of each member's split block, which was held out as a whole; None where blocks are unknown."""
        found = self._block_of
        if any(one is None for one in found):
            return None
        known = self.loader.members
        dataset, unit = np.asarray(known.dataset)[known.store[members]], known.unit[members]
        pairs = np.zeros((members.size, 2), dtype=np.int64)
        for at, part in enumerate(found):
            mine = dataset == at
            there, values = part.of(unit[mine]) if part is not None else (np.zeros(0, dtype=bool), np.zeros(0))
            if not there.all():
                return None
            pairs[mine] = np.stack([np.full(len(values), at), values.astype(np.int64)], axis=1)
        return np.unique(pairs, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def strata(self, members: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
        """Numbers [n] of the members' strata in `names`; strata of different datasets are different ones."""
        known = self.loader.members
        dataset = np.asarray(known.dataset)[known.store[members]]
        stratum = known.column("stratum")[members].astype(np.int64)
        pairs, number = np.unique(np.stack([dataset, stratum], axis=1), axis=0, return_inverse=True)
        names = self._names
        several = len(names) > 1
        said = [
            (f"{files_at(self.places[at]).where}: " if several else "") + names[at].get(int(value), f"stratum {value}")
            for at, value in pairs.tolist()
        ]
        return number.reshape(-1), said


def choose(learner: Learner, split: Split, count: int) -> Chosen:
    """Up to `count` samples of a split, which all processes share."""
    run, ranks = learner.run, learner.ranks
    loader = Loader(
        run.data.stores,
        batch_size=run.data.part,
        split=split,
        seed=SEED,
        rank=ranks.rank,
        world_size=ranks.world_size,
        epochs=1,
        threads=run.data.threads,
        prefetch=run.data.prefetch,
        device=learner.device,
    )
    return Chosen(
        places=tuple(run.data.stores),
        loader=loader,
        count=min(count, len(loader.members)),
        ranks=ranks,
        stopping=learner.stopping,
    )


def few(learner: Learner, split: Split, count: int) -> Batch:
    """The first few of them, for this process alone; in memory of their own."""
    data = learner.run.data
    loader = Loader(data.stores, batch_size=count, split=split, seed=SEED, epochs=1, threads=1, device=learner.device)
    return first(next(iter(loader)), count)


def has_split(loader: Loader, split: Split) -> bool:
    """Whether the stores of a loader have a sample of a split."""
    return any(bool((store.column("split") == SPLITS[split]).any()) for store in loader.members.stores)


def first(batch: Batch, count: int) -> Batch:
    """The first samples of a batch; a part has memory of its own."""
    if count >= len(batch):
        return batch
    parts = {name: value[:count].clone() for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return Batch(**parts, rule=batch.rule)
