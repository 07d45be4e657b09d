"""One import is one complete configuration: the options of `geofm-sample import`, validated once, with their digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from geofm_pipeline.errors import InputError
from geofm_pipeline.hls.bands import BANDS, Sensor
from geofm_pipeline.importing.pixels import Conversion, MaskValues

_MACHINE = frozenset({"out", "workers", "dry_run"})
"""Options that decide how a run works, and nothing of what it writes."""
DEFAULT_SENSOR: Sensor = "S30"
LEAST_CHIP = 8
"""Least edge of a chip, pixels."""


@dataclass(frozen=True, kw_only=True)
class BandChoice:
    """One band of the store, and where it is in the images."""

    name: str
    """Its name in the store."""
    where: str
    """What the field {band}, or the column band, says of its file; in a file of several bands its number from 1."""


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """`geofm-sample import`: which images, what their values mean, and what store they become."""

    images: str
    """A folder of .tif files, a pattern of paths in quotes like 'oscd/{place}_?.tif', or a table (CSV, Parquet) with a
    column file."""
    out: Path
    """Dataset folder to make. The same command again continues it; other options need another folder."""
    bands: str = ",".join(BANDS)
    """Names of the bands in order; NAME=WHERE says which {band}, or which band of a file, each is: red=3,nir=4."""
    date_tag: str | None = None
    """Tag of the files that has their date, where neither the pattern nor the table has it."""
    mask: str | None = None
    """Pattern of the cloud masks with fields of the pattern of --images; in a table it is the column mask."""
    mask_values: str | None = None
    """What values of the masks mean: cfmask, scl, fmask (HLS's own bytes), or 0=clear,1=cloud,255=missing."""
    sensor: Sensor | None = None
    """Sensor that the store records: L30 (like Landsat) or S30 (like Sentinel-2, the default)."""
    timesteps: int = 1
    """Dates of a sample, of one place."""
    chip_size: int = 256
    """Edge of a chip in pixels of the images."""
    min_valid: float = 0.8
    """Share of valid pixels that every date of a chip must reach, 0-1."""
    heldout: float | None = None
    """Share of the places held out for evaluation, 0 to 0.5; default 0.1 where there are 20 places, else 0."""
    scale: float | None = None
    """Factor from values to reflectance × 10,000, e.g. 10000 for reflectance from 0 to 1; whole numbers need none."""
    offset: float = 0.0
    """Added after the factor, in counts: -1000 for Sentinel-2 since 2022."""
    nodata: float | None = None
    """A value that means missing, besides what the files themselves say."""
    seed: int = 0
    """Seed of every random choice: which places are held out, and the order of the store."""
    profile: Literal["zstd", "local"] = "zstd"
    """Codec of the pixels: zstd (small) or local (lz4, fast)."""
    group_shards: int = 16
    """Shards of 64 chips per write group, which is one task."""
    workers: int | None = None
    """Worker processes; 0 works inside this process, the default where there is little to read, else one per core."""
    dry_run: bool = False
    """Stop after the plan: read the images, say what would be written, and write no store."""

    def __post_init__(self) -> None:
        share = self.heldout
        rules = (
            (bool(self.images.strip()), "--images is empty: name a folder, a pattern of paths or a table"),
            (1 <= self.timesteps <= 64, f"--timesteps {self.timesteps} must lie in 1 to 64"),
            (
                LEAST_CHIP <= self.chip_size <= 2048,
                f"--chip-size {self.chip_size} must lie in {LEAST_CHIP} to 2048 pixels",
            ),
            (0 < self.min_valid <= 1, f"--min-valid {self.min_valid} must be a share above 0 and up to 1"),
            (share is None or 0 <= share <= 0.5, f"--heldout {share} must be a share from 0 to 0.5"),
            (self.mask is None or bool(self.mask.strip()), "--mask is empty: name a pattern, or leave it out"),
            (self.scale is None or self.scale > 0, f"--scale {self.scale} must be above 0, e.g. 10000"),
            (self.group_shards >= 1, f"--group-shards {self.group_shards} must be at least 1"),
            (self.workers is None or self.workers >= 0, f"--workers {self.workers} must be 0 or more"),
        )
        broken = [message for holds, message in rules if not holds]
        if broken:
            raise InputError("; ".join(broken))
        self._check_bands()
        if self.mask_values is not None:
            MaskValues.parse(self.mask_values)

    def _check_bands(self) -> None:
        names, places = [band.name for band in self.choices], [band.where for band in self.choices]
        if not names or not all(names) or not all(places):
            raise InputError(
                f"--bands {self.bands!r} must be names with commas, each with or without =WHERE: red=3,nir=4"
            )
        if len(set(names)) < len(names) or len(set(places)) < len(places):
            raise InputError(f"--bands {self.bands} names a band twice: each may stand there once")

    @property
    def choices(self) -> tuple[BandChoice, ...]:
        """The bands in order of the store's axis B; one without WHERE is found by its own name, or by its place."""
        words = [word.strip().partition("=") for word in self.bands.split(",")]
        return tuple(BandChoice(name=name.strip(), where=(where if eq else name).strip()) for name, eq, where in words)

    @property
    def band_numbers(self) -> tuple[int, ...] | None:
        """In files of several bands the number of each band, from 1; None where all of a file's bands are meant.

        Raises
        ------
        InputError
            When some bands say where they are and others do not, or one is no number.
        """
        said = ["=" in word for word in self.bands.split(",")]
        if not any(said):
            return None
        if not all(said) or not all(band.where.isdecimal() and int(band.where) for band in self.choices):
            raise InputError(
                f"--bands {self.bands}: in files of several bands every one needs its number from 1 (red=3,nir=4), or "
                "none has one and the names are those of all bands in order"
            )
        return tuple(int(band.where) for band in self.choices)

    @property
    def conversion(self) -> Conversion:
        """How values become counts."""
        return Conversion(scale=self.scale, offset=self.offset, nodata=self.nodata)

    def design_fields(self) -> dict[str, object]:
        """The options that decide what is in the store; the machine's options are left out."""
        return {name: value for name, value in asdict(self).items() if name not in _MACHINE}


def design_digest(design: dict[str, object]) -> str:
    """sha256 of design fields: two runs with equal digests continue each other."""
    return hashlib.sha256(json.dumps(design, sort_keys=True, default=str).encode()).hexdigest()
