"""The plan's record: what the metadata of a PLAN table says about its groups, and how rows find theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_sampling.design import Design
from geofm_sampling.frame import METADATA
from geofm_sampling.tables import PLAN

_SIZES = ("frame_units", "master_units", "start", "first_look", "target")


@dataclass(frozen=True, kw_only=True)
class PlanRecord:
    """What the schema metadata of a PLAN table says; every array has one entry per group, shape (G,).

    A *group* is a stratum of one split: training and held-out draws are separate. Group number =
    split · H + stratum, with H strata; without held-out ground G = H.
    """

    design: Design
    strata_digest: str
    """Digest of the frozen strata."""
    names: tuple[str, ...]
    """Name of each stratum, H of them."""
    frame_units: NDArray[np.int64]
    """N, units of the group in the frame."""
    master_units: NDArray[np.int64]
    """M, ranks that this plan holds."""
    start: NDArray[np.int64]
    """First rank that this plan may use; above 0 where earlier waves looked."""
    first_look: NDArray[np.int64]
    """n₁, the planned first phase."""
    target: NDArray[np.int64]
    """n, the samples wanted."""
    notes: tuple[str, ...]
    """What was missing, merged, lowered or capped, one sentence each."""

    @property
    def stratum(self) -> NDArray[np.int32]:
        """Stratum number of each group."""
        return np.arange(self.frame_units.size, dtype=np.int32) % np.int32(len(self.names))

    @property
    def split(self) -> NDArray[np.int8]:
        """0 training, 1 held-out, of each group."""
        return (np.arange(self.frame_units.size) // len(self.names)).astype(np.int8)

    @property
    def group_names(self) -> tuple[str, ...]:
        """Name of each group: the stratum's, with `held-out/` before it where it is."""
        return tuple(f"held-out/{n}" if s else n for s in range(self.splits) for n in self.names)

    @property
    def splits(self) -> int:
        """1, or 2 with held-out ground."""
        return self.frame_units.size // len(self.names)

    def group(self, table: pa.Table) -> NDArray[np.int64]:
        """Group number of each row of a table with `split` and `stratum`, shape (n,)."""
        return group_numbers(table, len(self.names))

    def table(self) -> pa.Table:
        """One row per group: stratum, split, name, frame, master, start, first_look, target."""
        return pa.table(
            {
                "stratum": self.stratum,
                "split": self.split,
                "name": self.names * self.splits,
                "frame": self.frame_units,
                "master": self.master_units,
                "start": self.start,
                "first_look": self.first_look,
                "target": self.target,
            }
        )


def group_numbers(table: pa.Table, strata: int) -> NDArray[np.int64]:
    """split · strata + stratum of each row, shape (n,); −1 for buffer ground, which no draw knows."""
    split, stratum = table["split"].to_numpy().astype(np.int64), table["stratum"].to_numpy()
    return np.where(split < 0, -1, split * strata + stratum)


def plan_record(plan: pa.Table) -> PlanRecord:
    """The record of a PLAN table; ValueError when its metadata is missing."""
    metadata: Mapping[bytes, bytes] = plan.schema.metadata or {}
    if METADATA not in metadata:
        raise ValueError("this plan has no schema metadata 'geofm': read it with its metadata, or draw it again")
    values = json.loads(metadata[METADATA])
    sizes = {key: np.array(values[key], dtype=np.int64) for key in _SIZES}
    return PlanRecord(
        design=Design.from_json(json.dumps(values["design"])),
        strata_digest=values["strata_digest"],
        names=tuple(values["names"]),
        notes=tuple(values["notes"]),
        **sizes,
    )


def with_record(table: pa.Table, record: PlanRecord) -> pa.Table:
    """The PLAN rows with the sizes of a record: who is in its first look, and π₁ there."""
    group = record.group(table)
    share = (record.first_look / np.maximum(record.frame_units, 1))[group]
    columns = {
        "first_look": table["rank"].to_numpy() < (record.start + record.first_look)[group],
        "pi1": table["p_split"].to_numpy() * share,
    }
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values))
    values = {
        "design": asdict(record.design),
        "design_digest": record.design.digest,
        "strata_digest": record.strata_digest,
        "names": record.names,
        "notes": record.notes,
        **{key: getattr(record, key).tolist() for key in _SIZES},
    }
    return PLAN.check(table).replace_schema_metadata({METADATA: json.dumps(values, sort_keys=True)})
