"""Time and memory of draws, beside plain numpy and samplics doing the same job.

    python tests/benchmarks/draws.py [--rounds 5] [--peer-python PY] [--json FILE]

Every run is a process of its own on one core; the runs of a job are interleaved and figures are medians. CPU seconds
are what other load disturbs least. Imports and the making of the data are not timed. `peak MB` is the largest memory
of the process, `above` what the draw added to that of its data. PY is a Python that has samplics; without it the peer
is left out. All draw 5 % of the units.
Target: local pivotal ≥ 100,000 units/s on one core for 1 million units.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

SHARE = 0.05
Run = Callable[[], object]
"""What is timed; returns something whose length is the number of units."""


def sizes_of(units: int) -> np.ndarray:
    return np.exp(np.random.default_rng(1).normal(0, 0.5, units))


def places_of(kind: str, units: int) -> np.ndarray:
    """Shape (units, 2) or (units, 3)."""
    rng = np.random.default_rng(2)
    if kind == "grid":
        return np.stack(np.divmod(np.arange(units), int(np.sqrt(units))), axis=1).astype(float)
    if kind == "seasons":
        return np.repeat(rng.random((-(-units // 8), 2)), 8, axis=0)[:units]
    if kind == "globe":
        lon, up = rng.uniform(-np.pi, np.pi, units), rng.uniform(-1, 1, units)
        flat = np.sqrt(1 - up**2)
        return np.stack([flat * np.cos(lon), flat * np.sin(lon), up], axis=1)
    return rng.random((units, 2))


def local(kind: str) -> Callable[[int], Run]:
    def prepare(units: int) -> Run:
        from geofm_sampling.local_pivotal import local_pivotal
        from geofm_sampling.probabilities import capped_probabilities

        pi, places = capped_probabilities(sizes_of(units), int(SHARE * units)), places_of(kind, units)
        ids = np.random.default_rng(3).permutation(units).astype(np.uint64)
        return lambda: local_pivotal(pi, places, ids=ids, seed=1, purpose="benchmark")

    return prepare


def local_singly(units: int) -> Run:
    """LPM 1 as published, one fight at a time, with one k-d tree and numpy."""
    from scipy.spatial import cKDTree

    places, rng = places_of("plane", units), np.random.default_rng(1)
    pi = sizes_of(units) * (SHARE * units / sizes_of(units).sum())

    def draw() -> np.ndarray:
        left, value, tree = np.ones(units, dtype=bool), pi.copy(), cKDTree(places)

        def nearest(i: int) -> int:
            k = 8
            while True:
                found = tree.query(places[i], k=min(k, units))[1]
                good = found[left[found] & (found != i)]
                if good.size:
                    return int(good[0])
                k *= 4

        count = units
        while count > 1:
            i = int(rng.integers(units))
            if not left[i] or nearest(j := nearest(i)) != i:
                continue
            a, b = value[i], value[j]
            total = a + b
            wins = rng.random() < (a / total if total < 1 else (1 - b) / (2 - total))
            winner, loser = (i, j) if wins else (j, i)
            value[winner], value[loser] = (total, 0.0) if total < 1 else (1.0, total - 1)
            for k in (i, j):
                if not 1e-12 < value[k] < 1 - 1e-12:
                    left[k] = False
                    count -= 1
        return np.flatnonzero(value > 0.5)

    return draw


def ours(method: str) -> Callable[[int], Run]:
    def prepare(units: int) -> Run:
        from geofm_sampling.draws import draw
        from geofm_sampling.probabilities import capped_probabilities

        size = np.ones(units) if method == "random" else sizes_of(units)
        pi, ids = capped_probabilities(size, int(SHARE * units)), np.arange(units, dtype=np.uint64)
        return lambda: draw(pi, method=method, seed=1, purpose="benchmark", ids=ids)

    return prepare


def duels(units: int) -> Run:
    """The ordered pivotal method as published, duel by duel."""
    pi, rng = (sizes_of(units) * (SHARE * units / sizes_of(units).sum())).tolist(), np.random.default_rng(1)

    def draw() -> list[int]:
        drawn, carry, a, lots = [], 0, pi[0], rng.random(units).tolist()
        for k in range(1, units):
            b = pi[k]
            total = a + b
            if total < 1:
                if lots[k] * total >= a:
                    carry = k
                a = total
                continue
            if lots[k] * (2 - total) < 1 - b:
                drawn.append(carry)
                carry = k
            else:
                drawn.append(k)
            a = total - 1
        return [*drawn, carry] if a > 0.5 else drawn

    return draw


def plain_systematic(units: int) -> Run:
    size, n = sizes_of(units), int(SHARE * units)

    def draw() -> np.ndarray:
        ends = np.cumsum(size * (n / size.sum()))
        return np.searchsorted(ends, np.random.default_rng(1).random() + np.arange(n), side="right")

    return draw


def samplics_systematic(units: int) -> Run:
    warnings.simplefilter("ignore")
    from samplics import SampleSelection, SelectMethod

    size, ids = sizes_of(units), np.arange(units)
    selection = SampleSelection(method=SelectMethod.pps_sys, strat=False, wr=False)
    return lambda: np.flatnonzero(selection.select(samp_unit=ids, samp_size=int(SHARE * units), mos=size)[0])


def plain_random(units: int) -> Run:
    return lambda: np.random.default_rng(1).choice(units, int(SHARE * units), replace=False)


def samplics_random(units: int) -> Run:
    warnings.simplefilter("ignore")
    from samplics import SampleSelection, SelectMethod

    selection = SampleSelection(method=SelectMethod.srs_wor, strat=False, wr=False)
    ids = np.arange(units)
    return lambda: np.flatnonzero(selection.select(samp_unit=ids, samp_size=int(SHARE * units))[0])


def capped(units: int) -> Run:
    from geofm_sampling.probabilities import capped_probabilities

    size = sizes_of(units) ** 4
    return lambda: capped_probabilities(size, int(SHARE * units))


def plain_capped(units: int) -> Run:
    size, n = sizes_of(units) ** 4, int(SHARE * units)

    def cap() -> np.ndarray:
        pi, certain = np.full(units, np.inf), np.zeros(units, dtype=bool)
        while np.any(pi[~certain] > 1):
            certain |= pi > 1 if np.isfinite(pi[0]) else False
            pi = np.where(certain, 1.0, size * ((n - certain.sum()) / size[~certain].sum()))
        return pi

    return cap


JOBS: dict[str, tuple[tuple[str, int, Callable[[int], Run]], ...]] = {
    "local pivotal": (
        ("ours, random places in the plane", 100_000, local("plane")),
        ("ours, random places in the plane", 300_000, local("plane")),
        ("**ours, random places in the plane**", 1_000_000, local("plane")),
        ("ours, a grid", 1_000_000, local("grid")),
        ("ours, 8 seasons at each place", 1_000_000, local("seasons")),
        ("ours, places on the globe (x, y, z)", 1_000_000, local("globe")),
        ("LPM 1 as published, k-d tree and numpy", 10_000, local_singly),
        ("ours, random places in the plane", 10_000, local("plane")),
    ),
    "ordered pivotal": (
        ("**ours**", 1_000_000, ours("pivotal")),
        ("ours", 10_000_000, ours("pivotal")),
        ("duel by duel in Python", 1_000_000, duels),
    ),
    "systematic": (
        ("ours, exact sum", 1_000_000, ours("systematic")),
        ("plain numpy, cumulated floats", 1_000_000, plain_systematic),
        ("ours, exact sum", 10_000, ours("systematic")),
        ("samplics pps_sys", 10_000, samplics_systematic),
    ),
    "simple random": (
        ("ours, by hash of the unit", 1_000_000, ours("random")),
        ("numpy Generator.choice", 1_000_000, plain_random),
        ("samplics srs_wor", 1_000_000, samplics_random),
    ),
    "other draws": (
        ("pareto", 1_000_000, ours("pareto")),
        ("poisson", 1_000_000, ours("poisson")),
    ),
    "capped probabilities": (
        ("**ours, by one sort**", 1_000_000, capped),
        ("plain numpy, capping until none exceeds 1", 1_000_000, plain_capped),
    ),
}


def measure(job: str, number: int) -> dict[str, float]:
    """One run in this process: seconds of the core and of the clock, peak MB and MB above the data."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    _, units, prepare = JOBS[job][number]
    run = prepare(units)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    start, cpu = time.perf_counter(), time.process_time()
    result = run()
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    assert len(result) in (units, int(SHARE * units)) or job == "other draws"  # type: ignore[arg-type]
    return {"cpu_s": cpu, "wall_s": seconds, "peak_mb": peak, "above_mb": peak - before}


