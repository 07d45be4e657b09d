"""From COGs to chips and to a store, beside the raw limit and beside the peers.

    python tests/benchmarks/extraction.py [--archive DIR] [--chips 48] [--rounds 3] [--peer-python PY] [--json FILE]

All do the same job on the same core: T = 4 dates × 7 files × 256-px chips of one whole tile of the simulator's
benchmark archive (built into DIR if it is not there), checked by one checksum over all pixels. Processes are fresh
and interleaved; figures are medians. chips/s per core are chips per CPU second, which other load disturbs least.
PY is a Python with rasterio, stackstac and odc-stac; without it the peers that this Python lacks are left out.

- `raw decode`: inflate and un-predict of the very blocks from memory; `raw limit`: and their store encoding
- `chips`: our reader; `end to end`: reader and store writer, to committed shards. Target: ≥ 0.6 of the raw limit
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from extraction_peers import PEERS, Pixels, finish, measure, one_core  # noqa: E402  # a script beside this one

from geofm_pipeline.access.source import ArchiveSource  # noqa: E402
from geofm_pipeline.chips import Chip, ChipRequest, ReadStats  # noqa: E402
from geofm_pipeline.cog import BlockChipReader  # noqa: E402
from geofm_pipeline.cog.band import open_band  # noqa: E402
from geofm_pipeline.cog.blocks import decode_block  # noqa: E402
from geofm_pipeline.cube import tile_cube  # noqa: E402
from geofm_pipeline.hls.bands import BANDS, BLOCK, FMASK, band_file  # noqa: E402
from geofm_pipeline.hls.granule import GranuleId  # noqa: E402
from geofm_pipeline.hls.grid import tile_grid, unproject  # noqa: E402
from geofm_pipeline.scenes import SceneRef  # noqa: E402
from geofm_pipeline.store import RowRequest, StoreSpec, create, write_group  # noqa: E402
from geofm_pipeline.store.codec import ChunkEncoder, prepare  # noqa: E402
from geofm_pipeline.store.layout import fmask_layout, image_layout  # noqa: E402

TIMESTEPS = 4
WHOLE_BLOCKS = 14
THREADS = 2


def make_job(archive: Path, chips: int) -> dict[str, Any]:
    """The job as plain JSON: chips spread evenly over the whole blocks of one tile, its first four granules."""
    tile = sorted({path.name.split(".")[2] for path in archive.glob("HLS.*")})[0][1:]
    granules = sorted(archive.glob(f"HLS.*.T{tile}.*"), key=lambda path: path.name.split(".")[3])[:TIMESTEPS]
    grid = tile_grid(tile)
    x, y = np.array([grid.bounds[0], grid.bounds[2]]), np.array([grid.bounds[1], grid.bounds[3]])
    lon, lat = unproject(grid.zone, x, y)
    numbers = np.unique(np.linspace(0, WHOLE_BLOCKS**2 - 1, chips).astype(int))
    return {
        "size": BLOCK,
        "tile": tile,
        "epsg": grid.epsg,
        "bounds": list(grid.bounds),
        "lonlat": [float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())],
        "chips": [[int(n) // WHOLE_BLOCKS * BLOCK, int(n) % WHOLE_BLOCKS * BLOCK] for n in numbers],
        "scenes": [scene_record(folder) for folder in granules],
    }


def scene_record(folder: Path) -> dict[str, Any]:
    granule = GranuleId.parse(folder.name)

    def href(band: str) -> str:
        return str(folder / f"{folder.name}.{band_file(granule.sensor, band)}.tif")

    return {
        "id": folder.name,
        "time": granule.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "bands": [href(band) for band in BANDS],
        "fmask": href(FMASK),
    }


def requests_of(job: dict[str, Any]) -> list[ChipRequest]:
    """The job as the reader takes it."""
    granules = [GranuleId.parse(scene["id"]) for scene in job["scenes"]]
    scenes = tuple(
        SceneRef(
            granule_id=scene["id"],
            sensor=granule.sensor,
            date=granule.day,
            bands=tuple(scene["bands"]),
            fmask=scene["fmask"],
        )
        for scene, granule in zip(job["scenes"], granules, strict=True)
    )
    return [
        ChipRequest(unit=i, tile=job["tile"], row_off=row, col_off=col, size=job["size"], scenes=scenes)
        for i, (row, col) in enumerate(job["chips"])
    ]


def our_chips(job: dict[str, Any]) -> Iterator[Pixels]:
    for chip in BlockChipReader(threads=THREADS).read(requests_of(job)):
        assert isinstance(chip, Chip)
        yield chip.image, chip.fmask


def our_cube(job: dict[str, Any]) -> Iterator[Pixels]:
    import dask

    dask.config.set(scheduler="sync")
    scenes = requests_of(job)[0].scenes
    bands, fmask = tile_cube(scenes), tile_cube(scenes, bands=[FMASK])
    for row, col in job["chips"]:
        window = np.s_[..., row : row + BLOCK, col : col + BLOCK]
        yield bands[window].values, fmask[window].values[:, 0]


def raw_blocks(job: dict[str, Any]) -> list[list[tuple[bytes, Any]]]:
    """Compressed bytes and header of every block of every chip, in memory."""
    source, stats = ArchiveSource(), ReadStats()
    requests = requests_of(job)
    keys = [(scene, band) for scene in requests[0].scenes for band in (*BANDS, FMASK)]
    files = [open_band(source, scene, band, stats) for scene, band in keys]
    blocks = []
    for request in requests:
        spans = [file.header.span(request.row_off // BLOCK, request.col_off // BLOCK) for file in files]
        assert all(length for _, length in spans), "the archive must hold whole tiles"
        blocks.append([(source.read(f.href, *span), f.header) for f, span in zip(files, spans, strict=True)])
    return blocks


def raw_decode(blocks: list[list[tuple[bytes, Any]]]) -> Iterator[Pixels]:
    """Decode into one slab, again and again: no file, no thread, no allocation."""
    image = np.empty((TIMESTEPS, len(BANDS), BLOCK, BLOCK), dtype=np.int16)
    fmask = np.empty((TIMESTEPS, BLOCK, BLOCK), dtype=np.uint8)
    targets = [out for t in range(TIMESTEPS) for out in (*image[t], fmask[t])]
    for chip in blocks:
        for (data, header), out in zip(chip, targets, strict=True):
            decode_block(data, header, out)
        yield image, fmask


def raw_encode(blocks: list[list[tuple[bytes, Any]]], spec: StoreSpec) -> dict[str, float]:
    """Decode and encode as the store does."""
    prepare()
    encoders = ChunkEncoder(image_layout(spec)), ChunkEncoder(fmask_layout(spec))
    wall, cpu, checksum = time.perf_counter(), time.process_time(), 0
    for image, fmask in raw_decode(blocks):
        for encoder, pixels in zip(encoders, (image, fmask), strict=True):
            chunk = encoder.encode(pixels)
            checksum += chunk.crc32c if chunk else 0
    return finish(wall, cpu, checksum)


def end_to_end(job: dict[str, Any], spec: StoreSpec) -> dict[str, float]:
    """Read and write one group to committed shards; only the store's making is not timed."""
    rows = [RowRequest(index=i, chip=request) for i, request in enumerate(requests_of(job))]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        create(out / "store.zarr", spec)
        wall, cpu = time.perf_counter(), time.process_time()
        write_group(out / "store.zarr", spec, out / "parts", 0, rows, BlockChipReader(threads=THREADS))
        return finish(wall, cpu, 0)


