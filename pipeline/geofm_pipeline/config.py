"""One run is one complete configuration: the options of the main job, validated once, with their digest."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from geofm_pipeline.errors import InputError
from geofm_pipeline.years import parse_years
from geofm_sampling.unit import CHIP_SIZES


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """The main job: where, when, how many, and with which machine."""

    region: str
    """demo, W,S,E,N in degrees, a vector file, MGRS tile ids (10SFE,11SKA) or a name (Kenya)."""
    years: str | int | list[int]
    """2022, 2019-2021 or 2019,2021; every date used lies in these years (UTC)."""
    out: Path | None = None
    """Dataset folder; default geofm-<region>-<years> in the current folder. A second run continues it."""
    catalog: str | None = None
    """STAC catalogue or ItemCollection (path or URL), STAC GeoParquet (path) or STAC API URL; the demo has its own."""
    land_cover: str | None = None
    """Land-cover raster, folder of rasters, NetCDF or Zarr (path or URL); the demo has its own."""
    weather: str | None = None
    """Monthly temperature and precipitation, NetCDF or Zarr (path or URL, or two by a comma); the demo has its own."""
    samples: int = 1024
    """Chips to draw; capped at what is observable."""
    timesteps: int = 4
    """Dates per chip."""
    min_gap: int = 10
    """Fewest days between consecutive dates of a chip."""
    max_gap: int = 180
    """Most days between consecutive dates of a chip."""
    chip_size: int = 256
    """Chip edge in pixels of 30 m: 64, 128 or 256 (256 is exactly one block of an HLS file)."""
    min_clear: float = 0.8
    """Share of clear pixels every date of a chip must reach, 0-1."""
    heldout: float = 0.0
    """Share of the ground held out for evaluation; only 0 is supported so far."""
    seed: int = 0
    """Seed of every random choice."""
    profile: Literal["zstd", "local"] = "zstd"
    """Codec of the pixels: zstd (small) or local (lz4, fast)."""
    group_shards: int = 16
    """Shards of 64 chips per write group, which is one task."""
    workers: int | None = None
    """Worker processes of the local Dask cluster; default the number of cores, 0 runs inside this process."""
    scheduler: str | None = None
    """Address of a Dask scheduler to use instead of a local cluster, e.g. tcp://10.0.0.1:8786."""
    max_bytes: str | None = None
    """Refuse to start if more than this would be read or written, e.g. 200GB."""
    dry_run: bool = False
    """Stop after the plan: print units, requests, bytes and memory; read no archive raster."""

    def __post_init__(self) -> None:
        rules = (
            (self.samples >= 1, f"--samples {self.samples} must be at least 1"),
            (1 <= self.timesteps <= 64, f"--timesteps {self.timesteps} must lie in 1 to 64"),
            (
                1 <= self.min_gap <= self.max_gap <= 3660,
                f"--min-gap {self.min_gap} and --max-gap {self.max_gap} must satisfy 1 ≤ min ≤ max ≤ 3660 days",
            ),
            (self.chip_size in CHIP_SIZES, f"--chip-size {self.chip_size} must be one of {CHIP_SIZES} pixels"),
            (0 < self.min_clear <= 1, f"--min-clear {self.min_clear} must be a share above 0 and up to 1"),
            (self.heldout == 0, f"--heldout {self.heldout} is not supported yet: use 0"),
            (self.group_shards >= 1, f"--group-shards {self.group_shards} must be at least 1"),
            (self.workers is None or self.workers >= 0, f"--workers {self.workers} must be 0 or more"),
            (
                self.scheduler is None or self.workers is None,
                "--workers and --scheduler exclude each other: a running scheduler has its own workers",
            ),
        )
        broken = [message for holds, message in rules if not holds]
        if broken:
            raise InputError("; ".join(broken))
        parse_bytes(self.max_bytes)

    def design_fields(self) -> dict[str, object]:
        """The options that decide what is in the store; the machine's options are left out."""
        machine = {"out", "workers", "scheduler", "max_bytes", "dry_run"}
        fields = {name: value for name, value in asdict(self).items() if name not in machine}
        return {**fields, "years": str(parse_years(self.years))}

    @property
    def processes(self) -> int:
        """Processes that work on this machine: the option, else one per core; 1 inside this process."""
        return max(1, os.cpu_count() or 1) if self.workers is None else max(1, self.workers)

    def digest(self) -> str:
        """sha256 of the design fields: two runs with equal digests continue each other."""
        return hashlib.sha256(json.dumps(self.design_fields(), sort_keys=True, default=str).encode()).hexdigest()


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(text: str | None) -> int | None:
    """Bytes of `200GB`, `1.5 TiB` or `1000`; None stays None."""
    if text is None:
        return None
    number = text.strip().rstrip("BbKkMmGgTtIi").strip()
    unit = text.strip()[len(number) :].strip().upper()
    try:
        return round(float(number) * {**_UNITS, "TIB": 2**40}[unit])
    except (ValueError, KeyError):
        raise InputError(
            f"--max-bytes {text!r} is not a size: write a number and B, KB, MB, GB, TB or KiB … TiB"
        ) from None


def default_out(config: SampleConfig, years: str) -> Path:
    """`geofm-<region>-<years>` with the region as a file name."""
    stem = Path(config.region).stem if "/" in config.region else config.region
    slug = "".join(c if c.isalnum() else "-" for c in stem).strip("-").lower()[:40]
    return Path(f"geofm-{slug}-{years}")
