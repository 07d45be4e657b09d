"""What covariates cost: overview reads of one MGRS tile, and tiles per second with the memory of the main process.

    python tests/benchmarks/covariates.py [--worldcover TIF] [--synthetic DIR] [--tiles 200] [--workers 0 2]
        [--json FILE]

- overviews: land cover of all cells of one MGRS tile from a 10 m WorldCover COG of 36,000 × 36,000 pixels, over HTTP
  from a server on this machine that counts requests and bytes; beside it what full resolution would take
- scale: cells of `--tiles` tiles of 64 px (3,249 cells each) with a land-cover COG and monthly weather, made by
  `make_cells` in a fresh process per number of workers; peak memory is the main process's own

TIF is a real WorldCover tile; the synthetic one (patches of 8 × 8 pixels, written once into DIR) has no empty blocks.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import rasterio
import xarray as xr
from rasterio.enums import Resampling
from rasterio.shutil import copy as gdal_copy
from rasterio.windows import Window

from geofm_pipeline.card import Card
from geofm_pipeline.cells import owned_cells
from geofm_pipeline.cluster import open_runner
from geofm_pipeline.covariates.land_cover import tile_shares
from geofm_pipeline.progress import Progress
from geofm_pipeline.raster import RasterLevel, write_cog
from geofm_pipeline.region import parse_region
from geofm_pipeline.stages.cells import make_cells
from geofm_pipeline.stages.inputs import Inputs
from geofm_pipeline.workspace import Workspace
from geofm_pipeline.years import parse_years
from geofm_sampling import Design

EARTH = parse_region("-180,-84,180,84")
TILE = "32NKG"  # in the north of N00E006
WIDE = 36_000
CLASSES = np.array([10, 20, 30, 40, 50, 60, 80, 90], dtype=np.uint8)
Counter = Any


class _Counting(SimpleHTTPRequestHandler):
    """Serves files with ranges and counts what it sends."""

    protocol_version = "HTTP/1.1"
    requests: Synchronized[int]
    sent: Synchronized[int]

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        size, asked = path.stat().st_size, self.headers.get("Range", "")
        first, last = 0, size - 1
        if asked.startswith("bytes="):
            ends = asked[6:].split("-")
            first, last = int(ends[0]), min(int(ends[1]) if ends[1] else size - 1, size - 1)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        with path.open("rb") as stream:
            stream.seek(first)
            self.wfile.write(stream.read(last - first + 1))
        with self.requests.get_lock():
            self.requests.value += 1
            self.sent.value += last - first + 1

    do_HEAD = do_GET  # noqa: N815 - the name http.server asks for

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


def _serve(folder: str, port: Any, requests: Any, sent: Any) -> None:
    _Counting.requests, _Counting.sent = requests, sent
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Counting, directory=folder))
    port.value = server.server_address[1]
    server.serve_forever()


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, Counter, Counter]]:
    """Base URL of a server process (GDAL keeps Python waiting), with its counters of requests and bytes."""
    spawn = multiprocessing.get_context("spawn")
    port, requests, sent = spawn.Value(ctypes.c_int, 0), spawn.Value(ctypes.c_int, 0), spawn.Value(ctypes.c_int64, 0)
    process = spawn.Process(target=_serve, args=(str(folder), port, requests, sent), daemon=True)
    process.start()
    while port.value == 0:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port.value}", requests, sent
    finally:
        process.terminate()
        process.join()


def overview_reads(path: Path, chip_size: int) -> dict[str, Any]:
    """One tile's land cover over HTTP: requests, bytes, pixels read and seconds."""
    cells = owned_cells([TILE], EARTH, chip_size=chip_size).table
    pixels = 0
    plain = RasterLevel.read

    def counted(self: RasterLevel, *, row: int, col: int, height: int, width: int) -> Any:
        nonlocal pixels
        pixels += height * width
        return plain(self, row=row, col=col, height=height, width=width)

    RasterLevel.read = counted  # type: ignore[method-assign]
    try:
        with serving(path.parent) as (url, requests, sent):
            start = time.perf_counter()
            _, facts = tile_shares(cells, [f"{url}/{path.name}"], chip_size=chip_size)
            seconds = time.perf_counter() - start
            served = {"requests": requests.value, "bytes": sent.value}
    finally:
        RasterLevel.read = plain  # type: ignore[method-assign]
    whole = (cells.num_rows**0.5 * chip_size * 30 / 9.277) ** 2
    return {
        "file": path.name,
        "chip_size": chip_size,
        "cells": cells.num_rows,
        **served,
        "pixels": pixels,
        "pixel_m": round(facts.pixel_m, 1),
        "full_resolution_pixels": round(whole),
        "seconds": round(seconds, 3),
    }