def run_ours(name: str, job: dict[str, Any]) -> dict[str, float]:
    """One contender in this process."""
    spec = StoreSpec(n=len(job["chips"]), timesteps=TIMESTEPS, height=BLOCK, width=BLOCK, seed=0)
    if name == "end to end":
        return end_to_end(job, spec)
    if name == "raw limit":
        return raw_encode(raw_blocks(job), spec)
    chips = {"raw decode": lambda: raw_decode(raw_blocks(job)), "chips": lambda: our_chips(job)}
    return measure({**chips, "our cube": lambda: our_cube(job)}[name]())


OURS = ("raw decode", "raw limit", "chips", "end to end", "our cube")


def run_fresh(name: str, job_file: Path, peer_python: str) -> dict[str, float] | None:
    """One contender in a process of its own; None where its packages are missing."""
    ours = name in OURS
    command = [sys.executable, str(HERE / "extraction.py"), "--only"] if ours else [peer_python]
    script = [name, str(job_file)] if ours else [str(HERE / "extraction_peers.py"), name, str(job_file)]
    done = subprocess.run([*command, *script], capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr and not ours:
        return None
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    record: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return record


def compare(job: dict[str, Any], rounds: int, peer_python: str) -> dict[str, dict[str, float]]:
    """Medians by contender, in interleaved rounds; all that give pixels must give the same."""
    names = [*OURS, *(peer.__name__ for peer in PEERS)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        job_file = Path(folder) / "job.json"
        job_file.write_text(json.dumps(job))
        for _ in range(rounds):
            for name in names:
                record = run_fresh(name, job_file, peer_python)
                if record is not None:
                    found[name].append(record)
    sums = {r["checksum"] for name, rs in found.items() if name not in ("raw limit", "end to end") for r in rs}
    assert len(sums) == 1, "the contenders do not give the same pixels"
    keys = ("seconds", "cpu_seconds", "peak_mb")
    return {name: {key: median(r[key] for r in rs) for key in keys} for name, rs in found.items() if rs}


def costs(job: dict[str, Any]) -> dict[str, float]:
    """Requests per chip, band and date, and bytes asked for per byte needed."""
    reader = BlockChipReader(threads=THREADS)
    for _ in reader.read(requests_of(job)):
        pass
    wanted = len(job["chips"]) * TIMESTEPS * (len(BANDS) + 1)
    stats = reader.stats
    return {
        "chips": len(job["chips"]),
        "block_requests_per_chip_band_date": stats.requests / wanted,
        "all_requests_per_chip_band_date": (stats.requests + stats.opens) / wanted,
        "bytes_requested_per_needed": stats.bytes_requested / stats.bytes_needed,
    }


def print_report(chips: int, results: dict[str, dict[str, float]], workloads: dict[str, dict[str, float]]) -> None:
    limit, decode = (results[name]["cpu_seconds"] for name in ("raw limit", "raw decode"))
    print(f"{'':20} {'chips/s per core':>17} {'chips/s wall':>13} {'of raw':>7} {'peak MB':>8}")
    for name, record in results.items():
        base = limit if name in ("raw limit", "end to end") else decode
        per_core, wall = chips / record["cpu_seconds"], chips / record["seconds"]
        print(f"{name:20} {per_core:17.1f} {wall:13.1f} {base / record['cpu_seconds']:7.2f} {record['peak_mb']:8.0f}")
    for name, costs_of in workloads.items():
        print(name, {key: round(value, 3) for key, value in costs_of.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=Path(tempfile.gettempdir()) / "geofm-benchmark-archive")
    parser.add_argument("--chips", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs=2, metavar=("NAME", "JOB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        one_core()
        print(json.dumps(run_ours(options.only[0], json.loads(Path(options.only[1]).read_text()))))
        return
    if not options.archive.exists():
        from geofm_pipeline.simulator import benchmark_spec, build_archive

        build_archive(benchmark_spec(), options.archive, progress=print)
    job = make_job(options.archive, options.chips)
    workloads = {
        "dense (all blocks of the tile)": costs(make_job(options.archive, WHOLE_BLOCKS**2)),
        "sparse (four chips per tile)": costs(make_job(options.archive, 4)),
    }
    results = compare(job, options.rounds, options.peer_python)
    print_report(len(job["chips"]), results, workloads)
    if options.json:
        options.json.write_text(json.dumps({"results": results, "workloads": workloads}, indent=1))


if __name__ == "__main__":
    main()
