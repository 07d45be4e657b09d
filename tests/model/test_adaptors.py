"""Stores in torch's own DataLoader: our loader in its clothes, and single samples for its workers."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from servers.loopback import serving
from servers.maps import folder_app
from torch.utils.data import DataLoader, SubsetRandomSampler

from geofm_model import StoreError
from geofm_model.loading import Batch, Loader, LoaderDataset, StoreDataset

from .streaming import check, keys, write_dataset

SPAWN = pytest.param("spawn", marks=pytest.mark.heavy)
"""Each worker imports torch anew, for seconds."""


def test_a_data_loader_gives_the_loaders_batches(store: Path) -> None:
    """The same batches in the same order, pass after pass, with the length of a pass."""
    ours = Loader(store, batch_size=4, epochs=1, seed=3)
    theirs: DataLoader[Batch] = DataLoader(
        LoaderDataset(Loader(store, batch_size=4, epochs=1, seed=3)), batch_size=None
    )
    for _ in range(3):
        batches = list(theirs)
        assert keys(batches) == keys(list(ours))
        assert len(batches) == len(theirs)
        for batch in batches:
            check(batch, ours)


def test_its_state_is_the_loaders(store: Path) -> None:
    """state_dict and load_state_dict pass through; the length is that of a whole pass also amid one."""
    whole = keys(list(Loader(store, batch_size=4, epochs=1)))
    first = LoaderDataset(Loader(store, batch_size=4, epochs=1))
    begun = keys([next(iter(DataLoader(first, batch_size=None)))])
    second = LoaderDataset(Loader(store, batch_size=4, epochs=1))
    second.load_state_dict(first.state_dict())
    assert len(second) == len(first) == second.loader.batches_per_pass
    assert begun + keys(list(DataLoader(second, batch_size=None))) == whole
    with pytest.raises(TypeError, match="for ever"):
        len(LoaderDataset(Loader(store, batch_size=4)))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["fork", SPAWN])
def test_workers_are_refused(store: Path, how: str) -> None:
    """They would each give the whole stream: the message names the threads that the loader has instead."""
    data: DataLoader[Batch] = DataLoader(
        LoaderDataset(Loader(store, batch_size=4)), batch_size=None, num_workers=1, multiprocessing_context=how
    )
    with pytest.raises(RuntimeError, match=r"num_workers=0; the loader reads with threads of its own"):
        next(iter(data))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("how", [None, "fork", SPAWN])
def test_single_samples_in_any_workers(store: Path, tmp_path: Path, how: str | None) -> None:
    """Every sample of the split once, equal to the strict reader's, with torch's own collation and a sampler."""
    folder = write_dataset(tmp_path / "out", [store])
    data = StoreDataset(folder)
    data[0]  # what a parent has read does not hurt its workers
    loader: DataLoader[dict[str, torch.Tensor]] = DataLoader(
        data,
        batch_size=4,
        sampler=SubsetRandomSampler(range(len(data))),
        num_workers=2 if how else 0,
        multiprocessing_context=how,
    )
    seen = []
    for found in loader:
        assert (found["image"].dtype, found["weight"].dtype, found["lon"].dtype) == (
            torch.int16, torch.float32, torch.float64)  # fmt: skip
        for at, sample in enumerate(found["sample"].tolist()):
            wanted = data.members.stores[0].sample(int(data.members.row[sample]))
            assert np.array_equal(found["image"][at].numpy(), wanted.image)
            assert np.array_equal(found["fmask"][at].numpy(), wanted.fmask)
            assert found["date"][at].tolist() == wanted.date.tolist()
            assert (float(found["lon"][at]), float(found["lat"][at])) == (wanted.lon, wanted.lat)
            assert (int(found["stratum"][at]), float(found["weight"][at])) == (wanted.stratum, wanted.index + 1.0)
            seen.append(sample)
    assert sorted(seen) == list(range(len(data)))


def test_samples_by_number(store: Path) -> None:
    """As of a list: from the end, and an IndexError behind it, so that `for` ends."""
    data = StoreDataset(store, split="heldout")
    assert len(list(data)) == len(data)  # type: ignore[call-overload]
    assert torch.equal(data[-1]["image"], data[len(data) - 1]["image"])
    for index in (len(data), -len(data) - 1):
        with pytest.raises(IndexError, match="numbers run from 0"):
            data[index]


def test_a_data_set_travels_light_and_notices_change(store: Path, tmp_path: Path) -> None:
    """Pickled it is its arguments; opened again over other samples it raises."""
    folder = write_dataset(tmp_path / "out", [store])
    sent = pickle.dumps(StoreDataset(folder))
    assert len(sent) < 1000
    assert torch.equal(pickle.loads(sent)[2]["image"], StoreDataset(folder)[2]["image"])
    shutil.copytree(store, folder / "store-0002.zarr")
    (folder / "samples.parquet").unlink()
    with pytest.raises(StoreError, match="changed since this StoreDataset was made"):
        pickle.loads(sent)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["fork", SPAWN])
def test_workers_behind_an_address(store: Path, how: str) -> None:
    """Spawned they read; forked they say what to do instead of hanging."""
    with serving(folder_app(store)) as server:
        data: DataLoader[dict[str, torch.Tensor]] = DataLoader(
            StoreDataset(server.url), batch_size=4, num_workers=1, multiprocessing_context=how
        )
        if how == "spawn":
            assert sum(len(found["sample"]) for found in data) == len(data.dataset)  # type: ignore[arg-type]
        else:
            with pytest.raises(StoreError, match="spawn or forkserver"):
                next(iter(data))
