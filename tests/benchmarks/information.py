"""What information costs: bytes and requests beside the pixels of drawn chips, time of look-alikes.

    python tests/benchmarks/information.py [--archive DIR] [--json FILE]

DIR holds whole tiles, such as the simulator's benchmark archive that tests/benchmarks/extraction.py builds. For u units
spread over a tile: the bytes of one overview each, all of one granule, and those of the same units as chips of four
dates. Look-alikes: n units in groups of 10,000, and in one group in which all look alike, the worst case.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from geofm_pipeline.chips import Chip, ChipRequest
from geofm_pipeline.cog import BlockChipReader
from geofm_pipeline.hls.granule import GranuleId
from geofm_pipeline.inform import Informer
from geofm_pipeline.scenes import SCENES, scene_refs
from geofm_sampling.similarity import near_duplicates, novelty
from geofm_sampling.unit import cells_per_side, pack_units

DATES = 4


def scenes_of(archive: Path) -> pa.Table:
    """SCENES of the granules of one tile."""
    names = sorted(path.name for path in archive.glob("HLS.*"))
    tile = GranuleId.parse(names[0]).tile
    granules = [granule for granule in map(GranuleId.parse, names) if granule.tile == tile][:DATES]
    rows = {
        "granule_id": [str(granule) for granule in granules],
        "sensor": [granule.sensor for granule in granules],
        "tile": [granule.tile for granule in granules],
        "time": [granule.time.astimezone(UTC) if granule.time.tzinfo else datetime.min for granule in granules],
        "cloud_cover": [0.0] * len(granules),
        "footprint": [b""] * len(granules),
        "href_template": [f"{archive}/{{id}}/{{id}}.{{band}}.tif"] * len(granules),
        "hrefs": [[] for _ in granules],
        "missing": [[] for _ in granules],
    }
    return SCENES.check(pa.table(rows, schema=SCENES.schema()))


def reading(scenes: pa.Table, chip_size: int, count: int) -> dict[str, float]:
    """Bytes and requests per unit of `count` units of one tile: overviews of one granule, chips of all dates."""
    side = cells_per_side(chip_size)
    place = np.unique(np.linspace(0, side * side - 1, count).astype(int))
    row, col = np.divmod(place, side)
    tile = scenes["tile"][0].as_py()
    units = pack_units(tile=tile, chip_size=chip_size, cell_row=row, cell_col=col, year=2022, season=1)
    granules = [scenes["granule_id"][0].as_py()] * units.size
    with tempfile.TemporaryDirectory() as cache:
        informer = Informer(scenes, cache=Path(cache), chip_size=chip_size)
        start = time.perf_counter()
        informer.inform(units, granules)
        seconds = time.perf_counter() - start
    refs = tuple(scene_refs(scenes))
    reader = BlockChipReader()
    for chip in reader.read(
        [
            ChipRequest(
                unit=int(unit),
                tile=tile,
                row_off=int(r) * chip_size,
                col_off=int(c) * chip_size,
                size=chip_size,
                scenes=refs,
            )
            for unit, r, c in zip(units, row, col, strict=True)
        ]
    ):
        assert isinstance(chip, Chip)
    return {
        "chip": chip_size,
        "units": units.size,
        "overview_kb": informer.stats.bytes_read / units.size / 1e3,
        "overview_requests": informer.stats.requests / units.size,
        "chip_kb": reader.stats.bytes_requested / units.size / 1e3,
        "chip_requests": (reader.stats.requests + reader.stats.opens) / units.size,
        "bytes_ratio": informer.stats.bytes_read / reader.stats.bytes_requested,
        "ms_per_unit": seconds / units.size * 1e3,
    }


def look_alikes(n: int, groups: int, spread: float) -> dict[str, float]:
    """Seconds for n units in `groups`, and for their novelty against as many existing ones."""
    rng = np.random.default_rng(0)
    descriptor = rng.normal(0, spread, (n, 12)).astype(np.float32)
    start = time.perf_counter()
    near_duplicates(descriptor, rng.integers(0, groups, n), np.full(n, 0.5))
    middle = time.perf_counter()
    novelty(descriptor, descriptor[::-1] + np.float32(0.01))
    return {
        "units": n,
        "groups": groups,
        "spread": spread,
        "near_duplicates_s": middle - start,
        "novelty_s": time.perf_counter() - middle,
    }


def show(rows: list[dict[str, float]]) -> None:
    """Print one table."""
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print(
            "| " + " | ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()) + " |", flush=True
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=Path(tempfile.gettempdir()) / "geofm-benchmark-archive")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    scenes = scenes_of(options.archive)
    read = [reading(scenes, size, count) for size in (256, 128, 64) for count in (1, 8, 64)]
    show(read)
    cases = ((10_000, 1, 0.1), (100_000, 10, 0.1), (1_000_000, 100, 0.1), (100_000, 1, 0.005))
    times = [look_alikes(*case) for case in cases]
    show(times)
    if options.json:
        options.json.write_text(json.dumps({"reading": read, "look_alikes": times}, indent=1))


if __name__ == "__main__":
    main()
