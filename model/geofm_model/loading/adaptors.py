"""Stores for those who work with torch's DataLoader, or with what builds on it.

    DataLoader(LoaderDataset(Loader("OUT", batch_size=256)), batch_size=None)    # our loader, in DataLoader's clothes
    DataLoader(StoreDataset("OUT"), batch_size=32, shuffle=True, num_workers=8)  # single samples, torch does the rest

The first keeps all that a Loader promises. The second is for samplers of your own; it costs a copy of each batch
between processes and has no resume of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from geofm_model.errors import StoreError
from geofm_model.loading.batch import Batch
from geofm_model.loading.loader import Loader, LoaderState
from geofm_model.loading.members import Members, Split, gather


class LoaderDataset(IterableDataset[Batch]):
    """The batches of a loader as a data set; give DataLoader `batch_size=None` and no workers.

    Its state is the loader's, as torchdata's StatefulDataLoader keeps it.
    """

    def __init__(self, loader: Loader) -> None:
        super().__init__()
        self.loader = loader

    def __iter__(self) -> Iterator[Batch]:
        if get_worker_info() is not None:
            raise RuntimeError(
                "a LoaderDataset cannot run in workers of a DataLoader, each of which would give the whole stream: use "
                "num_workers=0; the loader reads with threads of its own, Loader(..., threads=N)"
            )
        return iter(self.loader)

    def __len__(self) -> int:
        """Batches of a whole pass, also where a part of it is behind; TypeError for a loader without `epochs`."""
        return self.loader.batches_per_pass

    def state_dict(self) -> LoaderState:
        """See :meth:`Loader.state_dict`."""
        return self.loader.state_dict()

    def load_state_dict(self, state: LoaderState) -> None:
        """See :meth:`Loader.load_state_dict`."""
        self.loader.load_state_dict(state)


class StoreDataset(Dataset[dict[str, Tensor]]):
    """Single samples by number, for any sampler and any workers.

    A sample is a dict of tensors: `image` int16 [t, c, h, w], `fmask` uint8 [t, h, w], `date` int32 [t], and without an
    axis `lon` and `lat` float64, `stratum` int32, `weight` float32 and `sample` int64, with the meaning that they have
    in a Batch. Which pixels are valid says `rule`. Workers may be forked or spawned; stores behind an address need
    `multiprocessing_context="spawn"` or `"forkserver"`, and say so.

    Parameters
    ----------
    places : a dataset folder or store, by path or address, or several
    split : `train`, `heldout` or `test`

    Raises
    ------
    StoreError
        When a dataset cannot be read or differs from its contract, or a sample is not what was written.
    """

    def __init__(self, places: str | Path | Sequence[str | Path], *, split: Split = "train") -> None:
        self._places = [places] if isinstance(places, str | Path) else list(places)
        self._split: Split = split
        self.members: Members = gather(self._places, split=split)
        self.rule = self.members.stores[0].rule
        self._columns = self.members.metadata()

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}: numbers run from 0 to {len(self) - 1}")
        at = int(index) % len(self)
        chunks = self.members.stores[0]
        image, fmask = np.empty(chunks.image.sample, dtype=np.int16), np.empty(chunks.fmask.sample, dtype=np.uint8)
        self.members.load(at, image, fmask)
        columns = {name: torch.from_numpy(np.array(values[at])) for name, values in self._columns.items()}
        return {
            "image": torch.from_numpy(image),
            "fmask": torch.from_numpy(fmask),
            **columns,
            "sample": torch.tensor(at, dtype=torch.int64),
        }

    def __reduce__(self) -> tuple[object, ...]:
        """Arguments only: a spawned worker opens the stores itself instead of being sent their indices."""
        return _again, (self._places, self._split, self.members.digest)


def _again(places: list[str | Path], split: Split, digest: str) -> StoreDataset:
    found = StoreDataset(places, split=split)
    if found.members.digest != digest:
        raise StoreError(f"{', '.join(map(str, places))} changed since this StoreDataset was made: make it anew")
    return found
