"""Datasets: waves as one, mixtures, design weights, names of strata; what is lost or of two runs is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from geofm_model import StoreError
from geofm_model.loading import Loader, gather, open_dataset, stratum_names

from .conftest import MakeStore
from .streaming import check, keys, taken, write_dataset


def test_datasets_are_mixed_by_their_shares(store: Path, make_store: MakeStore) -> None:
    """Over many epochs the parts are those asked for, whatever the datasets' sizes; the digest names the mixture."""
    other = make_store(seed=4, n=60)
    loader = Loader([store, other], batch_size=10, shares=[3, 1])
    ids = np.concatenate([loader.ids(0, 40 * len(loader.members))[0]])
    part = (loader.members.store[ids] == 0).mean()
    assert abs(part - 0.75) < 0.02
    assert loader.members.digest != Loader([store, other], batch_size=10).members.digest
    for batch in taken(loader, 6):
        check(batch, loader)


def test_datasets_that_do_not_fit_are_refused(store: Path, make_store: MakeStore) -> None:
    """Another chip size is named; so are shares that are not as many."""
    other = make_store(height=8, width=8)
    with pytest.raises(StoreError, match=r"has height 8, .* has 16: they cannot be mixed"):
        Loader([store, other], batch_size=4)
    with pytest.raises(ValueError, match="need as many shares above 0"):
        Loader([store], batch_size=4, shares=[1, 1])


@pytest.fixture
def dataset(store: Path, make_store: MakeStore, tmp_path: Path) -> Path:
    """A folder with two waves and samples.parquet, where a sample's weight is its index + 1."""
    return write_dataset(tmp_path / "out", [store, make_store(seed=5)])


def test_all_waves_of_a_dataset_are_one(dataset: Path) -> None:
    """A folder is all its stores; without it there is a message."""
    loader = Loader(dataset, batch_size=4, epochs=1)
    assert set(loader.members.store.tolist()) == {0, 1}
    assert len(keys(list(loader))) == len(loader.members)
    with pytest.raises(StoreError, match="does not exist"):
        Loader(dataset.parent / "nothing", batch_size=4)


def test_design_weights_draw(dataset: Path) -> None:
    """How often a sample occurs is proportional to its weight in samples.parquet, which the digest then names."""
    loader = Loader(dataset, batch_size=4, weighting="design")
    n = len(loader.members)
    times = np.bincount(loader.ids(0, 400 * n)[0], minlength=n) / 400
    wanted = loader.members.row + 1.0
    assert np.abs(times - n * wanted / wanted.sum()).max() < 0.05
    before = loader.members.digest
    table = pq.read_table(dataset / "samples.parquet")
    changed = table.set_column(3, "weight", pa.array(np.asarray(table["weight"]) * 2 + 1))
    pq.write_table(changed, dataset / "samples.parquet")
    assert Loader(dataset, batch_size=4, weighting="design").members.digest != before
    assert Loader(dataset, batch_size=4).members.digest == Loader(dataset, batch_size=4).members.digest


def test_repeats_in_a_weighted_epoch_look_elsewhere(dataset: Path) -> None:
    """The second turn of a sample has another number, by which its views differ."""
    loader = Loader(dataset, batch_size=8, weighting="design", epochs=1)
    seen = [
        triple
        for batch in loader
        for triple in zip(batch.sample.tolist(), batch.epoch.tolist(), batch.turn.tolist(), strict=True)
    ]
    assert len(set(seen)) == len(seen) == len(loader.members)
    assert max(turn for _, _, turn in seen) >= 1


def test_weights_of_another_run_are_refused(dataset: Path) -> None:
    """samples.parquet must list the stores' own units."""
    table = pq.read_table(dataset / "samples.parquet")
    pq.write_table(table.slice(0, 30), dataset / "samples.parquet")
    with pytest.raises(StoreError, match="does not list the samples of"):
        Loader(dataset, batch_size=4, weighting="design")
    (dataset / "samples.parquet").unlink()
    with pytest.raises(StoreError, match=r"has no samples\.parquet"):
        Loader(dataset, batch_size=4, weighting="design")