def one_round(job: str, python: dict[int, str]) -> dict[int, dict[str, float]]:
    """Every run of a job once, each in a fresh process."""
    result = {}
    for number, program in python.items():
        command = [program, __file__, "--one", job, str(number)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        result[number] = json.loads(done.stdout.splitlines()[-1])
    return result


def report(job: str, rounds: int, peer: str | None) -> list[dict[str, float | str]]:
    """Run a job and print its table."""
    python = {}
    for number, (name, *_) in enumerate(JOBS[job]):
        if "samplics" not in name:
            python[number] = sys.executable
        elif peer:
            python[number] = peer
    runs = [one_round(job, python) for _ in range(rounds)]
    print(f"\n| {job} | units | CPU s | wall s | units per CPU s | peak MB | above |\n|{' --- |' * 7}")
    rows: list[dict[str, float | str]] = []
    for number in python:
        name, units, _ = JOBS[job][number]
        figures = {key: median(run[number][key] for run in runs) for key in ("cpu_s", "wall_s", "peak_mb", "above_mb")}
        speed = float(f"{units / figures['cpu_s']:.3g}")
        print(
            f"| {name} | {units:,} | {figures['cpu_s']:.3g} | {figures['wall_s']:.3g} | {speed:,.0f} | "
            f"{figures['peak_mb']:.0f} | {figures['above_mb']:.0f} |",
            flush=True,
        )
        rows.append({"job": job, "name": name, "units": units, **figures})
    return rows


def main() -> None:
    """Run all jobs and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-python")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy"))
    print(f"Python {platform.python_version()}, {versions}; medians of {options.rounds} interleaved runs")
    rows = [row for job in JOBS for row in report(job, options.rounds, options.peer_python)]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
