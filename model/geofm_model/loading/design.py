"""What samples.parquet of a dataset folder says beside the pixels: waves, design weights, and names of strata.

Weights are its column `weight`, names stand in its schema metadata. Of a large table only the columns needed are read.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_model.errors import ForbiddenError, StoreError
from geofm_model.files import Files, files_at
from geofm_model.ranged import RangedFile
from geofm_model.store import Store

NAME = "samples.parquet"
_COLUMNS = ["wave", "index", "unit", "weight"]
_PHASES = b"geofm_phases"
"""Key of the schema metadata: a JSON list of records, each with a stratum and its name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleTable:
    """One row per sample of any wave."""

    where: str
    """Of the folder, for messages."""
    wave: NDArray[np.int64]
    """From 1."""
    index: NDArray[np.int64]
    """In the wave's store."""
    unit: NDArray[np.uint64]
    weight: NDArray[np.float64]
    """How many units of the region a sample stands for, 0 for tombstones."""

    @property
    def waves(self) -> int:
        """The last wave."""
        return int(self.wave.max(initial=0))

    def weights(self, wave: int, store: Store) -> NDArray[np.float64]:
        """Of every sample of a wave's store, [N]; raises StoreError unless the rows are just this store's."""
        mine = np.flatnonzero(self.wave == wave)
        mine = mine[np.argsort(self.index[mine])]
        whole = np.array_equal(self.index[mine], np.arange(len(store)))
        if not (whole and np.array_equal(self.unit[mine], store.column("unit"))):
            raise StoreError(
                f"{NAME} of {self.where} does not list the samples of {store.files.where}: they are of two runs, or "
                "one has not ended; repeat its geofm-sample command, or give the stores that you want by name"
            )
        found = self.weight[mine]
        if not (np.isfinite(found).all() and found.min(initial=0.0) >= 0):
            raise StoreError(f"weights of wave {wave} in {NAME} of {self.where} are not finite and ≥ 0: restore it")
        return found


def read_samples(files: Files) -> SampleTable | None:
    """The table of a dataset folder's files, None where there is none; raises StoreError when it cannot be read."""
    file = samples_file(files)
    if file is None:
        return None
    where = files.where
    try:
        table = file.read(columns=_COLUMNS)
        wave, index, unit, weight = (table[name].to_numpy() for name in _COLUMNS)
    except (pa.ArrowException, KeyError) as error:
        raise StoreError(f"{where}/{NAME} cannot be used ({error}): restore it from a copy") from None
    return SampleTable(
        where=where,
        wave=wave.astype(np.int64),
        index=index.astype(np.int64),
        unit=unit.astype(np.uint64),
        weight=weight.astype(np.float64),
    )


def stratum_names(place: str | Path) -> dict[int, str]:
    """Names of a dataset folder's strata by number; empty for a store alone and where the folder has no names."""
    file = samples_file(files_at(place))
    records = [] if file is None else json.loads((file.schema_arrow.metadata or {}).get(_PHASES, b"[]"))
    return {int(record["stratum"]): str(record["name"]) for record in records if record.get("name")}


def samples_file(files: Files) -> pq.ParquetFile | None:
    # S3 that may not be listed refuses what is not there.
    with suppress(FileNotFoundError, NotADirectoryError, ForbiddenError):
        source = RangedFile(files, NAME)
        try:
            return pq.ParquetFile(source, pre_buffer=True)
        except pa.ArrowInvalid as error:
            raise StoreError(f"{files.where}/{NAME} is no Parquet file ({error}): restore it from a copy") from None
    return None
