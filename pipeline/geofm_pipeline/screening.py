"""Screening: which dates of which units are clear, by granule and never twice.

:class:`Screening` reads the Fmask of a granule the first time a unit needs it, keeps the counts of all its cells in
one Parquet file per tile, and answers from there. A second run reads no Fmask again, except those that could not be
read: they may have come back. Tasks are batches of granules of one tile.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from geofm_pipeline.access.source import ArchiveSource, ByteSource
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.fmask_counts import COUNTS, OK, SCREENING, cell_matrix, screen_granules
from geofm_pipeline.hls.fmask import DEFAULT_RULE, MaskRule
from geofm_pipeline.scenes import SceneRef, scene_refs, sensing_days
from geofm_pipeline.tile_cache import TileCache
from geofm_sampling.tables import LOOK
from geofm_sampling.unit import cells_per_side, unpack_units

A = TypeVar("A")
R = TypeVar("R")
BATCH = 64
"""Granules of one task: a few seconds of work."""
_LOOKED_AT = ["granule_id", "date", "state", "data", "clear"]


class MapTasks(Protocol):
    """Runs a picklable function over arguments and yields the results in any order."""

    def __call__(self, function: Callable[[A], R], arguments: Sequence[A], /) -> Iterator[R]:
        """Yield one result per argument."""
        ...


@dataclass(frozen=True, kw_only=True)
class ScreenBatch:
    """Granules of one tile to screen in one task; small and picklable."""

    tile: str
    scenes: tuple[SceneRef, ...]
    chip_size: int
    rule: MaskRule
    source: ByteSource
    threads: int
    """Reads at once of local files."""


@dataclass(frozen=True, kw_only=True)
class Screened:
    """What a batch found and what reading it took."""

    table: pa.Table
    """SCREENING."""
    tally: Tally


def screen_batch(batch: ScreenBatch) -> Screened:
    """SCREENING rows of a batch; a transient fault is raised as BlockReadError."""
    source = batch.source.twin()
    table = screen_granules(
        batch.scenes,
        tile=batch.tile,
        chip_size=batch.chip_size,
        rule=batch.rule,
        source=source,
        threads=source.at_once(batch.scenes[0].fmask, local=batch.threads),
    )
    return Screened(table=table, tally=source.tally)


@dataclass(kw_only=True)
class ScreenStats:
    """What screening cost so far."""

    granules_read: int = 0
    """Fmask files asked for."""
    granules_cached: int = 0
    """Granules answered from the cache of a run before."""
    bytes_read: int = 0
    tally: Tally = field(default_factory=Tally)


class Screening:
    """Screens the granules of a SCENES table as units need them.

    Parameters
    ----------
    scenes : SCENES table
    cache : folder of the counts, one file per tile below a folder per chip size and mask rule
    chip_size : edge of a cell in pixels
    rule : which Fmask bits make a pixel unusable
    source : where hrefs are read, picklable; with the usual settings by default
    threads : reads at once per task for local files
    map_tasks : runs tasks; one after the other in this process by default
    """

    def __init__(
        self,
        scenes: pa.Table,
        *,
        cache: Path,
        chip_size: int,
        rule: MaskRule = DEFAULT_RULE,
        source: ByteSource | None = None,
        threads: int = 4,
        map_tasks: MapTasks = map,
    ) -> None:
        cells_per_side(chip_size)
        self.stats = ScreenStats()
        self._chip_size, self._rule, self._threads = chip_size, rule, threads
        self._source = source or ArchiveSource()
        self._map_tasks = map_tasks
        folder = cache / f"{chip_size}px-rule{rule.byte}"
        self._cache = TileCache(folder, SCREENING, order=("date", "granule_id"))
        self._scenes, self._none = _by_tile(scenes), scenes.slice(0, 0)
        self._known: dict[str, dict[str, str]] = {}
        self._unread: dict[str, pa.Table] = {}

    def look(
        self,
        units: NDArray[np.uint64],
        *,
        season_start: ArrayLike,
        season_end: ArrayLike,
        last_day: int,
        reach_days: int,
    ) -> pa.Table:
        """LOOK rows of units, sorted by unit, date and granule id.

        A unit has a row for every granule of its tile between season_start and min(season_end + reach_days,
        last_day); those after the season that cover none of the cell are left out. Shares are NaN where the Fmask
        could not be read or was refused.

        Parameters
        ----------
        units : packed unit ids of this chip size, shape (n,)
        season_start, season_end : first and last anchor day of each unit, days since 1970-01-01
        last_day : last day of the requested years
        reach_days : how far after the season's end later dates may lie, (T − 1) × the largest gap

        Raises
        ------
        BlockReadError
            With `transient` set: a fault that outlived the retries. What was screened before is kept.
        """
        wanted = Wanted.of(units, season_start, season_end, last_day=last_day, reach_days=reach_days)
        if np.any(unpack_units(wanted.units).chip_size != self._chip_size):
            raise ValueError(f"all units must have the screening's chip size of {self._chip_size} px")
        parts = wanted.by_tile()
        self._screen({tile: self._missing(tile, part) for tile, part in parts.items()})
        looks = [look_table(self._table(tile, _LOOKED_AT), part, self._chip_size) for tile, part in parts.items()]
        return pa.concat_tables([LOOK.schema().empty_table(), *looks]).sort_by(
            [("unit", "ascending"), ("date", "ascending"), ("granule_id", "ascending")]
        )

    def granules(self) -> pa.Table:
        """SCREENING without the per-cell columns, for every granule of the SCENES table that was screened so far."""
        names = [name for name in SCREENING.columns if name not in COUNTS]
        tables = [self._table(tile, names) for tile in sorted(self._known)]
        return pa.concat_tables([SCREENING.schema().empty_table().select(names), *tables])

    def facts(self) -> dict[str, object]:
        """What screening cost in this run, and each granule that could not be used with the cause; for the card."""
        table = self.granules()
        unusable = table.filter(~_mask(table, "state", {OK}))
        causes = zip(unusable["granule_id"].to_pylist(), unusable["state"].to_pylist(), strict=True)
        refused = [{"granule": granule, "cause": cause} for granule, cause in causes]
        stats = {**vars(self.stats), "tally": self.stats.tally.as_dict()}
        return {**stats, "granules": table.num_rows, "refused": refused}

    def _missing(self, tile: str, part: Wanted) -> list[SceneRef]:
        scenes, states = self._scenes_of(tile), self._states(tile)
        unknown = ~_mask(scenes, "granule_id", states)
        return scene_refs(scenes.filter(pa.array(part.any_needs(sensing_days(scenes)) & unknown)))

    def _scenes_of(self, tile: str) -> pa.Table:
        return self._scenes.get(tile, self._none)

    def _states(self, tile: str) -> dict[str, str]:
        """granule id → state of what is known of a tile; reads the cache the first time."""
        if tile not in self._known:
            ours = set(self._scenes_of(tile)["granule_id"].to_pylist())
            table = self._cache.read(tile, ["granule_id", "state"])
            pairs = zip(table["granule_id"].to_pylist(), table["state"].to_pylist(), strict=True)
            self._known[tile] = {granule: state for granule, state in pairs if granule in ours}
            self.stats.granules_cached += len(self._known[tile])
        return self._known[tile]

    def _screen(self, missing: dict[str, list[SceneRef]]) -> None:
        batches = [
            ScreenBatch(
                tile=tile,
                scenes=tuple(scenes[start : start + BATCH]),
                chip_size=self._chip_size,
                rule=self._rule,
                source=self._source,
                threads=self._threads,
            )
            for tile, scenes in missing.items()
            for start in range(0, len(scenes), BATCH)
        ]
        for screened in self._map_tasks(screen_batch, batches):
            self.stats.tally = self.stats.tally + screened.tally
            self._keep(screened.table)

    def _keep(self, table: pa.Table) -> None:
        tile = table["tile"][0].as_py()
        self.stats.granules_read += table.num_rows
        self.stats.bytes_read += int(table["bytes"].to_numpy().sum())
        self._known[tile].update(zip(table["granule_id"].to_pylist(), table["state"].to_pylist(), strict=True))
        read = table.filter(_mask(table, "read", {True}))
        if read.num_rows:
            self._cache.write(tile, pa.concat_tables([self._cache.read(tile), read]))
        unread = table.filter(~_mask(table, "read", {True}))
        self._unread[tile] = pa.concat_tables([self._unread.get(tile, unread.slice(0, 0)), unread])

    def _table(self, tile: str, columns: list[str]) -> pa.Table:
        """What is known of a tile's granules that are in the SCENES table, each once."""
        cached = self._cache.read(tile, columns)
        unread = self._unread.get(tile, SCREENING.schema().empty_table()).select(cached.column_names)
        table = pa.concat_tables([cached, unread])
        return table.filter(_mask(table, "granule_id", self._states(tile)))


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Units and the days on which they want to be looked at; every field has shape (n,)."""

    units: NDArray[np.uint64]
    first: NDArray[np.int64]
    """First anchor day."""
    season_end: NDArray[np.int64]
    """Last anchor day."""
    last: NDArray[np.int64]
    """Last day on which a later date may lie."""

    @classmethod
    def of(
        cls, units: NDArray[np.uint64], start: ArrayLike, end: ArrayLike, *, last_day: int, reach_days: int
    ) -> Wanted:
        ids = np.asarray(units, dtype=np.uint64)
        season_end = np.minimum(np.broadcast_to(np.asarray(end, dtype=np.int64), ids.shape), last_day)
        return cls(
            units=ids,
            first=np.broadcast_to(np.asarray(start, dtype=np.int64), ids.shape),
            season_end=season_end,
            last=np.minimum(season_end + reach_days, last_day),
        )

    def by_tile(self) -> dict[str, Wanted]:
        tiles, group = np.unique(unpack_units(self.units).tile, return_inverse=True)
        order = np.argsort(group, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(group, minlength=tiles.size))[:-1]) if tiles.size else []
        return {str(tile): self._take(part) for tile, part in zip(tiles, parts, strict=True)}

    def _take(self, index: NDArray[np.int64]) -> Wanted:
        return Wanted(
            units=self.units[index], first=self.first[index], season_end=self.season_end[index], last=self.last[index]
        )

    def pairs(self, days: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All (unit position, position in the sorted `days`) that want each other, two arrays of one shape."""
        begin = np.searchsorted(days, self.first, "left")
        count = np.maximum(np.searchsorted(days, self.last, "right") - begin, 0)
        unit = np.repeat(np.arange(self.units.size), count)
        return unit, np.arange(unit.size) - np.repeat(np.cumsum(count) - count - begin, count)

    def any_needs(self, days: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of `days` some unit wants, shape of `days`."""
        proper = self.first <= self.last
        begun = np.searchsorted(np.sort(self.first[proper]), days, "right")
        ended = np.searchsorted(np.sort(self.last[proper]), days, "left")
        return np.asarray(begun > ended)


def look_table(screening: pa.Table, wanted: Wanted, chip_size: int) -> pa.Table:
    """LOOK rows of units of one tile from its SCREENING table, see :meth:`Screening.look`."""
    ordered = screening.sort_by([("date", "ascending"), ("granule_id", "ascending")])
    days = ordered["date"].to_numpy().astype(np.int64)
    unit, granule = wanted.pairs(days)
    place = unpack_units(wanted.units)
    cell = (place.cell_row * cells_per_side(chip_size) + place.cell_col)[unit]
    covered, clear = (_shares(ordered, name, chip_size, granule, cell) for name in ("data", "clear"))
    keep = ~(covered == 0) | (days[granule] <= wanted.season_end[unit])
    columns = {
        "unit": wanted.units[unit][keep],
        "granule_id": ordered["granule_id"].combine_chunks().take(pa.array(granule[keep])),
        "date": days[granule[keep]].astype(np.int32),
        "covered": covered[keep],
        "clear": clear[keep],
    }
    return LOOK.check(pa.table(columns, schema=LOOK.schema()))


def _shares(
    screening: pa.Table, name: str, chip_size: int, granule: NDArray[np.int64], cell: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Share of each (granule, cell)'s pixels in a COUNTS column, NaN where the granule's Fmask is not usable."""
    usable = _mask(screening, "state", {OK})
    counts = cell_matrix(screening.filter(pa.array(usable)), name, chip_size)
    row = np.cumsum(usable)[granule] - 1  # of a granule among the usable ones
    good = usable[granule]
    shares = np.full(granule.shape, np.nan, dtype=np.float32)
    shares[good] = counts[row[good], cell[good]] / np.float32(chip_size * chip_size)
    return shares


def _by_tile(scenes: pa.Table) -> dict[str, pa.Table]:
    """The rows of each tile; hrefs stay templates, so that a million granules stay small."""
    order = scenes.sort_by([("tile", "ascending"), ("time", "ascending"), ("granule_id", "ascending")])
    tiles, starts = np.unique(np.asarray(order["tile"].cast(pa.string()).to_numpy(), dtype="U5"), return_index=True)
    ends = [*starts[1:], order.num_rows]
    return {str(tile): order.slice(start, end - start) for tile, start, end in zip(tiles, starts, ends, strict=True)}


def _mask(table: pa.Table, column: str, values: Container[object]) -> NDArray[np.bool_]:
    """Which rows have one of `values` in a column, shape (rows,)."""
    return np.array([value in values for value in table[column].to_pylist()], dtype=np.bool_)