def synthetic_map(folder: Path) -> Path:
    """A 3° COG of 36,000² pixels like WorldCover's, of patches; made once, about 2 minutes."""
    path = folder / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    draft, rng = folder / "draft.tif", np.random.default_rng(0)
    profile = {
        "driver": "GTiff", "height": WIDE, "width": WIDE, "count": 1, "dtype": "uint8", "crs": "EPSG:4326",
        "transform": rasterio.Affine(3 / WIDE, 0, 6.0, 0, -3 / WIDE, 3.0), "nodata": 0, "tiled": True,
        "blockxsize": 1024, "blockysize": 1024, "compress": "deflate",
    }  # fmt: skip
    with rasterio.open(draft, "w", **profile) as target:
        target.write_colormap(1, {int(code): (int(code), 100, 100) for code in CLASSES})
        for row in range(0, WIDE, 1024):
            height = min(1024, WIDE - row)
            patches = rng.choice(CLASSES, (-(-height // 8), WIDE // 8))
            band = np.kron(patches, np.ones((8, 8), np.uint8))[:height]
            target.write(band, 1, window=Window(0, row, WIDE, height))
        target.build_overviews([2, 4, 8, 16, 32, 64], Resampling.nearest)
    tiling = {"TILED": "YES", "BLOCKXSIZE": 1024, "BLOCKYSIZE": 1024}
    gdal_copy(draft, path, driver="GTiff", COPY_SRC_OVERVIEWS="YES", COMPRESS="DEFLATE", **tiling)
    draft.unlink()
    return path


def _scenes(tiles: list[str]) -> pa.Table:
    rows = [
        {"tile": tile, "time": datetime(2022, m, 3, tzinfo=UTC), "cloud_cover": 5.0 * m}
        for tile in tiles
        for m in (1, 7)
    ]
    schema = pa.schema([("tile", pa.string()), ("time", pa.timestamp("ms", tz="UTC")), ("cloud_cover", pa.float32())])
    return pa.Table.from_pylist(rows, schema=schema)


def _world(folder: Path) -> tuple[str, str]:
    """A 0.02° land-cover COG and a year of monthly 0.25° weather of the ground the tiles lie on."""
    rng = np.random.default_rng(2)
    pixels = np.kron(rng.choice(CLASSES, (300, 900)), np.ones((8, 8), np.uint8))
    write_cog(folder / "map.tif", pixels, epsg=4326, transform=(0.01, 0, -30.0, 0, -0.01, 26.0))
    lat, lon = np.arange(0, 28, 0.25), np.arange(-32, 44, 0.25)
    grid = rng.normal(20, 3, (12, lat.size, lon.size))
    values = {
        "t2m": (("time", "lat", "lon"), grid, {"units": "degC"}),
        "pr": (("time", "lat", "lon"), np.abs(grid), {"units": "mm/day"}),
    }
    time_axis = pd.date_range("2022-01-01", periods=12, freq="MS")
    xr.Dataset(values, {"time": time_axis, "lat": lat, "lon": lon}).to_netcdf(folder / "wx.nc", engine="h5netcdf")
    return str(folder / "map.tif"), str(folder / "wx.nc")


def _tiles(count: int) -> list[str]:
    """Tiles of zones 26 to 36 between 2 and 24° N."""
    columns = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
    rows = {"N": "CDEFGH", "P": "LMNPQR", "Q": "BCDEFG"}
    found = []
    for zone in range(26, 37):
        for band in "NPQ":
            letters = (
                rows[band]
                if zone % 2
                else rows[band].translate(str.maketrans("ABCDEFGHJKLMNPQRSTUV", "FGHJKLMNPQRSTUVABCDE"))
            )
            found += [f"{zone}{band}{col}{row}" for col in columns[(zone - 1) % 3][1:7] for row in letters]
    return found[:count]


def _peak_mb() -> float:
    """Peak resident memory of this very process; getrusage would give a parent's."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def scale(tiles: int, workers: int, folder: str, result: Any) -> None:
    """Cells of many tiles in a process of its own."""
    sources = (f"{folder}/map.tif", f"{folder}/wx.nc")
    inputs = Inputs(region=EARTH, years=parse_years(2022), catalog="none", land_cover=sources[0], weather=sources[1])
    design = Design(samples=10, years=(2022,), chip_size=64, timesteps=2)
    with tempfile.TemporaryDirectory() as scratch:
        space = Workspace(root=Path(scratch))
        space.work.mkdir(parents=True)
        scenes = _scenes(_tiles(tiles))
        before = _peak_mb()
        with open_runner(workers=workers, scheduler=None, scratch=Path(scratch) / "dask") as runner:
            start = time.perf_counter()
            cells = make_cells(space, inputs, design, scenes, runner, Progress(io.StringIO()), Card(space.card))
            seconds = time.perf_counter() - start
        peak = _peak_mb()
        disk = sum(file.stat().st_size for file in (space.work / "cells").glob("*.parquet")) / 1e6
        start = time.perf_counter()
        make_cells(space, inputs, design, scenes, None, Progress(io.StringIO()), Card(space.card))
        again = time.perf_counter() - start
    result.update(
        workers=workers, tiles=tiles, cells=cells.num_rows, columns=cells.num_columns, seconds=round(seconds, 1),
        cells_per_s=round(cells.num_rows / seconds), again_s=round(again, 1), table_mb=round(cells.nbytes / 1e6),
        disk_mb=round(disk), rss_before_mb=round(before), rss_peak_mb=round(peak),
    )  # fmt: skip


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worldcover", type=Path)
    parser.add_argument("--synthetic", type=Path)
    parser.add_argument("--tiles", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 2])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    maps = [path for path in (options.worldcover,) if path]
    maps += [synthetic_map(options.synthetic)] if options.synthetic else []
    found: dict[str, Any] = {
        "overviews": [overview_reads(path, size) for path in maps for size in (256, 64)],
        "scale": [],
    }
    with tempfile.TemporaryDirectory() as folder, multiprocessing.Manager() as manager:
        _world(Path(folder))
        for workers in options.workers:
            result = manager.dict()
            process = multiprocessing.get_context("spawn").Process(
                target=scale, args=(options.tiles, workers, folder, result)
            )
            process.start()
            process.join()
            found["scale"].append(dict(result))
    for rows in found.values():
        if rows:
            print(pd.DataFrame(rows).to_string(index=False), end="\n\n")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
