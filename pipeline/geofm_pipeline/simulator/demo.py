"""The two archives with a name: the demo, small enough for any machine, and the benchmark with whole tiles."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from geofm_pipeline.simulator.archive import Archive, Progress, build_archive
from geofm_pipeline.simulator.spec import ArchiveSpec, Extent, resolve_faults
from geofm_pipeline.user_cache import user_cache

DEMO_REGION = (9.49, 45.91, 10.00, 46.20)
"""(west, south, east, north) in degrees: what `--region demo` stands for."""
DEMO_YEARS = (2022, 2023)


def demo_spec() -> ArchiveSpec:
    """Two neighbouring tiles where mountains with snow meet farmland, seven passes in each of two years."""
    return ArchiveSpec(
        tiles=("32TNS", "32TNR"),
        years=DEMO_YEARS,
        seed=119,
        extents={
            "32TNS": Extent(row=2816, col=1280, height=576, width=1280),
            "32TNR": Extent(row=0, col=1280, height=512, width=1280),
        },
        per_year=7,
        choices=5,
    )


def benchmark_spec() -> ArchiveSpec:
    """Two whole tiles and eight passes of one year: every one of their 2 × 196 blocks holds data."""
    return ArchiveSpec(tiles=("32TNS", "32TNR"), years=(2022,), seed=1, per_year=8, choices=4, least_share=1.0)


def demo_archive(cache: Path | None = None, *, progress: Progress | None = None, workers: int = 1) -> Archive:
    """The demo archive, built at the first call and found in `cache` (default: the user's cache folder) afterwards."""
    spec = demo_spec()
    digest = hashlib.sha256(f"{spec.to_json()}".encode()).hexdigest()[:12]
    return build_archive(spec, (cache or user_cache()) / f"demo-{digest}", progress=progress, workers=workers)


def simulate(
    out: Path,
    *,
    tiles: Sequence[str],
    years: Sequence[int],
    seed: int = 0,
    faults: Sequence[str] = (),
    extent: tuple[int, int, int, int] | None = None,
    per_year: int | None = None,
    tile_offset: int = 0,
    workers: int = 1,
    progress: Progress | None = None,
) -> Archive:
    """Build an archive in folder `out`: the library side of `geofm-sample simulate`.

    `extent` is (row, col, height, width) in pixels, for every tile; `per_year` thins the revisit; faults by name, or
    `all`. Raises InputError naming what is wrong.
    """
    part = None if extent is None else Extent(row=extent[0], col=extent[1], height=extent[2], width=extent[3])
    spec = ArchiveSpec(
        tiles=tuple(tiles),
        years=tuple(sorted(years)),
        seed=seed,
        extents={} if part is None else dict.fromkeys(tiles, part),
        per_year=per_year,
        choices=1,
        tile_offset=tile_offset,
        faults=resolve_faults(faults),
    )
    return build_archive(spec, out, progress=progress, workers=workers)
