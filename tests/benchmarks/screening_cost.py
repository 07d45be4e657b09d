"""What screening costs behind a network, per granule and per million units.

    python tests/benchmarks/screening_cost.py [--archive DIR] [--rounds 3] [--repeats 4] [--json FILE]

The Fmask files of all granules of DIR, by one GET each from the range server of remote_server.py (30 ms, 80 MB/s per
connection, core 0) and counted by cells, as a run does it: batches of one tile, one worker process on the last core.
Fresh processes, interleaved; medians. Requests and bytes are the server's counts.

Per million units: a season of a tile is looked at as a whole, so what counts is how many drawn units share it. Assumed
are 30.6 granules per tile and season (hls.md: ten million for the land of the Earth in four years, so 122 per tile and
year), Fmask files of the size measured here, and the pace of 200 requests per second and host that a run keeps by
default. Beside it, the requests of looking at every unit and date by its own Fmask block.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from extraction import scene_record  # noqa: E402  # scripts beside this one
from extraction_peers import finish, one_core  # noqa: E402
from remote_server import ask, serving  # noqa: E402

from geofm_pipeline.access.settings import Access  # noqa: E402
from geofm_pipeline.access.source import ArchiveSource  # noqa: E402
from geofm_pipeline.hls.fmask import DEFAULT_RULE  # noqa: E402
from geofm_pipeline.hls.granule import GranuleId  # noqa: E402
from geofm_pipeline.scenes import SceneRef  # noqa: E402
from geofm_pipeline.screening import BATCH, ScreenBatch, screen_batch  # noqa: E402

GRANULES = 30.6
"""Per tile and season."""
PACE = 200.0
"""Requests per second and host of a whole cluster."""
CHIP_SIZES = (64, 128, 256)
IN_FLIGHT = (8, 32)
SHARED = (1, 4, 16, 64)
"""Drawn units per tile and season."""


def scenes_of(archive: Path, url: str) -> list[SceneRef]:
    found = []
    for folder in sorted(archive.glob("HLS.*")):
        granule, record = GranuleId.parse(folder.name), scene_record(folder)
        hrefs = [href.replace(str(archive), url, 1) for href in (*record["bands"], record["fmask"])]
        found.append(
            SceneRef(
                granule_id=folder.name,
                sensor=granule.sensor,
                date=granule.day,
                bands=tuple(hrefs[:-1]),
                fmask=hrefs[-1],
            )
        )
    return found


def screen(archive: Path, url: str, chip_size: int, in_flight: int, repeats: int) -> dict[str, float]:
    """Screen all granules of an archive `repeats` times in this process."""
    by_tile: dict[str, list[SceneRef]] = {}
    for scene in scenes_of(archive, url):
        by_tile.setdefault(GranuleId.parse(scene.granule_id).tile, []).extend([scene] * repeats)
    source = ArchiveSource(Access(in_flight=in_flight, requests_per_second=1e9))
    wall, cpu, rows = time.perf_counter(), time.process_time(), 0
    for tile, scenes in by_tile.items():
        for start in range(0, len(scenes), BATCH):
            batch = ScreenBatch(
                tile=tile,
                scenes=tuple(scenes[start : start + BATCH]),
                chip_size=chip_size,
                rule=DEFAULT_RULE,
                source=source,
                threads=1,
            )
            table = screen_batch(batch).table
            assert set(table["state"].to_pylist()) == {"ok"}
            rows += table.num_rows
    return {**finish(wall, cpu, 0), "granules": rows}


def measure(archive: Path, rounds: int, repeats: int) -> dict[str, dict[str, float]]:
    """Per granule, by chip size and requests in flight."""
    found: dict[str, list[dict[str, float]]] = {}
    with serving(archive) as url:
        for _ in range(rounds):
            for size, in_flight in [(size, IN_FLIGHT[-1]) for size in CHIP_SIZES] + [(CHIP_SIZES[0], IN_FLIGHT[0])]:
                ask(url, "_reset")
                options = [str(archive), url, str(size), str(in_flight), str(repeats)]
                command = [sys.executable, str(Path(__file__).resolve()), "--run", *options]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                record, counts = json.loads(done.stdout.splitlines()[-1]), ask(url, "_stats")
                n = record["granules"]
                found.setdefault(f"{size} px, {in_flight} in flight", []).append(
                    {
                        "requests": counts["requests"] / n,
                        "mb": counts["bytes"] / n / 1e6,
                        "seconds": record["seconds"] / n,
                        "cpu_seconds": record["cpu_seconds"] / n,
                        "peak_mb": record["peak_mb"],
                    }
                )
    return {name: {key: median(r[key] for r in rs) for key in rs[0]} for name, rs in found.items()}


def per_million(granule: dict[str, float]) -> list[dict[str, float]]:
    """What a million drawn units cost, by how many of them share a tile and season."""
    rows = []
    for shared in SHARED:
        gets = 1e6 / shared * GRANULES * granule["requests"]
        rows.append(
            {
                "units_per_tile_season": shared,
                "million_gets": gets / 1e6,
                "million_block_looks": GRANULES * (1 + 1 / shared),
                "tb": gets * granule["mb"] / granule["requests"] / 1e6,
                "core_hours": 1e6 / shared * GRANULES * granule["cpu_seconds"] / 3600,
                "worker_hours": 1e6 / shared * GRANULES * granule["seconds"] / 3600,
                "days_at_pace": gets / PACE / 86400,
            }
        )
    return rows


def print_report(results: dict[str, dict[str, float]], million: list[dict[str, float]]) -> None:
    print(f"{'per granule':22} {'requests':>8} {'MB':>6} {'s':>7} {'CPU s':>7} {'peak MB':>8}")
    for name, r in results.items():
        times = f"{r['seconds']:7.3f} {r['cpu_seconds']:7.3f}"
        print(f"{name:22} {r['requests']:8.2f} {r['mb']:6.2f} {times} {r['peak_mb']:8.0f}")
    heads = ("units per tile, season", "M GETs", "M requests by block", "TB", "core h", "worker h", "days at pace")
    print("\nper million units:", ", ".join(heads))
    for row in million:
        print("  ", ", ".join(f"{value:.3g}" for value in row.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=Path(tempfile.gettempdir()) / "geofm-benchmark-archive")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=4, help="times that each Fmask is read")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        archive, url, size, in_flight, repeats = options.run
        one_core()
        print(json.dumps(screen(Path(archive), url, int(size), int(in_flight), int(repeats))))
        return
    results = measure(options.archive.resolve(), options.rounds, options.repeats)
    million = per_million(next(iter(results.values())))
    print_report(results, million)
    if options.json:
        document: dict[str, Any] = {"per_granule": results, "per_million_units": million}
        options.json.write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
