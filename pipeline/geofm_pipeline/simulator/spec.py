"""What an archive shall hold: tiles, years, seed, extents, thinning and faults."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import SENSORS, Sensor
from geofm_pipeline.hls.grid import tile_grid
from geofm_pipeline.years import FIRST_YEAR, LAST_YEAR
from geofm_sampling.unit import TILE_PIXELS

WORLD_VERSION = 1
"""Rises whenever the same spec would give other bytes, so that caches are not mixed."""
FAULTS: dict[str, str] = {
    "missing_asset": "one band of one granule is neither in its item nor on disk",
    "truncated_file": "one band file of one granule ends in the middle of its pixels",
    "duplicate_tile_day": "one S30 tile-day has a second granule, sensed seconds later",
    "wrong_scale_tag": "the red band of one granule claims a scale of 0.001; its counts are right",
    "sparse_zero_cloud": "one granule covers 3 % of its tile, under cloud, and its item claims 0 % cloud",
    "html_page": "one band file of one granule is the HTML page of a login form",
    "impossible_fmask": "the Fmask of one granule was interpolated: codes that v2.0 never writes",
}
"""Faults that can be asked for by name, and what each does. Each hits a granule of its own while there are enough."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The rectangle of a tile that the archive holds; pixels outside it are fill."""

    row: int = 0
    """First pixel row, from the north."""
    col: int = 0
    """First pixel column, from the west."""
    height: int = TILE_PIXELS
    width: int = TILE_PIXELS

    def __post_init__(self) -> None:
        inside = 0 <= self.row <= TILE_PIXELS - self.height and 0 <= self.col <= TILE_PIXELS - self.width
        if not inside or self.height < 1 or self.width < 1:
            raise InputError(f"{self} does not lie within the {TILE_PIXELS} × {TILE_PIXELS} pixels of a tile")


@dataclass(frozen=True, kw_only=True)
class ArchiveSpec:
    """Everything that decides an archive's bytes."""

    tiles: tuple[str, ...]
    """MGRS tiles, e.g. `32TNS`; tiles of one zone agree bit for bit where they overlap."""
    years: tuple[int, ...]
    """Calendar years (UTC)."""
    seed: int = 0
    """Seed of the world and its weather."""
    extents: dict[str, Extent] = field(default_factory=dict)
    """Part of a tile that holds data, by tile; a tile that is not named is held whole."""
    sensors: tuple[Sensor, ...] = SENSORS
    per_year: int | None = None
    """Overpasses kept per year and zone, spread over the year; None keeps the full revisit."""
    choices: int = 1
    """Of each slot of a thinned year, the least cloudy of so many random overpasses is kept."""
    least_share: float = 0.004
    """Smallest share of its extent that a granule covers; narrower edges of swaths make no granule."""
    tile_offset: int = 0
    """Largest offset in counts that distinguishes the tiles, as a processing step per tile may leave; 0 for none."""
    faults: tuple[str, ...] = ()
    """Names from FAULTS."""

    def __post_init__(self) -> None:
        for tile in self.tiles:
            tile_grid(tile)
        for what, values in (("tile", self.tiles), ("year", self.years), ("sensor", self.sensors)):
            if not values or len(set(values)) != len(values):
                raise InputError(f"an archive needs at least one {what}, none twice; got {values}")
        if min(self.years) < FIRST_YEAR or max(self.years) > LAST_YEAR:
            raise InputError(f"years {self.years} must lie in {FIRST_YEAR}-{LAST_YEAR}")
        unknown = sorted(set(self.faults) - set(FAULTS))
        if unknown:
            raise InputError(f"unknown faults {unknown}: choose from {', '.join(FAULTS)}")
        strangers = sorted(set(self.extents) - set(self.tiles))
        if strangers:
            raise InputError(f"extents name {strangers}, which are not among the tiles {self.tiles}")
        if not 0 < self.least_share <= 1:
            raise InputError(f"least_share {self.least_share} must be a share above 0 and up to 1")
        if (self.per_year is not None and self.per_year < 1) or self.choices < 1:
            raise InputError(f"per_year {self.per_year} and choices {self.choices} must be at least 1")

    def extent(self, tile: str) -> Extent:
        """The part of `tile` that holds data."""
        return self.extents.get(tile, Extent())

    def to_json(self) -> str:
        """Canonical text: equal specs of the same world give equal text."""
        return json.dumps({"world": WORLD_VERSION, **asdict(self)}, sort_keys=True, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ArchiveSpec:
        """The inverse of :meth:`to_json`."""
        raw = json.loads(text)
        return cls(
            tiles=tuple(raw["tiles"]),
            years=tuple(raw["years"]),
            seed=raw["seed"],
            extents={tile: Extent(**extent) for tile, extent in raw["extents"].items()},
            sensors=tuple(raw["sensors"]),
            per_year=raw["per_year"],
            choices=raw["choices"],
            least_share=raw["least_share"],
            tile_offset=raw["tile_offset"],
            faults=tuple(raw["faults"]),
        )


def resolve_faults(faults: Sequence[str]) -> tuple[str, ...]:
    """Names of faults without repeats, in the order of FAULTS; `all` stands for every one."""
    wanted = set(FAULTS) if "all" in faults else set(faults)
    return tuple(name for name in FAULTS if name in wanted) + tuple(sorted(wanted - set(FAULTS)))
