"""The cells of one tile with all their covariates: one task, one Parquet file, one small record of facts.

A file's metadata hold the key of everything it was made from and its facts, so that a run that was stopped, or
another one with the same inputs, reads the record and leaves the tile alone. The file's bytes depend on the key only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from geofm_pipeline.access.remembered import Remembering
from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource, ByteSource
from geofm_pipeline.access.tally import Tally
from geofm_pipeline.cells import tile_cells
from geofm_pipeline.covariates.clear_sky import CLEAR_COLUMN
from geofm_pipeline.covariates.cover_shelf import kept_shares
from geofm_pipeline.covariates.land_cover import CoverFacts
from geofm_pipeline.covariates.weather import WeatherFacts, tile_weather, weather_columns
from geofm_pipeline.covariates.weather_months import MonthlyMeans, load_means
from geofm_pipeline.lonlat import polygons
from geofm_pipeline.region import Region
from geofm_pipeline.workspace import write_parquet
from geofm_sampling.tables import CELLS, LAND_COVER_PREFIX

_KEY, _FACTS = b"geofm_cells_key", b"geofm_cells_facts"


@dataclass(frozen=True, kw_only=True)
class TileTask:
    """One tile; everything a worker needs to make its cells, from anywhere."""

    path: Path
    """Parquet file to write."""
    key: str
    """Digest of everything the content depends on."""
    tile: str
    present: tuple[str, ...]
    """The tiles of the catalogue near it, itself included."""
    region: Path
    """WKB of the region; its name holds its digest."""
    chip_size: int
    clear: float
    """Expected clear share of the tile, NaN if unknown."""
    rasters: tuple[str, ...] | None
    """Land-cover rasters that may show some of it, None without a map."""
    weather: tuple[Path, ...]
    """Monthly means of temperature and precipitation, empty without weather."""
    access: Access = field(default_factory=Access)
    """How remote rasters are reached."""
    map_name: str = ""
    """Land cover as it was asked for."""
    shelf: Path | None = None
    """Folder where shares of whole tiles are kept for other runs, None for none."""


@dataclass(frozen=True, kw_only=True)
class TileFacts:
    """What one tile came to."""

    tile: str
    cells: int
    """Cells of the region that the tile owns."""
    owned: int
    """Cells that it owns, inside the region or not."""
    area_km2: float
    """Area of the region's cells."""
    cover: CoverFacts | None
    """None without a land-cover map."""
    weather: WeatherFacts | None
    """None without weather."""

    def to_json(self) -> str:
        """Canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> TileFacts:
        """Inverse of :meth:`to_json`."""
        record = json.loads(text)
        cover, weather = record["cover"], record["weather"]
        if cover is not None:
            cover["codes"] = tuple(cover["codes"])
        if weather is not None:
            weather |= {name: tuple(weather[name]) for name in ("low", "high")}
        record["cover"] = None if cover is None else CoverFacts(**cover)
        record["weather"] = None if weather is None else WeatherFacts(**weather)
        return cls(**record)


@dataclass(frozen=True, kw_only=True)
class MadeTiles:
    """What a task of some tiles came to."""

    facts: tuple[TileFacts, ...]
    """In the order of the tasks."""
    tally: Tally
    """What reading rasters cost."""


def make_tiles(tasks: Sequence[TileTask]) -> MadeTiles:
    """Make the files of some tiles, in order; a Dask task. Running it twice writes the same bytes."""
    archive = Remembering(ArchiveSource(tasks[0].access))
    return MadeTiles(facts=tuple(make_tile(task, archive) for task in tasks), tally=archive.tally)


def make_tile(task: TileTask, archive: ByteSource) -> TileFacts:
    """Cells and covariates of one tile, written atomically; remote rasters come through `archive`."""
    found = tile_cells(task.tile, task.present, _region(task.region), chip_size=task.chip_size)
    cells = found.table
    table = cells.append_column(CLEAR_COLUMN, pa.array(np.full(cells.num_rows, task.clear, dtype=np.float32)))
    cover = weather = None
    if task.rasters is not None:
        shares, cover = kept_shares(
            cells, task.rasters, chip_size=task.chip_size, archive=archive, asked=task.map_name, shelf=task.shelf
        )
        for code, share in sorted(shares.items()):
            table = table.append_column(f"{LAND_COVER_PREFIX}{code}", pa.array(share))
    if task.weather:
        values, weather = tile_weather(cells, _means(task.weather))
        for name, column in zip(weather_columns(), values, strict=True):
            table = table.append_column(name, pa.array(column))
    facts = TileFacts(
        tile=task.tile,
        cells=cells.num_rows,
        owned=found.owned,
        area_km2=float(cells["area_km2"].to_numpy().sum(dtype=np.float64)),
        cover=cover,
        weather=weather,
    )
    metadata = {_KEY: task.key.encode(), _FACTS: facts.to_json().encode()}
    write_parquet(task.path, CELLS.check(table).replace_schema_metadata(metadata))
    return facts


def made_tile(path: Path, key: str) -> TileFacts | None:
    """Facts of a tile's file if it was made from the inputs of this key, else None."""
    try:
        metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return None
    if metadata.get(_KEY, b"").decode() != key:
        return None
    return TileFacts.from_json(metadata[_FACTS].decode())


@lru_cache(maxsize=1)
def _region(path: Path) -> Region:
    """The region, read once per process."""
    return Region(name=path.stem, geometry=polygons(shapely.from_wkb(path.read_bytes())))


@lru_cache(maxsize=1)
def _means(files: tuple[Path, ...]) -> tuple[MonthlyMeans, ...]:
    """Monthly means, mapped once per process; the names of the files hold the digest of what they were made from."""
    return tuple(load_means(path) for path in files)
