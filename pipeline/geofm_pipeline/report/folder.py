"""The dataset folder as the report reads it: whatever is there, and a sentence for whatever cannot be read.

The frame is streamed tile by tile and reduced to its ground cells and to counts per stratum, so that a frame of tens
of millions of units needs memory for its cells only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from geofm_pipeline.report.facts import Facts
from geofm_pipeline.workspace import Workspace
from geofm_sampling.strata import Strata
from geofm_sampling.unit import ground_cells

T = TypeVar("T")
_FRAME = ("unit", "lon", "lat", "area_km2", "land_cover", "stratum")
_PLAN = ("stratum", "pi1", "first_look")
_SCREENING = ("granule_id", "state", "bytes", "cloud_cover", "spatial_coverage")
_SCENES = ("granule_id", "cloud_cover")


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

    def place(self, units: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row of each unit's cell, −1 where the frame has none."""
        if not self.ground.size:
            return np.full(units.shape, -1, dtype=np.int64)
        wanted = ground_cells(units)
        at = np.minimum(np.searchsorted(self.ground, wanted), self.ground.size - 1)
        return np.where(self.ground[at] == wanted, at, -1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Folder:
    """What a dataset folder holds; None or empty where a stage has not run."""

    root: Path
    card: Facts
    strata: Strata | None
    cells: Cells | None
    frame_units: dict[int, int]
    """Stratum number → units in the frame."""
    chances: dict[int, tuple[float, float]]
    """Stratum number → smallest and largest planned first-phase probability."""
    first_look: int | None
    """Units in the planned first phase."""
    response: pa.Table | None
    samples: pa.Table | None
    screening: pa.Table | None
    """Columns granule_id, state, bytes, cloud_cover, spatial_coverage."""
    scenes: pa.Table | None
    """Columns granule_id, cloud_cover."""
    store: zarr.Group | None
    commits: dict[str, str]
    """Committed file → sha256."""
    troubles: tuple[str, ...]
    """What is there and could not be read, one sentence each."""

    def stratum_name(self, stratum: int) -> str:
        """Name of a stratum from the frozen strata, else from the card, else its number."""
        if self.strata is not None and stratum < len(self.strata.names):
            return self.strata.names[stratum]
        rows = self.card.part("plan").rows("strata")
        noted = (row.text("name") for row in rows if row.count("stratum") == stratum)
        return next(noted, None) or f"stratum {stratum}"

    @property
    def places(self) -> pa.Table | None:
        """The drawn units: samples.parquet, or the drawn rows of the response while there is none yet."""
        if self.samples is not None or self.response is None:
            return self.samples
        drawn = self.response["shard"].to_numpy() >= 0
        return self.response.filter(pa.array(drawn)) if drawn.any() else None


def with_state(table: pa.Table, state: str, *, but: bool = False) -> pa.Table:
    """Rows of a table in a state, or all but those."""
    found = np.array(table["state"].to_pylist(), dtype=object) == state
    return table.filter(pa.array(~found if but else found, type=pa.bool_()))


def read_folder(root: Path) -> Folder:
    """Read what there is; never raises for a part that is absent or damaged."""
    space, read = Workspace(root=root), _Attempt()
    plan = read(space.plan, lambda path: pq.read_table(path, columns=list(_PLAN)))
    chances = _chance_ranges(plan)
    frame = read(space.frame, lambda path: _frame(sorted(path.glob("*.parquet")), chances, plan is not None))
    return Folder(
        root=root,
        card=read(space.card, Facts.load) or Facts(values={}),
        strata=read(space.frame / "strata.json", lambda path: Strata.from_json(path.read_text(encoding="utf-8"))),
        cells=frame[0] if frame else None,
        frame_units=frame[1] if frame else {},
        chances=chances,
        first_look=int(np.count_nonzero(plan["first_look"].to_numpy())) if plan is not None else None,
        response=read(space.response, pq.read_table),
        samples=read(space.samples, pq.read_table),
        screening=read(space.screening, lambda path: _tables(path.rglob("*.parquet"), _SCREENING)),
        scenes=read(space.scenes, lambda path: pq.read_table(path, columns=list(_SCENES))),
        store=read(space.store, lambda path: zarr.open_group(str(path), mode="r")),
        commits=_commits(read(space.commits, Facts.load)),
        troubles=tuple(read.troubles),
    )


class _Attempt:
    """Reads a part if it is there; a part that cannot be read is noted instead of raised."""

    def __init__(self) -> None:
        self.troubles: list[str] = []

    def __call__(self, path: Path, reader: Callable[[Path], T]) -> T | None:
        if not path.exists():
            return None
        try:
            return reader(path)
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, json.JSONDecodeError) as error:
            self.troubles.append(f"{path.name} is there but could not be read: {error}")
            return None


