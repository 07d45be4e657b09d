"""Seconds and peak memory of a SceneTable of a million granules from STAC GeoParquet by month.

Makes an archive as NASA's is laid out, both collections, with realistic hrefs of all assets (about 0.2 GB in a
temporary folder), and searches it in a fresh process bound to one core. Run: `python tests/benchmarks/scene_table.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely

_KEYS = {
    "L30": [f"B{n:02d}" for n in (1, 2, 3, 4, 5, 6, 7, 9, 10, 11)],
    "S30": [*(f"B{n:02d}" for n in range(1, 13)), "B8A"],
}
_MORE = ["Fmask", "SZA", "SAA", "VZA", "VAA"]
_ROOT = "https://data.lpdaac.earthdatacloud.nasa.gov/lp-prod-protected/HLS{sensor}.020/{id}/{id}.{key}.tif"
_YEAR = 2021


def _tiles(rng: np.random.Generator, count: int) -> list[str]:
    """Ids of tiles that exist, as many as there are on land: columns repeat by zone, rows are taken as they come."""
    columns = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
    zones, bands = rng.integers(1, 61, count), rng.integers(0, 20, count)
    letters = rng.integers(0, 8, count), rng.integers(0, 20, count)
    return [
        f"{zone:02d}{'CDEFGHJKLMNPQRSTUVWX'[band]}{columns[(zone - 1) % 3][column]}{'ABCDEFGHJKLMNPQRSTUV'[row]}"
        for zone, band, column, row in zip(zones, bands, *letters, strict=True)
    ]


def _month_table(sensor: str, month: int, count: int, known: list[str], rng: np.random.Generator) -> pa.Table:
    start = datetime(_YEAR, month, 1, tzinfo=UTC)
    seconds = rng.choice(28 * 86_400, count, replace=False)
    times = [start + timedelta(seconds=int(second)) for second in seconds]
    tiles = sorted(rng.choice(known, count).tolist())
    ids = [f"HLS.{sensor}.T{tile}.{time:%Y%jT%H%M%S}.v2.0" for tile, time in zip(tiles, times, strict=True)]
    west = rng.uniform(-178, 176, count)
    south = rng.uniform(-60, 70, count)
    corners = np.stack([west, south, west + 1.3, south + 0.1, west + 1.4, south + 1, west + 0.1, south + 0.9], axis=1)
    rings = corners.reshape(count, 4, 2)[:, [0, 1, 2, 3, 0]]
    geometry = shapely.to_wkb(shapely.polygons(np.round(rings, 7)))
    edges = [west, south, west + 1.4, south + 1]
    assets = []
    for key in (keys := [*_KEYS[sensor], *_MORE]):
        hrefs = pa.array([_ROOT.format(sensor=sensor, id=name, key=key) for name in ids])
        kind = pa.array(["image/tiff"] * count)
        assets.append(pa.StructArray.from_arrays([hrefs, kind], names=["href", "type"]))
    return pa.table(
        {
            "id": ids,
            "datetime": pa.array(times, pa.timestamp("ms", tz="UTC")),
            "eo:cloud_cover": pa.array(rng.integers(0, 101, count)),
            "bbox": pa.StructArray.from_arrays(
                [pa.array(edge) for edge in edges], names=["xmin", "ymin", "xmax", "ymax"]
            ),
            "geometry": pa.array(geometry, pa.binary()),
            "assets": pa.StructArray.from_arrays(assets, names=keys),
        }
    )


def make(folder: Path, count: int) -> None:
    """Write `count` items as 24 monthly files."""
    rng = np.random.default_rng(0)
    sizes = np.diff(np.linspace(0, count, 25).astype(int))
    known = _tiles(rng, 20_000)
    parts = [(sensor, month) for sensor in ("L30", "S30") for month in range(1, 13)]
    for (sensor, month), size in zip(parts, sizes, strict=True):
        name = f"HLS{sensor}_2.0"
        file = folder / name / f"year={_YEAR}" / f"month={month}" / f"{name}-{_YEAR}-{month}.parquet"
        file.parent.mkdir(parents=True)
        table = _month_table(sensor, month, int(size), known, rng)
        pq.write_table(table, file, compression="zstd", compression_level=15, row_group_size=150_000)


def search(folder: str) -> dict[str, float]:
    """Seconds of a search of everything, and memory of this process before it, at its peak and of the table."""
    from geofm_pipeline.catalogs import find_scenes
    from geofm_pipeline.region import parse_region
    from geofm_pipeline.years import parse_years

    before = _peak_mb()
    start = time.perf_counter()
    table = find_scenes(folder, parse_region("-180,-90,180,90"), parse_years(_YEAR))
    return {
        "granules": table.num_rows,
        "seconds": time.perf_counter() - start,
        "before_mb": before,
        "peak_mb": _peak_mb(),
        "table_mb": table.nbytes / 1e6,
    }


def _peak_mb() -> float:
    """Peak resident memory; getrusage's would include that of the parent process before exec."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def main() -> None:
    """Make the archive, search it in fresh processes, print what they cost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--archive", help="a folder made before, or to be made")
    parser.add_argument("--search", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.search:
        print(json.dumps(search(options.search)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(options.archive or scratch) / "archive"
        if not folder.exists():
            make(folder, options.items)
        size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
        print(f"{options.items:,} items in 24 monthly files, {size / 1e6:,.0f} MB")
        core = min(os.sched_getaffinity(0))
        for _ in range(options.runs):
            line = ["taskset", "-c", str(core), sys.executable, __file__, "--search", str(folder)]
            found = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
            print("  ".join(f"{name} {value:,.1f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
