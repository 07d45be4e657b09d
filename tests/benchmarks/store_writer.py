"""How fast the store writer is, over the encoding alone, and beside zarr-python writing the same shards.

Samples are 4 × 6 × 256 × 256 int16 with their masks. *Raw*: blosc and CRC-32C of chips in memory, result thrown
away. *Contract*: the least that docs/store.md asks for, by the plainest loop: blosc, CRC-32C of each chunk and of the
file, exact sums over valid pixels, one write(2) of each piece into one file per thread that was allocated at its final
size, and one sync. *Writer*: `write_group` from chips in memory to synced shards, with manifest. *zarr-python*: the
same arrays and codecs, one assignment per shard, not synced, no sums. Each run is a process of its own; repeats are
interleaved; medians are shown, per second and per second of CPU time (`/cpu`: all threads, user and system), which
other programs on the machine disturb less; `/raw` and `/contract` are the writer's rate over those. The writer's
calling thread writes beside its encoding threads, so that its wall time may be less than that of the plain loop.
`--out` on a RAM disk shows the program, on a disk the disk too.

    python tests/benchmarks/store_writer.py [--images FOLDER] [--out FOLDER …] [--threads 1 2] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from geofm_pipeline.chips import Chip, ChipFailure, ChipRequest, ReadStats
from geofm_pipeline.store import RowRequest, StoreSpec, create, write_group
from geofm_pipeline.store.codec import Chunk, ChunkEncoder, crc32c, keep_memory, prepare
from geofm_pipeline.store.layout import ROOT, dumps, fmask_layout, image_layout
from geofm_pipeline.store.sums import BandSums, chip_sums
from geofm_pipeline.store.synthetic import synthetic_chip, synthetic_requests

SIZE, DATES = 256, 4


class MemoryReader:
    """Answers every request with one of a few chips that are in memory."""

    def __init__(self, chips: Sequence[Chip]) -> None:
        self.stats = ReadStats()
        self._chips = chips

    def read(self, requests: Sequence[ChipRequest]) -> Iterator[Chip | ChipFailure]:
        for k, request in enumerate(requests):
            chip = self._chips[k % len(self._chips)]
            yield Chip(unit=request.unit, image=chip.image, fmask=chip.fmask)


def noise_chips(count: int) -> list[Chip]:
    """Fractal noise with an HLS-like spectrum."""
    spec = StoreSpec(n=count, timesteps=DATES, height=SIZE, width=SIZE, seed=0)
    return [synthetic_chip(request.chip) for request in synthetic_requests(spec)]


def image_chips(folder: Path, count: int) -> list[Chip]:
    """Chips cut from six-band rasters of reflectance × 10⁴; masks from noise, missing pixels (0) as fill."""
    import rasterio

    scenes = []
    for file in sorted(folder.glob("*.tif")):
        with rasterio.open(file) as source:
            scenes.append(np.asarray(source.read(), dtype=np.int32).clip(0, 20000).astype(np.int16))
    rng = np.random.default_rng(0)
    masks = [chip.fmask for chip in noise_chips(8)]
    return [_cut(k, [scenes[i] for i in rng.integers(0, len(scenes), DATES)], masks[k % 8], rng) for k in range(count)]


def _cut(unit: int, scenes: Sequence[NDArray[np.int16]], fmask: NDArray[np.uint8], rng: np.random.Generator) -> Chip:
    image = np.empty((DATES, 6, SIZE, SIZE), dtype=np.int16)
    for t, scene in enumerate(scenes):
        short = [(0, 0), *((0, max(0, SIZE - edge)) for edge in scene.shape[1:])]
        scene = np.pad(scene, short, mode="reflect")
        y, x = (int(rng.integers(0, edge - SIZE + 1)) for edge in scene.shape[1:])
        image[t] = scene[:, y : y + SIZE, x : x + SIZE]
    missing = (image == 0).all(axis=1)
    image[np.broadcast_to(missing[:, None], image.shape)] = -9999
    return Chip(unit=unit, image=image, fmask=np.where(missing, np.uint8(255), fmask))


@dataclass(frozen=True)
class Cost:
    """What a run cost, in seconds."""

    wall: float
    cpu: float
    """User and system time of all threads."""
    stored: int = 0
    """Bytes written, where known."""


class Stopwatch:
    """Measures the time of a `with` block."""

    def __enter__(self) -> Stopwatch:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.cost = Cost(time.perf_counter() - self._start[0], time.process_time() - self._start[1])


def apart(work: Callable[[], Cost]) -> Cost:
    """The cost of `work` in a forked child: malloc there starts as it is here, whatever ran before."""
    source, sink = os.pipe()
    child = os.fork()
    if child == 0:
        with os.fdopen(sink, "w") as stream:
            json.dump(asdict(work()), stream)
        os._exit(0)
    os.close(sink)
    with os.fdopen(source) as stream:
        cost = Cost(**json.load(stream))
    os.waitpid(child, 0)
    return cost


def raw_encode(spec: StoreSpec, chips: Sequence[Chip], threads: int) -> Cost:
    """Encode all samples of the store from memory."""
    prepare()
    encoders = ChunkEncoder(image_layout(spec)), ChunkEncoder(fmask_layout(spec))

    def encode(row: int) -> None:
        chip = chips[row % len(chips)]
        encoders[0].encode(chip.image)
        encoders[1].encode(chip.fmask)

    with Stopwatch() as watch, ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(encode, range(spec.n)):
            pass
    return watch.cost


def contract(spec: StoreSpec, chips: Sequence[Chip], threads: int, out: Path) -> Cost:
    """Do what the store's contract asks for of all samples, and nothing else; every thread fills one file."""
    prepare()
    keep_memory(2 * chips[0].image.nbytes)
    encoders = ChunkEncoder(image_layout(spec)), ChunkEncoder(fmask_layout(spec))
    sizes = [sum(len(chunk) for chunk in _chunks(encoders, chip)) for chip in chips]

    def fill(first: int) -> None:
        rows, crc, sums = range(first, spec.n, threads), 0, BandSums.zero(len(spec.bands))
        fd = os.open(out / f"{first}.bin", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.posix_fallocate(fd, 0, sum(sizes[row % len(chips)] for row in rows))
        for row in rows:
            chip = chips[row % len(chips)]
            for chunk in _chunks(encoders, chip):
                for piece in chunk.pieces:
                    crc = crc32c(piece, crc)
                    os.write(fd, piece)
            sums = sums + chip_sums(chip.image, chip.fmask, spec.mask_rule)[1]
        os.fsync(fd)
        os.close(fd)

    with Stopwatch() as watch, ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(fill, range(threads)):
            pass
    return watch.cost


def _chunks(encoders: Sequence[ChunkEncoder], chip: Chip) -> list[Chunk]:
    made = (encoder.encode(values) for encoder, values in zip(encoders, (chip.image, chip.fmask), strict=True))
    return [chunk for chunk in made if chunk is not None]


def writer(spec: StoreSpec, chips: Sequence[Chip], threads: int, out: Path) -> Cost:
    """Write all groups."""
    create(out / "store.zarr", spec)
    requests: list[RowRequest] = synthetic_requests(spec)
    store, parts, reader, stored = out / "store.zarr", out / "parts", MemoryReader(chips), 0
    with Stopwatch() as watch:
        for group in range(spec.groups):
            rows = spec.group_rows(group)
            mine = requests[rows.start : rows.stop]
            stored += write_group(store, spec, parts, group, mine, reader, threads=threads).bytes
    return replace(watch.cost, stored=stored)


def zarr_python(spec: StoreSpec, chips: Sequence[Chip], threads: int, out: Path) -> Cost:
    """The cost of zarr-python for the same shards; stacking the chips into a shard is part of it."""
    arrays = []
    for layout in (image_layout(spec), fmask_layout(spec)):
        (out / layout.path).mkdir()
        (out / layout.path / ROOT).write_bytes(dumps(layout.document()))
        arrays.append(zarr.open_array(out / layout.path, mode="r+", zarr_format=3))
    with Stopwatch() as watch, zarr.config.set({"threading.max_workers": threads, "async.concurrency": threads}):
        for shard in range(spec.shards):
            rows = spec.shard_rows(shard)
            mine = [chips[row % len(chips)] for row in rows]
            arrays[0][rows.start : rows.stop] = np.stack([chip.image for chip in mine])
            arrays[1][rows.start : rows.stop] = np.stack([chip.fmask for chip in mine])
    return watch.cost


def measure(spec: StoreSpec, chips: Sequence[Chip], threads: int, base: Path, repeats: int) -> dict[str, float]:
    """Medians of interleaved repeats: samples per second, and per second of CPU time."""
    costs: dict[str, list[Cost]] = {"raw": [], "contract": [], "writer": [], "zarr": []}
    for _ in range(repeats):
        costs["raw"].append(apart(partial(raw_encode, spec, chips, threads)))
        for name, write in (("contract", contract), ("writer", writer), ("zarr", zarr_python)):
            with _folder(base) as out:
                costs[name].append(apart(partial(write, spec, chips, threads, out)))
    figures = {name: spec.n / statistics.median(cost.wall for cost in runs) for name, runs in costs.items()}
    figures |= {f"{name}/cpu": spec.n / statistics.median(cost.cpu for cost in runs) for name, runs in costs.items()}
    for name in ("raw", "contract"):
        pairs = list(zip(costs[name], costs["writer"], strict=True))
        figures[f"/{name}"] = statistics.median(cost.wall / ours.wall for cost, ours in pairs)
        figures[f"/{name} cpu"] = statistics.median(cost.cpu / ours.cpu for cost, ours in pairs)
    figures["compression"] = spec.n * DATES * SIZE * SIZE * 13 / costs["writer"][0].stored
    return figures


def peak_rss(samples: int, threads: int, base: Path) -> dict[str, float]:
    """MiB of a fresh process before and after it writes one group of `samples`."""
    command = [sys.executable, __file__, "--peak", str(samples), "--threads", str(threads), "--out", str(base)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _peak(samples: int, threads: int, base: Path) -> None:
    chips = noise_chips(8)
    spec = StoreSpec(n=samples, timesteps=DATES, height=SIZE, width=SIZE, seed=0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
    before = _status("VmRSS")
    with _folder(base) as out:
        writer(spec, chips, threads, out)
    figures = {
        "before_mib": before,
        "peak_mib": _status("VmHWM"),
        "group_mib": samples * DATES * SIZE * SIZE * 13 >> 20,
    }
    print(json.dumps(figures))


def _status(field: str) -> int:
    """A field of this process's status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) >> 10 for line in lines if line.startswith(field))


class _folder:  # noqa: N801 - a context manager that reads like a function
    def __init__(self, base: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="store-writer-", dir=base))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path)


def _table(rows: list[dict[str, object]]) -> None:
    print("  ".join(f"{name:>13}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{cell:13.2f}" if isinstance(cell, float) else f"{cell!s:>13}" for cell in row.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ram = ["/dev/shm"] if Path("/dev/shm").is_dir() else []
    parser.add_argument("--images", type=Path, help="folder of six-band GeoTIFFs; default: noise")
    parser.add_argument("--out", type=Path, nargs="+", default=[Path(p) for p in [*ram, tempfile.gettempdir()]])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        _peak(args.peak, args.threads[0], args.out[0])
        return
    chips = image_chips(args.images, 64) if args.images else noise_chips(64)
    rows: list[dict[str, object]] = []
    for place in args.out:
        for profile in ("zstd", "local"):
            for threads in args.threads:
                spec = StoreSpec(
                    n=args.samples, timesteps=DATES, height=SIZE, width=SIZE, seed=0, profile=profile, group_shards=4
                )
                figures = measure(spec, chips, threads, place, args.repeats)
                rows.append({"place": str(place), "profile": profile, "threads": threads, **figures})
    _table(rows)
    peak = peak_rss(1024, 2, args.out[0])
    print(f"peak memory of one group of 1,024 samples with 2 threads: {peak}")
    if args.json:
        facts = {"cpus": os.cpu_count(), "python": platform.python_version(), "rows": rows, "peak": peak}
        args.json.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
