"""What the diagnostics need of the frame: known totals, the covariates of the units looked at, and a hashed part of it.

One pass over the frame's files, tile by tile. Positions are read of all units, covariates of the units of at most
MOST_ROWS (whole tiles, chosen by hash; totals are then those of these tiles, and say so). Costs about a second per
million units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geofm_pipeline.report import words
from geofm_pipeline.report.folder import Folder
from geofm_pipeline.report.ground import NEITHER, Group, groups_of
from geofm_pipeline.workspace import Workspace
from geofm_sampling.covariates import WORLDCOVER_GROUPS
from geofm_sampling.hashing import hashed_uniform
from geofm_sampling.seasons import MONTHS
from geofm_sampling.selftest import Sums
from geofm_sampling.tables import LAND_COVER_PREFIX, WEATHER_PREFIX

MOST_ROWS = 2_000_000
"""Units whose covariates are read."""
POOL = 40_000
"""Units that stand for the frame in comparisons, besides those looked at."""
LEAST = 40
"""Units that a group keeps in the pool, if it has so many."""
_TESTED_COVERS, _TESTED_MONTHS = 4, (1, 7)
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """Units of the frame with their place and covariates; arrays have shape (n,)."""

    unit: NDArray[np.uint64]
    group: NDArray[np.int64]
    """Number of the unit's group in `Evidence.groups`."""
    lon: Floats
    lat: Floats
    area_km2: Floats
    values: Floats
    """Covariates, shape (n, V), NaN where unknown or not read."""

    def take(self, rows: NDArray[np.generic]) -> Units:
        """Some of the units, by number or mask."""
        return Units(**{name: values[rows] for name, values in vars(self).items()})

    def and_also(self, others: Units) -> Units:
        """These units, then the others."""
        return Units(**{name: np.concatenate([values, getattr(others, name)]) for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What is known of the frame."""

    groups: tuple[Group, ...]
    """Group of each number; buffer ground is left out."""
    units: NDArray[np.int64]
    """N of each group, shape (G,)."""
    names: tuple[str, ...]
    """Columns of the covariates, shape (V,)."""
    tested: tuple[int, ...]
    """Numbers of the covariates that the self-test uses, besides area, longitude and latitude."""
    sums: Sums
    """Area-weighted sums of :meth:`variables` per group, over the tiles whose covariates were read."""
    pool: Units
    """A hashed part of the frame, or all of it; ascending by id."""
    expand: Floats
    """Units of the frame that a unit of the pool stands for, by group, shape (G,)."""
    looked: Units
    """The units looked at, ascending by id."""
    share: float
    """Share of the frame's units whose covariates were read."""

    def variables(self, units: Units) -> Floats:
        """Area times each variable of the self-test, shape (n, 3 + tested); 0 for a unit whose tile was not read."""
        return _variables(units, self.tested)

    def labels(self) -> list[tuple[str, str]]:
        """(name, unit) of each variable of the self-test."""
        return [("area", "km²"), ("longitude", "°"), ("latitude", "°"), *(label(self.names[i]) for i in self.tested)]

    def at(self, units: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Row of each unit in `looked`, −1 where it was not looked at."""
        return _places(self.looked.unit, units)


def label(column: str) -> tuple[str, str]:
    """A covariate in words and its unit: `lc_10` → (`tree`, `share of the ground`)."""
    if column.startswith(LAND_COVER_PREFIX):
        code = column.removeprefix(LAND_COVER_PREFIX)
        name = WORLDCOVER_GROUPS.get(int(code), f"class {code}") if code.isdigit() else f"class {code}"
        return words.group_words(name), "share"
    month = MONTHS[int(column[-2:]) - 1]
    return {"t": (f"temperature, {month}", "°C"), "p": (f"precipitation, {month}", "mm")}.get(
        column.removeprefix(WEATHER_PREFIX)[:1], (column, "")
    )


def read_evidence(folder: Folder) -> Evidence | None:
    """The evidence of a folder; None before anything was looked at, or where the frame is gone."""
    if folder.response is None or not folder.response.num_rows or not folder.groups:
        return None
    files = _files(folder)
    names = _covariates([path for _, path, _ in files])
    covered = _covered(files) if names else {path for _, path, _ in files}
    groups = tuple(group for group in sorted(folder.groups) if group[1] != NEITHER)
    reader = _Reader(folder=folder, groups=groups, names=names, total=sum(size for _, _, size in files))
    for part, path, size in files:
        reader.read(part, path, path in covered, size)
    return reader.evidence()


def _files(folder: Folder) -> list[tuple[int, Path, int]]:
    """(part, file, units) of the whole frame."""
    found = []
    for part in sorted({group[0] for group in folder.groups}):
        frame = Workspace(root=folder.root, part=part).frame
        found += [(part, path, pq.read_metadata(path).num_rows) for path in sorted(frame.glob("[0-9]*.parquet"))]
    return found


def _covered(files: Sequence[tuple[int, Path, int]]) -> set[Path]:
    """Files whose covariates are read: all, or as many as MOST_ROWS units hold, in an order by hash of the tile."""
    turn = np.array([int.from_bytes(path.stem.encode()[:8], "little") for _, path, _ in files], dtype=np.uint64)
    order = np.argsort(hashed_uniform(0, "report/tiles", turn), kind="stable")
    rows = np.cumsum([files[i][2] for i in order])
    return {files[i][1] for i, total in zip(order.tolist(), rows.tolist(), strict=True) if total <= MOST_ROWS}


def _covariates(paths: Sequence[Path]) -> tuple[str, ...]:
    """Land-cover fractions and monthly weather that some file has."""
    found = {name for path in paths for name in pq.read_schema(path).names}
    months = {f"{WEATHER_PREFIX}{kind}{month:02d}" for kind in "tp" for month in range(1, 13)}
    return tuple(sorted(name for name in found if name.startswith(LAND_COVER_PREFIX) or name in months))


class _Reader:
    """Goes through the frame once and keeps what is needed."""

    def __init__(self, *, folder: Folder, groups: tuple[Group, ...], names: tuple[str, ...], total: int) -> None:
        assert folder.response is not None, "nothing was looked at"
        self.groups, self.names = groups, names
        self.number = {group: i for i, group in enumerate(groups)}
        self.units = np.array([folder.groups[group] for group in groups], dtype=np.int64)
        self.wanted = np.unique(folder.response["unit"].to_numpy())
        # A unit stays in the pool if its hash lies below its group's threshold: all of them where there are few.
        self.threshold = np.maximum(POOL / max(total, 1), LEAST / np.maximum(self.units, 1))
        self.sums = Sums.none(len(groups), 3 + len(names))
        self.rows, self.total = 0, total
        self.pool: list[Units] = []
        self.looked: list[Units] = []

    def read(self, part: int, path: Path, covered: bool, size: int) -> None:
        present = pq.read_schema(path).names
        columns = ["unit", "stratum", "lon", "lat", "area_km2", *(["split"] if "split" in present else [])]
        inside = [name for name in self.names if covered and name in present]
        units = self._units(pq.read_table(path, columns=[*columns, *inside]), part, inside)
        if covered:
            self.sums = self.sums.add(units.group, _variables(units, range(len(self.names))))
            self.rows += size
        known = _places(self.wanted, units.unit) >= 0
        self.looked.append(units.take(known))
        self.pool.append(units.take(hashed_uniform(0, "report/pool", units.unit) < self.threshold[units.group]))

    def _units(self, table: pa.Table, part: int, inside: Sequence[str]) -> Units:
        found, of_row = groups_of(table, part)
        group = np.array([self.number.get(key, -1) for key in found], dtype=np.int64)[of_row]
        values = np.full((table.num_rows, len(self.names)), np.nan)
        for name in inside:
            values[:, self.names.index(name)] = table[name].to_numpy()
        area = table["area_km2"].to_numpy().astype(np.float64)
        lon, lat = table["lon"].to_numpy(), table["lat"].to_numpy()
        units = Units(unit=table["unit"].to_numpy(), group=group, lon=lon, lat=lat, area_km2=area, values=values)
        return units.take(group >= 0)

    def evidence(self) -> Evidence:
        tested = _tested(self.names, self.sums.total[:, 3:].sum(axis=0))
        kept = [0, 1, 2, *(3 + i for i in tested)]
        return Evidence(
            groups=self.groups,
            units=self.units,
            names=self.names,
            tested=tested,
            # Units of tiles that were not read count as units with the value 0, in the frame as in the look.
            sums=replace(
                self.sums,
                units=self.units,
                total=self.sums.total[:, kept],
                squares=self.sums.squares[:, kept],
                products=self.sums.products[:, kept],
            ),
            pool=_sorted(self.pool),
            expand=1 / np.minimum(self.threshold, 1.0),
            looked=_sorted(self.looked),
            share=self.rows / max(self.total, 1),
        )


def _tested(names: Sequence[str], totals: Floats) -> tuple[int, ...]:
    """The most common land covers, and temperature and precipitation of January and July: eleven with place and area.

    A rule, not a choice: further months and covers hang together with these.
    """
    covers = [i for i, name in enumerate(names) if name.startswith(LAND_COVER_PREFIX)]
    covers.sort(key=lambda i: -totals[i])
    wanted = {f"{WEATHER_PREFIX}{kind}{month:02d}" for kind in "tp" for month in _TESTED_MONTHS}
    return (*covers[:_TESTED_COVERS], *(i for i, name in enumerate(names) if name in wanted))


def _variables(units: Units, tested: Sequence[int]) -> Floats:
    read = np.isfinite(units.values).any(axis=1) if units.values.shape[1] else np.ones(units.unit.size, dtype=np.bool_)
    area = units.area_km2 * read
    known = np.where(np.isfinite(units.values), units.values, 0.0)
    return np.column_stack([area, area * units.lon, area * units.lat, *(area * known[:, i] for i in tested)])


def _sorted(parts: Sequence[Units]) -> Units:
    """The parts as one, ascending by id, an id that occurs twice (a cell that a later part repeats) kept once."""
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    _, first = np.unique(joined["unit"], return_index=True)
    return Units(**joined).take(first)


def _places(known: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Row of each wanted id among the known ones (ascending), −1 where it is none of them."""
    if not known.size:
        return np.full(wanted.shape, -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(known, wanted), known.size - 1)
    return np.where(known[at] == wanted, at, -1)
