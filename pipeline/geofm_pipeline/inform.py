"""Information: one small spectral overview per observable unit, before anything is drawn of it.

:class:`Informer` reads for each unit the six bands and the Fmask of one granule at an overview that leaves the cell at
least 16 pixels an edge (:mod:`geofm_pipeline.cog.overview`), and keeps what they say in one Parquet file per tile, so
that a second run reads nothing again. Tasks are batches of granules of one tile, as in screening.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.access.source import ArchiveSource, ByteSource
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.hls import fmask
from geofm_pipeline.overview_measures import FINAL, MEASURED, OK, InformBatch, Informed, inform_batch
from geofm_pipeline.scenes import SceneRef, scene_refs
from geofm_pipeline.screening import MapTasks
from geofm_pipeline.tile_cache import TileCache
from geofm_sampling.tables import INFORMATION
from geofm_sampling.unit import cells_per_side, unpack_units

BATCH = 32
"""Granules of one task: a second of work on local files."""
Key = tuple[int, str]
"""(unit, granule id)."""


@dataclass(kw_only=True)
class InformStats:
    """What information cost so far."""

    granules_read: int = 0
    units_read: int = 0
    units_cached: int = 0
    """Units answered from the cache of a run before."""
    requests: int = 0
    """Range requests, headers included."""
    bytes_read: int = 0
    without_information: int = 0
    """Units whose entropy is NaN."""
    tally: Tally = field(default_factory=Tally)


class Informer:
    """Reads the information of units as it is asked for; see :class:`geofm_pipeline.screening.Screening`.

    Parameters
    ----------
    scenes : SCENES table
    cache : folder of what was measured, one file per tile below a folder per chip size and mask rule
    chip_size : edge of a cell in pixels
    rule : which Fmask bits make a pixel unusable
    source : where hrefs are read, picklable; with the usual settings by default
    threads : granules read at once per task from local files
    map_tasks : runs tasks; one after the other in this process by default
    """

    def __init__(
        self,
        scenes: pa.Table,
        *,
        cache: Path,
        chip_size: int,
        rule: fmask.MaskRule = fmask.DEFAULT_RULE,
        source: ByteSource | None = None,
        threads: int = 4,
        map_tasks: MapTasks = map,
    ) -> None:
        cells_per_side(chip_size)
        self.stats = InformStats()
        self._chip_size, self._rule, self._threads = chip_size, rule, threads
        self._source = source or ArchiveSource()
        self._map_tasks = map_tasks
        folder = cache / f"{chip_size}px-rule{rule.byte}"
        self._cache = TileCache(folder, MEASURED, order=("unit", "granule_id"))
        self._scenes = scenes
        self._tables: dict[str, pa.Table] = {}
        self._causes: dict[int, str] = {}

    def inform(self, units: NDArray[np.uint64], granule_ids: Sequence[str]) -> pa.Table:
        """INFORMATION of units, row by row in the order given; NaN and an empty descriptor where there is none.

        Parameters
        ----------
        units : packed unit ids of this chip size, shape (n,)
        granule_ids : granule to look at for each unit, of its tile: its clearest date in the anchor season

        Raises
        ------
        BlockReadError
            With `transient` set: a fault that outlived the retries. What was measured before is kept.
        """
        ids = np.asarray(units, dtype=np.uint64)
        tiles = self._check(ids, granule_ids)
        wanted: dict[str, list[Key]] = {tile: [] for tile in dict.fromkeys(tiles)}
        for tile, unit, granule in zip(tiles, ids.tolist(), granule_ids, strict=True):
            wanted[tile].append((unit, granule))
        self._measure({tile: self._missing(tile, keys) for tile, keys in wanted.items()})
        table = pa.concat_tables([MEASURED.schema().empty_table(), *(self._table(tile) for tile in wanted)])
        row = _index(table)
        table = table.take(pa.array([row[key] for key in zip(ids.tolist(), granule_ids, strict=True)], type=pa.int64()))
        self._note(table)
        return INFORMATION.check(table.select(list(INFORMATION.columns)))

    def facts(self) -> dict[str, object]:
        """What information cost in this run, and how many units have none for which cause; for the card."""
        causes = Counter(cause for cause in self._causes.values() if cause != OK)
        stats = {**vars(self.stats), "tally": self.stats.tally.as_dict()}
        return {**stats, "causes": dict(causes.most_common())}

    def _check(self, units: NDArray[np.uint64], granule_ids: Sequence[str]) -> list[str]:
        """Tile of each unit; ValueError where units and granules do not fit."""
        place = unpack_units(units)
        if len(granule_ids) != units.size:
            raise ValueError(f"{units.size} units need as many granule ids, got {len(granule_ids)}")
        if np.any(place.chip_size != self._chip_size):
            raise ValueError(f"all units must have the informer's chip size of {self._chip_size} px")
        tiles = [str(tile) for tile in place.tile]
        for tile, granule in zip(tiles, granule_ids, strict=True):
            if f".T{tile}." not in granule:
                raise ValueError(f"granule {granule} is not of tile {tile}: a unit is looked at in its own tile")
        return tiles

    def _missing(self, tile: str, keys: list[Key]) -> dict[str, list[int]]:
        """granule id → units that are not known yet."""
        known = _index(self._table(tile))
        result: dict[str, list[int]] = {}
        for unit, granule in dict.fromkeys(keys):
            if (unit, granule) not in known:
                result.setdefault(granule, []).append(unit)
        return result

    def _measure(self, missing: dict[str, dict[str, list[int]]]) -> None:
        scenes = self._refs({granule for units in missing.values() for granule in units})
        batches = [batch for tile, units in missing.items() for batch in self._batches(tile, units, scenes)]
        for informed in self._map_tasks(inform_batch, batches):
            self._keep(informed)

    def _refs(self, granules: set[str]) -> dict[str, SceneRef]:
        """SceneRef of each of `granules`; one pass over the SCENES table."""
        rows = [row for row, name in enumerate(self._scenes["granule_id"].to_pylist()) if name in granules]
        scenes = {scene.granule_id: scene for scene in scene_refs(self._scenes.take(pa.array(rows, type=pa.int64())))}
        lost = sorted(granules - set(scenes))
        if lost:
            raise ValueError(f"granule {lost[0]} is not in the SCENES table: units are looked at in its granules")
        return scenes

    def _batches(self, tile: str, units: dict[str, list[int]], scenes: dict[str, SceneRef]) -> list[InformBatch]:
        granules = sorted(units)
        return [
            InformBatch(
                tile=tile,
                scenes=tuple(scenes[name] for name in granules[start : start + BATCH]),
                units=tuple(np.array(units[name], dtype=np.uint64) for name in granules[start : start + BATCH]),
                chip_size=self._chip_size,
                rule=self._rule,
                source=self._source,
                threads=self._threads,
            )
            for start in range(0, len(granules), BATCH)
        ]

    def _keep(self, informed: Informed) -> None:
        table, cost = informed.table, informed.stats
        self.stats.granules_read += len(set(table["granule_id"].to_pylist()))
        self.stats.units_read += table.num_rows
        self.stats.requests += cost.requests + cost.opens
        self.stats.bytes_read += cost.bytes_requested
        self.stats.tally = self.stats.tally + cost.tally
        self._tables[informed.tile] = pa.concat_tables([self._table(informed.tile), table])
        known = self._tables[informed.tile]
        final = pa.array([cause in FINAL for cause in known["cause"].to_pylist()], type=pa.bool_())
        self._cache.write(informed.tile, known.filter(final))

    def _note(self, table: pa.Table) -> None:
        self._causes.update(zip(table["unit"].to_pylist(), table["cause"].to_pylist(), strict=True))
        self.stats.without_information = sum(cause != OK for cause in self._causes.values())

    def _table(self, tile: str) -> pa.Table:
        """MEASURED rows known of a tile; reads the cache the first time."""
        if tile not in self._tables:
            self._tables[tile] = self._cache.read(tile)
            self.stats.units_cached += self._tables[tile].num_rows
        return self._tables[tile]


def _index(table: pa.Table) -> dict[Key, int]:
    """(unit, granule id) → row of a MEASURED table."""
    keys = zip(table["unit"].to_pylist(), table["granule_id"].to_pylist(), strict=True)
    return {key: row for row, key in enumerate(keys)}