def _commits(found: Facts | None) -> dict[str, str]:
    files = found.part("files") if found is not None else Facts(values={})
    return {name: files.text(name) or "?" for name in files.values}


def _chance_ranges(plan: pa.Table | None) -> dict[int, tuple[float, float]]:
    """Smallest and largest π₁ of each stratum."""
    if plan is None or not plan.num_rows:
        return {}
    grouped = plan.group_by("stratum").aggregate([("pi1", "min"), ("pi1", "max")])
    columns = (grouped[name].to_pylist() for name in ("stratum", "pi1_min", "pi1_max"))
    return {stratum: (low, high) for stratum, low, high in zip(*columns, strict=True)}


def _tables(paths: Iterable[Path], columns: Sequence[str]) -> pa.Table | None:
    """Files of one kind as one table, hidden (temporary) ones left out; None where there are none."""
    tables = [pq.read_table(path, columns=list(columns)) for path in sorted(paths) if not path.name.startswith(".")]
    return pa.concat_tables(tables, promote_options="permissive") if tables else None


def _frame(
    paths: Sequence[Path], chances: dict[int, tuple[float, float]], planned: bool
) -> tuple[Cells, dict[int, int]] | None:
    """Cells and units per stratum of the frame's files, read one after the other."""
    known, counts, parts = dict[str, int](), dict[int, int](), []
    for path in paths:
        if path.name.startswith("."):
            continue
        table = pq.read_table(path, columns=list(_FRAME))
        strata, sizes = np.unique(table["stratum"].to_numpy(), return_counts=True)
        for stratum, size in zip(strata.tolist(), sizes.tolist(), strict=True):
            counts[stratum] = counts.get(stratum, 0) + size
        parts.append(_cells_of(table, known, chances, planned))
    if not parts:
        return None
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined["ground"], kind="stable")
    cells = {name: values[order] for name, values in joined.items()}
    return Cells(
        ground=cells["ground"],
        lon=cells["lon"],
        lat=cells["lat"],
        area_km2=cells["area_km2"].astype(np.float64),
        land_cover=cells["land_cover"],
        groups=tuple(known),
        chance=cells["chance"],
        seasons=cells["seasons"],
    ), counts


def _cells_of(
    table: pa.Table, known: dict[str, int], chances: dict[int, tuple[float, float]], planned: bool
) -> dict[str, NDArray[np.generic]]:
    """One row per ground cell of a part of the frame; `known` grows by the land-cover groups met."""
    ground, first, cell = np.unique(ground_cells(table["unit"].to_numpy()), return_index=True, return_inverse=True)
    encoded = table["land_cover"].cast(pa.string()).combine_chunks().dictionary_encode()
    codes = np.array([known.setdefault(name, len(known)) for name in encoded.dictionary.to_pylist()], dtype=np.int64)
    land_cover = codes[encoded.indices.to_numpy(zero_copy_only=False)] if codes.size else np.zeros(0, dtype=np.int64)
    seasons = np.bincount(cell, minlength=ground.size)
    # Within a stratum every unit has the same planned π₁, whether or not its master draw was cut.
    strata, number = np.unique(table["stratum"].to_numpy(), return_inverse=True)
    chance = np.array([sum(chances.get(stratum, (0.0, 0.0))) / 2 for stratum in strata.tolist()])
    total = np.bincount(cell, weights=chance[number], minlength=ground.size)
    return {
        "ground": ground,
        "lon": table["lon"].to_numpy()[first],
        "lat": table["lat"].to_numpy()[first],
        "area_km2": table["area_km2"].to_numpy()[first],
        "land_cover": land_cover[first],
        "chance": total / seasons if planned else np.full(ground.size, np.nan),
        "seasons": seasons,
    }
