"""Chips from an archive behind a network: our reader and store writer beside rslearn, odc-stac, stackstac and rasterio.

    python tests/benchmarks/remote.py --peer-python PY [--archive DIR] [--rounds 3] [--rows 14] [--json FILE]

A range server of its own (remote_server.py) holds the simulator's benchmark archive on core 0: 30 ms per request,
80 MB/s per connection. Each contender is one worker on the last core, in a fresh process; rounds are interleaved,
figures are medians. T = 4 dates × 7 files × 256-px chips; the checksum of all pixels must be that of the files on disk,
also for our stores and rslearn's GeoTIFFs, which are read back. `dense`: all blocks of a tile (its first ROWS rows of
blocks; contenders far below the others read SLOW_ROWS of them). `sparse`: four chips of each of two tiles and two sets
of dates, every file new. NAME:N has N requests in flight (rslearn: processes); `--tune` tries other N of the tuned
ones. Requests, bytes and connections are the server's counts, needed bytes the lengths of the wanted blocks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from remote_ours import FILES, OURS, TIMESTEPS, Job, at_url, chips_of, dense_job, facts, sparse_job  # noqa: E402
from remote_server import ask, serving  # noqa: E402

CONTENDERS = (
    "raw decode",
    "chips:32",
    "chips:64",
    "chips:128",
    "end to end:32",
    "end to end:64",
    "end to end:128",
    "rasterio_kept_open",
    "rasterio_threads:28",
    "rasterio_merged:28",
    "odc_stac_load",
    "odc_stac_pool:28",
    "odc_stac_merged:28",
    "stackstac_cube",
    "stackstac_threads:28",
    "stackstac_merged:28",
    "rslearn",
    "rslearn_workers:16",
    "async_tiff_tiles:64",
    "async_tiff_merged:64",
)
SLOW = ("rasterio_kept_open", "odc_stac_load", "stackstac_cube", "rslearn")
"""Contenders that would take minutes."""
PUBLISHED = ("rasterio", "odc", "stackstac", "rslearn")
"""Peers that the target of five times is about; async-tiff is a library of blocks, not a maker of chips."""
TRIED = {
    "rasterio_threads": (16, 28, 56, 112),
    "rasterio_merged": (14, 28, 56, 112),
    "odc_stac_pool": (14, 28, 56, 112),
    "odc_stac_merged": (14, 28, 56, 112),
    "stackstac_threads": (16, 28, 56, 112),
    "stackstac_merged": (14, 28, 56, 112),
    "rslearn_workers": (4, 8, 16, 24),
    "async_tiff_tiles": (32, 64, 128, 256),
    "async_tiff_merged": (32, 64, 128, 256),
}


def run_fresh(name: str, job: Job, peer_python: str) -> dict[str, float]:
    """One contender in a process of its own."""
    plain = name.partition(":")[0]
    script = "ours" if plain in OURS else "rslearn" if plain.startswith("rslearn") else "peers"
    python = sys.executable if script == "ours" else peer_python
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job))
        command = [python, str(HERE / f"remote_{script}.py"), name, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    record: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return record


class Course:
    """One workload at a server: its jobs, what they need, and what contenders took for them."""

    def __init__(self, archive: Path, url: str, whole: Job, slow: Job, peer_python: str) -> None:
        self.archive, self.url, self.peer_python = archive, url, peer_python
        self.jobs = {False: whole, True: slow}
        self.facts = {which: facts(job) for which, job in self.jobs.items()}
        self.found: dict[str, list[dict[str, float]]] = {}

    def run(self, name: str) -> None:
        """One contender once; its pixels must be right."""
        which = name.partition(":")[0] in SLOW
        job, known = self.jobs[which], self.facts[which]
        local = name == "raw decode"
        ask(self.url, "_reset")
        record = run_fresh(name, job if local else at_url(job, self.archive, self.url), self.peer_python)
        assert record["checksum"] == known["checksum"], f"{name} gives other pixels than the files"
        counts, chips = ask(self.url, "_stats"), chips_of(job)
        blocks = chips * TIMESTEPS * FILES
        self.found.setdefault(name, []).append(
            {
                "chips": chips,
                "chips_per_s": chips / record["seconds"],
                "cpu_ms_per_chip": 1000 * record["cpu_seconds"] / chips,
                "peak_mb": record["peak_mb"],
                "requests_per_block": counts["requests"] / blocks,
                "bytes_per_needed": counts["bytes"] / known["needed"],
                "missing_per_chip": counts["missing"] / chips,
                "connections": counts["connections"],
                "server_busy": counts["server_cpu_seconds"] / record["seconds"],
            }
        )

    def medians(self) -> dict[str, dict[str, float]]:
        return {name: {key: median(r[key] for r in rs) for key in rs[0]} for name, rs in self.found.items()}


def print_report(title: str, results: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}")
    print(
        f"{'':22} {'chips':>5} {'chips/s':>8} {'CPU ms':>7} {'peak MB':>8} {'req/block':>9} {'B/needed':>8} {'conn':>5}"
    )
    for name, r in results.items():
        print(
            f"{name:22} {r['chips']:5.0f} {r['chips_per_s']:8.2f} {r['cpu_ms_per_chip']:7.1f} {r['peak_mb']:8.0f} "
            f"{r['requests_per_block']:9.3f} {r['bytes_per_needed']:8.3f} {r['connections']:5.0f}"
        )


def print_targets(workload: str, results: dict[str, dict[str, float]]) -> None:
    """Our best beside the best of the peers, as documented and as tuned."""
    for ours in ("chips", "end to end"):
        mine = {name: r for name, r in results.items() if name.startswith(ours)}
        best = max(mine, key=lambda name: mine[name]["chips_per_s"], default=None)
        peers = {name: r["chips_per_s"] for name, r in results.items() if name.startswith(PUBLISHED)}
        if best is None or not peers:
            continue
        documented = {name: rate for name, rate in peers.items() if ":" not in name}
        for kind, rates in (("documented", documented), ("tuned", peers)):
            if rates:
                rival = max(rates, key=lambda name: rates[name])
                ratio = mine[best]["chips_per_s"] / rates[rival]
                print(f"{workload}: {best} is {ratio:.2f} × the best peer as {kind}, {rival} (target 5)")
        if workload == "dense":
            cost = mine[best]
            print(f"{best}: {cost['bytes_per_needed']:.3f} bytes per needed byte (1.10)", end=", ")
            print(f"{cost['requests_per_block']:.3f} requests per block (1.25)")


def build(archive: Path) -> None:
    from geofm_pipeline.simulator import benchmark_spec, build_archive

    build_archive(benchmark_spec(), archive, progress=print)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archive", type=Path, default=Path(tempfile.gettempdir()) / "geofm-benchmark-archive")
    parser.add_argument("--workloads", nargs="+", choices=("dense", "sparse"), default=("dense", "sparse"))
    parser.add_argument("--rows", type=int, default=14)
    parser.add_argument("--slow-rows", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="contenders by the start of their names")
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    archive = options.archive.resolve()
    if not archive.exists():
        build(archive)
    tried = [f"{name}:{n}" for name, numbers in TRIED.items() for n in numbers]
    names = [
        n for n in (tried if options.tune else CONTENDERS) if not options.only or n.startswith(tuple(options.only))
    ]
    results = {}
    with serving(archive) as url:
        for workload in options.workloads:
            dense = dense_job(archive, options.rows), dense_job(archive, options.slow_rows)
            whole, slow = dense if workload == "dense" else (sparse_job(archive), sparse_job(archive))
            course = Course(archive, url, whole, slow, options.peer_python)
            for _ in range(options.rounds):
                for name in names:
                    course.run(name)
            results[workload] = course.medians()
            print_report(workload, results[workload])
            print_targets(workload, results[workload])
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
