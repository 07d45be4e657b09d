"""What samples.parquet says of its two phases: how many units each held, by wave, part of the frame and group.

A *part* of the frame is the set of units that entered it with the same wave. Waves that draw from one part share its
estimates by λ, preset, with sum 1; waves of different parts add up.
"""

from __future__ import annotations

import json
from itertools import pairwise
from os import PathLike

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_sampling.contract import Column, TableContract

METADATA = b"geofm_phases"
"""Key of the schema metadata of samples.parquet that holds the PHASES records as a JSON list."""

PHASES = TableContract(
    name="phases",
    columns={
        "wave": Column(type=pa.int16(), meaning="wave, from 1"),
        "part": Column(type=pa.int16(), meaning="part of the frame: the wave with which its units entered the frame"),
        "split": Column(type=pa.int8(), meaning="0 training, 1 held-out"),
        "stratum": Column(type=pa.int32(), meaning="stratum number"),
        "name": Column(type=pa.string(), meaning="name of the stratum"),
        "frame": Column(type=pa.int64(), meaning="units of the group in the frame, N"),
        "looked": Column(type=pa.int64(), meaning="units of phase 1, k"),
        "seen": Column(type=pa.int64(), meaning="of those, with a readable scene over the ground; looked if not given"),
        "observable": Column(type=pa.int64(), meaning="of those, observable, o"),
        "drawn": Column(type=pa.int64(), meaning="samples drawn in phase 2, n"),
        "written": Column(type=pa.int64(), meaning="samples that could be read and were written"),
        "lambda": Column(type=pa.float64(), meaning="share of the wave in its part (weights.wave_shares)"),
        "frame_area_km2": Column(
            type=pa.float64(), meaning="area of the group's units in the frame, square kilometres"
        ),
    },
)
"""One record per (wave, part, split, stratum), in that order."""

_DEFAULTS = {"part": 1, "lambda": 1.0, "frame_area_km2": float("nan"), "name": ""}


def phases_metadata(records: pa.Table) -> dict[bytes, bytes]:
    """Schema metadata that holds PHASES records; `part`, `seen`, `name`, `lambda`, `frame_area_km2` may be absent."""
    return {METADATA: json.dumps(_checked(records.to_pylist()).to_pylist()).encode()}


def phases(samples: pa.Table | str | PathLike[str]) -> pa.Table:
    """The PHASES records of samples.parquet: how many units each phase of each group held.

    Raises
    ------
    ValueError
        When the metadata is missing, incomplete or impossible: counts that do not nest, or shares λ of the waves that
        looked at a group which do not add up to 1.
    """
    schema: pa.Schema = pq.read_schema(samples) if isinstance(samples, str | PathLike) else samples.schema
    metadata = schema.metadata or {}
    if METADATA not in metadata:
        raise ValueError(
            "these samples have no schema metadata 'geofm_phases', without which no variance is known: read "
            "samples.parquet itself, with pyarrow, and keep the metadata through your own steps"
        )
    return _checked(json.loads(metadata[METADATA]))


def _checked(records: list[dict[str, object]]) -> pa.Table:
    columns = {
        name: pa.array([_value(record, name) for record in records], column.type)
        for name, column in PHASES.columns.items()
    }
    if missing := [name for name, values in columns.items() if values.null_count]:
        raise ValueError(f"the phases of these samples lack {', '.join(missing)} in some record; the file is damaged")
    table = pa.table(columns).sort_by([(name, "ascending") for name in ("wave", "part", "split", "stratum")])
    chain = [table[name].to_numpy() for name in ("written", "drawn", "observable", "seen", "looked", "frame")]
    broken = np.zeros(table.num_rows, dtype=np.bool_)
    for smaller, larger in pairwise(chain):
        broken |= smaller > larger
    if broken.any():
        raise ValueError(
            f"impossible phases, written ≤ drawn ≤ observable ≤ seen ≤ looked ≤ frame does not hold: "
            f"{table.slice(int(np.flatnonzero(broken)[0]), 1).to_pylist()[0]}"
        )
    _check_shares(table)
    return table


def _value(record: dict[str, object], name: str) -> object:
    """A field of a record, or its default."""
    return record.get(name, record.get("looked") if name == "seen" else _DEFAULTS.get(name))


def _check_shares(table: pa.Table) -> None:
    """λ is above 0 where samples were drawn, and 1 where one wave alone looked at all that it could."""
    share, drawn = table["lambda"].to_numpy(), table["drawn"].to_numpy()
    bad = (drawn > 0) & ~(share > 0)
    if bad.any():
        raise ValueError(
            f"the share λ of a wave that drew samples must be above 0: "
            f"{table.slice(int(np.flatnonzero(bad)[0]), 1).to_pylist()[0]} (geofm_sampling.weights.wave_shares)"
        )
    _check_sums(table, share)
    if np.unique(table["wave"].to_numpy()).size == 1 and not np.allclose(share[table["looked"].to_numpy() > 0], 1.0):
        raise ValueError("a single wave has the share λ = 1 wherever it looked; the file is damaged")


def _check_sums(table: pa.Table, share: NDArray[np.float64]) -> None:
    """Shares of a group add up to 1 on average and never reach 2, as those of two whole parts would."""
    keys = np.stack([table[name].to_numpy().astype(np.int64) for name in ("part", "split", "stratum")], axis=1)
    groups, of = np.unique(keys, axis=0, return_inverse=True)
    sums = np.bincount(of.ravel(), weights=share)
    if np.any(sums > 2.0 - 1e-9):
        part, split, stratum = groups[int(sums.argmax())].tolist()
        raise ValueError(
            f"the shares λ of part {part}, split {split}, stratum {stratum} add up to {sums.max():.3g}: units that "
            "entered the frame later belong to another part (geofm_sampling.weights.wave_shares)"
        )
