"""The ground of the frame: its cells, and how many units each group has, read tile by tile.

A *group* is a stratum of one split in one part of the frame; units of buffer ground (split −1) belong to no draw and
are counted all the same. Memory is needed for the cells only, so that a frame of tens of millions of units is no
trouble.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_sampling.unit import ground_cells

Group: TypeAlias = "tuple[int, int, int]"
"""(part, split, stratum)."""
_COLUMNS = ("unit", "lon", "lat", "area_km2", "land_cover", "stratum")
_SPLIT = ("split", "block", "p_eligible", "p_heldout")
TRAINING, HELD_OUT, NEITHER = 0, 1, -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Cells:
    """The ground cells of the frame, ascending by `ground`; arrays have shape (n,)."""

    ground: NDArray[np.uint64]
    """geofm_sampling.unit.ground_cells of the cell's units."""
    lon: NDArray[np.float64]
    lat: NDArray[np.float64]
    area_km2: NDArray[np.float64]
    land_cover: NDArray[np.int64]
    """Index into `groups`."""
    groups: tuple[str, ...]
    """Names of the land-cover groups."""
    chance: NDArray[np.float64]
    """Mean first-phase probability of the cell's units, NaN before the plan."""
    seasons: NDArray[np.int64]
    """Units (seasons) of the cell."""
    split: NDArray[np.int64]
    """0 training, 1 held-out, −1 neither."""
    block: NDArray[np.int64]
    """Split block, −1 where the frame knows none."""

    def place(self, units: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row of each unit's cell, −1 where the frame has none."""
        if not self.ground.size:
            return np.full(units.shape, -1, dtype=np.int64)
        wanted = ground_cells(units)
        at = np.minimum(np.searchsorted(self.ground, wanted), self.ground.size - 1)
        return np.where(self.ground[at] == wanted, at, -1)


def split_of(table: pa.Table) -> NDArray[np.int64]:
    """Split of each row, 0 where the table knows none; shape (n,)."""
    if "split" not in table.column_names:
        return np.zeros(table.num_rows, dtype=np.int64)
    return np.asarray(table["split"].to_numpy(), dtype=np.int64)


def read_ground(
    parts: Mapping[int, Sequence[Path]], shares: Mapping[Group, float] | None
) -> tuple[Cells, dict[Group, int]] | None:
    """Cells of all parts and units per group; None where there is no file.

    Parameters
    ----------
    parts : part of the frame → its files
    shares : group → planned first-phase share, all waves together; None before the plan
    """
    known, counts, read = dict[str, int](), dict[Group, int](), list[dict[str, NDArray[np.generic]]]()
    for part, path in ((part, path) for part, paths in parts.items() for path in paths):
        present = pq.read_schema(path).names
        table = pq.read_table(path, columns=[*_COLUMNS, *(name for name in _SPLIT if name in present)])
        groups, number = groups_of(table, part)
        for group, size in zip(groups, np.bincount(number, minlength=len(groups)).tolist(), strict=True):
            counts[group] = counts.get(group, 0) + size
        chance = None if shares is None else np.array([shares.get(group, 0.0) for group in groups])[number]
        read.append(_cells_of(table, known, chance))
    if not read:
        return None
    joined = {name: np.concatenate([part[name] for part in read]) for name in read[0]}
    # A cell that a later part has again (other years) is shown once.
    ground, first = np.unique(joined["ground"], return_index=True)
    kept = {name: values[first] for name, values in joined.items()}
    return Cells(
        ground=ground.astype(np.uint64),
        lon=kept["lon"].astype(np.float64),
        lat=kept["lat"].astype(np.float64),
        area_km2=kept["area_km2"].astype(np.float64),
        land_cover=kept["land_cover"].astype(np.int64),
        groups=tuple(known),
        chance=kept["chance"].astype(np.float64),
        seasons=kept["seasons"].astype(np.int64),
        split=kept["split"].astype(np.int64),
        block=kept["block"].astype(np.int64),
    ), counts


def groups_of(table: pa.Table, part: int) -> tuple[list[Group], NDArray[np.int64]]:
    """The groups of some rows and which of them each row belongs to, shape (n,)."""
    split, stratum = split_of(table), table["stratum"].to_numpy().astype(np.int64)
    strata = int(stratum.max(initial=0)) + 1
    key = (split + 1) * strata + stratum
    met = np.flatnonzero(np.bincount(key))
    number = np.zeros(int(met.max(initial=0)) + 1, dtype=np.int64)
    number[met] = np.arange(met.size)
    return [(part, pair // strata - 1, pair % strata) for pair in met.tolist()], number[key]


def _cells_of(
    table: pa.Table, known: dict[str, int], share: NDArray[np.float64] | None
) -> dict[str, NDArray[np.generic]]:
    """One row per ground cell of a part of the frame; `known` grows by the land-cover groups met."""
    # The units of a file ascend, so those of a cell lie together.
    ground = ground_cells(table["unit"].to_numpy())
    new = np.concatenate([[True], ground[1:] != ground[:-1]])[: ground.size]
    first, cell = np.flatnonzero(new), np.cumsum(new) - 1
    ground = ground[first]
    encoded = table["land_cover"].cast(pa.string()).combine_chunks().dictionary_encode()
    codes = np.array([known.setdefault(name, len(known)) for name in encoded.dictionary.to_pylist()], dtype=np.int64)
    land_cover = codes[encoded.indices.to_numpy(zero_copy_only=False)] if codes.size else np.zeros(0, dtype=np.int64)
    seasons, split = np.bincount(cell, minlength=ground.size), split_of(table)
    names = table.column_names
    total = np.full(ground.size, np.nan)
    if share is not None:
        total = np.bincount(cell, weights=share * _split_chance(table, split), minlength=ground.size)
    return {
        "ground": ground,
        "lon": table["lon"].to_numpy()[first],
        "lat": table["lat"].to_numpy()[first],
        "area_km2": table["area_km2"].to_numpy()[first],
        "land_cover": land_cover[first],
        "chance": total / seasons,
        "seasons": seasons,
        "split": split[first],
        "block": table["block"].to_numpy()[first] if "block" in names else np.full(ground.size, -1),
    }


def _split_chance(table: pa.Table, split: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of each unit's ground to be in its split; 1 where the frame knows no split, 0 in the buffer."""
    if not {"split", "p_eligible", "p_heldout"} <= set(table.column_names):
        return np.ones(table.num_rows)
    training, heldout = table["p_eligible"].to_numpy(), table["p_heldout"].to_numpy()
    return np.where(split == HELD_OUT, heldout, np.where(split == TRAINING, training, 0.0))
