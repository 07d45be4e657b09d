"""Labels to probe for: a column of the datasets' samples.parquet, or a file of the user's, by sampling unit.

Words and whole numbers are classes, other numbers are values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_model.errors import ForbiddenError
from geofm_model.files import files_at
from geofm_model.loading import Members

USUAL = "land_cover"


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """What is known of sampling units."""

    name: str
    unit: NDArray[np.uint64]
    """[n] ascending."""
    value: NDArray[np.int64] | NDArray[np.float64]
    """[n] classes, or values."""

    def of(self, units: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.int64] | NDArray[np.float64]]:
        """Whether each unit has a label, and the labels of those that have."""
        at = np.searchsorted(self.unit, units).clip(max=len(self.unit) - 1)
        there = np.asarray(self.unit[at] == units)
        return there, self.value[at[there]]


def labels_of(wanted: str | None, places: Sequence[str], members: Members) -> Labels:
    """Labels of the samples of some datasets.

    Parameters
    ----------
    wanted : a column of samples.parquet, the word `stratum`, or a Parquet file with columns unit and label; None takes
        the land cover that samples were drawn by where it is known, else the strata

    Raises
    ------
    ValueError
        When there are no such labels.
    """
    if wanted is not None and Path(wanted).suffix in (".parquet", ".pq"):
        return _labels(wanted, _columns(pq.ParquetFile(_file(wanted)), "label", wanted))
    if wanted != "stratum":
        tables = [found for place in places if (found := _samples(place)) is not None]
        name = wanted or USUAL
        if tables and (wanted is not None or all(name in table.schema_arrow.names for table in tables)):
            return _labels(name, pa.concat_tables([_columns(table, name, "samples.parquet") for table in tables]))
        if wanted is not None:
            raise ValueError(f"watch.labels is {wanted!r}, but no dataset has a samples.parquet with such a column")
    unit = np.concatenate([store.column("unit") for store in members.stores]).astype(np.uint64)
    stratum = np.concatenate([store.column("stratum") for store in members.stores]).astype(np.int64)
    return _labels("stratum", pa.table({"unit": unit, "label": stratum}))


def column_of(name: str, place: str) -> Labels | None:
    """A column of a dataset's samples.parquet; None where there is none."""
    file = _samples(place)
    if file is None or name not in file.schema_arrow.names:
        return None
    return _labels(name, _columns(file, name, "samples.parquet"))


def _labels(name: str, table: pa.Table) -> Labels:
    """Of columns unit and label, those without a label left out."""
    table = table.filter(table["label"].is_valid())
    if not table.num_rows:
        raise ValueError(f"watch.labels {name!r} has no label at all")
    unit, first = np.unique(np.asarray(table["unit"]).astype(np.uint64), return_index=True)
    label = np.asarray(table["label"])[first]
    if pa.types.is_floating(table["label"].type):
        return Labels(name=name, unit=unit, value=label.astype(np.float64))
    return Labels(name=name, unit=unit, value=np.unique(label, return_inverse=True)[1].astype(np.int64))


def _columns(file: pq.ParquetFile, name: str, where: str) -> pa.Table:
    missing = {"unit", name} - set(file.schema_arrow.names)
    if missing:
        there = ", ".join(file.schema_arrow.names)
        raise ValueError(f"{where} has no column {', '.join(sorted(missing))} to probe for, it has {there}")
    return pa.table({"unit": file.read(["unit"])["unit"], "label": file.read([name])[name]})


def _file(path: str) -> pa.BufferReader:
    try:
        return pa.BufferReader(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"watch.labels {path} cannot be read: {error}") from error


def _samples(place: str) -> pq.ParquetFile | None:
    try:
        return pq.ParquetFile(pa.BufferReader(files_at(place).read("samples.parquet")))
    except (FileNotFoundError, ForbiddenError):
        return None
