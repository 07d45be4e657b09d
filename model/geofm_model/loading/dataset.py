"""A dataset: a folder of `geofm-sample` with the stores of all its waves and their samples' weights, or a store alone.

A wave that is lost is an error, where samples.parquet lists it or a later one is there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geofm_model.errors import ForbiddenError, StoreError
from geofm_model.files import Files, below, files_at
from geofm_model.loading.design import NAME, read_samples
from geofm_model.store import Store

_BEYOND = 3
"""Waves that are looked for behind the last one found."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """What is at one place."""

    where: str
    """Path or address, for messages."""
    stores: tuple[Store, ...]
    """In order of waves."""
    weights: tuple[NDArray[np.float64], ...] | None
    """For each store the design weight of every sample, [N]; None without a samples.parquet."""

    @classmethod
    def open(cls, place: str | Path) -> Dataset:
        """The dataset folder or store at a path or address.

        Raises
        ------
        StoreError
            When there is none, a wave is missing, a store is not as the contract says, or samples.parquet is of others.
        """
        files = files_at(place)
        if _is_there(files, "zarr.json"):
            return cls(where=files.where, stores=(Store.open(place),), weights=None)
        table = read_samples(files)
        waves = _waves(files, 0 if table is None else table.waves)
        stores = tuple(Store.open(below(place, _store_name(wave))) for wave in waves)
        weights = None if table is None else tuple(map(table.weights, waves, stores))
        return cls(where=files.where, stores=stores, weights=weights)


def open_dataset(place: str | Path) -> list[Store]:
    """The stores of a dataset folder in order of waves, or the one store at `place`; raises as :meth:`Dataset.open`."""
    return list(Dataset.open(place).stores)


def _waves(files: Files, listed: int) -> list[int]:
    """Numbers of the waves whose stores are there, 1 to the last; raises StoreError for a gap.

    Parameters
    ----------
    listed : the last wave that samples.parquet knows, 0 without it
    """
    found: list[int] = []
    number = 1
    while number <= max(listed, (found[-1] if found else 0) + _BEYOND):
        if _is_there(files, f"{_store_name(number)}/zarr.json"):
            found.append(number)
        number += 1
    where, last = files.where, max([*found, listed])
    if not last:
        raise StoreError(
            f"{where} {_why_not(files)}: give a dataset folder of geofm-sample (it has a store.zarr) or a store"
        )
    if lost := [_store_name(wave) for wave in range(1, last + 1) if wave not in found]:
        why = f"whose samples {NAME} lists" if listed == last else f"but a later wave, {_store_name(last)}"
        raise StoreError(
            f"{where} has no {', '.join(lost)}, {why}: restore it from a copy, or give the stores that you want by name"
        )
    return found


def _why_not(files: Files) -> str:
    """What is at a place that is no dataset."""
    where = files.where
    if "://" in where:
        try:
            files.read("zarr.json")
        except ForbiddenError:
            return (
                "holds no store, or the server refuses it (403; check credentials, a signed address may have run out)"
            )
        except FileNotFoundError:
            return "holds no store"
    path = Path(where)
    if path.is_dir():
        images = any(path.glob("*.tif*"))
        return "holds images, no store (geofm-sample import makes one of them)" if images else "holds no store"
    several = ", and several are written [A,B]" if "," in where else ""
    return ("is a file" if path.exists() else "does not exist") + several


def _store_name(wave: int) -> str:
    return "store.zarr" if wave == 1 else f"store-{wave:04d}.zarr"


def _is_there(files: Files, name: str) -> bool:
    try:
        files.read(name)
    except (FileNotFoundError, NotADirectoryError, ForbiddenError):  # S3 that may not be listed refuses what is absent
        return False
    return True
