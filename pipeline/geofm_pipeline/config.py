"""One run is one complete configuration: the options of the main job, validated once, with their digest."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from geofm_pipeline.access.services import load_services
from geofm_pipeline.access.settings import Access
from geofm_pipeline.addresses import scrubbed
from geofm_pipeline.errors import InputError
from geofm_pipeline.years import parse_years
from geofm_sampling.unit import CHIP_SIZES

RAKED = ("land_cover", "climate", "season", "year", "tile")
"""Margins that weights can be raked to: columns of the frame."""
DEFAULT_SAMPLES = 1024
_MACHINE = frozenset(
    {"out", "workers", "scheduler", "max_bytes", "dry_run", "extend"}
    | {"access", "in_flight", "requests_per_second", "timeout", "attempts", "services", "refresh"}
)
"""Options that decide how a run works, and nothing of what it writes."""


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
    """auto (default), geoparquet, cmr, cmr-stac, planetary-computer, a STAC API URL, or a catalogue (path or URL)."""
    land_cover: str | None = None
    """worldcover (default with NASA's catalogues), io-lulc, none, or a raster, folder, NetCDF or Zarr (path or URL)."""
    land_cover_legend: Literal["worldcover", "io-lulc", "none"] | None = None
    """Legend of the land-cover map where it cannot be told; none names classes by their codes."""
    weather: str | None = None
    """terraclimate (default with NASA's catalogues), arco-era5, era5-land, none, or NetCDF or Zarr (path or URL)."""
    strata: str = "land_cover,climate,season"
    """Factors of the strata, with commas; FILE:ATTRIBUTE adds a vector layer (e.g. ecoregions.json:BIOME_NAME)."""
    samples: int | None = None
    """Chips to draw, 1024 by default; capped at what is observable. With --extend: chips of all waves together."""
    budget: str | None = None
    """Instead of --samples: as many chips as can be read and written with this many bytes each way, e.g. 200GB."""
    extend: bool = False
    """Add a wave to a finished dataset: more --samples, or more years or ground. Nothing written changes."""
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
    heldout: float | None = None
    """Share of ground blocks held out for evaluation, 0 to 0.5; default 0.1 where the region has 20 blocks, else 0."""
    heldout_samples: int | None = None
    """Chips to draw from held-out blocks besides --samples; default the same share of --samples."""
    block_km: float = 100.0
    """Edge of a split block in kilometres."""
    buffer_km: float = 5.0
    """Least distance between the footprints of a training and a held-out chip, kilometres."""
    allocation: Literal["power", "proportional", "equal", "neyman"] = "power"
    """How samples are shared out among strata: by size to the power, proportionally, equally, or size × spread."""
    power: float = 0.5
    """Exponent of the power allocation: 1 proportional, 0 equal."""
    floor: int = 10
    """Chips that every stratum should get."""
    cost_aware: bool = False
    """Fewer chips where many looks are needed for one; works against cloudy places."""
    information: bool = True
    """Read one spectral overview per observable unit, so that what brings nothing new gets a lower probability."""
    entropy: float = 0.0
    """Exponent of spectral entropy in a unit's chance; 0 leaves it out (docs/evidence/coverage.md)."""
    novelty: float = 1.0
    """Exponent of novelty against existing data in a unit's chance."""
    existing: str | None = None
    """Other dataset folders, with commas, whose samples make like units less novel."""
    draw: Literal["local", "pivotal", "systematic", "random", "pareto"] = "local"
    """How the second phase draws: units that look or lie alike seldom together (local), along a curve (pivotal) …"""
    joint_dates: bool = False
    """Units of a tile choose dates together and share granules: fewer reads, the same probabilities per unit."""
    trim: float | None = None
    """Cap weights at this multiple of their stratum's median; default no trimming."""
    rake: str | None = None
    """Adjust weights to known totals of these, with commas: land_cover, climate, season, year, tile."""
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
    access: Literal["auto", "https", "s3"] = "auto"
    """How NASA's protected files are read: https with the login's token, s3 with temporary keys, auto by the region."""
    in_flight: int = Access.in_flight
    """Requests at once per worker process, for archives behind a network."""
    requests_per_second: float = Access.requests_per_second
    """Most requests per second to one host, of all workers together."""
    timeout: float = Access.timeout_s
    """Seconds after which a request without a whole answer is given up and tried again."""
    attempts: int = Access.attempts
    """Tries per request; waits between them double, about four minutes in all for ten."""
    services: Path | None = None
    """YAML file with addresses of services in place of the built-in ones (docs/access.md)."""
    refresh: bool = False
    """Search the catalogue again instead of using what an equal search found before."""
    max_bytes: str | None = None
    """Refuse to start if more than this would be read or written, e.g. 200GB."""
    dry_run: bool = False
    """Stop after the plan: print units, requests, bytes and memory; read no archive raster."""

    def __post_init__(self) -> None:
        gaps = f"--min-gap {self.min_gap} and --max-gap {self.max_gap}"
        rules = (
            (self.samples is None or self.samples >= 1, f"--samples {self.samples} must be at least 1"),
            (
                self.samples is None or self.budget is None,
                "--samples and --budget exclude each other: a budget decides how many samples there are",
            ),
            (
                not self.extend or self.samples is not None,
                "--extend needs --samples: how many chips all waves together shall have",
            ),
            (1 <= self.timesteps <= 64, f"--timesteps {self.timesteps} must lie in 1 to 64"),
            (1 <= self.min_gap <= self.max_gap <= 3660, f"{gaps} must satisfy 1 ≤ min ≤ max ≤ 3660 days"),
            (self.chip_size in CHIP_SIZES, f"--chip-size {self.chip_size} must be one of {CHIP_SIZES} pixels"),
            (0 < self.min_clear <= 1, f"--min-clear {self.min_clear} must be a share above 0 and up to 1"),
            *self._design_rules(),
            *self._access_rules(),
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
        parse_bytes(self.max_bytes, option="--max-bytes")
        parse_bytes(self.budget, option="--budget")

    def _access_rules(self) -> tuple[tuple[bool, str], ...]:
        return (
            (1 <= self.in_flight <= 1024, f"--in-flight {self.in_flight} must lie in 1 to 1024"),
            (
                0 < self.requests_per_second <= 100_000,
                f"--requests-per-second {self.requests_per_second} must lie above 0 and up to 100,000",
            ),
            (0 < self.timeout <= 3600, f"--timeout {self.timeout} must lie above 0 and up to 3600 seconds"),
            (1 <= self.attempts <= 100, f"--attempts {self.attempts} must lie in 1 to 100"),
        )

    def _design_rules(self) -> tuple[tuple[bool, str], ...]:
        unknown = [word for word in self.raked if word not in RAKED]
        return (
            (
                self.heldout is None or 0 <= self.heldout <= 0.5,
                f"--heldout {self.heldout} must be a share from 0 to 0.5",
            ),
            (
                self.heldout_samples is None or self.heldout_samples >= 0,
                f"--heldout-samples {self.heldout_samples} must be at least 0",
            ),
            (1 <= self.block_km <= 2000, f"--block-km {self.block_km} must lie in 1 to 2000"),
            (0 <= self.buffer_km <= 500, f"--buffer-km {self.buffer_km} must lie in 0 to 500"),
            (0 <= self.power <= 1, f"--power {self.power} must lie in 0 (equal) to 1 (proportional)"),
            (self.floor >= 0, f"--floor {self.floor} must be at least 0"),
            (0 <= self.entropy <= 4, f"--entropy {self.entropy} must lie in 0 to 4"),
            (0 <= self.novelty <= 4, f"--novelty {self.novelty} must lie in 0 to 4"),
            (
                self.allocation != "neyman" or self.information,
                "--allocation neyman needs the information that --information false leaves out",
            ),
            (bool(self.factors), "--strata names no factor: name some of land_cover, climate, season"),
            (
                len(set(self.factors)) == len(self.factors),
                f"--strata {self.strata} names a factor twice: each may stand there once",
            ),
            (self.trim is None or self.trim >= 1, f"--trim {self.trim} must be at least 1, e.g. 5"),
            (not unknown, f"--rake {self.rake}: {', '.join(unknown)} is none of {', '.join(RAKED)}"),
        )

    @property
    def raked(self) -> tuple[str, ...]:
        """Margins to rake to."""
        return tuple(word.strip() for word in (self.rake or "").split(",") if word.strip())

    @property
    def factors(self) -> tuple[str, ...]:
        """Factors of the strata, as given."""
        return tuple(word.strip() for word in self.strata.split(",") if word.strip())

    def design_fields(self) -> dict[str, object]:
        """The options that decide what is in the store; the machine's options are left out.

        Addresses stand without user, password and query, which may be secret, and may be signed anew each day.
        """
        fields = {name: scrubbed(value) for name, value in asdict(self).items() if name not in _MACHINE}
        return {**fields, "years": str(parse_years(self.years))}

    def reach(self) -> Access:
        """How archives are reached; raises InputError when --services is wrong."""
        return Access(
            services=load_services(self.services),
            route=self.access,
            in_flight=self.in_flight,
            requests_per_second=self.requests_per_second,
            timeout_s=self.timeout,
            attempts=self.attempts,
        )

    @property
    def processes(self) -> int:
        """Processes that work on this machine: the option, else one per core; 1 inside this process."""
        return max(1, os.cpu_count() or 1) if self.workers is None else max(1, self.workers)

    def digest(self) -> str:
        """sha256 of the design fields: two runs with equal digests continue each other."""
        return hashlib.sha256(json.dumps(self.design_fields(), sort_keys=True, default=str).encode()).hexdigest()


_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_bytes(text: str | None, *, option: str = "--max-bytes") -> int | None:
    """Bytes of `200GB`, `1.5 TiB` or `1000`; None stays None."""
    if text is None:
        return None
    number = text.strip().rstrip("BbKkMmGgTtIi").strip()
    unit = text.strip()[len(number) :].strip().upper()
    try:
        size = round(float(number) * {**_UNITS, "TIB": 2**40}[unit])
        if size <= 0:
            raise ValueError(size)
        return size
    except (ValueError, KeyError, OverflowError):
        raise InputError(
            f"{option} {text!r} is not a size: write a number above 0 and B, KB, MB, GB, TB or KiB … TiB"
        ) from None


def default_out(config: SampleConfig, years: str) -> Path:
    """`geofm-<region>-<years>` with the region as a file name."""
    stem = Path(config.region).stem if "/" in config.region else config.region
    slug = "".join(c if c.isalnum() else "-" for c in stem).strip("-").lower()[:40]
    return Path(f"geofm-{slug}-{years}")
