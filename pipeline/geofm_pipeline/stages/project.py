"""The projection: what a run will ask of the archive, the disk and the machine, from the plan alone.

Sizes are those of real HLS v2.0 granules, so the simulated archive, whose files are smaller, costs less than projected.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from numpy.typing import NDArray

from geofm_pipeline.access.local import is_local
from geofm_pipeline.config import SampleConfig, parse_bytes
from geofm_pipeline.errors import ResourceError
from geofm_pipeline.hls.bands import BANDS, BLOCK
from geofm_pipeline.progress import duration, human_bytes
from geofm_pipeline.scenes import sensing_days
from geofm_sampling import plan_record
from geofm_sampling.unit import unpack_units

FMASK_FILE_BYTES = 1_500_000
"""Fmask files of full tiles measure 1 to 2 MB."""
BLOCK_BYTES = 90_000
"""A 256-px int16 block after DEFLATE: 196 of them and overviews make the usual 15 to 25 MB of a band."""
FMASK_BLOCK_BYTES = 8_000
HEADER_BYTES = 16_384
OVERVIEW_BYTES = 90_000
"""Overview blocks per looked-at unit of a spread sample, six bands and Fmask (docs/performance.md)."""
REQUESTS_PER_BLOCK = 1.25
"""Opens and repeats included, for a spread sample (docs/performance.md)."""
OVERVIEW_REQUESTS = 14
"""Per looked-at unit of a spread sample: a header and a read of each of seven files."""
STORED_RATIO = 1.5
"""zstd-1 with bitshuffle on real reflectances."""
CHIPS_PER_SECOND = 60.0
"""One core, local files, four dates of 256 px, to committed shards (docs/performance.md); over a network the host's
rate limit decides."""
GRANULES_PER_SECOND = 18.0
"""One core screening Fmask files from a local disk (docs/performance.md)."""
WORKER_BYTES = 700_000_000
"""Python, libraries and buffers of one worker, without chips."""


@dataclass(frozen=True, kw_only=True)
class Projection:
    """What the run will need, at most."""

    units: int
    """Units of the frame."""
    first_look: int
    """Units looked at first; more where too few are observable."""
    granules_to_screen: int
    """Granules within reach of the first look."""
    screening_bytes: int
    overview_bytes: int
    """Overviews of the units looked at."""
    block_requests: int
    """Range requests for blocks of the drawn chips."""
    read_bytes: int
    """Blocks, headers and screening."""
    write_bytes: int
    """Size of the store."""
    memory_bytes: int
    """Of one worker."""
    seconds: float
    """Rough time on this machine's workers; behind a network at least what the limit of requests takes."""
    paced: float | None
    """Requests per second that an archive behind a network is asked at most, None for a local one."""

    def as_dict(self) -> dict[str, int | float | None]:
        """Plain values for card.json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Sentences, the largest demand first."""
        demands = sorted(
            [
                (
                    self.read_bytes - self.screening_bytes - self.overview_bytes,
                    f"{self.block_requests:,} block requests for pixels",
                ),
                (self.overview_bytes, f"for overviews of {self.first_look:,} units"),
                (self.screening_bytes, f"{self.granules_to_screen:,} Fmask files for screening"),
                (self.write_bytes, "to write"),
            ],
            reverse=True,
        )
        return [
            f"{self.units:,} units framed, {self.first_look:,} in the first look",
            *[f"{human_bytes(size)}: {what}" for size, what in demands if size],
            f"{human_bytes(self.memory_bytes)} of memory per worker, about {duration(self.seconds)} {self._where()}",
        ]

    def _where(self) -> str:
        return "on local files" if self.paced is None else f"if the archive bears {self.paced:g} requests per second"


