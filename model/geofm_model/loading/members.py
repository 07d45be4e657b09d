"""What a loader draws from: the samples of one split in one or several datasets, with their weights and a digest.

A dataset is a folder of `geofm-sample` (all its waves are read as one) or a single store. Members are numbered in order
of (dataset, wave, index); the digest names exactly this list, so that a position in the order means the same on resume.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geofm_model.chunks import Turn
from geofm_model.errors import StoreError
from geofm_model.files import Bytes
from geofm_model.loading.dataset import Dataset
from geofm_model.store import Store

_ALWAYS: Turn = nullcontext()
SPLITS = {"train": 0, "heldout": 1, "test": 2}
Split = Literal["train", "heldout", "test"]
Weighting = Literal["none", "design"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Members:
    """Samples to draw from."""

    stores: tuple[Store, ...]
    store: NDArray[np.int32]
    """[n] position in `stores`."""
    row: NDArray[np.int64]
    """[n] index in that store."""
    dataset: tuple[int, ...]
    """Of each store, the number of its dataset."""
    weights: NDArray[np.float64] | None
    """[n] relative chance to be drawn; None where all are equal."""
    design: NDArray[np.float64] | None
    """[n] design weights, whatever is drawn: how many units of the region a sample stands for; 1 for the samples of a
    dataset that has no samples.parquet, None where none has."""
    digest: str
    """SHA-256 of the stores' digests, the split, and what the weights are made of."""

    def __len__(self) -> int:
        return int(self.row.size)

    def column(self, name: str) -> NDArray[np.generic]:
        """A metadata column of the stores for all members, [n] or [n, T]."""
        parts = [store.column(name)[self.row[self.store == at]] for at, store in enumerate(self.stores)]
        return np.concatenate(parts)  # members are in order of stores

    def metadata(self) -> dict[str, NDArray[np.generic]]:
        """What a batch says of its samples beside their pixels, for all members, by name; [n] or [n, T] each."""
        found = {name: self.column(name) for name in ("date", "lon", "lat", "stratum")}
        weight = np.ones(len(self)) if self.design is None else self.design
        return {**found, "weight": weight.astype(np.float32)}

    def load(self, member: int, image: NDArray[np.int16], fmask: NDArray[np.uint8], turn: Turn = _ALWAYS) -> None:
        """Read a member's pixels into contiguous arrays [T, B, H, W] and [T, H, W]; as Chunks.load."""
        store, index = self.stores[self.store[member]], int(self.row[member])
        store.image.load(index, image, _scratch, turn)
        store.fmask.load(index, fmask, _scratch, turn)

    @property
    def unit(self) -> NDArray[np.uint64]:
        """[n] packed id of each member's sampling unit, gathered anew each time."""
        return self.column("unit").astype(np.uint64)


def gather(
    places: Sequence[str | Path],
    *,
    split: Split = "train",
    shares: Sequence[float] | None = None,
    weighting: Weighting = "none",
) -> Members:
    """The samples of a split in some datasets.

    Parameters
    ----------
    shares : what part of an epoch each dataset makes, relative; None by their numbers of samples
    weighting : `design` draws by the column `weight` of samples.parquet, so that an epoch looks like the region

    Raises
    ------
    StoreError
        When a dataset cannot be read, when the datasets do not fit each other, or none has a sample of the split.
    ValueError
        When a word is not known, or `shares` are not as many as places, or not above 0.
    """
    for name, word, known in (("split", split, tuple(SPLITS)), ("weighting", weighting, get_args(Weighting))):
        if word not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {word!r}")
    _check_shares(places, shares)
    datasets = [Dataset.open(place) for place in places]
    stores = tuple(store for dataset in datasets for store in dataset.stores)
    _check_alike(stores)
    rows = [np.flatnonzero(store.column("split") == SPLITS[split]) for store in stores]
    if not sum(row.size for row in rows):
        raise StoreError(f"none of {', '.join(found.where for found in datasets)} has a sample of the split {split!r}")
    digests = [store.header.digest for store in stores]
    if weighting == "design":
        digests += [_digest(dataset) for dataset in datasets]
    design, sizes = _design(datasets, rows)
    weights = _weights(design if weighting == "design" else np.ones(sum(sizes)), sizes, shares)
    if not weights.sum() > 0:
        raise StoreError(f"the weights of samples.parquet are all zero in the split {split!r}")
    named = json.dumps([digests, split, None if shares is None else [float(share) for share in shares]])
    return Members(
        stores=stores,
        store=np.repeat(np.arange(len(stores), dtype=np.int32), [row.size for row in rows]),
        row=np.concatenate(rows).astype(np.int64),
        dataset=tuple(at for at, dataset in enumerate(datasets) for _ in dataset.stores),
        weights=None if weighting == "none" and shares is None else weights,
        design=None if all(dataset.weights is None for dataset in datasets) else design,
        digest=sha256(named.encode()).hexdigest(),
    )


def _digest(dataset: Dataset) -> str:
    """Of the weights, of units that the stores' own digests name; raises StoreError where there are none."""
    if dataset.weights is None:
        raise StoreError(
            f"{dataset.where} has no samples.parquet, where the weights are: give the dataset's folder, not a store "
            "alone"
        )
    whole = sha256()
    for values in dataset.weights:
        whole.update(values.astype("<f8").tobytes())
    return whole.hexdigest()


def _design(datasets: Sequence[Dataset], rows: Sequence[NDArray[np.intp]]) -> tuple[NDArray[np.float64], list[int]]:
    """Design weights of all members, 1 in datasets that have none, and the members of each dataset."""
    found, sizes, at = [], [], 0
    for dataset in datasets:
        mine = rows[at : at + len(dataset.stores)]
        weights = dataset.weights or tuple(np.ones(len(store)) for store in dataset.stores)
        found += [values[row] for values, row in zip(weights, mine, strict=True)]
        sizes.append(sum(row.size for row in mine))
        at += len(mine)
    return np.concatenate(found), sizes


def _weights(values: NDArray[np.float64], sizes: Sequence[int], shares: Sequence[float] | None) -> NDArray[np.float64]:
    """Weights of all members; those of a dataset sum to its share."""
    if shares is None:
        return values
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return np.concatenate(
        [own * (share / own.sum()) if own.sum() > 0 else own for own, share in zip(parts, shares, strict=True)]
    )


def _check_shares(places: Sequence[str | Path], shares: Sequence[float] | None) -> None:
    if not places:
        raise ValueError("no dataset was given: name at least one folder or store")
    if shares is not None and (len(shares) != len(places) or not all(0 < share < np.inf for share in shares)):
        raise ValueError(f"{len(places)} datasets need as many shares above 0, got {list(shares)}")


def _check_alike(stores: Sequence[Store]) -> None:
    """Samples of one batch have one shape and one meaning."""
    first = stores[0].header
    for store in stores[1:]:
        for name in ("timesteps", "bands", "height", "width", "rule"):
            mine, wanted = getattr(store.header, name), getattr(first, name)
            if mine != wanted:
                raise StoreError(
                    f"{store.files.where} has {name} {mine}, {stores[0].files.where} has {wanted}: they cannot be mixed"
                )


_here = threading.local()


def _scratch(size: int) -> Bytes:
    """This thread's own memory of `size` bytes, used again and again."""
    found: Bytes | None = getattr(_here, "scratch", None)
    if found is None or found.size < size:
        found = _here.scratch = np.empty(size + size // 4, dtype=np.uint8)
    return found[:size]