def test_every_batch_carries_design_weights(dataset: Path, store: Path, make_store: MakeStore) -> None:
    """Those of samples.parquet, whatever the order is drawn by; 1 where there are none, also in a mixture."""
    for weighting in ("none", "design"):
        loader = Loader(dataset, batch_size=4, weighting=weighting)  # type: ignore[arg-type]
        for batch in taken(loader, 9):
            assert batch.weight.dtype == torch.float32
            assert batch.weight.tolist() == (loader.members.row[batch.sample] + 1.0).tolist()
    alone = Loader(store, batch_size=4)
    assert (alone.members.design, next(iter(alone)).weight.tolist()) == (None, [1.0] * 4)
    mixed = gather([dataset, make_store(seed=11)])
    assert mixed.design is not None
    assert np.array_equal(mixed.design, np.where(mixed.store < 2, mixed.row + 1.0, 1.0))
    assert gather([dataset]).digest == gather(_by_name(dataset)).digest


def _by_name(folder: Path) -> list[Path]:
    """The stores of a dataset by name."""
    return sorted(folder.glob("store*.zarr"), key=lambda path: (len(path.name), path.name))


def test_members_have_their_units(dataset: Path) -> None:
    """In order of members."""
    members = gather([dataset], split="heldout")
    stores = open_dataset(dataset)
    wanted = [stores[at].column("unit")[row] for at, row in zip(members.store, members.row, strict=True)]
    assert members.unit.dtype == np.uint64
    assert members.unit.tolist() == wanted


def test_names_of_strata(dataset: Path, store: Path) -> None:
    """From the phases that samples.parquet holds in its metadata; none without them."""
    assert stratum_names(dataset) == stratum_names(store) == {}
    records = [{"stratum": 0, "name": "crop/c0", "split": 0}, {"stratum": 3, "name": "tree/c1", "split": 1}]
    table = pq.read_table(dataset / "samples.parquet")
    named = table.replace_schema_metadata({b"geofm_phases": json.dumps(records).encode()})
    pq.write_table(named, dataset / "samples.parquet")
    assert stratum_names(dataset) == {0: "crop/c0", 3: "tree/c1"}


@pytest.mark.parametrize(("lost", "kept"), [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])])
@pytest.mark.parametrize("listed", [True, False])
def test_a_lost_wave_is_noticed(
    store: Path, make_store: MakeStore, tmp_path: Path, lost: int, kept: list[int], listed: bool
) -> None:
    """By samples.parquet, or by a later wave: never a smaller dataset without a word."""
    folder = write_dataset(tmp_path / "three", [store, make_store(seed=5), make_store(seed=6)])
    name = {1: "store.zarr", 2: "store-0002.zarr", 3: "store-0003.zarr"}[lost]
    if not listed:
        (folder / "samples.parquet").unlink()
    assert len(open_dataset(folder)) == 3
    shutil.rmtree(folder / name)
    if lost == 3 and not listed:  # nothing says that it was ever there
        assert len(open_dataset(folder)) == 2
        return
    with pytest.raises(StoreError, match=rf"has no {name}, .*restore it from a copy"):
        open_dataset(folder)


def test_a_wave_that_samples_do_not_list_is_refused(dataset: Path, make_store: MakeStore) -> None:
    """An extension that has not ended; its folder still has the finished stores, which can be named."""
    shutil.copytree(make_store(seed=6), dataset / "store-0003.zarr")
    with pytest.raises(StoreError, match=r"does not list the samples of .*store-0003\.zarr.* or one has not ended"):
        Loader(dataset, batch_size=4)
    shutil.rmtree(dataset / "store-0003.zarr")
    assert len(Loader(dataset, batch_size=4).members)


@pytest.mark.parametrize("harm", ["nan", "negative", "garbage", "column"])
def test_samples_that_cannot_be_used_are_refused(dataset: Path, harm: str) -> None:
    """Also where weights do not draw, since every batch carries them."""
    file = dataset / "samples.parquet"
    table = pq.read_table(file)
    if harm == "garbage":
        file.write_bytes(b"PAR1 and no more")
    elif harm == "column":
        pq.write_table(table.drop_columns(["weight"]), file)
    else:
        values = np.asarray(table["weight"]).copy()
        values[3] = np.nan if harm == "nan" else -1.0
        pq.write_table(table.set_column(3, "weight", pa.array(values)), file)
    with pytest.raises(StoreError, match=r"samples\.parquet .*restore it"):
        Loader(dataset, batch_size=4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text(""), "is a file"),
        (lambda path: path.mkdir(), "holds no store"),
        (lambda path: (path.mkdir(), (path / "a.tif").write_bytes(b"")), "geofm-sample import makes one"),
    ],
)
def test_what_is_no_dataset_is_told_apart(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    """A slip of the path, a file, an empty folder, a folder of images."""
    make(tmp_path / "place")
    with pytest.raises(StoreError, match=message):
        open_dataset(tmp_path / "place")
