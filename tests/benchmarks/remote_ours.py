"""The remote workloads, and our own contenders of remote.py: reader, reader and store writer, raw decoding.

    python tests/benchmarks/remote_ours.py NAME[:IN_FLIGHT] JOB.json

Prints one JSON object: seconds, CPU seconds, peak memory, checksum of all pixels, for a store as it is read back.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from extraction import raw_blocks, raw_decode, requests_of, scene_record
from extraction_peers import Pixels, finish, measure, one_core

from geofm_pipeline.access.settings import Access
from geofm_pipeline.access.source import ArchiveSource
from geofm_pipeline.chips import Chip, ChipRequest
from geofm_pipeline.cog import BlockChipReader
from geofm_pipeline.hls.bands import BANDS, BLOCK
from geofm_pipeline.hls.grid import tile_grid, unproject
from geofm_pipeline.store import RowRequest, StoreSpec, create, write_group

Job = dict[str, Any]
TIMESTEPS = 4
WHOLE_BLOCKS = 14
FILES = len(BANDS) + 1
SPARSE = (17, 74, 117, 178)
"""Blocks of a tile that no row or column has two of."""


def dense_job(archive: Path, rows: int) -> Job:
    """All blocks of the first rows of blocks of one tile."""
    tile = _tiles(archive)[0]
    return {"size": BLOCK, "tiles": [_tile(archive, tile, 0, range(rows * WHOLE_BLOCKS))]}


def sparse_job(archive: Path) -> Job:
    """Four chips of each tile and set of four dates: every file is opened for four blocks."""
    parts = [_tile(archive, tile, first, SPARSE) for tile in _tiles(archive) for first in (0, TIMESTEPS)]
    return {"size": BLOCK, "tiles": parts}


def _tiles(archive: Path) -> list[str]:
    return sorted({path.name.split(".")[2][1:] for path in archive.glob("HLS.*")})


def _tile(archive: Path, tile: str, first: int, blocks: Iterable[int]) -> dict[str, Any]:
    granules = sorted(archive.glob(f"HLS.*.T{tile}.*"), key=lambda path: path.name.split(".")[3])
    grid = tile_grid(tile)
    x, y = np.array([grid.bounds[0], grid.bounds[2]]), np.array([grid.bounds[1], grid.bounds[3]])
    lon, lat = unproject(grid.zone, x, y)
    return {
        "size": BLOCK,
        "tile": tile,
        "epsg": grid.epsg,
        "bounds": list(grid.bounds),
        "lonlat": [float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())],
        "chips": [[n // WHOLE_BLOCKS * BLOCK, n % WHOLE_BLOCKS * BLOCK] for n in blocks],
        "scenes": [scene_record(folder) for folder in granules[first : first + TIMESTEPS]],
    }


def at_url(job: Job, archive: Path, url: str) -> Job:
    """The same job, its files at a server's."""
    moved: Job = json.loads(json.dumps(job).replace(f'"{archive}/', f'"{url}/'))
    return moved


def chips_of(job: Job) -> int:
    return sum(len(tile["chips"]) for tile in job["tiles"])


def facts(job: Job) -> dict[str, int]:
    """Checksum and needed bytes of a job on local disk."""
    checksum = needed = 0
    for tile in job["tiles"]:
        blocks = raw_blocks(tile)
        needed += sum(len(data) for chip in blocks for data, _ in chip)
        checksum += int(measure(raw_decode(blocks))["checksum"])
    return {"checksum": checksum, "needed": needed}


def requests_in(job: Job) -> list[ChipRequest]:
    """The job as the reader takes it."""
    found = [request for tile in job["tiles"] for request in requests_of(tile)]
    return [replace(request, unit=i) for i, request in enumerate(found)]


def reader(in_flight: int) -> BlockChipReader:
    """The reader as a run makes it, but for the limit of requests per second that protects archives."""
    return BlockChipReader(source=ArchiveSource(Access(in_flight=in_flight, requests_per_second=1e9)))


def chips(job: Job, in_flight: int) -> dict[str, float]:
    """The block reader."""

    def read() -> Iterator[Pixels]:
        for chip in reader(in_flight).read(requests_in(job)):
            assert isinstance(chip, Chip)
            yield chip.image, chip.fmask

    return measure(read())


def end_to_end(job: Job, in_flight: int) -> dict[str, float]:
    """Reader and store writer, to committed shards; only the store's making is not timed."""
    rows = [RowRequest(index=i, chip=request) for i, request in enumerate(requests_in(job))]
    spec = StoreSpec(n=len(rows), timesteps=TIMESTEPS, height=BLOCK, width=BLOCK, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.zarr"
        create(store, spec)
        wall, cpu = time.perf_counter(), time.process_time()
        write_group(store, spec, Path(folder) / "parts", 0, rows, reader(in_flight))
        record = finish(wall, cpu, 0)
        return {**record, "checksum": measure(stored(store))["checksum"]}


def stored(store: Path) -> Iterator[Pixels]:
    """What a store holds."""
    import zarr

    image, fmask = (zarr.open_array(store / name, mode="r", zarr_format=3) for name in ("image", "fmask"))
    for i in range(image.shape[0]):
        yield np.asarray(image[i]), np.asarray(fmask[i])


def decoded(job: Job, _: int) -> dict[str, float]:
    """Inflate and un-predict of the blocks from memory: what any reader must spend."""
    return measure(pixels for blocks in [raw_blocks(tile) for tile in job["tiles"]] for pixels in raw_decode(blocks))


OURS = {"chips": chips, "end to end": end_to_end, "raw decode": decoded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("job", type=Path)
    options = parser.parse_args()
    one_core()
    name, _, number = options.name.partition(":")
    print(json.dumps(OURS[name](json.loads(options.job.read_text()), int(number or 1))))


if __name__ == "__main__":
    main()