def project(frame: pa.Table, plan: pa.Table, scenes: pa.Table, config: SampleConfig) -> Projection:
    """Projection of a plan's first look over its frame and of a full draw."""
    design = plan_record(plan).design
    first = np.asarray(plan["first_look"].to_numpy(zero_copy_only=False))
    units = plan["unit"].to_numpy()[first]
    granules = _granules_in_reach(frame, units, scenes, config)
    chips = min(design.samples + design.heldout_samples, int(first.sum()))
    dates = chips * config.timesteps
    blocks = dates * (len(BANDS) + 1)
    fill = config.chip_size**2 / BLOCK**2
    screening = granules * FMASK_FILE_BYTES
    overviews = int(first.sum()) * OVERVIEW_BYTES if design.information else 0
    pixels = dates * (len(BANDS) * BLOCK_BYTES + FMASK_BLOCK_BYTES + (len(BANDS) + 1) * HEADER_BYTES // 8)
    workers = config.processes
    chip_bytes = config.timesteps * (2 * len(BANDS) + 1) * config.chip_size**2
    work = chips * config.timesteps / 4 * max(fill, 0.1) / CHIPS_PER_SECOND + granules / GRANULES_PER_SECOND
    looks = int(first.sum()) if design.information else 0
    requests = round(blocks * REQUESTS_PER_BLOCK) + granules + looks * OVERVIEW_REQUESTS
    local = all(is_local(href) for href in scenes["href_template"].unique().to_pylist())
    paced = None if local else config.requests_per_second
    return Projection(
        units=frame.num_rows,
        first_look=int(first.sum()),
        granules_to_screen=granules,
        screening_bytes=screening,
        overview_bytes=overviews,
        block_requests=blocks,
        read_bytes=pixels + screening + overviews,
        write_bytes=round(chips * chip_bytes / STORED_RATIO),
        memory_bytes=WORKER_BYTES + 16 * chip_bytes,
        seconds=round(max(work / workers, 0.0 if paced is None else requests / paced), 1),
        paced=paced,
    )


def _granules_in_reach(frame: pa.Table, units: NDArray[np.uint64], scenes: pa.Table, config: SampleConfig) -> int:
    """Granules that some first-look unit of their tile may use, between its season and the farthest later date."""
    at = np.searchsorted(frame["unit"].to_numpy(), units)
    start = frame["season_start"].to_numpy()[at]
    end = frame["season_end"].to_numpy()[at] + (config.timesteps - 1) * config.max_gap
    windows = sorted(set(zip(unpack_units(units).tile.tolist(), start.tolist(), end.tolist(), strict=True)))
    days = sensing_days(scenes)
    tiles = scenes["tile"].to_numpy(zero_copy_only=False).astype("U5")
    used = np.zeros(len(days), dtype=bool)
    order = np.argsort(tiles, kind="stable")
    lows, highs = (np.searchsorted(tiles[order], [w[0] for w in windows], side) for side in ("left", "right"))
    for (_, first_day, last_day), low, high in zip(windows, lows, highs, strict=True):
        rows = order[low:high]
        used[rows] |= (days[rows] >= first_day) & (days[rows] <= last_day)
    return int(used.sum())


def refuse_too_much(projection: Projection, config: SampleConfig, out: Path) -> None:
    """Refuse before spending, the worst demand first.

    Raises
    ------
    ResourceError
        When the projection exceeds --max-bytes, the free disk or the memory of this machine.
    """
    remedy = "lower --samples, --timesteps or --chip-size"
    limit, most = parse_bytes(config.max_bytes), max(projection.read_bytes, projection.write_bytes)
    if limit is not None and most > limit:
        raise ResourceError(
            f"the run would read {human_bytes(projection.read_bytes)} and write "
            f"{human_bytes(projection.write_bytes)}, more than --max-bytes {config.max_bytes}; {remedy}, or raise it"
        )
    free = shutil.disk_usage(out).free
    still = projection.write_bytes - sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    if still > free:
        raise ResourceError(
            f"the run would write {human_bytes(still)} more, {out} has {human_bytes(free)} free; "
            f"{remedy}, or name an --out with more room"
        )
    workers, memory = config.processes, psutil.virtual_memory().total
    if config.scheduler is None and projection.memory_bytes * workers > memory:
        raise ResourceError(
            f"{workers} workers of {human_bytes(projection.memory_bytes)} exceed the machine's {human_bytes(memory)} "
            f"of memory; lower --workers to {max(0, int(memory // projection.memory_bytes))}"
        )
