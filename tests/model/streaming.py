"""What the tests of the loader share."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geofm_model import Store
from geofm_model.loading import Batch, Loader


def keys(batches: list[Batch]) -> list[tuple[int, int]]:
    """(epoch, sample) of all samples in order."""
    return [pair for batch in batches for pair in zip(batch.epoch.tolist(), batch.sample.tolist(), strict=True)]


def taken(loader: Loader, count: int) -> list[Batch]:
    """The next batches of a loader."""
    batches = iter(loader)
    return [next(batches) for _ in range(count)]


def check(batch: Batch, loader: Loader) -> None:
    """Every sample of a batch is that of the strict reader."""
    for at, sample in enumerate(batch.sample.tolist()):
        store = loader.members.stores[loader.members.store[sample]]
        wanted = store.sample(int(loader.members.row[sample]))
        assert np.array_equal(batch.image[at].numpy(), wanted.image)
        assert np.array_equal(batch.fmask[at].numpy(), wanted.fmask)
        assert np.array_equal(batch.valid()[at].numpy(), wanted.valid())
        assert batch.date[at].tolist() == wanted.date.tolist()
        assert (batch.lon[at].item(), batch.lat[at].item()) == (wanted.lon, wanted.lat)
        assert batch.stratum[at].item() == wanted.stratum


def write_dataset(folder: Path, stores: Sequence[Path]) -> Path:
    """A folder with these stores as its waves and a samples.parquet, where a sample's weight is its index + 1."""
    folder.mkdir()
    rows = []
    for wave, place in enumerate(stores, start=1):
        shutil.copytree(place, folder / ("store.zarr" if wave == 1 else f"store-{wave:04d}.zarr"))
        units = Store.open(place).column("unit").tolist()
        rows += [{"wave": wave, "index": i, "unit": unit, "weight": i + 1.0} for i, unit in enumerate(units)]
    types = {"wave": pa.int16(), "index": pa.int64(), "unit": pa.uint64(), "weight": pa.float64()}
    pq.write_table(pa.Table.from_pylist(rows).cast(pa.schema(types)), folder / "samples.parquet")
    return folder
