"""What a loader draws from: the samples of one split in one or several datasets, with their weights and a digest.

A dataset is a folder of `geofm-sample` (all its waves are read as one) or a single store. Members are numbered in order
of (dataset, wave, index); the digest names exactly this list, so that a position in the order means the same on resume.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geofm_model.errors import ForbiddenError, StoreError
from geofm_model.files import below, files_at
from geofm_model.store import Store

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
    digest: str
    """SHA-256 of the stores' digests, the split, and what the weights are made of."""

    def __len__(self) -> int:
        return int(self.row.size)

    def column(self, name: str) -> NDArray[np.generic]:
        """A metadata column of the stores for all members, [n] or [n, T]."""
        parts = [store.column(name)[self.row[self.store == at]] for at, store in enumerate(self.stores)]
        return np.concatenate(parts)  # members are in order of stores


def open_dataset(place: str | Path) -> list[Store]:
    """The stores of a dataset folder in order of waves, or the one store at `place`.

    Raises
    ------
    StoreError
        When there is none, or one of them is not as the contract says.
    """
    files = files_at(place)
    if _is_there(place, "zarr.json"):
        return [Store.open(place)]
    found: list[Store] = []
    while _is_there(place, f"{_store_name(len(found) + 1)}/zarr.json"):
        found.append(Store.open(below(place, _store_name(len(found) + 1))))
    if not found:
        raise StoreError(
            f"{files.where} holds no store: give a dataset folder of geofm-sample (it has a store.zarr) or a store"
        )
    return found


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
    datasets = [open_dataset(place) for place in places]
    stores = tuple(store for dataset in datasets for store in dataset)
    _check_alike(stores)
    rows = [np.flatnonzero(store.column("split") == SPLITS[split]) for store in stores]
    counts = [row.size for row in rows]
    if not sum(counts):
        raise StoreError(
            f"none of {', '.join(files_at(place).where for place in places)} has a sample of the split {split!r}"
        )
    digests = [store.header.digest for store in stores]
    parts: list[NDArray[np.float64]] | None = None
    if weighting == "design":
        parts = []
        for place, dataset in zip(places, datasets, strict=True):
            digest, values = _design_weights(place, dataset)
            digests.append(digest)
            parts += values
    weights = _weights(datasets, rows, parts, shares)
    if weights is not None and not (np.isfinite(weights).all() and weights.min() >= 0 and weights.sum() > 0):
        raise StoreError("the weights of samples.parquet must be finite, ≥ 0 and not all zero in the split")
    named = json.dumps([digests, split, None if shares is None else [float(share) for share in shares]])
    return Members(
        stores=stores,
        store=np.repeat(np.arange(len(stores), dtype=np.int32), counts),
        row=np.concatenate(rows).astype(np.int64),
        dataset=tuple(at for at, dataset in enumerate(datasets) for _ in dataset),
        weights=weights,
        digest=sha256(named.encode()).hexdigest(),
    )


def _weights(
    datasets: Sequence[Sequence[Store]],
    rows: Sequence[NDArray[np.intp]],
    design: Sequence[NDArray[np.float64]] | None,
    shares: Sequence[float] | None,
) -> NDArray[np.float64] | None:
    """Weights of all members; those of a dataset sum to its share."""
    if design is None and shares is None:
        return None
    values = [np.ones(row.size) if design is None else design[at][row] for at, row in enumerate(rows)]
    if shares is None:
        return np.concatenate(values)
    found, first = [], 0
    for dataset, share in zip(datasets, shares, strict=True):
        own = np.concatenate(values[first : first + len(dataset)])
        found.append(own * (share / own.sum()) if own.sum() > 0 else own)
        first += len(dataset)
    return np.concatenate(found)


def _design_weights(place: str | Path, dataset: Sequence[Store]) -> tuple[str, list[NDArray[np.float64]]]:
    """Digest of samples.parquet, and for each store of a dataset the weight of every index."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        data = files_at(place).read("samples.parquet")
    except FileNotFoundError:
        raise StoreError(
            f"{files_at(place).where} has no samples.parquet, where the weights are: give the dataset's folder, not a "
            "store alone"
        ) from None
    table = pq.read_table(pa.BufferReader(data), columns=["wave", "index", "unit", "weight"])
    wave, index, unit = (np.asarray(table[name]) for name in ("wave", "index", "unit"))
    weights = []
    for number, store in enumerate(dataset, start=1):
        mine = wave == number
        values = np.full(len(store), np.nan)
        values[index[mine]] = np.asarray(table["weight"])[mine]
        if np.isnan(values).any() or not np.array_equal(store.column("unit")[index[mine]], unit[mine]):
            raise StoreError(
                f"samples.parquet of {files_at(place).where} does not list the samples of {store.files.where}: they "
                "are of two runs"
            )
        weights.append(values)
    return sha256(data).hexdigest(), weights


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


def _store_name(wave: int) -> str:
    return "store.zarr" if wave == 1 else f"store-{wave:04d}.zarr"


def _is_there(place: str | Path, name: str) -> bool:
    try:
        files_at(place).read(name)
    except (FileNotFoundError, ForbiddenError):  # S3 that may not be listed refuses what is not there
        return False
    return True
