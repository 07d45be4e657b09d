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

from geofm_model.files import files_at
from geofm_model.loading import Members
from geofm_model.loading.design import samples_file

USUAL = "land_cover"


@dataclass(frozen=True, kw_only=True, eq=False)
class Part:
    """Labels of the units of one dataset."""

    unit: NDArray[np.uint64]
    """[n] ascending."""
    value: NDArray[np.int64] | NDArray[np.float64]
    """[n] classes, or values."""

    def of(self, units: NDArray[np.uint64]) -> tuple[NDArray[np.bool_], NDArray[np.int64] | NDArray[np.float64]]:
        """Whether each unit has a label, and the labels of those that have."""
        at = np.searchsorted(self.unit, units).clip(max=len(self.unit) - 1)
        there = np.asarray(self.unit[at] == units)
        return there, self.value[at[there]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """What is known of the units of some datasets, in which the same unit may mean other things."""

    name: str
    parts: tuple[Part, ...]
    """By dataset."""

    def of(
        self, members: Members, wanted: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64] | NDArray[np.float64]]:
        """Whether each of some members has a label, and the labels of those that have."""
        dataset, unit = np.asarray(members.dataset)[members.store[wanted]], members.unit[wanted]
        there = np.zeros(wanted.size, dtype=np.bool_)
        values: NDArray[np.int64] | NDArray[np.float64] = np.zeros(wanted.size, dtype=np.int64)
        if self.parts[0].value.dtype.kind == "f":
            values = np.zeros(wanted.size, dtype=np.float64)
        for at, part in enumerate(self.parts):
            mine = np.flatnonzero(dataset == at)
            known, found = part.of(unit[mine])
            there[mine] = known
            values[mine[known]] = found
        return there, values[there]


def labels_of(wanted: str | None, places: Sequence[str], members: Members) -> Labels:
    """Labels of the samples of some datasets.

    Parameters
    ----------
    wanted : a column of samples.parquet, the word `stratum`, or a Parquet file with columns unit and label; None takes
        the land cover that samples were drawn by where it is known, else the strata (each dataset's are its own)

    Raises
    ------
    ValueError
        When there are no such labels.
    """
    if wanted is not None and Path(wanted).suffix in (".parquet", ".pq"):
        table = _columns(_file(wanted), "label", wanted)
        return Labels(name=wanted, parts=_parts(wanted, [table]) * len(places))
    if wanted != "stratum":
        files = [samples_file(files_at(place)) for place in places]
        name = wanted or USUAL
        there = [file for file in files if file is not None and name in file.schema_arrow.names]
        if len(there) == len(places):
            return Labels(name=name, parts=_parts(name, [_columns(file, name, "samples.parquet") for file in there]))
        if wanted is not None:
            raise ValueError(
                f"watch.labels is {wanted!r}, but not every dataset has a samples.parquet with that column; the name "
                "of a file of labels must end in .parquet"
            )
    return Labels(name="stratum", parts=tuple(_strata(members, at) for at in range(len(places))))


def column_of(name: str, place: str) -> Part | None:
    """A column of a dataset's samples.parquet; None where there is none, or nothing in it."""
    file = samples_file(files_at(place))
    if file is None or name not in file.schema_arrow.names:
        return None
    table = _columns(file, name, "samples.parquet")
    return None if table["label"].null_count == table.num_rows else _parts(name, [table])[0]


def _strata(members: Members, dataset: int) -> Part:
    stores = [store for store, of in zip(members.stores, members.dataset, strict=True) if of == dataset]
    unit = np.concatenate([store.column("unit") for store in stores]).astype(np.uint64)
    stratum = np.concatenate([store.column("stratum") for store in stores]).astype(np.int64)
    unit, first = np.unique(unit, return_index=True)
    return Part(unit=unit, value=(dataset << 32) + stratum[first])


def _parts(name: str, tables: Sequence[pa.Table]) -> tuple[Part, ...]:
    """Of tables with columns unit and label, rows without a label left out; a word is one class in all of them."""
    tables = [table.filter(table["label"].is_valid()) for table in tables]
    if not all(table.num_rows for table in tables):
        raise ValueError(f"watch.labels {name!r} has no label at all")
    if pa.types.is_nested(tables[0]["label"].type):
        raise ValueError(f"watch.labels {name!r} holds lists, not one word or number for each sample")
    labels = [np.asarray(table["label"]) for table in tables]
    if pa.types.is_floating(tables[0]["label"].type):
        values = [label.astype(np.float64) for label in labels]
    else:
        number = np.unique(np.concatenate(labels), return_inverse=True)[1].reshape(-1).astype(np.int64)
        values = np.split(number, np.cumsum([len(label) for label in labels])[:-1])
    found = []
    for table, value in zip(tables, values, strict=True):
        unit, first = np.unique(np.asarray(table["unit"]).astype(np.uint64), return_index=True)
        found.append(Part(unit=unit, value=value[first]))
    return tuple(found)


def _columns(file: pq.ParquetFile, name: str, where: str) -> pa.Table:
    missing = {"unit", name} - set(file.schema_arrow.names)
    if missing:
        there = ", ".join(file.schema_arrow.names)
        raise ValueError(f"{where} has no column {', '.join(sorted(missing))} to probe for, it has {there}")
    unit = file.read(["unit"])["unit"]
    if not pa.types.is_integer(unit.type) or unit.null_count:
        raise ValueError(f"{where} has units of type {unit.type}: they must be the numbers in samples.parquet, each")
    return pa.table({"unit": unit, "label": file.read([name])[name]})


def _file(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(pa.BufferReader(Path(path).expanduser().read_bytes()))
    except OSError as error:
        raise ValueError(f"watch.labels {path} cannot be read ({error.strerror}): give a Parquet file here") from None
    except pa.ArrowInvalid as error:
        raise ValueError(f"watch.labels {path} is no Parquet file ({error}): write it as one") from None
